"""Files and folders that appear whole or not at all, and where those lie that are fetched once.

A writer works in a folder of its own beside the final place, ``.NAME.PID-RANDOM.part``, and renames at the
end. While it lives it holds a lock in that folder, which the system takes from it when it is killed; the next
writer beside it removes every such folder that nobody holds. The number alone would not tell: two containers
that share a folder number their processes alike, and threads of one process have one number.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from elir_mobile.core.errors import UserError

LOCK = ".lock"  # the file that the owner of the folder around it holds
OLD = ".old"  # in a writer's folder: what it is about to replace
_STAGING = re.compile(r"\.(.+)\.(\d+)(?:-[0-9a-f]+)?\.part", re.DOTALL)
_making = threading.Lock()  # a folder is not looked at by another thread before its lock is held
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
    with _own_folder(path) as staging:
        try:
            staged = staging / path.name
            yield staged
            if synced:
                _sync(staged)
            if path.is_dir() and not path.is_symlink():  # a folder cannot be replaced in one move
                (staging / OLD).mkdir()
                path.rename(staging / OLD / path.name)
            staged.replace(path)
        except OSError as error:
            # Of a full disk the system names no file; trouble with a file elsewhere is not this place's.
            if error.filename is not None and not str(error.filename).startswith(str(staging)):
                raise
            raise _refused(path, error) from error


@contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that this writer holds, and that vanishes with the block.

    Raises:
        UserError: the place cannot be written.
    """
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _making:
                clear(path)
                # A name that is never used again: others may be about to remove what was called so.
                staging = path.with_name(
                    named(f".{path.name}", f".{os.getpid()}-{secrets.token_hex(4)}.part")
                )
                staging.mkdir()
                held.callback(_remove, staging)
                held.enter_context(_hold(staging / LOCK))
        except OSError as error:
            raise _refused(path, error) from error
        yield staging


def _remove(staging: Path) -> None:
    """Remove a writer's folder; a folder that it was about to replace goes back to its place."""
    if (staging / OLD).is_dir():
        for old in (staging / OLD).iterdir():
            if not (place := staging.with_name(old.name)).exists():
                old.rename(place)
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


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Keep every other process that asks for it out of ``folder`` while the block runs.

    ``folder`` is made, and vanishes if nothing is left in it. The system takes the lock from a process that
    is killed.

    Raises:
        UserError: another process is in it: ``busy``; or the place cannot be written.
    """
    place = folder / LOCK
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(folder, error) from error
        try:
            held.enter_context(_hold(place))
        except (BlockingIOError, FileNotFoundError) as error:  # the second: its owner is just removing it
            raise UserError(busy) from error
        except OSError as error:
            raise _refused(folder, error) from error
        try:
            yield
        finally:
            with suppress(OSError):  # it may have removed the folder, or left something in it
                place.unlink()
                folder.rmdir()


@contextmanager
def _hold(lock: Path) -> Iterator[None]:
    """Hold the file ``lock``, made if need be, which stays.

    Raises:
        BlockingIOError: somebody else does, in this process or another.
        FileNotFoundError: whoever held it before has removed it.
        OSError: it cannot be made.
    """
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:  # a file system without locks: numbers of processes must do
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        if not os.fstat(file.fileno()).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(lock))
        yield


def clear(path: Path) -> None:
    """Remove what writers beside ``path`` left that are no more."""
    for left in path.parent.iterdir():
        found = _STAGING.fullmatch(left.name)
        if not found or _lives(int(found[2])) or left.is_symlink() or not left.is_dir():
            continue
        # Without a lock its writer was killed as it began; another name's may be no writer's at all.
        if (left / LOCK).exists() or found[1] == path.name:
            with suppress(OSError), _hold(left / LOCK):
                _remove(left)


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
