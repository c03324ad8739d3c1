"""How latency is measured: warm-ups, interleaved runs, median with its interval and 90th percentile.

Runs of the compared artifacts alternate, so that a slow spell of the machine hits all of them; each run
is one whole restoration with the programs timed inside it (``timing.py``).
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elir_mobile.core.timing import take_turns, timed_restore
from elir_mobile.runtimes.programs import PROGRAMS
from elir_mobile.runtimes.runner import Runner
from elir_mobile.runtimes.table import RUNTIMES, installed_versions

RESAMPLES = 1000
Facts = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """Counts of runs for each artifact; ``threads`` for PyTorch and every runtime alike."""

    warmups: int = 3
    runs: int = 20
    threads: int = os.cpu_count() or 1

    def to_json(self) -> dict:
        """With the order of the runs in words."""
        order = "artifacts alternate, one whole restoration each"
        return {**asdict(self), "order": order, "statistic": "median and 90th percentile"}


def resampled(count: int) -> np.ndarray:
    """Indices of ``count`` runs drawn with replacement, ``RESAMPLES`` times: (RESAMPLES, count)."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic's resampled values (Efron 1979)."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def latency_facts(runs_ms: Sequence[float]) -> Facts:
    """``{median, p90, low, high, runs}`` in milliseconds; from ``low`` to ``high`` lies the median with
    95 % confidence, by bootstrap over the runs. None without runs: where no latency is claimed."""
    if not runs_ms:
        return {**dict.fromkeys(("median", "p90", "low", "high")), "runs": []}
    values = np.array(runs_ms)
    low: float | None = None
    high: float | None = None
    if len(values) > 1:
        low, high = interval(np.median(values[resampled(len(values))], axis=1))
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
    model, flags = platform.processor(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = value
    vector = [f for f in flags.split() if f.startswith(("avx", "fma", "amx", "asimd", "i8mm", "sve"))]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": model,
        "cores": os.cpu_count(),
        "cpu_flags": sorted(vector),
        "python": platform.python_version(),
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that shape an artifact, this one's among them."""
    packages = [package for runtime in RUNTIMES.values() for package in runtime.packages]
    return installed_versions(["elir-mobile", "torch", *packages])


def peak_memory_bytes(*, of_children: bool = False) -> int:
    """Largest resident size so far of this process, or of the largest of its children that have ended."""
    who = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
    peak = resource.getrusage(who).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def set_threads(protocol: Protocol) -> None:
    """Give PyTorch the protocol's thread count."""
    torch.set_num_threads(protocol.threads)
