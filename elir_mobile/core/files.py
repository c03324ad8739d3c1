"""Files and folders that appear whole or not at all, and where those lie that are fetched once.

A writer works in a folder of its own beside the final place, ``.NAME.PID.part``, and renames at the end.
What a killed process left there is removed by the next one that writes NAME, once no living process has
that number.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from elir_mobile.core.errors import UserError


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
    staging = path.with_name(f".{path.name}.{os.getpid()}.part")
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
    head, tail = f".{path.name}.", ".part"
    for left in path.parent.iterdir():
        owner = left.name.removeprefix(head).removesuffix(tail)
        if left.name == f"{head}{owner}{tail}" and owner.isdecimal() and not _lives(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


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
