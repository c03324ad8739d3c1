"""Run a folder of ``.onnx`` files with ONNX Runtime on the processor."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.programs import Program

# Names of each program's inputs, and of its output, in the files.
INPUTS = {"encode": ("image",), "step": ("latent", "row"), "decode": ("latent",)}
OUTPUT = "output"
FATAL = 4  # the only messages that reach the terminal; the rest come as errors


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Load the programs ``names`` of the folder ``path``.

    Args:
        threads: that each program may use.

    Raises:
        UserError: a file is missing or cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = FATAL
    # Without VNNI, products of unsigned and signed bytes overflow the kernels' 16 bits: weights become
    # unsigned (onnxruntime_session_options_config_keys.h, kOrtSessionOptionsAvx2PrecisionMode).
    options.add_session_config_entry("session.x64quantprecision", "1")
    sessions = {}
    for name in names:
        file = path / f"{name}.onnx"
        if not file.is_file():
            raise UserError(f"{path} has no program '{name}': export it again")
        try:
            sessions[name] = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise UserError(f"{file} is damaged or not an ONNX model: export it again") from error

    def run(name: str, *inputs: np.ndarray) -> np.ndarray:
        arguments = {
            key: np.ascontiguousarray(value) for key, value in zip(INPUTS[name], inputs, strict=True)
        }
        out: np.ndarray = sessions[name].run([OUTPUT], arguments)[0]
        return out

    return {name: partial(run, name) for name in names}
