"""How latency is measured: warm-ups, runs in turn, median with its interval and 90th percentile.

Files take turns, so that a slow spell of the machine hits all of them; each run is one whole restoration
with the programs timed inside it (``core/timing.py``).
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from elir_mobile.core.machine import cpu_facts
from elir_mobile.core.statistics import bootstrap
from elir_mobile.core.timing import shares
from elir_mobile.runtimes.table import package_versions

Facts = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """How often each file is run.

    Attributes:
        threads: that each runtime may use.
        warmups: restorations before those that count, in each process.
        runs: restorations that count, shared by the processes; 0: nothing is timed.
        cold_starts: fresh processes of each file, one after the other.
    """

    threads: int = os.cpu_count() or 1
    warmups: int = 3
    runs: int = 60
    cold_starts: int = 3

    def to_json(self) -> dict:
        """With the order of the runs and the statistics in words."""
        return {
            **asdict(self),
            "order": f"each file in a process of its own, in {self.cold_starts} one after the other, "
            "processes take turns, one whole restoration each after an untimed one",
            "statistic": "median, its 95 % bootstrap interval over the "
            + ("processes" if self.cold_starts > 1 else "runs of the one process")
            + ", 90th percentile",
        }


def latency_facts(runs_ms: Sequence[float], processes: int = 1) -> Facts:
    """``{median, p90, low, high, runs}`` in milliseconds; from ``low`` to ``high`` lies the median with
    95 % confidence, by bootstrap over the processes that did the runs, or over the runs where one process
    did them all. None without runs: where no latency is claimed."""
    if not runs_ms:
        return {**dict.fromkeys(("median", "p90", "low", "high")), "runs": []}
    values = np.array(runs_ms)
    process = np.repeat(np.arange(processes), shares(len(values), processes)).tolist()
    found = bootstrap(
        lambda chosen: float(np.median(values[chosen])),
        len(values),
        clusters=process if processes > 1 else None,
    )
    low, high = found or (None, None)
    return {
        "median": float(np.median(values)),
        "p90": float(np.percentile(values, 90)),
        "low": low,
        "high": high,
        "runs": values.tolist(),
    }


def machine_facts() -> dict[str, object]:
    """Processor, its vector extensions, memory and versions: what a latency depends on."""
    return {**cpu_facts(), "python": platform.python_version(), "versions": package_versions()}


def code_revision() -> str:
    """Version of this package, and the commit where it runs from a checkout; ``+`` after it: with changes."""
    said = version("elir-mobile")
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changes = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/*.py"], capture_output=True)
    except FileNotFoundError:  # no git here
        return said
    if commit.returncode:
        return said
    return f"{said} {commit.stdout.strip()}{'+' if changes.returncode else ''}"
