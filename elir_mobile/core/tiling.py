"""Any-size inference: overlapping windows whose raised-cosine weights sum to one at every pixel.

Upstream averages overlapping tiles with equal weights (``ELIR/utils.py:ImageSpliterTh``); where two
tiles differ, that leaves an edge. Here each tile fades in and out over the overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


HOLD = 0.05  # how strongly a tile keeps its own level, against the share of it that overlaps others


@dataclass(frozen=True)
class Sample:
    """A tile's values, reduced: ``top`` and ``left`` in the reduced picture, ``values`` (height, width)."""

    top: int
    left: int
    values: np.ndarray

    def lifted(self, by: float) -> Sample:
        """The same tile, ``by`` lighter."""
        return replace(self, values=self.values + by)

    def met(self, other: Sample) -> tuple[float, float]:
        """The share of this tile that ``other`` overlaps, and by how much ``other`` is lighter in the middle
        of that: a network's padding shows along the borders of its tiles."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        height, width = self.values.shape
        bottom, right = min(self.top + height, other.top + height), min(self.left + width, other.left + width)
        if bottom <= top or right <= left:
            return 0.0, 0.0
        ours, theirs = (
            one.values[top - one.top : bottom - one.top, left - one.left : right - one.left]
            for one in (self, other)
        )
        inner = tuple(slice(side // 4, side - side // 4) for side in ours.shape)
        return ours.size / self.values.size, float((theirs - ours)[inner].mean())


def level_offsets(tiles: Sequence[Sample], before: Sequence[Sample] = ()) -> np.ndarray:
    """What to add to each tile so that all have one level where they overlap.

    A network whose norms see the tile makes each a little lighter or darker, and on a smooth ground the fade
    between two such tiles is seen as a line. Least squares over the overlaps, as for the gains of a panorama
    (Brown and Lowe 2007, section 6). Offsets are drawn towards 0, so that levels do not drift.

    Args:
        tiles: of one size.
        before: tiles that stay as they are.

    Returns:
        (len(tiles),) float32.
    """
    system, sides = HOLD * np.eye(len(tiles)), np.zeros(len(tiles))
    for i, tile in enumerate(tiles):
        for other in before:
            share, lighter = tile.met(other)
            system[i, i] += share
            sides[i] += share * lighter
        for j, other in enumerate(tiles[:i]):
            share, lighter = tile.met(other)
            system[[i, j], [i, j]] += share
            system[[i, j], [j, i]] -= share
            sides[[i, j]] += share * lighter, -share * lighter
    return np.linalg.solve(system, sides).astype(np.float32)
