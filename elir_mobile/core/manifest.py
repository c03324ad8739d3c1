"""Reading a bundle with nothing but NumPy: the manifest, the table of time biases, the golden vectors.

This is what a device needs of a bundle (``elir_mobile/bundle.py`` has the format, writes it and builds
tensors on this). A reader trusts nothing: schema, paths and checksums are verified before use.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from elir_mobile.core.errors import UserError

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
TABLE = "steps.bin"

GoldenArrays = dict[str, np.ndarray]


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def artifact_sha256(path: Path) -> str:
    """SHA-256 of an artifact. Of a package folder: over its files' relative names and digests."""
    if not path.is_dir():
        return sha256_of(path)
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    lines = "".join(f"{sha256_of(path / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def bytes_of(path: Path) -> int:
    """Size of an artifact: a file's, or the sum over the files of a package folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def read_manifest(folder: Path, files: tuple[str, ...] | None = None) -> dict:
    """The manifest of the bundle at ``folder``, after everything it names was verified.

    Args:
        files: artifacts to verify, by path; None: all. A device may have been given some only.

    Raises:
        UserError: missing, damaged, newer than this package, or naming a path outside itself.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        version = manifest["schema_version"]
        if version > SCHEMA_VERSION:  # before anything else is read: a newer one may have other keys
            raise UserError(
                f"{folder} was made by a newer elir-mobile (bundle schema {version}, this one reads "
                f"{SCHEMA_VERSION}): update elir-mobile"
            )
        if version not in range(1, SCHEMA_VERSION + 1):
            raise ValueError(version)
        golden = manifest.get("golden", {"arrays": {}})["arrays"].values()
        artifacts = [entry for entry in manifest["files"] if files is None or entry["path"] in files]
        checks = [
            (str(entry["path"]), str(entry["sha256"])) for entry in [manifest["table"], *golden, *artifacts]
        ]
        steps, width = manifest["table"]["shape"]
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not a bundle: it has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST} is damaged: write the bundle again") from error
    root = folder.resolve()
    for relative, sha256 in checks:
        path = (folder / relative).resolve()
        if not path.is_relative_to(root):
            raise UserError(f"{folder / MANIFEST} names {relative}, which is outside the bundle")
        if not path.exists() or artifact_sha256(path) != sha256:
            raise UserError(f"{path} is missing or damaged: write the bundle again")
    size = (folder / manifest["table"]["path"]).stat().st_size // 4
    if size != steps * width:
        raise UserError(f"{folder / TABLE} has {size} values, not {steps}×{width}")
    return manifest


def read_table(folder: Path, manifest: dict) -> np.ndarray:
    """The K-row table of time biases: (K, ΣC) float32."""
    entry = manifest["table"]
    values = np.fromfile(folder / entry["path"], "<f4")
    return values.reshape(entry["shape"]).astype(np.float32)


def read_golden(folder: Path, golden: dict) -> GoldenArrays:
    """The arrays of ``golden/``, float32; images as (1, 3, H, W) in [0, 1]."""
    arrays = {}
    for name, entry in golden["arrays"].items():
        values = np.fromfile(folder / entry["path"], np.dtype(entry["dtype"]).newbyteorder("<"))
        array = values.reshape(entry["shape"]).astype(np.float32)
        if entry["dtype"] == "uint8":
            array = np.ascontiguousarray(array.transpose(2, 0, 1)[None] / np.float32(255))
        arrays[name] = array
    return arrays
