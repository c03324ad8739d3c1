"""The whole restorer: encoder, coarse estimator, K Euler steps of the velocity field, decoder.

Upstream ``ELIR/models/elir.py``. Submodules are named ``enc``, ``mmse``, ``fmir``, ``dec`` so that
the state dict is the published checkpoints'. Noise is an argument, never drawn inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from elir_mobile.core.errors import UserError
from elir_mobile.core.sampling import sample
from elir_mobile.models.autoencoder import DOWNSCALE, Decoder, Encoder, Form
from elir_mobile.models.coarse import RRDBNet
from elir_mobile.models.roles import residual
from elir_mobile.models.velocity import LUnet, time_embedding


@dataclass(frozen=True)
class Architecture:
    """Every free width of the network; the defaults are the released bfr model's."""

    enc_width: int = 64
    dec_width: int = 64
    latent_channels: int = 16
    coarse_width: int = 96
    n_rrdb: int = 3
    hid_channels: int = 128
    n_mid_blocks: int = 3
    ch_mult: tuple[int, ...] = (1, 2, 1, 2)
    t_emb_dim: int = 160
    autoencoder: Form = "taesd"

    @property
    def size_multiple(self) -> int:
        """Image sides must be a multiple of this: autoencoder and U-Net downscaling together."""
        multiple = DOWNSCALE
        for mult in self.ch_mult:
            multiple *= 2 if mult != 1 else 1
        return multiple

    def check_side(self, side: int, option: str) -> int:
        """``side``, an image side in pixels that the user gave as ``option``.

        Raises:
            UserError: it is not a positive multiple of :attr:`size_multiple`.
        """
        if side <= 0 or side % self.size_multiple:
            raise UserError(
                f"{option} {side} does not suit this network: use a multiple of {self.size_multiple}"
            )
        return side

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape of the latent of one (height, width) image."""
        return 1, self.latent_channels, height // DOWNSCALE, width // DOWNSCALE


class Restorer(nn.Module):
    """The float reference network.

    Args:
        arch: widths and depths.
        overparametrized: training form, with 3×3→1×1 pairs in the coarse estimator and the
            velocity field; ``checkpoints.collapse_state_dict`` turns its weights into the other.
    """

    roles = {"add": residual(DOWNSCALE)}  # an Euler step's

    def __init__(self, arch: Architecture, *, overparametrized: bool = False) -> None:
        super().__init__()
        self.arch = arch
        self.fmir = LUnet(
            arch.ch_mult,
            arch.n_mid_blocks,
            arch.latent_channels,
            arch.hid_channels,
            arch.t_emb_dim,
            overparametrized,
        )
        self.mmse = RRDBNet(arch.latent_channels, arch.coarse_width, arch.n_rrdb, overparametrized)
        self.enc = Encoder(arch.enc_width, arch.latent_channels, arch.autoencoder)
        self.dec = Decoder(arch.dec_width, arch.latent_channels, arch.autoencoder)

    def encode(self, x: Tensor) -> Tensor:
        """Degraded image (N, 3, H, W) in [0, 1] → coarse latent (N, C, H/8, W/8)."""
        return self.mmse(self.enc(x))

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """Velocity of latent ``z`` (N, C, h, w) at times ``t`` (N,) in [0, 1]."""
        return self.fmir(z, time_embedding(t, self.arch.t_emb_dim))

    def step(self, z: Tensor, k: int, steps: int) -> Tensor:
        """``z`` (N, C, h, w) after Euler step ``k`` of K = ``steps``."""
        return z + self.velocity(z, torch.full((len(z),), k / steps, device=z.device)) / steps

    def decode(self, z: Tensor) -> Tensor:
        """Latent → image (N, 3, H, W), clipped to [0, 1]."""
        return self.dec(z).clamp(0, 1)

    def forward(self, x: Tensor, noise: Tensor, *, steps: int, sigma_s: float) -> Tensor:
        """Restore ``x`` (N, 3, H, W) in [0, 1] with unit Gaussian ``noise`` of the latent's shape."""
        return self.decode(self.trajectory(self.encode(x), noise, steps=steps, sigma_s=sigma_s)[-1])

    def trajectory(self, coarse: Tensor, noise: Tensor, *, steps: int, sigma_s: float) -> list[Tensor]:
        """The latents z_0 … z_K from coarse ones (N, C, h, w) with unit Gaussian ``noise`` of their shape."""
        step = partial(self.step, steps=steps)
        return sample(lambda z: z, step, lambda z: z, coarse, noise, steps=steps, sigma_s=sigma_s)[1]


def seeded_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Unit Gaussian noise that depends on nothing but ``shape`` and ``seed``."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
