"""The training-time overparametrization of a 3×3 convolution and its exact collapse.

ELIR trains its convolutional blocks as 3×3 → 1×1 pairs, four times as wide in between, with
nothing nonlinear between the two (upstream ``Block2D``), and merges each pair for inference.
"""

from __future__ import annotations

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


def conv_pair(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """``second(first(x))``, computed as the one convolution they equal.

    The weights are merged at every call, with gradients to both: the sum over the wide channels
    is then paid once a batch on the kernels instead of at every pixel.
    """
    weight, bias = collapse_pair(*first.parameters(), *second.parameters())
    return F.conv2d(x, weight, bias, padding=1)
