"""Files and folders that appear whole or not at all, and where those lie that are fetched once.

A writer works in a folder of its own beside the final place, ``.NAME.PID.part``, and renames at the end.
What a killed process left there is removed by the next one that writes NAME, once no living process has
that number.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from elir_mobile.core.errors import UserError

NAME_BYTES = 255  # that the name of a file may have, on every file system in use on desktops and phones
FILE_BYTES = 4 << 30  # the largest file that is read from outside
_SPECIAL = "is no regular file: name a file"


@contextmanager
def opened(path: Path, limit: int = FILE_BYTES) -> Iterator[BinaryIO]:
    """A file from outside, opened for reading: a pipe would block, and a device or a socket never end.

    Raises:
        UserError: no regular file is there, it cannot be read, or has more than ``limit`` bytes.
    """
    try:
        # Without waiting for the other end of a pipe, which is then seen to be none of ours.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if getattr(error, "errno", None) == errno.ENXIO:  # of a socket
            reason = _SPECIAL
        raise UserError(f"{path} {reason}") from error
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise UserError(f"{path} {_SPECIAL}")
        if facts.st_size > limit:
            raise UserError(f"{path} has {facts.st_size} bytes, and {limit} are the most that is read")
        yield file


def read_bytes(path: Path, limit: int = FILE_BYTES) -> bytes:
    """The content of a file from outside; raises as :func:`opened`."""
    with opened(path, limit) as file:
        return file.read(limit)


def named(stem: str, tail: str) -> str:
    """A file name of ``stem`` and ``tail``; where that is too long, with a digest for what is cut off."""
    if len(os.fsencode(stem + tail)) <= NAME_BYTES:
        return stem + tail
    mark = f"-{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}{tail}"
    while len(os.fsencode(stem + mark)) > NAME_BYTES:
        stem = stem[:-1]
    return stem + mark


def cache_dir() -> Path:
    """``$ELIR_MOBILE_CACHE``, or ``elir-mobile`` in the user's cache folder."""
    root = os.environ.get("ELIR_MOBILE_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "elir-mobile"


@contextmanager
def written(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """A path that does not exist yet, with the name of ``path``, for the block to make a file or a folder of.

    When the block ends well it becomes ``path``, in place of what is there; if not, it vanishes. ``path``'s
    parent is made.

    Args:
        synced: put its bytes on the disk first. Not worth the wait for thousands of files that can be
            fetched again.

    Raises:
        UserError: the place cannot be written, or the disk is full.
    """
    staging = path.with_name(_staging(path.name, str(os.getpid())))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        staging.mkdir()
    except OSError as error:
        raise _refused(path, error) from error
    try:
        staged = staging / path.name
        yield staged
        if synced:
            _sync(staged)
        if path.is_dir() and not path.is_symlink():  # a folder cannot be replaced in one move
            path.rename(staging / f"{path.name}.old")
        staged.replace(path)
    except OSError as error:
        # Of a full disk the system names no file; trouble with a file elsewhere is not this place's.
        if error.filename is not None and not str(error.filename).startswith(str(staging)):
            raise
        raise _refused(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _refused(path: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"cannot write into {path.parent}: {reason}; choose another place for {path.name}")


def write_text(path: Path, text: str) -> None:
    """``text`` in UTF-8, see :func:`written`."""
    with written(path) as staged:
        staged.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """``value`` as indented JSON; a number that is not finite is a ``ValueError``. See :func:`written`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _clear(path: Path) -> None:
    """Remove what writers of ``path`` left that no longer live, or that had this process's number."""
    for left in path.parent.iterdir():
        owner = left.name.removesuffix(".part").rpartition(".")[2]
        if owner.isdecimal() and left.name == _staging(path.name, owner) and not _lives(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _staging(name: str, owner: str) -> str:
    return named(f".{name}", f".{owner}.part")


def _lives(pid: int) -> bool:
    """Whether another process has this number."""
    if pid == os.getpid():
        return False
    with suppress(PermissionError):  # another user's
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def _sync(path: Path) -> None:
    """Put a file's bytes, or a folder's files', on the disk: a rename may outlive a power cut alone."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
