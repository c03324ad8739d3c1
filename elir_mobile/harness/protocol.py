"""How latency is measured: warm-ups, interleaved runs, median with its interval and 90th percentile.

Runs of the compared artifacts alternate, so that a slow spell of the machine hits all of them; each run
is one whole restoration with the programs timed inside it (``timing.py``).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elir_mobile.core.machine import cpu_facts
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.core.statistics import bootstrap
from elir_mobile.core.timing import take_turns, timed_restore
from elir_mobile.runtimes.runner import Runner

Facts = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """Counts of runs for each artifact; ``threads`` for PyTorch and ExecuTorch alike."""

    warmups: int = 3
    runs: int = 20
    threads: int = os.cpu_count() or 1

    def to_json(self) -> dict:
        """With the order of the runs in words."""
        order = "artifacts alternate, one whole restoration each"
        return {**asdict(self), "order": order, "statistic": "median and 90th percentile"}


def latency_facts(runs_ms: Sequence[float]) -> Facts:
    """``{median, p90, low, high, runs}`` in milliseconds; from ``low`` to ``high`` lies the median with
    95 % confidence, by bootstrap over the runs. None without runs: where no latency is claimed."""
    if not runs_ms:
        return {**dict.fromkeys(("median", "p90", "low", "high")), "runs": []}
    values = np.array(runs_ms)
    low, high = bootstrap(lambda chosen: float(np.median(values[chosen])), len(values)) or (None, None)
    return {
        "median": float(np.median(values)),
        "p90": float(np.percentile(values, 90)),
        "low": low,
        "high": high,
        "runs": values.tolist(),
    }


def measure(
    runners: list[Runner],
    x: Tensor,
    noise: Tensor,
    *,
    steps: int,
    sigma_s: float,
    protocol: Protocol,
    advance: Callable[[], None] = lambda: None,
) -> list[dict[str, Facts]]:
    """Latency of each runner in this process: of ``total``, ``encode``, ``step`` and ``decode``, see
    :func:`latency_facts`."""
    inputs = (x.numpy(), noise.numpy())
    turns = [partial(timed_restore, runner.loop(steps, sigma_s), *inputs) for runner in runners]
    times = take_turns(turns, warmup=protocol.warmups, count=protocol.runs, advance=advance)
    return [
        {name: latency_facts([run[name] for run in runs]) for name in ("total", *PROGRAMS)} for runs in times
    ]


def machine_facts() -> dict[str, object]:
    """Processor, its vector extensions, memory and versions: what a latency depends on."""
    return {**cpu_facts(), "python": platform.python_version(), "versions": package_versions()}


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that shape an artifact."""
    found = {}
    for name in ("torch", "torchao", "executorch", "litert-torch", "ai-edge-quantizer", "coremltools"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def set_threads(protocol: Protocol) -> None:
    """Give PyTorch the protocol's thread count; ExecuTorch's pool takes every core by itself."""
    torch.set_num_threads(protocol.threads)
