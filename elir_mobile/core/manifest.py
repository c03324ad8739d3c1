"""Reading a bundle with nothing but NumPy: the manifest, the table of time biases, the golden vectors.

This is what a device needs of a bundle (``elir_mobile/bundle.py`` has the format, writes it and builds
tensors on this). A reader trusts nothing: schema, paths and checksums are verified before use.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import opened, read_bytes, write_json
from elir_mobile.core.reader import OPTIONAL, Limit, NotNegative, Positive, Sha256, load_object, one_of, read

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
TABLE = "steps.bin"
GOLDEN_IMAGES = ("input", "output")
GOLDEN_LATENTS = ("noise", "coarse", "step", "latent")

GoldenArrays = dict[str, np.ndarray]


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes.

    Raises:
        UserError: no regular file, or one that cannot be read.
    """
    sha = hashlib.sha256()
    with opened(path) as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def artifact_sha256(path: Path) -> str:
    """SHA-256 of an artifact. Of a package folder: over its files' relative names and digests.

    Raises:
        UserError: what lies there is no regular file, or a link inside a package: what it leads to is not the
            package's, and copying it would copy that.
    """
    if not path.is_dir():
        return sha256_of(path)
    inside = sorted(path.rglob("*"))
    for place in inside:
        if place.is_symlink():
            raise UserError(f"{place} is a link: put the file itself into {path.name}, or write it again")
    names = [place.relative_to(path).as_posix() for place in inside if not place.is_dir()]
    lines = "".join(f"{sha256_of(path / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def bytes_of(path: Path) -> int:
    """Size of an artifact: a file's, or the sum over the files of a package folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


@dataclass(frozen=True)
class _File:
    path: Annotated[str, Limit("a path", str.isprintable)]
    sha256: Sha256


# What names of files are made of: no path leads anywhere else with it.
Name = Annotated[
    str, Limit("a name of letters, digits, dots, dashes and underscores", re.compile(r"[\w.-]+").fullmatch)
]


@dataclass(frozen=True)
class _Quality:
    """What a file costs on the pictures that it was judged on; None: it was not measured, or is exact."""

    update_sqnr_db: float | None
    psnr_drop_db: float | None
    psnr_drop_db_high: float | None
    lpips_rise: float | None
    lpips_rise_high: float | None
    pairs: Positive
    photographs: Positive


@dataclass(frozen=True)
class _Artifact(_File):
    target: Annotated[str, Limit("a runtime and its delegate", re.compile(r"[\w.-]+(/[\w.-]+)?").fullmatch)]
    precision: Name
    executed_by: str = field(default="", metadata=OPTIONAL)
    quality: _Quality | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class _Array(_File):
    shape: tuple[Positive, ...]


@dataclass(frozen=True)
class _Table(_Array):
    shape: Annotated[tuple[Positive, ...], Limit("a number of steps and a width", lambda s: len(s) == 2)]


@dataclass(frozen=True)
class _GoldenArray(_Array):
    dtype: Annotated[str, one_of("float32", "uint8")]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class _DetectorFile(_File):
    bytes: Positive


@dataclass(frozen=True)
class _DetectorFiles:
    detect: _DetectorFile
    mesh: _DetectorFile


@dataclass(frozen=True)
class _Detector:
    """What finds the faces of photographs; a bundle without it is for no photographs, or for all of each."""

    files: _DetectorFiles
    source: str
    licence: str


@dataclass(frozen=True)
class _Golden:
    arrays: dict[str, _GoldenArray] = field(default_factory=dict)

    def fault(self, size: int) -> str | None:
        """What is wrong with arrays that are to be of a network for pictures of ``size`` pixels."""
        if self.arrays.keys() != {*GOLDEN_IMAGES, *GOLDEN_LATENTS}:
            return f"its golden arrays are not {', '.join((*GOLDEN_IMAGES, *GOLDEN_LATENTS))}"
        images, latents = (
            {(self.arrays[name].shape, self.arrays[name].dtype) for name in names}
            for names in (GOLDEN_IMAGES, GOLDEN_LATENTS)
        )
        if images != {((size, size, 3), "uint8")}:
            return f"its golden images are not {size}×{size} pixels in 8 bits"
        ((shape, dtype),) = latents if len(latents) == 1 else [((), "")]
        if dtype != "float32" or len(shape) != 4 or shape[0] != 1:
            return "its golden latents are not of one shape of four sides in float32"
        return None


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    """What every reader of a bundle relies on; a manifest says more."""

    size: Positive
    steps: Positive
    sigma_s: NotNegative
    table: _Table
    files: tuple[_Artifact, ...]
    golden: _Golden = field(default=_Golden(), metadata=OPTIONAL)
    detector: _Detector | None = field(default=None, metadata=OPTIONAL)
    budget: dict[str, float] = field(default_factory=dict, metadata=OPTIONAL)
    recommendation: dict[str, str] = field(default_factory=dict, metadata=OPTIONAL)
    reasons: dict[str, str] = field(default_factory=dict, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class _TaskManifest(_Manifest):
    """Since schema 2 also what an app shows of the task, and does to a photograph beforehand."""

    task: str
    title: str
    domain: str
    upscale: Positive
    enlarge: Annotated[str, one_of("nearest", "bicubic", "lanczos")]


def read_manifest(folder: Path, files: Sequence[str] | None = None) -> dict:
    """The manifest of the bundle at ``folder``, after everything it names was verified.

    Args:
        files: artifacts to verify, by path; None: all. A device may have been given some only.

    Raises:
        UserError: missing, damaged, newer than this package, or naming a path outside itself.
    """
    place = folder / MANIFEST
    if not place.is_file():
        raise UserError(f"{folder} is not a bundle: it has no {MANIFEST}")
    manifest = load_object(place, SCHEMA_VERSION)
    facts = read(_TaskManifest if manifest["schema_version"] > 1 else _Manifest, manifest, place)
    if isinstance(facts, _TaskManifest) and facts.size % facts.upscale:
        raise UserError(f"{place} is damaged: size {facts.size} is no multiple of upscale {facts.upscale}")
    root = folder.resolve()
    artifacts = [file for file in facts.files if files is None or file.path in files]
    golden = facts.golden.arrays.values()
    if "golden" in manifest and (fault := facts.golden.fault(facts.size)):
        raise UserError(f"{place} is damaged: {fault}")
    detector = [facts.detector.files.detect, facts.detector.files.mesh] if facts.detector else []
    named: list[_File] = [facts.table, *golden, *detector, *artifacts]
    for file in named:
        path = Path(os.path.realpath(folder / file.path))  # resolve() fails on a link to itself
        if not path.is_relative_to(root):
            raise UserError(f"{place} names {file.path}, which is outside the bundle")
        if not path.exists() or artifact_sha256(path) != file.sha256:
            raise UserError(f"{path} is missing or damaged: write the bundle again")
    for array in golden:
        if (folder / array.path).stat().st_size != array.bytes:
            raise UserError(f"{folder / array.path} has not the {array.bytes} bytes of its shape")
    for network in detector:
        if (folder / network.path).stat().st_size != network.bytes:
            raise UserError(f"{folder / network.path} has not the {network.bytes} bytes of its entry")
    size, (steps, width) = (folder / facts.table.path).stat().st_size // 4, facts.table.shape
    if size != steps * width or steps != facts.steps:
        raise UserError(f"{folder / TABLE} has {size} values, not {steps}×{width} for {facts.steps} steps")
    return manifest


def other_files(manifest: dict) -> list[dict]:
    """The entries of all that a bundle consists of beside ``manifest["files"]``: its table, the golden
    vectors, the face detector."""
    arrays = manifest.get("golden", {"arrays": {}})["arrays"]
    networks = manifest.get("detector", {"files": {}})["files"]
    return [manifest["table"], *arrays.values(), *networks.values()]


def copy_files(folder: Path, manifest: dict, kept: list[dict], target: Path) -> None:
    """Make ``target`` a bundle with only the entries ``kept`` of ``manifest["files"]``: their files, all
    else that the bundle at ``folder`` has, and a manifest that lists no more.

    Raises:
        UserError: a file changed since it was verified.
    """
    for entry in (*other_files(manifest), *kept):
        source, copy = folder / entry["path"], target / entry["path"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True)
        else:
            shutil.copyfile(source, copy)
        if artifact_sha256(copy) != entry["sha256"]:  # it changed since it was verified
            raise UserError(f"{source} is damaged: write the bundle again")
    write_json(target / MANIFEST, {**manifest, "files": kept})


def read_table(folder: Path, manifest: dict) -> np.ndarray:
    """The K-row table of time biases: (K, ΣC) float32.

    Raises:
        UserError: its size is not what the manifest says, or a value is not finite.
    """
    return _array(folder, manifest["table"], "float32").astype(np.float32)


def _array(folder: Path, entry: dict, dtype: str) -> np.ndarray:
    """The values of a file without a header, of the shape that its entry in the manifest says."""
    path, kind, count = folder / entry["path"], np.dtype(dtype).newbyteorder("<"), math.prod(entry["shape"])
    data = read_bytes(path)
    if len(data) != count * kind.itemsize:
        raise UserError(f"{path} has {len(data)} bytes, not {count * kind.itemsize}: write the bundle again")
    values = np.frombuffer(data, kind).reshape(entry["shape"])
    if not np.isfinite(values).all():
        raise UserError(f"{path} has values that are not finite: write the bundle again")
    return values


def read_golden(folder: Path, golden: dict) -> GoldenArrays:
    """The arrays of ``golden/``, float32; images as (1, 3, H, W) in [0, 1].

    Raises:
        UserError: as :func:`read_table`.
    """
    arrays = {}
    for name, entry in golden["arrays"].items():
        array = _array(folder, entry, entry["dtype"]).astype(np.float32)
        if entry["dtype"] == "uint8":
            array = np.ascontiguousarray(array.transpose(2, 0, 1)[None] / np.float32(255))
        arrays[name] = array
    return arrays
