"""The tiler: every pixel is covered, weights sum to one, fades are smooth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elir_mobile.core.tiling import Sample, axis_windows, level_offsets


@given(st.data())
def test_weights_sum_to_one_at_every_sample(data) -> None:
    length = data.draw(st.integers(16, 3000))
    tile = data.draw(st.integers(1, 600))
    overlap = data.draw(st.integers(0, tile - 1).filter(lambda o: length / (tile - o) < 2000))
    total = np.zeros(length)
    windows = axis_windows(length, tile, overlap)
    for window in windows:
        assert len(window.weights) == min(tile, length)
        assert (window.weights > 0).all()
        total[window.start : window.stop] += window.weights
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert all(a.stop - b.start >= overlap for a, b in zip(windows, windows[1:], strict=False))


@given(st.integers(2, 300), st.integers(1, 20), st.integers(0, 19), st.sampled_from([8, 64]))
def test_multiples_stay_multiples(length: int, tile: int, overlap: int, align: int) -> None:
    windows = axis_windows(length * align, tile * align, min(overlap, tile - 1) * align)
    assert all(window.start % align == 0 for window in windows)


def test_a_tile_fades_in_as_a_raised_cosine() -> None:
    first, second = axis_windows(48, 32, 16)
    phase = np.pi / 2 * (np.arange(16) + 0.5) / 16
    np.testing.assert_allclose(second.weights[:16], np.sin(phase) ** 2, atol=1e-6)
    np.testing.assert_allclose(first.weights[16:], np.cos(phase) ** 2, atol=1e-6)
    assert (first.weights[:16] == 1).all()


@pytest.mark.parametrize("overlap", [-1, 32, 40])
def test_an_overlap_that_cannot_be_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        axis_windows(100, 32, overlap)


@pytest.mark.parametrize("rows", [1, 3])
def test_tiles_of_unlike_levels_are_brought_to_one(rows: int) -> None:
    """Row after row, as a picture is restored: what is left of a step in an overlap is a tenth of it."""
    rng = np.random.default_rng(0)
    truth, wrong = rng.random((32 + 24 * rows, 152)), rng.normal(0, 1, (rows, 6))
    before: list[Sample] = []
    for row in range(rows):
        tiles = [
            Sample(24 * row, 24 * i, truth[24 * row :, 24 * i :][:32, :32] + wrong[row, i]) for i in range(6)
        ]
        lifted = [tile.lifted(by) for tile, by in zip(tiles, level_offsets(tiles, before), strict=True)]
        steps, left = (
            np.array([b.met(a)[1] for a, b in zip(one, one[1:], strict=False)]) for one in (tiles, lifted)
        )
        assert np.abs(left).max() < 0.25 * np.abs(steps).max()
        before += lifted
    assert (
        np.abs(level_offsets([Sample(0, 0, truth[:32, :32]), Sample(0, 24, truth[:32, 24:56])])).max() < 1e-6
    )


def test_levels_do_not_drift() -> None:
    """Forty tiles, each a little lighter at its right than its neighbour at its left."""
    tilted = np.linspace(-1, 1, 32) * np.ones((32, 1))
    offsets = level_offsets([Sample(0, 24 * i, tilted) for i in range(40)])
    assert np.abs(offsets).max() < 4
    assert np.abs(offsets[10:-10]).max() < 0.1
