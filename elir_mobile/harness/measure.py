"""Measure a bundle on devices: the one way a figure of a file comes about.

The host runs every file in a process of its own (``devices/host.py``), with the float network beside them
where its weights are at hand, and restores the evaluation pictures. Any other device runs the job file; what
it computed is held against the golden vectors and against what the same file computed here. ``quant.ptq``
measures the bundle that it has written in the same way, with a shorter protocol.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elir_mobile.bundle import Bundle, write_manifest
from elir_mobile.checkpoints import ModelInfo, load_weights
from elir_mobile.colors import keep_colors
from elir_mobile.core.errors import UserError
from elir_mobile.core.files import read_bytes
from elir_mobile.core.golden import expected, output_sha256
from elir_mobile.core.jobs import OUTPUTS, DeviceFacts, Job, Result, Row
from elir_mobile.core.manifest import MANIFEST, read_golden, sha256_of
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.core.statistics import sqnr_db, unless_equal
from elir_mobile.data.pairs import Pair, PairCounts, load_pair_sets
from elir_mobile.devices.host import Host, pictures_of
from elir_mobile.devices.protocol import Device, Progress
from elir_mobile.devices.worker import failed_row, find_entry
from elir_mobile.harness.compare import (
    BROKEN_DB,
    Parity,
    check_reached,
    damage,
    means,
    measured,
    no_damage,
    pairwise_psnr,
    parity_budgets,
    psnr_between,
    quality_intervals,
    reference_facts,
)
from elir_mobile.harness.protocol import Protocol, code_revision, latency_facts, machine_facts
from elir_mobile.harness.report import Shown
from elir_mobile.harness.roofline import roof_facts
from elir_mobile.images import to_image, to_tensor
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.precision import FP32, recipe_digest
from elir_mobile.recommendation import RECOMMENDED
from elir_mobile.runtimes.table import NOBODY, RUNTIMES, can_run, not_executed, runtime_name
from elir_mobile.tasks import get_task

EAGER = ("eager", FP32.name)
TRIED_STEPS = (1, 2, 3, 5, 8)
# Among the runtimes of a browser: see browser_demo/jobs.js.
LITERT_JS, WEBGPU, IN_SOFTWARE = "@litertjs/core", "webgpu", "(a GPU in software)"


@dataclass(frozen=True)
class Evaluation:
    """The pictures that files are judged on: picture ``i`` gets the noise of ``seed + i``."""

    pairs: list[Pair]
    source: str
    seed: int


def selected(bundle: Bundle, targets: Sequence[str], precisions: Sequence[str]) -> list[dict]:
    """The manifest's entries of these targets and precisions; of all where none is named.

    Raises:
        UserError: there is none.
    """
    entries: list[dict] = bundle.manifest["files"]
    for key, wanted in (("target", targets), ("precision", precisions)):
        known = {entry[key] for entry in bundle.manifest["files"]}
        for name in wanted:
            if name not in known:
                raise UserError(f"the bundle has no {key} '{name}': it has {', '.join(sorted(known))}")
        entries = [entry for entry in entries if not wanted or entry[key] in wanted]
    if not entries:
        raise UserError("the bundle has no file of that target at that precision")
    return entries


# What a report says of the model that a bundle was made from.
_MODEL = {"name": str, "source": str, "sha256": str, "trained": bool, "parameters": int, "architecture": dict}


def check_model(bundle: Bundle) -> None:
    """Refuse a bundle that says less than a report must.

    Raises:
        UserError: it has no golden vectors, or does not say what it was made from.
    """
    model = bundle.manifest.get("model")
    said = isinstance(model, dict) and all(type(model.get(key)) is kind for key, kind in _MODEL.items())
    if not said or "golden" not in bundle.manifest:
        raise UserError(f"{bundle.folder} does not say what it was made from: write it with quant.ptq")


def float_weights(bundle: Bundle, weights: str | None) -> str | None:
    """The weights of the float network if they are at hand; None if not.

    Raises:
        UserError: ``weights`` are not those that the bundle was made from.
    """
    model = bundle.manifest["model"]
    if not model["trained"]:
        return None
    if weights is None and model["name"] != "demo":
        return None
    name = weights or "demo"
    info: ModelInfo = load_weights(name, get_task(bundle.manifest["task"]))[1]
    if info.sha256 == model["sha256"]:
        return name
    if weights is None:
        return None
    raise UserError(f"--weights {weights} is not what the bundle was made from ({model['source']})")


def evaluation(bundle: Bundle, images: Path | None) -> Evaluation | None:
    """Degraded pictures with their ground truth, the same that the bundle's own report was made from.

    None where there is no ground truth to be had, or the weights are untrained.

    Raises:
        UserError: ``images`` cannot be used.
    """
    manifest = bundle.manifest
    if not manifest["model"]["trained"]:
        return None
    seed, ours = 0, False
    try:
        data = json.loads(read_bytes(bundle.folder / "report" / "report.json"))["data"]
        seed, ours = int(data["seed"]), str(data["source"]).startswith("bundled")
    except (UserError, ValueError, KeyError, TypeError, RecursionError):
        pass  # a bundle without a readable report: seed 0, and pictures of the user's
    if images is None and not ours:
        return None
    sets = load_pair_sets(
        images,
        get_task(manifest["task"]),
        manifest["size"],
        seed,
        PairCounts(calibration=0),
        manifest["domain"],
    )
    return Evaluation(sets.evaluation, sets.source, seed)


def measure_bundle(
    bundle: Bundle,
    devices: Sequence[Device],
    protocol: Protocol,
    progress: Progress,
    *,
    targets: Sequence[str] = (),
    precisions: Sequence[str] = (),
    images: Path | None = None,
    weights: str | None = None,
) -> tuple[dict, Shown | None]:
    """Everything that the report says, and the pictures that it shows.

    Args:
        targets, precisions: of the files to measure; empty: all.
        images: folder of clean pictures; None: the bundled ones, if the bundle was judged on them.
        weights: of the float network; None: the demo's, if the bundle was made from them.

    Raises:
        UserError: a device does not answer, pictures or weights cannot be used, nothing is asked for.
    """
    entries = selected(bundle, targets, precisions)
    check_model(bundle)
    weights = float_weights(bundle, weights)
    judged = evaluation(bundle, images)
    with running(bundle, entries, devices, protocol, progress, weights=weights, judged=judged) as ran:
        return ran.report()


def measure_written(
    bundle: Bundle,
    weights: str,
    judged: Evaluation,
    protocol: Protocol,
    progress: Progress,
    reached: Mapping[str, Mapping[str, float]],
) -> tuple[dict, Shown | None]:
    """Measure a bundle that was just written on this machine.

    Into its manifest go each file's parity budgets, who ran it and what it costs, and so which file each
    class of device is advised to run.

    Args:
        weights: of the float network that it was made from.
        reached: by path of a file, what its precision makes of the golden vectors in simulation.

    Raises:
        UserError: a file does not run, or is so far from float that it computes something else.
    """
    entries = bundle.manifest["files"]
    with running(bundle, entries, [Host()], protocol, progress, weights=weights, judged=judged) as ran:
        for row in ran.host.rows:
            if row.error:
                raise UserError(f"{row.target} {row.precision} was exported but does not run: {row.error}")
            if row.path in reached:  # the float network has no file
                check_reached(f"{row.target} {row.precision}", row.parity, reached[row.path])
        budgets = {row.path: parity_budgets(row.parity) for row in ran.host.rows}
        for entry in entries:
            if entry["path"] in budgets:
                entry["parity"] = budgets[entry["path"]]
        for entry in ran.left:  # without ``host_db``, which is unknown
            wanted = reached[entry["path"]].items()
            entry["parity"] = {name: {"budget_db": value - BROKEN_DB} for name, value in wanted}
        rows = {row["path"]: row for row in ran.rows}
        for entry in entries:
            if entry["path"] in budgets:
                entry |= ran.evidence(rows[entry["path"]])
        bundle.manifest.update(write_manifest(bundle.folder, bundle.manifest))
        return ran.report()


@contextmanager
def running(
    bundle: Bundle,
    entries: Sequence[dict],
    devices: Sequence[Device],
    protocol: Protocol,
    progress: Progress,
    *,
    weights: str | None,
    judged: Evaluation | None,
) -> Iterator[Ran]:
    """Run the files of ``entries``; what they computed lies in a folder that vanishes with the block.

    Args:
        bundle: that the entries are of.
        devices: the host among them, or only needed to hold the others against.
        weights: of the float network, to be measured beside the files on the host.
        judged: pictures to restore on the host.

    Raises:
        UserError: a device does not answer, or has no file that it could run.
    """
    others = [device for device in devices if device.kind != "host"]
    timed_here = len(others) < len(devices)
    files = [_files_for(device, entries) for device in others]
    wanted = {path for paths in files for path in paths}
    left = [entry for entry in entries if not any(_runs(device, entry) for device in (Host(), *others))]
    if timed_here and not weights and not left:
        _files_for(Host(), entries)
    job = Job(
        bundle=str(bundle.folder),
        files=tuple(
            entry["path"]
            for entry in entries
            if _runs(Host(), entry) and (timed_here or entry["path"] in wanted)
        ),
        threads=protocol.threads,
        warmup=protocol.warmups,
        runs=protocol.runs,
    )
    with tempfile.TemporaryDirectory() as tmp:
        here = Path(tmp) / "host"
        here.mkdir()
        pictures = _write_pictures(bundle, judged, Path(tmp)) if judged and timed_here else None
        # Other devices are held against what the same files compute here.
        host_job = job if timed_here else replace(job, runs=0, warmup=0)
        host = Host().run(
            bundle.folder,
            host_job,
            here,
            progress,
            weights=weights,
            pictures=pictures,
            steps=other_steps(bundle) if weights and bundle.manifest["model"]["trained"] else (),
            cold_starts=protocol.cold_starts,
        )
        ran = Ran(bundle, claimed(host), here, judged if pictures else None, protocol, timed_here, left)
        for index, (device, paths) in enumerate(zip(others, files, strict=True)):
            folder = Path(tmp) / f"device-{index}"
            folder.mkdir()
            result = device.run(bundle.folder, replace(job, files=paths), folder, progress)
            ran.elsewhere.append((device.name, claimed(result), folder))
        yield ran


def _runs(device: Device, entry: dict) -> bool:
    return runtime_name(entry["target"]) in device.runtimes and can_run(device.kind, entry)


def _files_for(device: Device, entries: Sequence[dict]) -> tuple[str, ...]:
    """Paths of the files that a device can run.

    Raises:
        UserError: there is none.
    """
    files = tuple(entry["path"] for entry in entries if _runs(device, entry))
    if not files:
        raise UserError(f"{device.name} runs {', '.join(device.runtimes)}: the bundle has none of these")
    return files


def _write_pictures(bundle: Bundle, judged: Evaluation, folder: Path) -> Path:
    """``x`` (N, 3, H, W) and ``noise`` (N, C, h, w) for the workers; image i has the noise of seed + i."""
    shape = tuple(bundle.manifest["golden"]["arrays"]["noise"]["shape"])
    x = np.concatenate([pair.degraded.numpy() for pair in judged.pairs])
    noise = np.concatenate([seeded_noise(shape, judged.seed + i).numpy() for i in range(len(x))])
    path = folder / "pictures.npz"
    np.savez(path, x=x, noise=noise)
    return path


def other_steps(bundle: Bundle) -> list[int]:
    """K below the bundle's own, at which the float network shows what a step is worth."""
    return [k for k in TRIED_STEPS if k < bundle.manifest["steps"]]


def stand_in(target: str, device: DeviceFacts) -> str:
    """What ran files of ``target`` in place of a chip, so that its speed says nothing; empty: nothing did."""
    runtime = RUNTIMES.get(runtime_name(target))  # the float network has none
    if runtime and device.kind == "host":
        return runtime.stand_in
    gpu = device.runtimes.get(WEBGPU, "")
    return f"WebGPU on {gpu}" if target == "litert/gpu" and gpu.endswith(IN_SOFTWARE) else ""


def executed_by(row: Row, device: DeviceFacts | None) -> str:
    """Who ran a file, in words: the runtime with its version, what stands in for it, or nobody."""
    if device is None or row.error is not None or not (row.parity or row.total):
        return NOBODY
    runtime = RUNTIMES.get(runtime_name(row.target))
    package, title = (runtime.package, runtime.title) if runtime else ("torch", "PyTorch")
    # The worker names a runtime by its package, the apps by its name, a page as npm does.
    names = (package, row.target.partition("/")[0], LITERT_JS)
    version = next((device.runtimes[name] for name in names if name in device.runtimes), "")
    name, where, gpu = title.partition(" on ")  # a GPU
    if device.kind == "browser":
        name = f"{name}.js"
    said = stand_in(row.target, device) or f"{name} {version}".strip() + where + gpu
    return f"{said} on an emulated processor" if device.emulated else said


def claimed(result: Result) -> Result:
    """``result`` without the times of what was emulated or interpreted: they say nothing of a chip."""
    rows = (
        replace(row, load_ms=None, first_ms=None, programs={}, total=None)
        if result.device.emulated or stand_in(row.target, result.device)
        else row
        for row in result.rows
    )
    return replace(result, rows=tuple(rows))


def _ratio(base: float | None, value: float | None) -> float | None:
    return None if base is None or value is None else base / value


@dataclass
class Ran:
    """What devices computed, and the report of it.

    Attributes:
        bundle: that was run.
        host: what this machine computed.
        folder: its raw outputs.
        judged: the pictures that it restored, if any.
        protocol: of the run.
        timed_here: whether the host was asked for; if not, it ran only to hold the others against.
        left: entries of the files that nothing at hand can run.
        elsewhere: name, result and raw outputs of each other device.
    """

    bundle: Bundle
    host: Result
    folder: Path
    judged: Evaluation | None
    protocol: Protocol
    timed_here: bool
    left: Sequence[dict] = ()
    elsewhere: list[tuple[str, Result, Path]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trained = bool(self.bundle.manifest["model"]["trained"])
        self.here = {(row.target, row.precision): row for row in self.host.rows}
        self.restored: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        if self.judged:
            for key, row in self.here.items():
                if row.error is None:
                    with np.load(pictures_of(self.folder, *key)) as arrays:
                        self.restored[key] = dict(arrays)
        self.expected = expected(read_golden(self.bundle.folder, self.bundle.manifest["golden"]))
        self.reference = self._reference()
        self.parities = {key: self._parity(key) for key in self.restored}
        pairs = self.judged.pairs if self.judged and self.trained else []
        self.measured = {
            key: measured(parity.restored, pairs) for key, parity in self.parities.items() if pairs
        }
        self.roof = roof_facts(self.bundle.manifest, self.protocol.threads)

    def report(self) -> tuple[dict, Shown | None]:
        """Everything that the report says, and the pictures that it shows."""
        manifest, judged = self.bundle.manifest, self.judged
        results = ([self.host] if self.timed_here else []) + [result for _, result, _ in self.elsewhere]
        pairs = judged.pairs if judged else []
        facts = {
            "rows": self.rows,
            "bundle": {
                "folder": f"{manifest['task']}-{manifest['model']['name']}",
                "sha256": sha256_of(self.bundle.folder / MANIFEST),
                "task": manifest["task"],
            },
            "model": manifest["model"],
            "recommendation": [
                {
                    "kind": kind,
                    "title": RECOMMENDED[kind].title if kind in RECOMMENDED else kind,
                    "path": path,
                    "reason": manifest.get("reasons", {}).get(kind, ""),
                }
                for kind, path in manifest.get("recommendation", {}).items()
            ],
            "data": {
                "source": judged.source if judged else None,
                "seed": judged.seed if judged else None,
                "calibration": (manifest.get("calibration") or {}).get("images", []),
                "evaluation": [pair.name for pair in pairs],
                "sources": self._sources(),
            },
            "references": self._references(),
            "steps": self._steps(),
            "devices": [vars(result.device) for result in results],
            "pairwise": self._pairwise(),
            "protocol": self.protocol.to_json(),
            "machine": machine_facts(),
            "revision": code_revision(),
        }
        return facts, self._shown()

    @cached_property
    def rows(self) -> list[dict]:
        """The rows of the report: of each device, and of the files that none of them can run."""
        rows = [self.row("host", row, self.folder, self.host) for row in self.host.rows if self.timed_here]
        for name, result, folder in self.elsewhere:
            rows += [self.row(name, row, folder, result) for row in result.rows]
        for entry in self.left:
            empty = failed_row(self.bundle.manifest, entry["path"], self.protocol.threads, "")
            rows.append(self.row(NOBODY, empty, self.folder, None))
        return rows

    def evidence(self, row: dict) -> dict:
        """What the manifest says of the file of ``row``: who ran it and, of trained weights, its cost."""
        facts: dict = {"executed_by": row["executed_by"]}
        if row["image"]["psnr_drop_db"] is not None and self.judged:
            names = ("psnr_drop_db", "psnr_drop_db_high", "lpips_rise", "lpips_rise_high")
            facts["quality"] = {
                "update_sqnr_db": row["update_sqnr_db"],
                **{name: row["image"][name] for name in names},
                "pairs": len(self.judged.pairs),
                "photographs": self._sources(),
            }
        return facts

    def _steps(self) -> list[dict]:
        """What each K gives of quality, in float, and costs: a line for each, with the milliseconds of each
        row that was timed here: those of its programs, K times that of ``step``."""
        if EAGER not in self.measured or self.judged is None:
            return []
        pairs, own = self.judged.pairs, self.bundle.manifest["steps"]
        lines = []
        for k in [*other_steps(self.bundle), own]:
            values = self.measured[EAGER]
            if k != own:
                with np.load(pictures_of(self.folder, *EAGER, k)) as arrays:
                    values = measured(list(torch.from_numpy(arrays["image"]).split(1)), pairs)
            cost = {
                " ".join(key): row.programs["encode"].median_ms
                + k * row.programs["step"].median_ms
                + row.programs["decode"].median_ms
                for key, row in self.here.items()
                if row.programs
            }
            lines.append({"steps": k, **means(values), "milliseconds": cost})
        return lines

    def _reference(self) -> tuple[str, str] | None:
        """What stands for float: the network itself, or the fp32 file nearest to its golden outputs."""
        if EAGER in self.here and self.here[EAGER].error is None:
            return EAGER
        exact = [row for row in self.host.rows if row.precision == FP32.name and row.error is None]
        if not exact:
            return None

        def worst(row: Row) -> float:
            return min(math.inf if value is None else value for value in row.parity.values())

        best = max(exact, key=worst)
        return best.target, best.precision

    def _parity(self, key: tuple[str, str]) -> Parity:
        images, trajectory = self.restored[key]["image"], self.restored[key]["trajectory"]
        parity = Parity.over(trajectory.shape[1] - 1)
        parity.restored = list(torch.from_numpy(images).split(1))
        if self.reference:
            reference = self.restored[self.reference]
            expected = reference["trajectory"]
            for k, energy in enumerate(parity.trajectory):
                energy.add(expected[:, k + 1], trajectory[:, k + 1])
            parity.update.add(expected[:, -1] - expected[:, 0], trajectory[:, -1] - trajectory[:, 0])
            parity.image.add(reference["image"], images)
        return parity

    def _sources(self) -> int | None:
        """How many photographs the pairs were made from."""
        return len({pair.source for pair in self.judged.pairs}) if self.judged else None

    def _references(self) -> dict[str, dict[str, float | None]]:
        """What the files are held against: the degraded pictures, and of the float network the coarse
        estimate (what ``fidelity`` 1 gives), the sample of a flow that does nothing (``identity``), the
        restored pictures, and these with the colours of the degraded ones."""
        if not (self.judged and self.trained):
            return {}
        pairs = self.judged.pairs
        pictures = {"degraded": [pair.degraded for pair in pairs]}
        if self.reference:
            made: dict[str, np.ndarray] = next(
                (arrays for arrays in self.restored.values() if "coarse" in arrays), {}
            )
            starts = {name: made[name] for name in ("coarse", "identity") if name in made}
            found = starts | {"float": self.restored[self.reference]["image"]}
            pictures |= {name: list(torch.from_numpy(images).split(1)) for name, images in found.items()}
            if get_task(self.bundle.manifest["task"]).keeps_colors:
                pictures["colors"] = [
                    to_tensor(keep_colors(to_image(restored[0]), to_image(given[0])))[None]
                    for restored, given in zip(pictures["float"], pictures["degraded"], strict=True)
                ]
        return {name: reference_facts(images, pairs) for name, images in pictures.items()}

    def row(self, device: str, row: Row, folder: Path, result: Result | None) -> dict:
        """One row of ``report.json``: what ``device`` said of a file, and how far that is from float.

        Without a ``result`` nobody ran the file: what a run would have told is None or empty.

        ``recipe`` is the digest of the recipe that the file was made by; ``trajectory_sqnr_db`` the SQNR
        after each Euler step, empty if not measured; ``update_sqnr_db`` that of z_K - z_0, what the flow
        itself does; ``sources`` how many photographs the judged pictures were made from; ``against`` says
        in words what the figures were compared with.
        """
        key, manifest = (row.target, row.precision), self.bundle.manifest
        on_host = result is self.host
        entry = find_entry(manifest, row.path) if row.path else None
        runs = row.total.runs_ms if row.total else ()
        processes = self.protocol.cold_starts if on_host else 1
        latency = {"total": latency_facts(runs, processes)} | {
            name: latency_facts(row.programs[name].runs_ms if name in row.programs else (), processes)
            for name in PROGRAMS
        }
        told = result.rows if result else ()
        timed = {(r.target, r.precision): r.total.median_ms for r in told if r.total}
        fp32_ms = timed.get((row.target, FP32.name)) if row.target != "eager" else None
        is_reference = on_host and key == self.reference
        parity = self.parities.get(key) if on_host else None
        compared = parity if parity and self.reference and not is_reference else None
        facts = {
            "device": device,
            "target": row.target,
            "precision": row.precision,
            "path": row.path,
            "sha256": row.sha256 if entry else manifest["model"]["sha256"],
            "recipe": recipe_digest(entry["recipe"]) if entry and "recipe" in entry else None,
            "bytes": entry["bytes"] if entry else 4 * manifest["model"]["parameters"],
            "steps": manifest["steps"],
            "autoencoder": manifest["model"]["architecture"].get("autoencoder", "taesd"),
            "executed_by": executed_by(row, result.device if result else None),
            "sources": self._sources() if parity and self.trained else None,
            "threads": row.threads if result else None,
            "load_ms": row.load_ms,
            "first_ms": row.first_ms,
            "latency_ms": latency["total"],
            "speedup_vs_eager": _ratio(timed.get(EAGER), latency["total"]["median"]),
            "speedup_vs_fp32": _ratio(fp32_ms, latency["total"]["median"]),
            "memory": {"peak_bytes": row.peak_bytes, "base_bytes": row.base_bytes},
            "programs": self._programs(row, entry, folder, latency),
            "golden": self._golden(row, entry, folder),
            "same_file_on_host": None if on_host or key not in self.here else self._against_host(row, folder),
            "trajectory_sqnr_db": [None if is_reference else energy.db for energy in parity.trajectory]
            if parity
            else [],
            "update_sqnr_db": compared.update.db if compared else None,
            "image": self._image(key if on_host else None),
        }
        if result is None:
            said = not_executed(find_entry(manifest, row.path))
            return {**facts, "against": {"run": said}, "error": None}
        return {**facts, "against": self._against(facts, on_host, result), "error": row.error}

    def _image(self, key: tuple[str, str] | None) -> dict[str, float | None]:
        """What the pictures of a file on the host are, against ground truth and against float; None: of no
        file, all that a row says."""
        ours = self.measured.get(key, {}) if key else {}
        sources = [pair.source for pair in self.judged.pairs] if self.judged else []
        facts = {"psnr_vs_float_db": None, "sqnr_vs_float_db": None, **quality_intervals(ours, sources)}
        if key is None or not ours or self.reference in (None, key):
            return facts | no_damage()
        parity = self.parities[key]
        facts["psnr_vs_float_db"] = psnr_between(parity.restored, self._float_images())
        facts["sqnr_vs_float_db"] = parity.image.db
        return facts | damage(ours, self.measured[self.reference], sources)

    def _float_images(self) -> list[Tensor]:
        return self.parities[self.reference].restored if self.reference else []

    def _programs(self, row: Row, entry: dict | None, folder: Path, latency: dict) -> dict[str, dict]:
        programs = {}
        for name in PROGRAMS:
            lowered = (entry or {}).get("delegation", {}).get(name, {})
            value = row.parity.get(name) if name != "decode" else self._decode_sqnr(row, folder)
            programs[name] = {
                "sqnr_db": value if row.target != "eager" else None,
                "delegates": lowered.get("delegates"),
                "ops_outside": lowered.get("ops_outside"),
                "ops_inside": lowered.get("ops_inside"),
                **self.roof.of(row.target, (entry or {}).get("recipe"), name, latency[name]["median"]),
                "latency_ms": latency[name],
            }
        return programs

    def _decode_sqnr(self, row: Row, folder: Path) -> float | None:
        """Of the decoder's golden output against the float network's, which is stored as a picture only."""
        expected = self._output(self.here.get(EAGER), self.folder, "decode")
        found = self._output(row, folder, "decode")
        if expected is None or found is None or row.target == "eager":
            return None
        return unless_equal(sqnr_db(expected, found))

    @staticmethod
    def _output(row: Row | None, folder: Path, name: str) -> np.ndarray | None:
        path = folder / row.outputs[name] if row and name in row.outputs else None
        return np.fromfile(path, "<f4") if path and path.is_file() else None

    def _golden(self, row: Row, entry: dict | None, folder: Path) -> dict[str, dict]:
        """Of each golden vector: dB, the budget of the manifest, how far above it, and whether it holds.

        No decibels say that an output equals the float one to the last bit. That is taken from the bits,
        never from the want of a figure.
        """
        budgets = (entry or {}).get("parity", {})
        found = {}
        for name in OUTPUTS:
            if name not in row.parity:
                continue
            value = row.parity[name]
            budget = budgets.get(name, {}).get("budget_db")
            margin = None if budget is None or value is None else value - budget
            found[name] = {
                "db": value,
                "budget_db": budget,
                "margin_db": margin,
                "holds": None
                if budget is None
                else (self._equals(row, folder, name) if value is None else value >= budget),
            }
        return found

    def _equals(self, row: Row, folder: Path, name: str) -> bool:
        """Whether a golden output is the float one to the last bit."""
        found = self._output(row, folder, name)
        if found is None:
            return row.output_sha256.get(name) == output_sha256(self.expected[name])
        return np.array_equal(found, self.expected[name].ravel())

    def _against_host(self, row: Row, folder: Path) -> dict[str, dict]:
        """Of each golden output: whether the bits are the host's, and the SQNR against the host's in dB."""
        here = self.here[row.target, row.precision]
        found = {}
        for name in OUTPUTS:
            if name not in row.output_sha256 or name not in here.output_sha256:
                continue
            same = row.output_sha256[name] == here.output_sha256[name]
            expected, value = self._output(here, self.folder, name), self._output(row, folder, name)
            known = expected is not None and value is not None and expected.shape == value.shape and not same
            db = unless_equal(sqnr_db(expected, value)) if known else None
            found[name] = {"identical": same, "sqnr_db": db}
        return found

    def _against(self, facts: dict, on_host: bool, result: Result) -> dict[str, str]:
        """In words, what this row was compared with."""
        float_name = "no float reference"
        if self.reference:
            float_name = (
                "the float network in PyTorch eager"
                if self.reference == EAGER
                else f"the {' '.join(self.reference)} file on the host (no float weights at hand)"
            )
        if facts["executed_by"] == NOBODY:
            return dict.fromkeys(("parity", "latency", "quality"), "not measured: nobody executed the file")
        said = {"parity": "the golden vectors: outputs of the float network, stored in the bundle"}
        if facts["latency_ms"]["median"] is not None:
            said["latency"] = (
                f"× eager: PyTorch eager; × fp32: the {facts['target']} fp32 file; same device, "
                f"{facts['threads']} threads, taking turns"
            )
        elif result.device.emulated:
            said["latency"] = "not claimed: the processor is emulated"
        elif instead := stand_in(facts["target"], result.device):
            title = RUNTIMES[runtime_name(facts["target"])].title
            said["latency"] = f"not claimed: {instead} ran it, not {title}"
        else:
            said["latency"] = "not measured"
        if facts["image"]["psnr_db"] is not None and self.judged:
            said["quality"] = (
                f"ground truth of {len(self.judged.pairs)} pairs ({self.judged.source}); float: {float_name}"
            )
        elif not on_host:
            said["quality"] = "not measured on this device: see the same file on the host"
        else:
            said["quality"] = "not measured: no ground truth, or untrained weights"
        if facts["same_file_on_host"]:
            said["same file"] = "its golden outputs on this machine"
        return said

    def _pairwise(self) -> list[dict]:
        """How far targets agree on the evaluation pictures."""
        return pairwise_psnr({key: parity.restored for key, parity in self.parities.items() if key != EAGER})

    def _shown(self) -> Shown | None:
        """The pictures for people."""
        if self.judged is None or self.reference is None:
            return None
        columns = [(" ".join(self.reference), self._float_images())]
        columns += [
            (" ".join(key), parity.restored) for key, parity in self.parities.items() if key != self.reference
        ]
        return Shown(self.judged.pairs, columns)
