"""Checkpoints of a run: whole on the disk before they are needed, and the one before the last kept.

Both training loops write through :func:`write_checkpoint`. Lightning's own way goes by the system's folder
for temporary files, from which a move onto another file system is a copy that can break off.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from elir_mobile.core.errors import UserError, say


def write_checkpoint(content: dict[str, Any], last: Path) -> None:
    """``content`` as ``last``, on the disk before the one before it becomes :func:`previous`."""
    staged, data = last.with_name(f"staged{last.suffix}"), io.BytesIO()
    torch.save(content, data)  # not into the file: of a full disk it raises an error of its own
    with staged.open("wb") as file:
        file.write(data.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    if last.exists():
        last.replace(previous(last))
    staged.replace(last)
    folder = os.open(last.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the names, too
    finally:
        os.close(folder)


def previous(last: Path) -> Path:
    """Where the checkpoint before ``last`` lies."""
    return last.with_name(f"previous{last.suffix}")


def read_checkpoint(last: Path, tell: Callable[[str], None] = say) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a run and where it lies; None where the run has none.

    Args:
        tell: is told of a damaged one.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    damaged = [path for path in (last, previous(last)) if path.exists()]
    for path in list(damaged):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # torch.load raises many kinds for files that are no checkpoint
            continue
        if damaged[0] != path:
            tell(f"{damaged[0]} is damaged: going on from {path.name}, the one before it")
        return path, content
    if damaged:
        raise UserError(f"{last} is damaged, and no earlier one is whole: remove it to begin anew")
    return None
