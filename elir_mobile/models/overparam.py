"""The training-time overparametrization of a 3×3 convolution and its exact collapse.

ELIR trains its convolutional blocks as 3×3 → 1×1 pairs, four times as wide in between, with
nothing nonlinear between the two (upstream ``Block2D``), and merges each pair for inference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4


def collapse_pair(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (O, I, 3, 3) and bias (O,) of the one convolution that equals 3×3 then 1×1.

    Args:
        w1: (M, I, 3, 3), with bias ``b1`` (M,).
        w2: (O, M, 1, 1), with bias ``b2`` (O,).

    Returns:
        ``W[o,i] = Σ_m w2[o,m]·w1[m,i]`` and ``b = w2·b1 + b2``. Exact at the borders too, since
        the 1×1 convolution has no padding.
    """
    mix = w2[:, :, 0, 0]
    return torch.einsum("om,mihw->oihw", mix, w1), mix @ b1 + b2


def conv3(c_in: int, c_out: int, overparametrized: bool) -> list[nn.Module]:
    """A 3×3 convolution; overparametrized: one to four times the width, then 1×1."""
    if not overparametrized:
        return [nn.Conv2d(c_in, c_out, 3, padding=1)]
    return [nn.Conv2d(c_in, EXPANSION * c_out, 3, padding=1), nn.Conv2d(EXPANSION * c_out, c_out, 1)]


# Kernels already merged, by the pair's first convolution and whether gradients were recorded.
_merged: ContextVar[dict[tuple[nn.Module, bool], tuple[Tensor, Tensor]] | None] = ContextVar(
    "merged", default=None
)


@contextmanager
def merged_once() -> Iterator[None]:
    """Merge each pair only at its first use within: for several runs between two updates of the weights."""
    token = _merged.set({})
    try:
        yield
    finally:
        _merged.reset(token)


def conv_pair(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """``second(first(x))``, computed as the one convolution they equal.

    The weights are merged at every call (but see :func:`merged_once`), with gradients to both: the
    sum over the wide channels is then paid once a batch on the kernels instead of at every pixel.
    """
    weight, bias = _merged_kernel(first, second)
    return F.conv2d(x, weight, bias, padding=1)


def _merged_kernel(first: nn.Module, second: nn.Module) -> tuple[Tensor, Tensor]:
    known = _merged.get()
    if known is None:
        return collapse_pair(*first.parameters(), *second.parameters())
    recorded = torch.is_grad_enabled()
    # A kernel merged with gradients serves where none are wanted, but not the other way round.
    kernel = known.get((first, recorded)) or known.get((first, True))
    if kernel is None:
        kernel = known[first, recorded] = collapse_pair(*first.parameters(), *second.parameters())
    return kernel
