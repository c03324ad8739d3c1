"""How latency is measured: warm-ups, interleaved runs, median and 90th percentile.

Runs of the compared artifacts alternate within one process, so that a slow spell of the machine
hits all of them; each run is one whole restoration with the programs timed inside it.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elir_mobile.runtime.runner import Runner

PROGRAMS = ("encode", "step", "decode")


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


def latency_stats(seconds: list[float]) -> dict[str, float]:
    """``{median, p90}`` in milliseconds."""
    milliseconds = np.array(seconds) * 1e3
    return {"median": float(np.median(milliseconds)), "p90": float(np.percentile(milliseconds, 90))}


def measure(
    runners: list[Runner],
    x: Tensor,
    noise: Tensor,
    *,
    steps: int,
    sigma_s: float,
    protocol: Protocol,
    advance: Callable[[], None] = lambda: None,
) -> list[dict[str, dict[str, float]]]:
    """Latency of each runner: ``{"whole" | "encode" | "step" | "decode": {median, p90}}`` in ms.

    ``step`` is one Euler step: the time of all K divided by K.
    """
    seconds: list[dict[str, list[float]]] = [{name: [] for name in ("whole", *PROGRAMS)} for _ in runners]
    for run in range(protocol.warmups + protocol.runs):
        for runner, record in zip(runners, seconds, strict=True):
            spent = dict.fromkeys(PROGRAMS, 0.0)
            _timed(runner, spent).restore(x, noise, steps=steps, sigma_s=sigma_s)
            if run >= protocol.warmups:
                record["whole"].append(sum(spent.values()))
                record["encode"].append(spent["encode"])
                record["step"].append(spent["step"] / steps)
                record["decode"].append(spent["decode"])
            advance()
    return [{name: latency_stats(values) for name, values in record.items()} for record in seconds]


def _timed(runner: Runner, spent: dict[str, float]) -> Runner:
    """``runner`` with the wall time of each program added up in ``spent``."""

    def timed(name: str, program: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*inputs: object) -> Tensor:
            start = time.perf_counter()
            out = program(*inputs)
            spent[name] += time.perf_counter() - start
            return out

        return call

    return Runner(
        runner.target,
        runner.precision,
        timed("encode", runner.encode),
        timed("step", runner.step),
        timed("decode", runner.decode),
    )


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
    """Installed versions of the packages that shape an artifact."""
    found = {}
    for name in ("torch", "torchao", "executorch", "litert-torch", "ai-edge-quantizer", "coremltools"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def set_threads(protocol: Protocol) -> None:
    """Give PyTorch the protocol's thread count; ExecuTorch's pool takes every core by itself."""
    torch.set_num_threads(protocol.threads)
