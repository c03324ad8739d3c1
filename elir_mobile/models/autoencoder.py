"""The tiny autoencoder: pixels to a /8 latent and back.

Layout and parameter names are those of TAESD3 (``layers.N.conv.M``) as ELIR uses it
(upstream ``ELIR/models/taesd.py``); the hidden width and the number of latent channels are free.

Two forms. ``taesd`` is the published one. ``half`` has no layer at the image's own resolution, where
half of the multiplications of ``taesd`` are: its encoder begins with one 6×6 convolution of stride 2,
which equals a pixel-unshuffle and a 3×3 convolution, and its decoder ends in one 6×6 transposed
convolution of stride 2, which equals a 3×3 convolution and a pixel-shuffle (tests/test_models.py).
Below that both are the same: two levels of three blocks.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from elir_mobile.models.roles import BLOCK, IMAGE_END, LATENT, LATENT_END, RESAMPLE, residual

DOWNSCALE = 8  # three stride-2 convolutions; an image side must be a multiple of this

Form = Literal["taesd", "half"]


def _conv3(n_in: int, n_out: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=bias)


class Block(nn.Module):
    """Three 3×3 convolutions with ReLU, a skip around them, ReLU after the sum."""

    roles = {f"conv.{i}": BLOCK for i in (0, 2, 4)}  # of its sum, the sequence it stands in knows

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv3(width, width), nn.ReLU(), _conv3(width, width), nn.ReLU(), _conv3(width, width)
        )
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.conv(x) + x)


def _roles(layers: nn.Sequential, shrunk: int, first: str, last: str) -> dict[str, str]:
    """Roles in an encoder's or decoder's sequence, whatever its depth and whichever layer resamples.

    Args:
        shrunk: the image's side in units of the input's.
        first, last: roles of the first and the last convolution.
    """
    roles: dict[str, str] = {}
    for index, layer in enumerate(layers):
        if isinstance(layer, Block):
            roles[f"layers.{index}.add"] = residual(shrunk)
        elif isinstance(layer, nn.Upsample):
            shrunk //= 2
        elif isinstance(layer, nn.ConvTranspose2d):
            shrunk //= layer.stride[0]
        elif isinstance(layer, nn.Conv2d):
            shrunk *= layer.stride[0]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            roles[f"layers.{index}"] = RESAMPLE
    return roles | {"layers.0": first, f"layers.{len(layers) - 1}": last}


class Encoder(nn.Module):
    """Image (N, 3, H, W) in [0, 1] → latent (N, latent_channels, H/8, W/8), unbounded."""

    def __init__(self, width: int = 64, latent_channels: int = 16, form: Form = "taesd") -> None:
        super().__init__()
        stem = nn.Conv2d(3, width, 6, stride=2, padding=2) if form == "half" else _conv3(3, width)
        layers: list[nn.Module] = [stem, Block(width)]
        for _ in range(2 if form == "half" else 3):
            layers.append(_conv3(width, width, stride=2, bias=False))
            layers += [Block(width) for _ in range(3)]
        layers.append(_conv3(width, latent_channels))
        self.layers = nn.Sequential(*layers)

    @property
    def roles(self) -> dict[str, str]:
        return _roles(self.layers, 1, IMAGE_END, LATENT)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    """Latent (N, latent_channels, h, w) → image (N, 3, 8h, 8w), roughly [0, 1], not clipped."""

    def __init__(self, width: int = 64, latent_channels: int = 16, form: Form = "taesd") -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv3(latent_channels, width), nn.ReLU()]
        for _ in range(2 if form == "half" else 3):
            layers += [Block(width) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), _conv3(width, width, bias=False)]
        head = nn.ConvTranspose2d(width, 3, 6, stride=2, padding=2) if form == "half" else _conv3(width, 3)
        layers += [Block(width), head]
        self.layers = nn.Sequential(*layers)

    @property
    def roles(self) -> dict[str, str]:
        return _roles(self.layers, DOWNSCALE, LATENT_END, IMAGE_END)

    def forward(self, z: Tensor) -> Tensor:
        # The soft clamp is part of TAESD: latents outside ±3 carry no more information.
        return self.layers(torch.tanh(z / 3.0) * 3.0)
