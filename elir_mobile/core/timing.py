"""Timing one restoration, and taking turns: NumPy alone, for the worker and the harness alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from elir_mobile.core.sampling import PROGRAMS, Loop

Milliseconds = dict[str, float]  # of encode, step, decode and total


def timed_restore(loop: Loop, x: np.ndarray, noise: np.ndarray) -> Milliseconds:
    """Wall time of each program in one restoration of ``x`` (1, 3, H, W), and their ``total``.

    ``step`` is one Euler step: the time of all K divided by K.
    """
    spent = dict.fromkeys(PROGRAMS, 0.0)

    def timed(name: str, *inputs: Any) -> np.ndarray:
        start = time.perf_counter()
        out: np.ndarray = getattr(loop, name)(*inputs)
        spent[name] += 1e3 * (time.perf_counter() - start)
        return out

    encode, step, decode = (partial(timed, name) for name in PROGRAMS)
    Loop(encode, step, decode, loop.steps, loop.sigma_s).restore(x, noise)
    total = sum(spent.values())
    return {**spent, "step": spent["step"] / loop.steps, "total": total}


def shares(runs: int, processes: int) -> list[int]:
    """How many of the runs each of the processes does, one process after the other."""
    return [len(range(start, runs, processes)) for start in range(processes)]


def take_turns(
    runs: Sequence[Callable[[], Milliseconds]],
    *,
    warmup: int,
    count: int,
    advance: Callable[[], None] = lambda: None,
) -> list[list[Milliseconds]]:
    """Call each of ``runs`` in turn, ``warmup + count`` times; the times of the last ``count`` of each.

    A slow spell of the machine so hits all of them, and the k-th times of two of them are neighbours.
    """
    times: list[list[Milliseconds]] = [[] for _ in runs]
    for turn in range(warmup + count):
        for run, record in zip(runs, times, strict=True):
            spent = run()
            if turn >= warmup:
                record.append(spent)
            advance()
    return times
