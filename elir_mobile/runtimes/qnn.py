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

# Snapdragon 8 Gen 2, 8 Gen 3 and 8 Elite: Qualcomm's numbers of the chip (``soc_model``) and of its Hexagon
# (``htp_arch``), https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html.
CHIPS = {"SM8550": (43, 73), "SM8650": (57, 75), "SM8750": (69, 79)}
EMULATED = "SM8750"


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
    return open_sessions(path, names, npu_options(EMULATED, threads))


def npu_options(chip: str, threads: int) -> Any:
    """Options of a session for the NPU of ``chip``, a key of ``CHIPS``: on it as a whole, or not at all."""
    devices, library = _provider()
    model, version = map(str, CHIPS[chip])
    options = session_options(threads)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    facts = {"backend_path": library, "soc_model": model, "htp_arch": version}
    # Whatever is not quantized is computed in float16: such an NPU has no float32.
    options.add_provider_for_devices(devices, {**facts, "enable_htp_fp16_precision": "1"})
    return options
