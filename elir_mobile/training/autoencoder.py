"""Train the small 16-channel /8 autoencoder that stands in for TAESD3 in the demo.

Its latents are bounded by the decoder's soft clamp and carry a little noise while it trains:
the restorer hands the decoder latents that are off by about that much.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from elir_mobile.images import hstack_images, to_image, vstack_images
from elir_mobile.models.autoencoder import Decoder, Encoder
from elir_mobile.training.loop import one_cycle

LATENT_NOISE = 0.1
GRADIENT_WEIGHT = 1.0


def image_gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical finite differences of (N, C, H, W)."""
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(out: Tensor, ref: Tensor) -> Tensor:
    """L1 on pixels plus L1 on image gradients, which keeps edges from blurring."""
    loss = F.l1_loss(out, ref)
    for a, b in zip(image_gradients(out), image_gradients(ref), strict=True):
        loss = loss + GRADIENT_WEIGHT * F.l1_loss(a, b)
    return loss


class AutoencoderTraining(L.LightningModule):
    """Encoder and decoder on batches ``(images, seed)`` of random crops."""

    def __init__(self, width: int, steps: int, lr: float) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.decoder = Decoder(width)
        self.steps = steps
        self.lr = lr
        with torch.no_grad():
            # At the default initialization the latent has a spread of 0.08, under the noise.
            next(self.encoder.layers[-1].parameters()).mul_(8.0)

    def training_step(self, batch: tuple[Tensor, int], batch_idx: int) -> Tensor:
        images, seed = batch
        z = self.encoder(images)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).to(z)
        out = self.decoder(z + LATENT_NOISE * noise)
        loss = reconstruction_loss(out, images)
        self.log("loss", loss, prog_bar=True)
        self.log("mse", F.mse_loss(out, images), prog_bar=True)
        self.log("latent_std", z.std(), prog_bar=True)
        return loss

    def configure_optimizers(self):
        return one_cycle(self.parameters(), self.lr, self.steps)

    @torch.no_grad()
    def draw(self, images: Tensor) -> Image.Image:
        """A row of ``images`` (N, 3, H, W) above their reconstructions."""
        return vstack_images(
            [
                hstack_images([to_image(image) for image in batch])
                for batch in (images, self.decoder(self.encoder(images)))
            ]
        )


def random_crops(images: Tensor, count: int, side: int, generator: torch.Generator) -> Tensor:
    """``count`` random crops with random mirroring from uint8 (N, 3, H, W): float in [0, 1]."""
    n, _, height, width = images.shape

    def draw(high: int) -> list[int]:
        return torch.randint(high, (count,), generator=generator).tolist()

    crops = [
        images[i, :, y : y + side, x : x + side].flip(-1)
        if mirror
        else images[i, :, y : y + side, x : x + side]
        for i, y, x, mirror in zip(
            draw(n), draw(height - side + 1), draw(width - side + 1), draw(2), strict=True
        )
    ]
    return torch.stack(crops).float() / 255
