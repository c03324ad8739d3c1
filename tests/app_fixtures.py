"""What the Kotlin and the Swift core are held against: ``python -m tests.app_fixtures OUT``.

Owns the golden files that both apps' tests read, all computed by the Python package itself. ``index.json``
lists every case; arrays are raw and little-endian, of the type that their suffix names, and photographs are
files as Pillow writes them. The stub runtime
stands for a phone's: :func:`stub_runner` is arithmetic that each language writes in a dozen lines, read
from the ``.stub`` files of a small but complete bundle.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from PIL.ImageFilter import GaussianBlur
from torch import Tensor
from torch.nn import functional as F

from elir_mobile import metrics, restore
from elir_mobile.bundle import (
    MANIFEST,
    Bundle,
    building,
    file_entry,
    read_bundle,
    task_facts,
    write_golden,
    write_manifest,
    write_table,
)
from elir_mobile.colors import keep_colors
from elir_mobile.core.manifest import read_golden, sha256_of
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.core.tiling import Sample, axis_windows, level_offsets
from elir_mobile.harness.protocol import latency_facts
from elir_mobile.images import square, to_tensor
from elir_mobile.metadata import read_metadata
from elir_mobile.models.autoencoder import DOWNSCALE
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.recommendation import RECOMMENDED
from elir_mobile.runtimes.runner import Runner
from elir_mobile.tasks import ALIGNED_FACE, TASKS
from tests.conftest import golden_budgets
from tests.face_fixtures import face_photographs

SIZE, STEPS, SIGMA_S, CHANNELS = 64, 3, 0.1, 4  # of the latent; the published networks have 16
# The second file differs a little from the float one, so that its parity is a finite number.
STUBS = {"fp32": {"a": -0.25, "b": 0.5}, "w8a8": {"a": -0.2475, "b": 0.503}}
SEEDS = (0, 1, 7, 2**31, 2**32 + 5, 2**63 - 1)
COUNTS = (16, 17, 31, 1000, CHANNELS * 24 * 19)
WINDOWS = (
    (40, 64, 16),
    (64, 64, 16),
    (65, 64, 16),
    (200, 64, 16),
    (1000, 256, 64),
    (96, 32, 0),
    (57, 16, 11),
)
PICTURES = ((64, 64), (40, 50), (64, 150), (100, 117), (205, 130))  # height, width
# Height and width, whether it is grey, the fidelity, and whether colours and greys are kept.
FINISHED = (
    ((64, 64), False, 0.5, False, False),
    ((40, 50), False, 1.0, True, True),
    ((205, 130), False, 0.0, True, True),
    ((205, 130), False, 0.25, True, True),
    ((130, 205), False, 0.5, False, True),
    ((130, 205), False, 1.0, True, True),
    ((100, 117), False, 0.3, True, False),
    ((64, 150), True, 0.75, False, True),
    ((64, 150), True, 0.0, False, False),
    ((70, 90), True, 0.25, True, True),
)
# Height, width, and whether the picture whose colours are kept is grey.
COLORED = (
    *((size, False) for size in ((64, 64), (300, 33), (97, 210), (205, 130), (40, 50), (24, 7), (512, 301))),
    ((7, 40), True),
    ((70, 90), True),
)
# Tags of the first directory of EXIF that ImageIO has names for, not all of them. The values are such as
# Pillow writes, not such as cameras write.
TAGS = {
    **dict.fromkeys(("Compression", "PhotometricInterpretation", "Orientation", "ResolutionUnit"), 2),
    **dict.fromkeys(("TransferFunction", "TileWidth", "TileLength"), 16),
    **dict.fromkeys(("XResolution", "YResolution"), 72.0),
    **{"WhitePoint": (0.3, 0.3), "PrimaryChromaticities": (0.6, 0.3, 0.3, 0.6, 0.1, 0.1)},
    **dict.fromkeys(("DocumentName", "ImageDescription", "Make", "Model", "Software", "DateTime"), "told"),
    **dict.fromkeys(("Artist", "HostComputer", "Copyright"), "told"),
}
TOLD = ("title", "domain", "upscale", "enlarge")  # of the manifest, since schema 2
KEPT = ("keep_colors", "keep_grey")  # of later manifests of that schema
RESIZES = {"nearest": Image.Resampling.NEAREST, "bicubic": Image.Resampling.BICUBIC}
JOB = {
    "schema_version": 1,
    "bundle": "bundle",
    "files": [f"stub/{name}.stub" for name in STUBS] + ["stub/absent.stub"],
    "threads": 2,
    "warmup": 1,
    "runs": 5,
    "parity": True,
}


def stub_runner(stub: dict[str, float], table: Tensor) -> Runner:
    """The arithmetic behind a ``.stub`` file ``{"a": …, "b": …}``.

    ``encode`` averages 8×8 pixels; latent channel c is colour c mod 3, times 1 - c/32. ``step`` k is
    ``z + (a·z + b·row[c])/K`` with the table's row k, one value a channel. ``decode`` repeats channels
    0, 1, 2 eightfold and clips to [0, 1].
    """
    scale = 1 - torch.arange(CHANNELS).view(1, -1, 1, 1) / 32

    def encode(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 8)[:, [c % 3 for c in range(CHANNELS)]] * scale

    def step(z: Tensor, k: int) -> Tensor:
        return z + (stub["a"] * z + stub["b"] * table[k].view(1, -1, 1, 1)) / len(table)

    def decode(z: Tensor) -> Tensor:
        return F.interpolate(z[:, :3], scale_factor=8, mode="nearest").clamp(0, 1)

    return Runner(encode, step, decode)


class Fixtures:
    """Writes arrays below ``folder`` and returns the entries that describe them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def array(self, name: str, values: np.ndarray) -> dict:
        """``{path, shape}`` of ``values``, written as uint8 or float32."""
        kind = "uint8" if values.dtype == np.uint8 else "float32"
        path = self.folder / f"{name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(values.astype(np.dtype(kind).newbyteorder("<")).tobytes())
        return {"path": path.relative_to(self.folder).as_posix(), "shape": list(values.shape)}


def picture(height: int, width: int, seed: int) -> Image.Image:
    """Smooth random colours with a little noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    values = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray((values + rng.normal(0, 4, values.shape)).clip(0, 255).astype(np.uint8))


def write_bundle(folder: Path) -> Path:
    """A whole bundle whose programs are stubs, with a package folder among its files."""
    table = torch.sin(torch.arange(STEPS * CHANNELS, dtype=torch.float32)).view(STEPS, CHANNELS)
    loop = {"steps": STEPS, "sigma_s": SIGMA_S}
    every = {
        kind: replace(advice, targets=("stub",), precisions=("w8a8", "fp32"))
        for kind, advice in RECOMMENDED.items()
    }
    with building(folder) as staging, mock.patch.dict(RECOMMENDED, every):
        (staging / "stub").mkdir()
        package = staging / "coreml" / "tiny.mlpackage"
        (package / "Data").mkdir(parents=True)
        (package / "Manifest.json").write_text("{}")
        (package / "Data" / "weight.bin").write_bytes(bytes(range(256)))
        runners = {name: stub_runner(stub, table) for name, stub in STUBS.items()}
        golden = write_golden(staging, runners["fp32"], to_tensor(picture(SIZE, SIZE, 0))[None], **loop)
        files = [file_entry(staging, package, target="coreml", precision="fp16", programs=[])]
        for name, stub in STUBS.items():
            path = staging / "stub" / f"{name}.stub"
            path.write_text(json.dumps(stub))
            facts = {"target": "stub", "precision": name, "programs": ["encode", "step", "decode"]}
            parity = golden_budgets(golden, staging, runners[name], **loop)
            files.append(file_entry(staging, path, **facts, parity=parity))
        write_manifest(
            staging,
            {
                **task_facts(TASKS["bfr"], ALIGNED_FACE),
                "model": {
                    "name": "stub",
                    "sha256": None,
                    "trained": False,
                    "architecture": {"latent_channels": CHANNELS},
                },
                "size": SIZE,
                **loop,
                "versions": {},
                "table": write_table(staging, table),
                "calibration": None,
                "golden": golden,
                "files": files,
            },
        )
    return folder


def told_bundles(out: Fixtures, whole: Path, photo: Image.Image) -> list[dict]:
    """Copies of ``whole`` with what an app is to read: one for each task of the package, one for a task that
    no app has heard of, one whose recommended file was left out, and one of schema 1.

    ``square`` and ``whole`` are what is restored of ``photo``; ``keep_colors`` and ``keep_grey`` what is kept
    of it by default; ``recommended`` is the file for any device,
    null where there is none, and ``reason`` why that one, null where the manifest does not say.
    """
    manifest = json.loads((whole / MANIFEST).read_text())
    unheard = replace(
        TASKS["sr"], name="dehazing", title="fog ×2", domain="fog", upscale=2, enlarge=RESIZES["bicubic"]
    )
    told = {task.name: manifest | task_facts(task, task.domain) for task in (*TASKS.values(), unheard)}
    told["left-out"] = manifest | {"recommendation": dict.fromkeys(RECOMMENDED, "stub/absent.stub")}
    reason = 'stub w8a8 for every device: 100 % of it is "stub"'
    manifest |= {"reasons": dict.fromkeys(RECOMMENDED, reason)}
    told = {name: facts | {"reasons": manifest["reasons"]} for name, facts in told.items()}
    del told["sr"]["reasons"]  # as before there were any
    later = (*TOLD, *KEPT, "recommendation", "reasons")
    old = {key: value for key, value in manifest.items() if key not in later}
    told["schema-1"] = old | {"schema_version": 1, "task": "sr"}
    entries = []
    for name, manifest in told.items():
        copy = out.folder / "tasks" / name
        shutil.copytree(whole, copy)
        if name == "bfr":
            manifest = manifest | {"detector": write_detector(copy)}
        (copy / MANIFEST).write_text(json.dumps(manifest))
        facts = {"title": manifest["task"], "domain": None, "upscale": 1, "enlarge": "nearest"}
        facts |= {key: manifest[key] for key in ("task", *TOLD) if key in manifest}
        pictures = {}
        for part, given in {"square": square(photo, SIZE // facts["upscale"]), "whole": photo}.items():
            sides = given.width * facts["upscale"], given.height * facts["upscale"]
            pictures[part] = np.asarray(given.resize(sides, RESIZES[facts["enlarge"]]))
        entries.append(
            {
                "path": copy.relative_to(out.folder).as_posix(),
                **facts,
                "recommended": None if name in ("left-out", "schema-1") else "stub/w8a8.stub",
                "reason": manifest.get("reasons", {}).get("android"),
                "detector": name == "bfr",
                "keep_colors": manifest.get("keep_colors", False),
                "keep_grey": manifest.get("keep_grey", False),
                **{part: out.array(f"tasks/{name}-{part}", values) for part, values in pictures.items()},
            }
        )
    return entries


def write_detector(folder: Path) -> dict:
    """A manifest's ``detector``, with files that are none."""
    files = {}
    for name in ("detect", "mesh"):
        path = folder / f"detector/{name}.tflite"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        files[name] = {"path": f"detector/{name}.tflite", "sha256": sha256_of(path), "bytes": len(name)}
    return {"files": files, "source": "nowhere", "licence": "none"}


def damaged_bundles(whole: Path, folder: Path) -> list[dict]:
    """Copies of ``whole``, each with one fault: ``{path, fault}``."""

    def edit(change: Callable[[dict], object]) -> Callable[[Path], object]:
        def apply(copy: Path) -> None:
            manifest = json.loads((copy / MANIFEST).read_text())
            change(manifest)
            (copy / MANIFEST).write_text(json.dumps(manifest))

        return apply

    faults: dict[str, tuple[str, Callable[[Path], object]]] = {
        "no-manifest": ("missing", lambda copy: (copy / MANIFEST).unlink()),
        "not-json": ("damaged", lambda copy: (copy / MANIFEST).write_text("{")),
        "no-table": ("damaged", edit(lambda m: m.pop("table"))),
        "files-are-numbers": ("damaged", edit(lambda m: m.update(files=[7]))),
        "newer": ("too new", edit(lambda m: (m.clear(), m.update(schema_version=99)))),
        "no-title": ("damaged", edit(lambda m: m.pop("title"))),
        "shrinking": ("damaged", edit(lambda m: m.update(upscale=0))),
        "unheard-filter": ("damaged", edit(lambda m: m.update(enlarge="wishful"))),
        "uneven": ("damaged", edit(lambda m: m.update(upscale=SIZE - 1))),
        "outside": ("outside", edit(lambda m: m["files"][1].update(path="../no-table/stub/fp32.stub"))),
        "absolute": ("outside", edit(lambda m: m["files"][1].update(path="/etc/hostname"))),
        "absent-file": ("damaged", lambda copy: (copy / "stub" / "w8a8.stub").unlink()),
        "changed-file": ("damaged", lambda copy: (copy / "stub" / "fp32.stub").write_text("{}")),
        "changed-package": (
            "damaged",
            lambda copy: (copy / "coreml" / "tiny.mlpackage" / "Data" / "weight.bin").write_bytes(b"x"),
        ),
        "added-to-package": (
            "damaged",
            lambda copy: (copy / "coreml" / "tiny.mlpackage" / "more").write_bytes(b""),
        ),
        "changed-golden": (
            "damaged",
            lambda copy: (copy / "golden" / "noise.float32").write_bytes(bytes(4)),
        ),
        "short-table": ("damaged", edit(lambda m: m["table"].update(shape=[STEPS + 1, CHANNELS]))),
    }
    entries = []
    for name, (fault, apply) in faults.items():
        shutil.copytree(whole, folder / name)
        apply(folder / name)
        entries.append({"path": f"{folder.name}/{name}", "fault": fault})
    return entries


def orientations(out: Fixtures) -> dict:
    """One small picture and what each of EXIF's eight orientations makes of it."""
    original = picture(9, 14, 1)
    entries = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = BytesIO()
        original.save(data, "PNG", exif=exif)
        upright = ImageOps.exif_transpose(Image.open(data))
        entries.append(
            {"orientation": orientation, **out.array(f"orientation/{orientation}", np.asarray(upright))}
        )
    return {"input": out.array("orientation/input", np.asarray(original)), "upright": entries}


def resizes(out: Fixtures) -> dict:
    """Enlargements as the tasks do them, and centred squares."""
    original = picture(37, 52, 2)
    enlarged = []
    for name, filter_ in RESIZES.items():
        for factor in (4, 8):
            size = (original.width * factor, original.height * factor)
            large = np.asarray(original.resize(size, filter_))
            enlarged.append({"filter": name, "factor": factor, **out.array(f"resize/{name}-{factor}", large)})
    squares = [
        {"side": side, **out.array(f"resize/square-{side}", np.asarray(square(original, side)))}
        for side in (16, 37, 64)
    ]
    thumbnails = []
    for size in ((40, 30), (13, 9), (5, 2)):
        small = np.asarray(original.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        thumbnails.append(out.array(f"resize/thumbnail-{size[0]}", small))
    blurred = [
        {
            "spread": spread,
            **out.array(f"resize/blurred-{spread}", np.asarray(original.filter(GaussianBlur(spread)))),
        }
        for spread in (0.0, 0.5, 3.0)
    ]
    return {
        "input": out.array("resize/input", np.asarray(original)),
        "enlarged": enlarged,
        "thumbnails": thumbnails,
        "blurred": blurred,
        "squares": squares,
    }


def windows(out: Fixtures) -> list[dict]:
    """Tilings of an axis; the weights of all windows lie one after another."""
    entries = []
    for length, tile, overlap in WINDOWS:
        found = axis_windows(length, tile, overlap)
        weights = np.concatenate([window.weights for window in found])
        entries.append(
            {
                "length": length,
                "tile": tile,
                "overlap": overlap,
                "starts": [window.start for window in found],
                "weights": out.array(f"windows/{length}-{tile}-{overlap}", weights),
            }
        )
    return entries


class Recorder:
    """Rounds as :mod:`elir_mobile.restore` does and keeps the float values: they are overwritten there."""

    def __init__(self) -> None:
        self.bands: list[np.ndarray] = []
        self.to_bytes = restore._to_bytes

    def __call__(self, values: np.ndarray) -> np.ndarray:
        self.bands.append(values.copy())
        return self.to_bytes(values)


def restorations(out: Fixtures, bundle: Path) -> list[dict]:
    """Whole pictures through :func:`elir_mobile.restore.restore` with the fp32 stub.

    ``blended`` are the float32 values before they are rounded, of the padded picture.
    """
    read = read_bundle(bundle)
    runner = stub_runner(STUBS["fp32"], read.table)
    model = restore.Model(
        runner, STEPS, SIGMA_S, SIZE, SIZE, multiple=0, channels=CHANNELS, domain=ALIGNED_FACE
    )
    entries = []
    for seed, (height, width) in enumerate(PICTURES):
        given = picture(height, width, seed)
        recorder = Recorder()
        advance = mock.Mock()
        with mock.patch.object(restore, "_to_bytes", recorder):
            restored = restore.restore(given, model, seed, advance)
        name = f"restore/{height}x{width}"
        entries.append(
            {
                "seed": seed,
                "tiles": advance.call_args.args[1],
                "input": out.array(f"{name}-input", np.asarray(given)),
                "blended": out.array(f"{name}-blended", np.concatenate(recorder.bands)),
                "output": out.array(f"{name}-output", np.asarray(restored)),
            }
        )
    return entries


def golden_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """The golden vectors of a bundle by name."""
    arrays = read_golden(bundle.folder, bundle.manifest["golden"])
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def moody(runner: Runner) -> Runner:
    """``runner`` whose tiles are lighter the lighter their input is, as group norms make them."""
    return replace(runner, encode=lambda x: runner.encode(x) + 0.3 * (x.mean() - 0.5))


def finished(out: Fixtures, bundle: Path) -> list[dict]:
    """Whole pictures through :func:`elir_mobile.restore.restore` with a fidelity, and with colours kept.

    The fp32 stub's tiles differ in level, see :func:`moody`. ``blended`` are the float32 values before they
    are rounded and get colours, of the padded picture.
    """
    read = read_bundle(bundle)
    runner = moody(stub_runner(STUBS["fp32"], read.table))
    entries = []
    for seed, ((height, width), grey, fidelity, keeps_colors, keeps_grey) in enumerate(FINISHED):
        given = picture(height, width, seed)
        if grey:
            given = given.convert("L").convert("RGB")
        model = restore.Model(
            *(runner, STEPS, SIGMA_S, SIZE, SIZE, 0, CHANNELS, ALIGNED_FACE),
            fidelity,
            keeps_colors,
            keeps_grey,
        )
        recorder = Recorder()
        with mock.patch.object(restore, "_to_bytes", recorder):
            made = restore.restore(given, model, seed, lambda done, total: None)
        name = f"finished/{seed}"
        entries.append(
            {
                "seed": seed,
                "fidelity": fidelity,
                "keep_colors": keeps_colors,
                "keep_grey": keeps_grey,
                "input": out.array(f"{name}-input", np.asarray(given)),
                "blended": out.array(f"{name}-blended", np.concatenate(recorder.bands)),
                "output": out.array(f"{name}-output", np.asarray(made)),
            }
        )
    return entries


def colors(out: Fixtures) -> list[dict]:
    """Restored pictures with the colours of what was given, by :func:`elir_mobile.colors.keep_colors`."""
    entries = []
    for index, ((height, width), grey) in enumerate(COLORED):
        given, restored = picture(height, width, index), picture(height, width, index + 10)
        if grey:
            given = given.convert("L").convert("RGB")
        arrays = {"given": given, "restored": restored, "expected": keep_colors(restored, given)}
        entries.append(
            {key: out.array(f"colors/{index}-{key}", np.asarray(image)) for key, image in arrays.items()}
        )
    return entries


def levels(out: Fixtures) -> dict:
    """Tiles that overlap in rows, of reduced pixels, and what brings them to one level."""
    rng = np.random.default_rng(0)
    places = [(top, left) for top in (0, 6) for left in (0, 5, 11)]
    tiles = [Sample(top, left, rng.uniform(0, 1, (8, 8)).astype(np.float32)) for top, left in places]
    before, after = tiles[:3], tiles[3:]
    return {
        "places": places,
        "tiles": out.array("levels/tiles", np.stack([tile.values for tile in tiles])),
        "first": out.array("levels/first", level_offsets(before)),
        "second": out.array("levels/second", level_offsets(after, before)),
    }


def photographs(folder: Path) -> list[dict]:
    """Files with every kind of EXIF tag; what is to be left of them is what Pillow reads again."""
    folder.mkdir()
    entries = []
    for name in ("plain.jpg", "plain.png", "none.jpg"):
        exif = Image.Exif()
        if name != "none.jpg":
            exif[ExifTags.Base.Orientation] = 6
            exif[ExifTags.Base.Make] = "A camera"
            exif[ExifTags.Base.DateTime] = "2026:11:30 07:00:00"
            exif[ExifTags.Base.XResolution] = 72.0
            exif[ExifTags.Base.Compression] = 6
            inside = exif.get_ifd(ExifTags.IFD.Exif)
            inside[ExifTags.Base.ExposureTime] = 0.01
            inside[ExifTags.Base.ExifImageWidth] = 9999
            inside[ExifTags.Base.ColorSpace] = 65535
            inside[ExifTags.Base.MakerNote] = bytes(range(200))
            place = exif.get_ifd(ExifTags.IFD.GPSInfo)
            place[ExifTags.GPS.GPSLatitudeRef] = "N"
            place[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 14.5)
        picture(40, 50, 9).save(folder / name, exif=exif)
        entries.append({"path": f"{folder.name}/{name}", "has": name != "none.jpg"})
    return entries


def kept_tags() -> dict[str, bool]:
    """Whether :func:`elir_mobile.metadata.read_metadata` keeps each of these tags, by name."""
    exif = Image.Exif()
    for name, value in TAGS.items():
        exif[ExifTags.Base[name]] = value
    data = BytesIO()
    picture(8, 8, 0).save(data, "JPEG", exif=exif)
    with Image.open(data) as opened:
        kept = read_metadata(opened)[0].exif or {}
    return {name: ExifTags.Base[name] in kept for name in TAGS}


def loop(out: Fixtures, bundle: Path) -> list[dict]:
    """The golden input through each stub: coarse latent, K+1 latents, image."""
    read = read_bundle(bundle)
    vectors = golden_tensors(read)
    entries = []
    for precision, stub in STUBS.items():
        runner = stub_runner(stub, read.table)
        image, trajectory = runner.restore(vectors["input"], vectors["noise"], steps=STEPS, sigma_s=SIGMA_S)
        entries.append(
            {
                "path": f"stub/{precision}.stub",
                "coarse": out.array(f"loop/{precision}-coarse", runner.encode(vectors["input"]).numpy()),
                "trajectory": out.array(f"loop/{precision}-trajectory", torch.cat(trajectory).numpy()),
                "image": out.array(f"loop/{precision}-image", image.numpy()),
            }
        )
    return entries


def fidelity(out: Fixtures) -> list[dict]:
    """Pairs of arrays with their PSNR and SQNR in dB; null where the two are equal."""
    entries = []
    for index, spread in enumerate((0.0, 1e-4, 0.02, 0.5)):
        rng = np.random.default_rng(index)
        reference = rng.uniform(0, 1, (1, 3, 8, 10)).astype(np.float32)
        other = reference + spread * rng.normal(0, 1, reference.shape).astype(np.float32)
        pair = torch.from_numpy(other), torch.from_numpy(reference)
        entries.append(
            {
                "reference": out.array(f"fidelity/{index}-reference", reference),
                "out": out.array(f"fidelity/{index}-out", other),
                "psnr_db": metrics.psnr(*pair).item() if spread else None,
                "sqnr_db": sqnr_db(pair[1], pair[0]) if spread else None,
            }
        )
    return entries


def percentiles() -> list[dict]:
    """Runs in milliseconds with their median and 90th percentile."""
    rng = np.random.default_rng(0)
    cases = [[5.0], [3.0, 1.0], [4.0, 1.0, 3.0, 2.0], list(range(11, 0, -1))]
    cases += [rng.gamma(3, 10, count).tolist() for count in (19, 20)]
    found = []
    for case in cases:
        facts = latency_facts(case)
        found.append({"runs_ms": facts["runs"], "median": facts["median"], "p90": facts["p90"]})
    return found


def noises(out: Fixtures) -> list[dict]:
    """Seeded noise. Seeds are texts: JSON readers may hold numbers as doubles."""
    return [
        {"seed": str(seed), **out.array(f"noise/{seed}-{count}", seeded_noise((count,), seed).numpy())}
        for seed in SEEDS
        for count in COUNTS
    ]


def write_fixtures(folder: Path) -> dict:
    """Write everything below ``folder`` (made anew) and return the index."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = Fixtures(folder)
    bundle = write_bundle(folder / "bundle")
    (folder / "damaged").mkdir()
    photo = picture(40, 50, 3)
    (folder / "job.json").write_text(json.dumps(JOB))
    index = {
        "bundle": "bundle",
        "job": "job.json",
        "damaged": damaged_bundles(bundle, folder / "damaged"),
        "photo": out.array("photo", np.asarray(photo)),
        "tasks": told_bundles(out, bundle, photo),
        "latent_shape": [CHANNELS, SIZE // DOWNSCALE, SIZE // DOWNSCALE],
        "noise": noises(out),
        "windows": windows(out),
        "orientation": orientations(out),
        "resize": resizes(out),
        "loop": loop(out, bundle),
        "restore": restorations(out, bundle),
        "finished": finished(out, bundle),
        "colors": colors(out),
        "levels": levels(out),
        "photographs": photographs(folder / "photographs"),
        "tags": kept_tags(),
        "fidelity": fidelity(out),
        "percentiles": percentiles(),
        "faces": face_photographs(out.array),
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    return index


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, replaced if it exists")
    write_fixtures(parser.parse_args().out)
