"""Open an artifact with the runtime of its target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from elir_mobile.errors import UserError
from elir_mobile.runtime.coreml import coreml_runner
from elir_mobile.runtime.executorch import executorch_runner
from elir_mobile.runtime.litert import litert_runner
from elir_mobile.runtime.runner import Runner

RUNNERS: dict[str, Callable[[Path, str, Tensor], Runner]] = {
    "executorch": executorch_runner,
    "litert": litert_runner,
    "coreml": coreml_runner,
}


def open_runner(target: str, path: Path, precision: str, table: Tensor) -> Runner:
    """The runner of the file at ``path``.

    Args:
        target: names the runtime.
        path: the artifact.
        precision: the recipe's name, for the report.
        table: the K-row table of time biases, (K, ΣC).

    Raises:
        UserError: no such target, its runtime is not installed, or the file cannot be loaded.
    """
    if target not in RUNNERS:
        raise UserError(f"unknown target '{target}': choose from {', '.join(RUNNERS)}")
    return RUNNERS[target](path, precision, table)
