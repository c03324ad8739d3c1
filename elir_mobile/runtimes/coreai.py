"""Run an ``.aimodel`` in Apple's Core AI runtime, on Linux as on a Mac.

PyPI ``coreai-core`` brings the compiler and the runtime for processors (https://github.com/apple/coreai-torch).
What a phone's GPU or Neural Engine computes it does not show, nor their speed; on macOS 27 the system's own
runtime takes its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.programs import INPUTS, Program


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Compile ``path`` and load its functions ``names``.

    Args:
        threads: not used: the runtime has no such option.

    Raises:
        UserError: the file is missing or damaged, or has not all of the functions.
    """
    if not _is_whole(path):
        raise UserError(f"{path} is damaged or not a Core AI model: export it again")
    with _quiet():
        functions = asyncio.run(_load(path))
    if missing := [name for name in names if name not in functions]:
        raise UserError(f"{path} has no function '{missing[0]}': export it again")
    return {name: partial(_run, name, functions[name]) for name in names}


def _is_whole(path: Path) -> bool:
    """Whether the program is there with the SHA-256 beside it: of any other the runtime ends the process."""
    try:
        program = (path / "main.mlirb").read_bytes()
        return hashlib.sha256(program).digest() == (path / "main.hash").read_bytes()
    except OSError:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that the runtime writes to the process's standard error for each function."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


async def _load(path: Path) -> dict[str, Any]:
    from coreai.authoring import AIModelAsset

    async with AIModelAsset.load(path).executable() as model:
        return {name: model.load_function(name) for name in model.function_names}


def _run(name: str, function: Any, *inputs: np.ndarray) -> np.ndarray:
    from coreai.runtime import NDArray

    values = zip(INPUTS[name], inputs, strict=True)
    arguments = {key: NDArray(np.ascontiguousarray(value, np.float32)) for key, value in values}
    (output,) = asyncio.run(function(arguments)).values()
    return np.array(output.numpy())
