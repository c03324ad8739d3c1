"""What is written appears whole or not at all, and what a killed process left goes away."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from android_demo import toolchain
from elir_mobile.core.errors import UserError
from elir_mobile.core.files import write_json, write_text, written

KILLED = """
import os, signal, sys
from pathlib import Path
from elir_mobile.core.files import written
with written(Path(sys.argv[1])) as staged:
    staged.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    with pytest.raises(ValueError), written(path) as staged:
        staged.write_text("half")
        raise ValueError
    assert not list(path.parent.iterdir())
    with written(path) as staged:
        staged.write_text("whole")
        assert staged.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    for text in ("older", "newer"):
        write_text(file, text)
        with written(folder) as staged:
            staged.mkdir()
            (staged / text).write_text(text)
    with pytest.raises(KeyboardInterrupt), written(file):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), written(folder) as staged:
        staged.mkdir()
        raise KeyboardInterrupt
    assert file.read_text() == "newer"
    assert [path.name for path in folder.iterdir()] == ["newer"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x[1].txt"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / path.name).read_text() == "half"
    living = tmp_path / f".{path.name}.{os.getppid()}.part"
    own = tmp_path / f".{path.name}.{os.getpid()}.part"  # of an earlier process with this number
    others = [
        living,
        tmp_path / f".y.txt.{left.name.split('.')[-2]}.part",
        tmp_path / f".{path.name}.tale.part",
    ]
    for folder in (*others, own):
        folder.mkdir()
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for below in ("file/x", "file/deep/x"):
        with pytest.raises(UserError, match="cannot write into .*file.*; choose another place for x"):
            write_text(tmp_path / below, "x")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="No space left on device; choose another"), written(tmp_path / "x"):
        raise full
    with pytest.raises(FileNotFoundError), written(tmp_path / "x"):  # another file's trouble
        (tmp_path / "input").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_has_no_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"value": 1.5})
    assert json.loads((tmp_path / "x.json").read_text()) == {"value": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"value": 1.5}


def test_readers_never_see_a_file_half_written(tmp_path: Path) -> None:
    path, seen, done = tmp_path / "x", set(), threading.Event()
    write_text(path, "a" * 100_000)

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for letter in "bcdefgh":
        write_text(path, letter * 100_000)
    done.set()
    reader.join()
    assert {len(text) for text in seen} == {100_000}


def test_what_an_archive_fails_to_give_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(toolchain, "CACHE", tmp_path / "cache")

    def fetch(folder: Path) -> None:
        with zipfile.ZipFile(folder / "a.whl", "w") as archive:
            archive.writestr(zipfile.ZipInfo("inside"), "content")

    fetch(tmp_path)
    digest = hashlib.sha256((tmp_path / "a.whl").read_bytes()).hexdigest()
    with pytest.raises(UserError, match="do not use it"):
        toolchain.Package("a-1", "0" * 64, fetch, {}).folder()
    assert list((tmp_path / "cache").iterdir()) == []
    found = toolchain.Package("a-1", digest, fetch, {"kept": "inside"}).folder()
    assert (found / "kept").read_text() == "content"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a-1"]
