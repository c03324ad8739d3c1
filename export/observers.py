"""How the range of an activation is chosen from what calibration saw: three rules on one histogram.

The classes plug into PT2E and into the simulation alike. ``MinMaxObserver`` keeps every value,
``PercentileObserver`` gives up a fixed share of the tails, ``MseObserver`` clips where the expected
squared error of rounding and clipping together is smallest (Banner et al. 2019, by search).
``docs/quantization.md`` has what each is worth here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchao.quantization.pt2e.observer import HistogramObserver

TAIL = 1e-4  # share of values that the percentile rule gives up at either end
SHRINKS = 41  # candidates for each end of the range in the search for the smallest error
MAX_SHRINK = 0.8  # the narrowest candidate keeps a fifth of each end
LEVELS = 255


class MinMaxObserver(HistogramObserver):
    """The whole range."""

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        return self.min_val, self.max_val


class PercentileObserver(HistogramObserver):
    """All but ``TAIL`` of the values at either end."""

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        share = self.histogram.double().cumsum(0) / self.histogram.double().sum()
        width = (self.max_val - self.min_val) / self.bins
        first = int((share <= TAIL).sum())
        last = int((share < 1 - TAIL).sum())
        return self.min_val + first * width, self.min_val + (last + 1) * width


class MseObserver(HistogramObserver):
    """The range with the smallest expected squared error at 256 levels."""

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        width = (self.max_val - self.min_val) / self.bins
        values = self.min_val + (torch.arange(self.bins) + 0.5) * width
        shrinks = 1 - torch.linspace(0, MAX_SHRINK, SHRINKS)
        lows = shrinks * self.min_val.clamp(max=0)
        highs = (shrinks * self.max_val.clamp(min=0))[:, None]
        best = (float("inf"), self.min_val, self.max_val)
        for low in lows if self.min_val < 0 else lows[:1]:
            scale = (highs - low) / LEVELS
            rounded = ((values - low) / scale).round().clamp(0, LEVELS) * scale + low
            errors = (rounded - values).square() @ self.histogram
            index = int(errors.argmin())
            if errors[index] < best[0]:
                best = (float(errors[index]), low, highs[index, 0])
        return best[1], best[2]
