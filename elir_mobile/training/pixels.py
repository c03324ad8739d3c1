"""Tune the networks against pixels: autoencoder and coarse estimator, or whole sampled restorations.

A latent loss is blind to what an error does to the picture: a shift of hue costs it little. Here the
decoded images are judged by the PSNR itself, as NAFNet's
PSNRLoss does (https://arxiv.org/abs/2204.04676, upstream ``basicsr/models/losses/losses.py``).
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from elir_mobile.images import hstack_images, to_image, vstack_images
from elir_mobile.models.autoencoder import Encoder
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.training.loop import one_cycle

TEACHER_WEIGHT = 0.5
LATENT_WEIGHT = 0.5
COARSE_WEIGHT = 0.25


def log_mse(out: Tensor, ref: Tensor) -> Tensor:
    """Mean over (N, 3, H, W) images of the logarithm of the mean squared error: -0.23 × PSNR in dB."""
    return (out - ref).square().mean((1, 2, 3)).add(1e-6).log().mean()


class PixelTraining(L.LightningModule):
    """Trains teacher, student encoder, coarse estimator and decoder on batches ``(x_lq, x_hq)``.

    The latent term keeps the coarse estimate in the teacher's latent space, where the flow will
    run from the one to the other. The teacher sees half of every batch.
    """

    def __init__(self, teacher: Encoder, student: Restorer, *, steps: int, lr: float) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(True)
        self.student = student.requires_grad_(True)
        self.student.fmir.requires_grad_(False)
        self.steps = steps
        self.lr = lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x_lq, x_hq = batch
        half = x_hq[: (len(x_hq) + 1) // 2]
        z_hq, z_mmse = self.teacher(half), self.student.encode(x_lq)
        decoded = self.student.dec(torch.cat([z_mmse, z_hq]))
        coarse = log_mse(decoded[: len(x_lq)], x_hq)
        teacher = log_mse(decoded[len(x_lq) :], half)
        latent = F.mse_loss(z_mmse[: len(half)], z_hq.detach())
        loss = coarse + TEACHER_WEIGHT * teacher + LATENT_WEIGHT * latent
        self.log_dict(
            {"loss": loss, "coarse": coarse, "teacher": teacher, "latent": latent, "latent_std": z_hq.std()},
            prog_bar=True,
        )
        return loss

    def configure_optimizers(self):
        return one_cycle([p for p in self.parameters() if p.requires_grad], self.lr, self.steps)

    @torch.no_grad()
    def draw(self, x_lq: Tensor, x_hq: Tensor) -> Image.Image:
        """Rows of degraded, coarse estimate, teacher's reconstruction and clean image."""
        coarse = self.student.decode(self.student.encode(x_lq))
        teacher = self.student.decode(self.teacher(x_hq))
        return vstack_images(
            [
                hstack_images([to_image(image) for image in row])
                for row in zip(x_lq, coarse, teacher, x_hq, strict=True)
            ]
        )


class SampledTraining(L.LightningModule):
    """Trains through the whole sampling loop on batches ``(x_lq, x_hq, seed)``.

    Args:
        student: what is trained.
        trained: names of its parts that are trained, the others stay.
        coarse_images: of how many images of a batch the decoded coarse estimate is judged too:
            without it, a trained encoder and estimator would leave all restoring to the flow.
        sampling_steps, sigma_s: K and the spread of the noise.
        steps, lr: length and peak of the one-cycle schedule.
    """

    def __init__(
        self,
        student: Restorer,
        *,
        trained: tuple[str, ...],
        coarse_images: int,
        sampling_steps: int,
        sigma_s: float,
        steps: int,
        lr: float,
    ) -> None:
        super().__init__()
        self.student = student.requires_grad_(False)
        for name in trained:
            student.get_submodule(name).requires_grad_(True)
        self.coarse_images = coarse_images
        self.sampling_steps = sampling_steps
        self.sigma_s = sigma_s
        self.steps = steps
        self.lr = lr

    def restored(self, x_lq: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Restored images (N, 3, H, W) and decoded coarse estimates of the first ``coarse_images``.

        Neither is clipped: a clipped pixel would get no gradient.
        """
        coarse = self.student.encode(x_lq)
        z = coarse + self.sigma_s * seeded_noise(tuple(coarse.shape), seed).to(coarse)
        for k in range(self.sampling_steps):
            t = torch.full((len(z),), k / self.sampling_steps, device=z.device)
            z = z + self.student.velocity(z, t) / self.sampling_steps
        decoded = self.student.dec(torch.cat([z, coarse[: self.coarse_images]]))
        return decoded[: len(x_lq)], decoded[len(x_lq) :]

    def training_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> Tensor:
        x_lq, x_hq, seed = batch
        restored, coarse = self.restored(x_lq, seed)
        loss = log_mse(restored, x_hq)
        self.log("loss", loss, prog_bar=True)
        if self.coarse_images:
            coarse_loss = log_mse(coarse, x_hq[: self.coarse_images])
            self.log("coarse", coarse_loss, prog_bar=True)
            loss = loss + COARSE_WEIGHT * coarse_loss
        return loss

    def configure_optimizers(self):
        return one_cycle([p for p in self.parameters() if p.requires_grad], self.lr, self.steps)

    @torch.no_grad()
    def draw(self, x_lq: Tensor, x_hq: Tensor) -> Image.Image:
        """Rows of degraded, restored and clean image."""
        restored, _ = self.restored(x_lq, 0)
        return vstack_images(
            [
                hstack_images([to_image(image.clamp(0, 1)) for image in row])
                for row in zip(x_lq, restored, x_hq, strict=True)
            ]
        )
