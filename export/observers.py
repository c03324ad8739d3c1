"""How the range of an activation is chosen from what calibration saw: rules on one histogram.

Every target and the simulation use those of :data:`OBSERVERS`, through :func:`make_observer`: ExecuTorch's
own ``HistogramObserver``, and ``MinMaxObserver``, which keeps every value. Two more, which plug into PT2E
and into the simulation alike, were held against them: ``PercentileObserver`` gives up a fixed share of the
tails, ``MseObserver`` clips where the expected squared error of rounding and clipping together is smallest
(Banner et al. 2019, by search). ``docs/quantization.md`` has what each is worth here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchao.quantization.pt2e.observer import HistogramObserver

from elir_mobile.core.errors import UserError
from elir_mobile.precision import Recipe

TAIL = 1e-4  # share of values that the percentile rule gives up at either end
SHRINKS = 41  # candidates for each end of the range in the search for the smallest error
MAX_SHRINK = 0.8  # the narrowest candidate keeps a fifth of each end
LEVELS = 255
MIN_SCALE = 2.0**-12  # the smallest that XNNPACKQuantizer gives int8 weights and activations


def activation_bits(recipe: Recipe) -> int | None:
    """Bits of the integer activations of ``recipe``; None: it has none, and needs no ranges.

    Raises:
        UserError: they differ. A tensor between two layers is rounded once and has one range.
    """
    widths = sorted({p.activation_bits for p in recipe.precisions if p.activation_bits is not None})
    if len(widths) > 1:
        raise UserError(
            f"recipe '{recipe.name}' mixes activations of {' and '.join(map(str, widths))} bits: "
            "a tensor has one range and one rounding, so give all its integer layers the same"
        )
    return widths[0] if widths else None


def activation_levels(bits: int) -> tuple[int, int]:
    """Least and greatest integer of an activation."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def min_scale(bits: int) -> float:
    """The smallest scale of an activation: that of int8, for the same smallest range."""
    return MIN_SCALE * 255 / (2**bits - 1)


def make_observer(cls: type[HistogramObserver] = HistogramObserver, bits: int = 8) -> HistogramObserver:
    """An observer of one tensor, affine over all its values: call it on them, then ask :func:`bounds`."""
    least, most = activation_levels(bits)
    observer = cls(
        dtype=torch.int8 if bits <= 8 else torch.int16,
        qscheme=torch.per_tensor_affine,
        quant_min=least,
        quant_max=most,
        eps=min_scale(bits),
    )
    observer.dst_nbins = 2**bits
    return observer


def bounds(observer: HistogramObserver) -> tuple[float, float]:
    """The range that an observer chose, a little wider than asked since zero is a level."""
    scale, zero = (value.item() for value in observer.calculate_qparams())
    return (observer.quant_min - zero) * scale, (observer.quant_max - zero) * scale


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


# What chooses the activation ranges of each program of a restorer. A clipped value of autoencoder or coarse
# estimator is missing in the picture itself, and with 48 calibration pairs the whole range costs next to
# nothing: of photographs the histogram's own choice for `decode` lost up to 0.4 dB. A step's tensors have
# tails over K steps, and want the histogram's search (docs/quantization.md, "Methods").
OBSERVERS: dict[str, type[HistogramObserver]] = {
    "encode": MinMaxObserver,
    "step": HistogramObserver,
    "decode": MinMaxObserver,
}


def observer_of(program: str) -> type[HistogramObserver]:
    """Class that chooses the activation ranges of ``program``; of one that is no restorer's, as the roof is
    measured with, ExecuTorch's own."""
    return OBSERVERS.get(program, HistogramObserver)
