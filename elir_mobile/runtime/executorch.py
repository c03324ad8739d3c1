"""Run a ``.pte`` with ExecuTorch's own Python runtime (XNNPACK delegate, all cores)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from elir_mobile.errors import UserError
from elir_mobile.runtime.runner import Runner


def executorch_runner(path: Path, precision: str, table: Tensor) -> Runner:
    """Load the methods ``encode``, ``step`` and ``decode`` of ``path``.

    Args:
        path: the ``.pte`` file.
        precision: the recipe's name, for the report.
        table: the K-row table of time biases, (K, ΣC).

    Raises:
        UserError: ExecuTorch is not installed, or the file cannot be loaded.
    """
    try:
        from executorch.runtime import Runtime, Verification
    except ImportError as error:
        raise UserError("ExecuTorch is not installed: pip install 'elir-mobile[executorch]'") from error
    try:
        program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
        methods = {name: program.load_method(name) for name in ("encode", "step", "decode")}
    except RuntimeError as error:
        raise UserError(f"{path} is damaged or not an ExecuTorch program: export it again") from error
    missing = [name for name, method in methods.items() if method is None]
    if missing:
        raise UserError(f"{path} has no method '{missing[0]}': export it again")

    def run(name: str, *inputs: Tensor) -> Tensor:
        # The runtime reads memory as if every tensor were contiguous (a picture that was permuted from HWC
        # is not), and hands out views of memory that the next call overwrites.
        return methods[name].execute([tensor.contiguous() for tensor in inputs])[0].clone()

    return Runner(
        "executorch",
        precision,
        lambda x: run("encode", x),
        lambda z, k: run("step", z, table[k].view(1, -1, 1, 1)),
        lambda z: run("decode", z),
    )
