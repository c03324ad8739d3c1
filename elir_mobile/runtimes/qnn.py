"""Run a folder of ``.onnx`` files as a Snapdragon's NPU does, in Qualcomm's own emulator of it.

PyPI ``onnxruntime-qnn`` for x86-64 Linux brings the compiler for the NPU (Hexagon Tensor Processor) and its
emulator, behind an execution provider of ONNX Runtime
(https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html). Operators that the NPU does not
take end in an error: nothing falls back to the processor. Only the arithmetic is the chip's, not the speed.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from elir_mobile.runtimes.onnx import open_sessions, session_options
from elir_mobile.runtimes.programs import Program

CHIP = "SM8750"  # Snapdragon 8 Elite: the first names below are Qualcomm's numbers of it (QnnHtpDevice.h)
OPTIONS = {
    "soc_model": "69",
    "htp_arch": "79",
    "enable_htp_fp16_precision": "1",  # whatever is not quantized is computed in float16
}


@lru_cache(maxsize=1)
def _provider() -> tuple[list[Any], str]:
    """Devices of the provider, which a process can register once, and the library of the NPU."""
    import onnxruntime
    import onnxruntime_qnn

    name = onnxruntime_qnn.get_ep_name()
    onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    return devices[:1], onnxruntime_qnn.get_qnn_htp_path()


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Compile the programs ``names`` of the folder ``path`` for the NPU and load them into its emulator.

    Args:
        threads: of ONNX Runtime; the emulator has its own.

    Raises:
        UserError: a file is missing or damaged, or has an operator that the NPU does not take.
    """
    devices, library = _provider()
    options = session_options(threads)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(devices, {"backend_path": library, **OPTIONS})
    return open_sessions(path, names, options)
