"""What is written appears whole or not at all, and what a killed process left goes away."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from android_demo import toolchain
from elir_mobile.checkpoints import download
from elir_mobile.core.errors import UserError
from elir_mobile.core.files import locked, write_json, write_text, written

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


def left_by_a_killed_process(path: Path, script: str = KILLED) -> Path:
    """The folder of a writer of ``path`` that was killed."""
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(path.parent.iterdir()) - before - {path}
    return left


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x[1].txt"
    left = left_by_a_killed_process(path)
    assert (left / path.name).read_text() == "half"
    left_by_a_killed_process(tmp_path / "y.txt")  # which nobody may ever write again
    dead = left.name.split(".")[-2].partition("-")[0]
    own = tmp_path / f".{path.name}.{os.getpid()}.part"  # of an earlier process with this number
    others = [
        tmp_path / f".{path.name}.{os.getppid()}.part",  # of a living one
        tmp_path / f".y.txt.{dead}.part",  # not a writer's: nothing in it was ever locked
        tmp_path / f".{path.name}.tale.part",
    ]
    for folder in (*others, own):
        folder.mkdir()
    (tmp_path / f".z.{dead}.part").symlink_to(others[0])
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others, tmp_path / f".z.{dead}.part"])


def test_a_download_that_is_there_is_cleared_of_another_that_was_killed(tmp_path: Path) -> None:
    target = tmp_path / "x.pth"
    target.write_bytes(b"whole")
    for _ in range(2):  # the first time its digest is written, too
        left_by_a_killed_process(target)
        assert download("https://nowhere.example/x.pth", tmp_path) == target
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pth", "x.pth.sha256"]


def test_a_writer_is_not_cleared_by_another_process_with_its_number(tmp_path: Path) -> None:
    """Two containers that share a folder: here the number in the folder's name is that of a dead process."""
    path = tmp_path / "x.txt"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with written(path) as staged:
        staged.write_text("whole")
        elsewhere = staged.parent.rename(tmp_path / f".x.txt.{dead.pid}.part")
        write_text(tmp_path / "y.txt", "")
        write_text(path, "other")
        assert (elsewhere / "x.txt").read_text() == "whole"
        elsewhere.rename(staged.parent)
    assert path.read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.txt", "y.txt"]


def test_many_writers_of_one_name_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    failed: list[BaseException] = []

    def write(letter: str) -> None:
        try:
            for _ in range(20):
                with written(path, synced=False) as staged:
                    staged.write_text(letter * 1000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


BETWEEN = """
import os, signal, sys
from pathlib import Path
from elir_mobile.core.files import written
Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
with written(Path(sys.argv[1])) as staged:
    staged.mkdir()
    (staged / "newer").touch()
"""


def test_a_folder_outlives_a_writer_that_is_killed_as_it_replaces_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "older").touch()
    left = left_by_a_killed_process(folder, BETWEEN)
    assert not folder.exists()  # it was just moved out of the way
    write_text(tmp_path / "x", "")
    assert [path.name for path in folder.iterdir()] == ["older"]
    assert not left.exists()


def test_a_folder_comes_back_where_it_cannot_be_replaced(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "older").touch()

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="No space left"), written(folder) as staged:
        staged.mkdir()
    assert [path.name for path in folder.iterdir()] == ["older"]
    assert list(tmp_path.iterdir()) == [folder]


HOLDING = """
import sys
from pathlib import Path
from elir_mobile.core.files import locked
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_one_process_s_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(folder)], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="^busy$"), locked(folder, "busy"):
            pass
        holder.kill()
    with locked(folder, "busy"):
        with pytest.raises(UserError, match="^busy$"), locked(folder, "busy"):
            pass
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]
    (folder / "kept").unlink()
    with locked(folder, "busy"):
        pass
    assert not folder.exists()
    with locked(folder, "busy"):  # its owner may remove it
        shutil.rmtree(folder)
    with pytest.raises(UserError, match="cannot write into"), locked(Path("/proc/self/x"), "busy"):
        pass


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
