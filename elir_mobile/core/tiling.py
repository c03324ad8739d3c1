"""Any-size inference: overlapping windows whose raised-cosine weights sum to one at every pixel.

Upstream averages overlapping tiles with equal weights (``ELIR/utils.py:ImageSpliterTh``); where two
tiles differ, that leaves an edge. Here each tile fades in and out over the overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """One window along an axis: it covers ``start`` to ``start + len(weights)``."""

    start: int
    weights: np.ndarray  # float32, what each sample counts; over all windows they sum to 1

    @property
    def stop(self) -> int:
        return self.start + len(self.weights)


def axis_windows(length: int, tile: int, overlap: int) -> list[Window]:
    """Windows of ``tile`` samples, or one of ``length`` if that is less, that cover ``length``.

    Neighbours share at least ``overlap`` samples; the last window is moved back to end with the
    axis, so where ``length``, ``tile`` and ``overlap`` are multiples of a number, every start is.

    Raises:
        ValueError: ``overlap`` is negative or leaves no way forward.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap {overlap} is not within 0 and tile {tile}")
    if length <= tile:
        return [Window(0, np.ones(length, np.float32))]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    ramp = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5  # distance from the nearer end
    bump = np.sin(np.pi / 2 * np.minimum(ramp / max(overlap, 1), 1)) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += bump
    return [Window(s, (bump / total[s : s + tile]).astype(np.float32)) for s in starts]
