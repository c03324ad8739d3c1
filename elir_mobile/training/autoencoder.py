"""The small 16-channel /8 autoencoder that stands in for TAESD3 in the demo: its loss and its figures.

Trained for the eye (L1, image gradients, LPIPS on VGG-16) and for what comes after it. Its latents carry a
little noise, since the restorer hands the decoder latents that are off; and every channel is kept at mean 0
and spread 1, so that a squared error in the latent space counts each of them alike: hue would otherwise be
cheap, and restored faces came out with colours off. Nothing has to be folded in afterwards, and the
decoder's soft clamp at ±3 is part of the training from the start.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elir_mobile.metrics.perceptual import lpips
from elir_mobile.models.autoencoder import Decoder, Encoder, Form

LATENT_NOISE = 0.05
GRADIENT_WEIGHT = 0.5
SPREAD_WEIGHT = 0.05
PERCEPTUAL_WEIGHT = 0.1
PERCEPTUAL_FROM = 0.4  # share of the training before VGG looks
PERCEPTUAL_IMAGES, PERCEPTUAL_SIDE = 3, 80  # how much of a batch it looks at: it costs as much as all else


class Autoencoder(nn.Module):
    """Encoder and decoder, as they are trained."""

    def __init__(self, enc_width: int, dec_width: int, form: Form = "half") -> None:
        super().__init__()
        self.encoder = Encoder(enc_width, form=form)
        self.decoder = Decoder(dec_width, form=form)
        with torch.no_grad():
            # At the default initialization the latent has a spread of 0.08, hardly above the noise.
            next(self.encoder.layers[-1].parameters()).mul_(8.0)


def image_gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical finite differences of (N, C, H, W)."""
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(out: Tensor, ref: Tensor) -> Tensor:
    """L1 on pixels plus L1 on image gradients, which keeps edges from blurring."""
    loss = F.l1_loss(out, ref)
    for a, b in zip(image_gradients(out), image_gradients(ref), strict=True):
        loss = loss + GRADIENT_WEIGHT * F.l1_loss(a, b)
    return loss


def spread_loss(z: Tensor) -> Tensor:
    """How far the channels of latents (N, C, h, w) are from mean 0 and spread 1."""
    mean, spread = z.mean((0, 2, 3)), z.std((0, 2, 3))
    return (mean.square() + (spread - 1).square()).mean()


def autoencoder_loss(
    net: Autoencoder, images: Tensor, progress: float, rng: np.random.Generator, autocast: torch.autocast
) -> dict[str, Tensor]:
    """The loss on clean crops (N, 3, side, side) in [0, 1] and its terms."""
    with autocast:
        z = net.encoder(images)
        out = net.decoder(z + LATENT_NOISE * torch.randn_like(z))
    z, out = z.float(), out.float()
    terms = {"reconstruction": reconstruction_loss(out, images), "spread": spread_loss(z)}
    loss = terms["reconstruction"] + SPREAD_WEIGHT * terms["spread"]
    if progress > PERCEPTUAL_FROM:
        first = int(rng.integers(len(images)))
        picks = [
            (first + i * len(images) // PERCEPTUAL_IMAGES + i) % len(images) for i in range(PERCEPTUAL_IMAGES)
        ]
        top, left = (int(rng.integers(images.shape[-1] - PERCEPTUAL_SIDE + 1)) for _ in range(2))
        window = (picks, slice(None), slice(top, top + PERCEPTUAL_SIDE), slice(left, left + PERCEPTUAL_SIDE))
        with autocast:
            terms["lpips_vgg"] = lpips(out[window].clamp(0, 1), images[window], "vgg16").mean()
        loss = loss + PERCEPTUAL_WEIGHT * terms["lpips_vgg"]
    return {"loss": loss, **terms}
