"""Bundles are written whole or not at all, and read with suspicion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from elir_mobile.bundle import building, file_entry, read_bundle, write_manifest, write_table
from elir_mobile.errors import UserError

TABLE = torch.arange(6, dtype=torch.float32).view(2, 3)


def write(target: Path, content: bytes = b"program") -> Path:
    with building(target) as staging:
        (staging / "executorch").mkdir()
        path = staging / "executorch" / "a.pte"
        path.write_bytes(content)
        entry = file_entry(staging, path, target="executorch", precision="fp32")
        write_manifest(staging, {"table": write_table(staging, TABLE), "files": [entry]})
    return target


def test_what_is_written_is_read(tmp_path: Path) -> None:
    bundle = read_bundle(write(tmp_path / "out" / "b"))
    assert torch.equal(bundle.table, TABLE)
    assert bundle.file("executorch", "fp32").read_bytes() == b"program"
    with pytest.raises(UserError, match="no executorch file at w8a8"):
        bundle.file("executorch", "w8a8")


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), building(tmp_path / "b") as staging:
        (staging / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_earlier_bundle(tmp_path: Path) -> None:
    write(tmp_path / "b")
    with pytest.raises(RuntimeError), building(tmp_path / "b"):
        raise RuntimeError
    assert read_bundle(tmp_path / "b").file("executorch", "fp32").read_bytes() == b"program"
    write(tmp_path / "b", b"newer")
    assert read_bundle(tmp_path / "b").file("executorch", "fp32").read_bytes() == b"newer"


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a bundle"), building(tmp_path / "b"):
        pass
    assert (tmp_path / "b" / "thesis.txt").exists()


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write into"), building(tmp_path / "file" / "b"):
        pass


def edit(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=99), "schema 99"),
        (lambda m: m["files"][0].update(path="../../etc/passwd"), "outside the bundle"),
        (lambda m: m["files"][0].update(sha256="0" * 64), "missing or damaged"),
        (lambda m: m["files"][0].update(path="gone.pte"), "missing or damaged"),
        (lambda m: m["table"].update(shape=[3, 3]), "not 3×3"),
        (lambda m: m.pop("table"), "is damaged"),
        (lambda m: m.update(files=[7]), "is damaged"),
    ],
)
def test_bad_manifests_are_refused(tmp_path: Path, change, message: str) -> None:
    folder = write(tmp_path / "b")
    edit(folder, change)
    with pytest.raises(UserError, match=message):
        read_bundle(folder)


def test_damaged_artifact_and_absent_bundle_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    (folder / "executorch" / "a.pte").write_bytes(b"progrbm")
    with pytest.raises(UserError, match="missing or damaged"):
        read_bundle(folder)
    with pytest.raises(UserError, match="not a bundle"):
        read_bundle(tmp_path / "none")
