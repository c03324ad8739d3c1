"""The tiler: every pixel is covered, weights sum to one, fades are smooth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elir_mobile.core.tiling import axis_windows


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
