"""Each observer picks the range its rule says, from one histogram."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from export.observers import MinMaxObserver, MseObserver, PercentileObserver


def observed(cls: type, *batches: Tensor) -> tuple[float, float]:
    observer = cls(dtype=torch.int8, qscheme=torch.per_tensor_affine, quant_min=-128, quant_max=127)
    for batch in batches:
        observer(batch)
    scale, zero = (value.item() for value in observer.calculate_qparams())
    return (-128 - zero) * scale, (127 - zero) * scale


@pytest.fixture
def tailed() -> Tensor:
    """A unit Gaussian with one value far out."""
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    values[0] = 40.0
    return values


def test_min_max_keeps_every_value(tailed: Tensor) -> None:
    low, high = observed(MinMaxObserver, tailed[:1000], tailed[1000:])
    assert high == pytest.approx(40, rel=0.01)
    assert low == pytest.approx(tailed.min().item(), abs=0.2)


def test_percentile_gives_up_the_tails(tailed: Tensor) -> None:
    low, high = observed(PercentileObserver, tailed)
    assert -4.5 < low < -3.3
    assert 3.3 < high < 4.5


def test_mse_clips_where_the_error_is_smallest(tailed: Tensor) -> None:
    def error(bounds: tuple[float, float]) -> float:
        scale = (bounds[1] - bounds[0]) / 255
        levels = ((tailed - bounds[0]) / scale).round().clamp(0, 255)
        return (levels * scale + bounds[0] - tailed).square().mean().item()

    chosen = observed(MseObserver, tailed)
    assert error(chosen) < 0.9 * error(observed(MinMaxObserver, tailed))
    for factor in (0.8, 1.25):
        assert error(chosen) < 1.02 * error((chosen[0], chosen[1] * factor))


@pytest.mark.parametrize("cls", [MinMaxObserver, PercentileObserver, MseObserver])
def test_ranges_of_one_sign_are_widened_to_zero(cls: type) -> None:
    low, high = observed(cls, torch.linspace(2, 3, 1000))
    assert low == 0
    assert high == pytest.approx(3, rel=0.05)
    low, high = observed(cls, torch.linspace(-3, -2, 1000))
    assert high == pytest.approx(0, abs=1e-6)
    assert low == pytest.approx(-3, rel=0.05)
