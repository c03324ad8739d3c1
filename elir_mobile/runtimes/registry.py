"""Open an artifact with the runtime of its target, as a :class:`Runner` on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from elir_mobile.runtimes.programs import Program, open_programs
from elir_mobile.runtimes.runner import Runner
from elir_mobile.runtimes.table import get_runtime


def open_runner(target: str, path: Path, precision: str, table: Tensor, threads: int | None = None) -> Runner:
    """The runner of the file at ``path``.

    Args:
        target: tells the runtime.
        path: the artifact.
        precision: the recipe's name, for the report.
        table: the K-row table of time biases, (K, ΣC).
        threads: that the runtime may use; None: one for each core.

    Raises:
        UserError: no such target, its runtime is not installed, or the file cannot be loaded.
    """
    return make_runner(target, open_programs(target, path, threads), precision, table)


def make_runner(target: str, programs: Mapping[str, Program], precision: str, table: Tensor) -> Runner:
    """``programs`` on tensors, their step taking the index of its table row."""

    def run(name: str, *inputs: Tensor) -> Tensor:
        return torch.from_numpy(programs[name](*(tensor.numpy() for tensor in inputs)))

    return Runner(
        target,
        precision,
        lambda x: run("encode", x),
        lambda z, k: run("step", z, table[k].view(1, -1, 1, 1)),
        lambda z: run("decode", z),
        timed=not get_runtime(target).interpreted,
    )
