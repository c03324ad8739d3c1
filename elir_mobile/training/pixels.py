"""A picture's error in a loss, for what is trained against pixels.

No stage of the demo's training is: its flow would learn to do nothing (:mod:`elir_mobile.training.demo`).
"""

from __future__ import annotations

from torch import Tensor


def log_mse(out: Tensor, ref: Tensor) -> Tensor:
    """Mean over (N, 3, H, W) images of the logarithm of the mean squared error: -0.23 × PSNR in dB.

    NAFNet's PSNRLoss (https://arxiv.org/abs/2204.04676, upstream ``basicsr/models/losses/losses.py``).
    """
    return (out - ref).square().mean((1, 2, 3)).add(1e-6).log().mean()
