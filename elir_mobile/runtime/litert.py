"""Run a ``.tflite`` with LiteRT's Python interpreter (XNNPACK delegate, all cores)."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from elir_mobile.errors import UserError
from elir_mobile.runtime.runner import Runner


def litert_runner(path: Path, precision: str, table: Tensor) -> Runner:
    """Load the signatures ``encode``, ``step`` and ``decode`` of ``path``.

    Args:
        path: the ``.tflite`` file.
        precision: the recipe's name, for the report.
        table: the K-row table of time biases, (K, ΣC).

    Raises:
        UserError: LiteRT is not installed, or the file cannot be loaded.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError("LiteRT is not installed: pip install 'elir-mobile[litert]'") from error
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
        found = interpreter.get_signature_list()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is damaged or not a LiteRT model: export it again") from error
    missing = [name for name in ("encode", "step", "decode") if name not in found]
    if missing:
        raise UserError(f"{path} has no signature '{missing[0]}': export it again")
    signatures = {name: interpreter.get_signature_runner(name) for name in found}

    def run(name: str, *inputs: Tensor) -> Tensor:
        arguments = {f"args_{i}": tensor.contiguous().numpy() for i, tensor in enumerate(inputs)}
        # A signature returns copies, which the next call does not overwrite.
        return torch.from_numpy(signatures[name](**arguments)["output_0"])

    return Runner(
        "litert",
        precision,
        lambda x: run("encode", x),
        lambda z, k: run("step", z, table[k].view(1, -1, 1, 1)),
        lambda z: run("decode", z),
    )
