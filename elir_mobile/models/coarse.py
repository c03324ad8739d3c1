"""The coarse (MMSE) estimator: an RRDB network that works on latents.

Upstream ``ELIR/models/rrdbnet.py``; the residual-in-residual dense block is ESRGAN's
(Wang et al. 2018), with SiLU, and with the residual scale 0.2 at both levels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elir_mobile.models.autoencoder import DOWNSCALE
from elir_mobile.models.overparam import conv3, conv_pair
from elir_mobile.models.roles import BLOCK, residual

RESIDUAL_SCALE = 0.2
_SUM = {"add": residual(DOWNSCALE)}


class ConvAct(nn.Module):
    """3×3 convolution and SiLU; overparametrized: 3×3 to four times the width, then 1×1."""

    roles = {"block.0": BLOCK}

    def __init__(self, c_in: int, c_out: int, activation: bool, overparametrized: bool) -> None:
        super().__init__()
        act = nn.SiLU() if activation else nn.Identity()
        self.overparametrized = overparametrized
        self.block = nn.Sequential(*conv3(c_in, c_out, overparametrized), act)

    def forward(self, x: Tensor) -> Tensor:
        if not self.overparametrized:
            return self.block(x)
        first, second, act = self.block
        return act(conv_pair(x, first, second))


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each seeing the concatenation of all that came before."""

    roles = _SUM

    def __init__(self, c_inout: int, c_hid: int, overparametrized: bool) -> None:
        super().__init__()
        self.conv1 = ConvAct(c_inout, c_hid, True, overparametrized)
        self.conv2 = ConvAct(c_inout + c_hid, c_hid, True, overparametrized)
        self.conv3 = ConvAct(c_inout + 2 * c_hid, c_hid, True, overparametrized)
        self.conv4 = ConvAct(c_inout + 3 * c_hid, c_hid, True, overparametrized)
        self.conv5 = ConvAct(c_inout + 4 * c_hid, c_inout, False, overparametrized)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.conv1(x)
        x2 = self.conv2(torch.cat((x, x1), 1))
        x3 = self.conv3(torch.cat((x, x1, x2), 1))
        x4 = self.conv4(torch.cat((x, x1, x2, x3), 1))
        x5 = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        return x5 * RESIDUAL_SCALE + x


class RRDB(nn.Module):
    """Three residual dense blocks with one more scaled skip around them."""

    roles = _SUM

    def __init__(self, c_inout: int, c_hid: int, overparametrized: bool) -> None:
        super().__init__()
        self.RDB1 = ResidualDenseBlock(c_inout, c_hid, overparametrized)
        self.RDB2 = ResidualDenseBlock(c_inout, c_hid, overparametrized)
        self.RDB3 = ResidualDenseBlock(c_inout, c_hid, overparametrized)

    def forward(self, x: Tensor) -> Tensor:
        return self.RDB3(self.RDB2(self.RDB1(x))) * RESIDUAL_SCALE + x


class RRDBNet(nn.Module):
    """Degraded latent (N, c_inout, h, w) → its minimum-mean-square-error estimate, same shape."""

    roles = _SUM

    def __init__(
        self,
        c_inout: int = 16,
        c_hid: int = 96,
        n_rrdb: int = 3,
        overparametrized: bool = False,
    ) -> None:
        super().__init__()
        self.lrm = nn.Sequential(*(RRDB(c_inout, c_hid, overparametrized) for _ in range(n_rrdb)))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.lrm(z)
