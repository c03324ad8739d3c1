"""The velocity field: LUnet, a small U-Net on latents conditioned on time.

Upstream ``ELIR/models/lunet.py``. Channel multipliers are relative to the level before
(``[1, 2, 1, 2]`` gives 1, 2, 2, 4 times the width) and a level changes resolution only where its
multiplier is not 1. Every residual block has its 1×1 skip convolution, even at equal widths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elir_mobile.models.autoencoder import DOWNSCALE
from elir_mobile.models.overparam import conv3, conv_pair
from elir_mobile.models.roles import BLOCK, LATENT_END, NORM, RESAMPLE, residual

GROUPS = 32  # GroupNorm groups, fixed upstream; every width must be a multiple of this
TIME_SCALE = 1000.0
MAX_PERIOD = 10000.0


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of time.

    Args:
        t: (N,) times in [0, 1].
        dim: even embedding width.

    Returns:
        (N, dim): cosines then sines of ``1000·t·exp(-i·ln(10000)/(dim/2 - 1))``
        (upstream ``ELIR/models/elir.py:pos_emb``).
    """
    if dim % 2:
        raise ValueError(f"the time embedding needs an even width, got {dim}")
    half = dim // 2
    freqs = torch.exp(
        torch.arange(half, device=t.device, dtype=torch.float32) * -(math.log(MAX_PERIOD) / (half - 1))
    )
    args = TIME_SCALE * t.float()[:, None] * freqs[None]
    return torch.cat((args.cos(), args.sin()), dim=-1)


class TimestepEmbedding(nn.Module):
    """Linear, SiLU, Linear."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim_in, dim_out)
        self.act = nn.SiLU()
        self.linear2 = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.act(self.linear1(x)))


class NormActConv(nn.Module):
    """GroupNorm, SiLU, 3×3 convolution (overparametrized: 3×3 to four times the width, then 1×1)."""

    roles = {"block.0.add": NORM, "block.2": BLOCK}

    def __init__(self, c_in: int, c_out: int, overparametrized: bool) -> None:
        super().__init__()
        self.overparametrized = overparametrized
        convs = conv3(c_in, c_out, overparametrized)
        self.block = nn.Sequential(nn.GroupNorm(GROUPS, c_in), nn.SiLU(), *convs)

    def forward(self, x: Tensor) -> Tensor:
        if not self.overparametrized:
            return self.block(x)
        norm, act, first, second = self.block
        return conv_pair(act(norm(x)), first, second)


class ResnetBlock(nn.Module):
    """Two norm-act-conv blocks with the time bias between them, and a 1×1 skip; :func:`run_unet` runs it."""

    roles = {"conv2d": BLOCK}

    def __init__(self, c_in: int, c_out: int, time_dim: int, overparametrized: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, c_out))
        self.block1 = NormActConv(c_in, c_out, overparametrized)
        self.block2 = NormActConv(c_out, c_out, overparametrized)
        self.conv2d = nn.Conv2d(c_in, c_out, 1)


class Downsample(nn.Module):
    roles = {"conv": RESAMPLE}

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    roles = {"convtr": RESAMPLE}

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.convtr = nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convtr(x)


def resnet_blocks(unet: nn.Module) -> list[ResnetBlock]:
    """The residual blocks of an LUnet in the order they run, which is that of its lists."""
    return [module for module in unet.modules() if isinstance(module, ResnetBlock)]


def run_unet(unet: Any, z: Tensor, biases: Iterator[Tensor]) -> Tensor:
    """What an LUnet makes of a latent.

    Args:
        unet: has the layers and lists of :class:`LUnet`.
        biases: each block's of time, (N, C, 1, 1), in the order they run.
    """

    def run(block: Any, x: Tensor) -> Tensor:
        bias = next(biases)
        return block.block2(block.block1(x) + bias) + block.conv2d(x)

    x = unet.first_proj(z)
    skips = []
    for block, down in unet.down_blocks:
        x = run(block, x)
        skips.append(x)
        x = down(x)
    for block in unet.mid_blocks:
        x = run(block, x)
    for up, block in unet.up_blocks:
        x = run(block, torch.cat((up(x), skips.pop()), 1))
    return unet.final_proj(unet.final_block(x))


class LUnet(nn.Module):
    """Latent (N, channels, h, w) and time embedding (N, t_emb_dim) → velocity, latent's shape.

    ``h`` and ``w`` must be multiples of 2 for every multiplier above 1 (4 for the default).
    """

    # Its blocks' sums go by one name in the exported step, as they do by one role.
    roles = {"first_proj": LATENT_END, "final_proj": LATENT_END, "add": residual(DOWNSCALE)}

    def __init__(
        self,
        ch_mult: Sequence[int] = (1, 2, 1, 2),
        n_mid_blocks: int = 3,
        channels: int = 16,
        hid_channels: int = 128,
        t_emb_dim: int = 160,
        overparametrized: bool = False,
    ) -> None:
        super().__init__()
        self.t_emb_dim = t_emb_dim
        time_dim = 4 * t_emb_dim

        def block(c_in: int, c_out: int) -> ResnetBlock:
            return ResnetBlock(c_in, c_out, time_dim, overparametrized)

        self.time_mlp = TimestepEmbedding(t_emb_dim, time_dim)
        self.first_proj = nn.Conv2d(channels, hid_channels, 1)
        self.down_blocks = nn.ModuleList()
        self.mid_blocks = nn.ModuleList()
        self.up_blocks = nn.ModuleList()
        width = hid_channels
        for mult in ch_mult:
            down = Downsample(width, mult * width) if mult != 1 else nn.Identity()
            self.down_blocks.append(nn.ModuleList([block(width, width), down]))
            width *= mult
        for _ in range(n_mid_blocks):
            self.mid_blocks.append(block(width, width))
        for mult in reversed(ch_mult):
            up = Upsample(width, width // mult) if mult != 1 else nn.Identity()
            width //= mult
            self.up_blocks.append(nn.ModuleList([up, block(2 * width, width)]))
        self.final_block = NormActConv(width, width, overparametrized)
        self.final_proj = nn.Conv2d(width, channels, 1)

    def forward(self, z: Tensor, t_emb: Tensor) -> Tensor:
        emb = self.time_mlp(t_emb)
        return run_unet(self, z, (block.mlp(emb)[:, :, None, None] for block in resnet_blocks(self)))
