"""Run a ``.tflite`` with LiteRT's Python interpreter."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.programs import Program


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Load the signatures ``names`` of ``path``.

    Args:
        path: the ``.tflite`` file.
        threads: that the interpreter may use.

    Raises:
        UserError: the file cannot be loaded.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        found = interpreter.get_signature_list()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is damaged or not a LiteRT model: export it again") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path} has no signature '{missing[0]}': export it again")

    signatures = {name: interpreter.get_signature_runner(name) for name in names}

    def run(name: str, *inputs: np.ndarray) -> np.ndarray:
        arguments = {f"args_{i}": np.ascontiguousarray(value) for i, value in enumerate(inputs)}
        # A signature returns copies, which the next call does not overwrite.
        out: np.ndarray = signatures[name](**arguments)["output_0"]
        return out

    return {name: partial(run, name) for name in names}
