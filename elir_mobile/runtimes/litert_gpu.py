"""Run a ``.tflite`` on the GPU with LiteRT's compiled model, here on a GPU in software.

On Linux LiteRT's GPU accelerator (ML Drift) is built on WebGPU and Vulkan, with the kernels that it has on
phones in another shading language (https://ai.google.dev/edge/litert/next/gpu). Where ``VK_ICD_FILENAMES``
names no driver, SwiftShader's computes, which comes with Debian's Chromium. Operators that the accelerator
does not take end in an error: nothing falls back to the processor.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.programs import Program
from elir_mobile.runtimes.table import SWIFTSHADER


def _load_vulkan() -> None:
    """Let the accelerator find a Vulkan loader and a driver; once loaded, a library is found by its name.

    Raises:
        UserError: there is none.
    """
    if os.environ.get("VK_ICD_FILENAMES", str(SWIFTSHADER)) != str(SWIFTSHADER):
        return  # the user's own driver, whose loader is where all libraries are
    if not SWIFTSHADER.is_file():
        raise UserError("there is no Vulkan driver: make gpu installs one in software")
    ctypes.CDLL(str(SWIFTSHADER.with_name("libvulkan.so.1")))
    os.environ["VK_ICD_FILENAMES"] = str(SWIFTSHADER)


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Compile the signatures ``names`` of ``path`` for the GPU, with sums in float32.

    Args:
        threads: not used.

    Raises:
        UserError: there is no GPU, the file is damaged, or the accelerator does not take it as a whole.
    """
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.gpu_options import GpuOptions
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import Options

    _load_vulkan()
    options = Options(hardware_accelerators=HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=True))
    try:
        model = CompiledModel.from_file(str(path), options=options)
    except RuntimeError as error:
        raise UserError(f"LiteRT's GPU accelerator does not take {path} as a whole") from error
    signatures = model.get_signature_list()
    if missing := [name for name in names if name not in signatures]:
        raise UserError(f"{path} has no signature '{missing[0]}': export it again")
    return {name: _program(model, name) for name in names}


def _program(model: Any, name: str) -> Program:
    """Signature ``name``, whose buffers are made once."""
    index, listed = model.get_signature_index(name), model.get_signature_list()[name]
    inputs, outputs = model.create_input_buffers(index), model.create_output_buffers(index)
    by_argument = dict(zip(listed["inputs"], inputs, strict=True))
    (output,) = listed["outputs"]
    shape = tuple(int(side) for side in model.get_output_tensor_details(name)[output]["shape"])

    def run(*values: np.ndarray) -> np.ndarray:
        try:
            for number, value in enumerate(values):
                by_argument[f"args_{number}"].write(np.ascontiguousarray(value, np.float32))
            model.run_by_index(index, inputs, outputs)
            return np.array(outputs[0].read(int(np.prod(shape)), np.float32)).reshape(shape)
        except RuntimeError as error:
            raise UserError(f"the GPU did not finish '{name}': it may lack memory or time") from error

    return run
