"""Run a folder of ``.onnx`` files with ONNX Runtime on the processor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.programs import INPUTS, Program

OUTPUT = "output"  # name of each program's output in the files
FATAL = 4  # the only messages that reach the terminal; the rest come as errors
NOT_WHOLE = "fallback to CPU EP has been explicitly disabled"  # in the error of a session that wants all


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Load the programs ``names`` of the folder ``path``.

    Args:
        threads: that each program may use.

    Raises:
        UserError: a file is missing or cannot be loaded.
    """
    options = session_options(threads)
    # Without VNNI, products of unsigned and signed bytes overflow the kernels' 16 bits: weights become
    # unsigned (onnxruntime_session_options_config_keys.h, kOrtSessionOptionsAvx2PrecisionMode).
    options.add_session_config_entry("session.x64quantprecision", "1")
    return open_sessions(path, names, options, ["CPUExecutionProvider"])


def session_options(threads: int) -> Any:
    """Options of a session, without any provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = FATAL
    return options


def open_session(
    file: Path, options: Any, providers: list[str] | None = None, content: bytes | None = None
) -> Any:
    """A session of one ``.onnx`` file, on ``providers`` or those that ``options`` name.

    Args:
        content: of a model that was made from ``file``, where that is no ``.onnx`` file itself.

    Raises:
        UserError: it cannot be loaded, or is to run on a chip that does not take all of it.
    """
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(content or file, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        if NOT_WHOLE in str(error):
            raise UserError(f"{file} has operators that the chip does not take") from error
        raise UserError(f"{file} is damaged or not an ONNX model: export it again") from error


def open_sessions(
    path: Path, names: tuple[str, ...], options: Any, providers: list[str] | None = None
) -> dict[str, Program]:
    """The programs ``names`` of the folder ``path``, on ``providers`` or those that ``options`` name."""
    sessions = {}
    for name in names:
        file = path / f"{name}.onnx"
        if not file.is_file():
            raise UserError(f"{path} has no program '{name}': export it again")
        sessions[name] = open_session(file, options, providers)

    def run(name: str, *inputs: np.ndarray) -> np.ndarray:
        arguments = {
            key: np.ascontiguousarray(value) for key, value in zip(INPUTS[name], inputs, strict=True)
        }
        out: np.ndarray = sessions[name].run([OUTPUT], arguments)[0]
        return out

    return {name: partial(run, name) for name in names}
