"""Statistics of measurements: confidence intervals by bootstrap, and signal-to-noise ratios in dB."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elir_mobile.core.errors import UserError

CONFIDENCE = 0.95
RESAMPLES = 1000


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    count: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> tuple[float, float] | None:
    """95 % confidence interval of a statistic of ``count`` values (Efron 1979).

    The resampled statistic's quantiles, moved so that their mean is the statistic itself: drawing with
    replacement makes a Fréchet distance larger, which is no property of the pictures.

    Args:
        statistic: of the values at these indices, (count,).
        count: how many values there are; fewer than two have no interval.
        resamples: how often to draw.
        seed: of the draws: equal ones pair the values of two statistics.
        clusters: of each value; those of one cluster are drawn together (Davison and Hinkley 1997, section
            3.8): two crops of a photograph, or two runs of a process, say less than two of different ones.
    """
    labels = range(count) if clusters is None else clusters
    members = [[i for i in range(count) if labels[i] == label] for label in dict.fromkeys(labels)]
    if len(members) < 2:
        return None
    rng = np.random.default_rng(seed)
    indices = [np.array(group) for group in members]
    picks = (rng.integers(len(members), size=len(members)) for _ in range(resamples))
    drawn = np.array([statistic(np.concatenate([indices[i] for i in pick])) for pick in picks])
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = statistic(np.arange(count))
    shift = value - drawn.mean()
    return float(min(low + shift, value)), float(max(high + shift, value))


@dataclass
class Sqnr:
    """Signal and error energy, summed over any number of arrays or tensors."""

    signal: float = 0.0
    error: float = 0.0

    def add(self, reference: Any, out: Any) -> None:
        """What ``out`` has of ``reference``; both of one shape."""
        wanted, found = np.asarray(reference, np.float64), np.asarray(out, np.float64)
        self.signal += float(np.square(wanted).sum())
        self.error += float(np.square(wanted - found).sum())

    def decibels(self) -> float:
        """``10·log10(Σref² / Σ(ref - out)²)``; infinite where the two are equal, minus infinity where
        something in ``out`` is not finite, or all of the reference is zero."""
        if self.error == 0:
            return math.inf
        if self.signal == 0 or not math.isfinite(self.error):
            return -math.inf
        return 10 * math.log10(self.signal / self.error)

    @property
    def db(self) -> float | None:
        """:func:`unless_equal` of the decibels."""
        return unless_equal(self.decibels())


def sqnr_db(reference: Any, out: Any) -> float:
    """:class:`Sqnr` of two arrays or tensors of one shape, in dB."""
    energy = Sqnr()
    energy.add(reference, out)
    return energy.decibels()


def psnr_db(reference: np.ndarray, out: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 1]; infinite where the two are equal, minus
    infinity where something in ``out`` is not finite."""
    error = float(np.square(np.asarray(reference, np.float64) - np.asarray(out, np.float64)).mean())
    if error == 0:
        return math.inf
    return -10 * math.log10(error) if math.isfinite(error) else -math.inf


def unless_equal(db: float) -> float | None:
    """``db`` for JSON, which has no infinity: None where the two were equal to the last bit.

    Raises:
        UserError: what was compared is not finite, which nothing in a report may hide.
    """
    if not db > -math.inf:
        raise UserError("an output has values that are not finite: leave its file out, or export it anew")
    return None if db == math.inf else db
