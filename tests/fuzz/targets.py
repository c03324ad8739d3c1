"""What is fuzzed. The rule is one: an input is accepted, or refused by a ``UserError`` of one line.

Files go through atheris as they are, but for what no mutation would get past: what a checksum guards is
written around the mutated part. Properties of hypothesis take their choices from the same bytes.
"""

from __future__ import annotations

import io
import json
import math
import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image, ImageCms, features

from elir_mobile.bundle import (
    building,
    copied_advice,
    file_entry,
    read_bundle,
    task_facts,
    write_golden,
    write_manifest,
    write_table,
)
from elir_mobile.checkpoints import load_weights
from elir_mobile.core.errors import UserError
from elir_mobile.core.jobs import Job, read_job, write_json
from elir_mobile.core.manifest import MANIFEST, read_golden
from elir_mobile.images import WRITTEN, read_photo, save_options
from elir_mobile.precision import RECIPES, Recipe, check_rules, read_recipe, recipe_toml
from elir_mobile.runtimes.runner import Runner
from elir_mobile.tasks import ALIGNED_FACE, get_task
from tests.test_gate import test_anything_is_limits_or_a_sentence
from tests.test_jobs import test_a_result_with_any_value_anywhere_is_read_or_refused
from tests.test_tiling import test_weights_sum_to_one_at_every_sample

TINY_WEIGHTS = Path(__file__).parents[1] / "fixtures" / "upstream-tiny.pth"
SIZE = 32
Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        prepare: makes a function of one input, that works in a folder of its own.
        seeds: inputs to begin with, besides those of ``corpus/``.
        longest: bytes of an input.
        json_at: where in an input JSON begins, of which single values are replaced too; None: nowhere.
    """

    prepare: Callable[[Path], Read]
    seeds: Callable[[], Sequence[bytes]] = lambda: ()
    longest: int = 4096
    json_at: int | None = None


ODD = (
    None, True, -1, 0, 1, 2**31, 10**400, 0.5, math.inf, math.nan, "", "x", "../x", "/etc/passwd", "a\0b",
    "\ud800", "\x1b[2J", "[/x]", "x" * 5000, [], [[]], [0], {}, {"x": 1}, "F16", "I64", [2**40], [-1, 2],
)  # fmt: skip


def with_another_value(text: bytes, seed: int) -> bytes:
    """JSON with a value somewhere replaced by an odd one, or left out.

    Raises:
        ValueError: it is no JSON.
    """
    rng, value = random.Random(seed), json.loads(text)
    place: Any = [value]
    key: Any = 0
    while isinstance(inner := place[key], (dict, list)) and inner and rng.random() < 0.9:
        place, key = inner, rng.choice([*inner] if isinstance(inner, dict) else range(len(inner)))
    if rng.random() < 0.1:
        del place[key]
    else:
        place[key] = rng.choice(ODD)
    return json.dumps(value if isinstance(value, dict) else ODD[seed % len(ODD)]).encode()


def of_file(name: str, read: Callable[[Path], object]) -> Callable[[Path], Read]:
    """``prepare`` of what reads a file."""

    def prepare(folder: Path) -> Read:
        path = folder / name

        def once(data: bytes) -> object:
            path.write_bytes(data)
            return read(path)

        return once

    return prepare


def make_bundle(folder: Path) -> Path:
    """A whole bundle, but that its artifact is no model."""
    latent = torch.zeros(1, 4, SIZE // 8, SIZE // 8)
    runner = Runner(lambda x: latent, lambda z, k: z, lambda z: torch.zeros(1, 3, SIZE, SIZE))
    with building(folder / "bundle") as staging:
        artifact = staging / "bfr.tflite"
        artifact.write_bytes(b"model")
        facts = {
            "table": write_table(staging, torch.zeros(2, 3)),
            "golden": write_golden(staging, runner, torch.zeros(1, 3, SIZE, SIZE), 2, 0.1),
            "files": [file_entry(staging, artifact, target="litert", precision="w8")],
        }
        write_manifest(
            staging,
            {**task_facts(get_task("bfr"), ALIGNED_FACE), "size": SIZE, "steps": 2, "sigma_s": 0.1, **facts},
        )
    return folder / "bundle"


def manifest(folder: Path) -> Read:
    bundle = make_bundle(folder)

    def once(data: bytes) -> object:
        (bundle / MANIFEST).write_bytes(data)
        opened = read_bundle(bundle)
        read_golden(bundle, opened.manifest.get("golden", {"arrays": {}}))
        return opened.entry(None, None), copied_advice(opened, "android")

    return once


def claimed_bytes(header: bytes) -> int:
    """How many bytes of values a header of safetensors speaks of; at most a million."""
    try:
        ends = [value["data_offsets"][1] for name, value in json.loads(header).items() if name[:2] != "__"]
        return min(max([0, *(end for end in ends if isinstance(end, int))]), 1 << 20)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return 0


SMALL = {"fmir.first_proj.weight": torch.zeros(2, 2), "enc.layers.0.weight": torch.zeros(1)}


def saved(*, zipped: bool) -> bytes:
    """A few tensors as PyTorch writes them, or wrote them before there was a zip around."""
    file = io.BytesIO()
    torch.save(SMALL, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def checkpoint(folder: Path) -> Read:
    """The first byte says what the others are: a file as it is, or the part of one that is parsed."""
    with zipfile.ZipFile(io.BytesIO(saved(zipped=True))) as template:
        members = {name: template.read(name) for name in template.namelist()}

    def once(data: bytes) -> object:
        kind, rest = data[:1], data[1:]
        path = folder / ("x.safetensors" if kind in b"hs" else "x.pth")
        if kind == b"h":  # the header of safetensors
            rest = len(rest).to_bytes(8, "little") + rest + bytes(claimed_bytes(rest))
        if kind == b"p":  # the pickle in a zip, which has checksums
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                for name, content in members.items():
                    archive.writestr(name, rest if name.endswith("/data.pkl") else content)
            rest = file.getvalue()
        path.write_bytes(rest)
        return load_weights(str(path), get_task("bfr"))

    return once


def checkpoint_seeds() -> list[bytes]:
    header: dict[str, Any] = {"__metadata__": {"elir": '{"task":"bfr","size":64,"steps":2,"sigma_s":0.1}'}}
    end = 0
    for name, tensor in torch.load(TINY_WEIGHTS, weights_only=True).items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    with zipfile.ZipFile(io.BytesIO(saved(zipped=True))) as archive:
        (pickled,) = (archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    return [b"h" + json.dumps(header).encode(), b"p" + pickled, b"l" + saved(zipped=False)]


def picture(folder: Path) -> Read:
    """The first byte chooses the format that the picture would be written in."""
    kinds, path = [*WRITTEN.values()], folder / "x.png"
    Image.MAX_IMAGE_PIXELS = 1 << 20  # as many as can be decoded a hundred times a second

    def once(data: bytes) -> object:
        path.write_bytes(data[1:])
        photo = read_photo(path)
        suffix = kinds[(data[0] if data else 0) % len(kinds)][0]
        return save_options(photo, path.with_suffix(suffix), photo.image.size)

    return once


def picture_seeds() -> list[bytes]:
    image = Image.linear_gradient("L").resize((33, 32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "x"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    seeds = []
    for mode in ("RGB", "L", "P", "RGBA", "I;16", "F", "CMYK"):
        for kind in (
            "PNG",
            "JPEG",
            "WEBP",
            "TIFF",
            "AVIF",
            "JPEG2000",
            "BMP",
            "GIF",
            "PPM",
            "PCX",
            "TGA",
            "SGI",
        ):
            if kind == "AVIF" and not features.check("avif"):
                continue
            file = io.BytesIO()
            try:
                image.convert(mode).save(file, kind, exif=exif, icc_profile=profile, dpi=(72, 72))
            except (OSError, ValueError, KeyError):  # the format has no such mode
                continue
            seeds.append(bytes([len(seeds)]) + file.getvalue())
    return seeds


def recipe(path: Path) -> None:
    found = read_recipe(path)
    check_rules(found, {"enc.layers.0": "image-end", "fmir.add": "latent"})
    found.on({"enc.layers.0": "image-end"}).precision_of("enc.layers.0")
    json.dumps(found.to_json())


def recipe_seeds() -> list[bytes]:
    return [
        recipe_toml(Recipe(f"my-{one.name}", one.rules)).encode() for one in RECIPES.values() if one.rules
    ]


def manifest_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        whole = json.loads((make_bundle(Path(scratch)) / MANIFEST).read_text())
    older = {**whole, "schema_version": 1}
    return [json.dumps(value).encode() for value in (whole, older)]


def job_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "job.json"
        write_json(path, Job("bundle", ("a/b.pte",)))
        return [path.read_bytes()]


def property_of(test: Any) -> Callable[[Path], Read]:
    """``prepare`` of a test of hypothesis; what is no input for it counts as refused."""

    def once(data: bytes) -> None:
        if test.hypothesis.fuzz_one_input(data) is None:
            raise UserError("too few choices")

    return lambda folder: once


TARGETS = {
    "manifest": Target(manifest, manifest_seeds, json_at=0),
    "checkpoint": Target(checkpoint, checkpoint_seeds, longest=1 << 15, json_at=1),
    "picture": Target(picture, picture_seeds, longest=1 << 13),
    "job": Target(of_file("job.json", read_job), job_seeds, json_at=0),
    "recipe": Target(of_file("recipe.toml", recipe), recipe_seeds),
    "tiler": Target(property_of(test_weights_sum_to_one_at_every_sample)),
    "budget": Target(property_of(test_anything_is_limits_or_a_sentence)),
    "result": Target(property_of(test_a_result_with_any_value_anywhere_is_read_or_refused)),
}
