"""Latent consistency flow matching: the loss that ELIR is trained with, and its Lightning module.

Upstream ``ELIR/training/losses.py:l2_cfm_mse_loss``. All terms live in the latent space of a
frozen teacher autoencoder; the student shares its decoder and fine-tunes its encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightning as L
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from elir_mobile.images import hstack_images, to_image, vstack_images
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.training.loop import one_cycle

Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LcfmConfig:
    """Loss constants; the defaults are upstream ``configs/elir_train_bfr.yaml``."""

    steps: int = 5  # K, segments of the ODE
    sigma_s: float = 0.1
    sigma_min: float = 1e-5
    dt: float = 0.05
    alpha: float = 0.001  # weight of the velocity term inside the consistency loss
    beta: float = 0.001  # weight of the decoded-image term
    # Two economies of a small machine; both leave the expected loss as it is.
    flow_repeats: int = 1  # times and noises drawn for each image: the flow costs less than the encoder
    decoded_images: int | None = None  # how many of the batch the decoded term looks at; None: all


def path_point(source: Tensor, target: Tensor, t: Tensor, sigma_min: float) -> Tensor:
    """``(1 - (1 - sigma_min)·t)·source + t·target``: the straight path at times ``t`` (N,1,1,1)."""
    return (1 - (1 - sigma_min) * t) * source + t * target


def consistency_loss(
    velocity: Velocity, source: Tensor, target: Tensor, t: Tensor, config: LcfmConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Multi-segment consistency at times ``t`` in [0, 1 - dt].

    The velocities at ``t`` and ``t + dt`` (the second without gradient) are both extrapolated to
    the end of the segment that ``t`` lies in, and must land on the same latent; where ``t + dt``
    has left the segment, the path's own point at the segment's end is the target.

    Args:
        velocity: (N, C, h, w) latent and (N,) times → velocity.
        source: noised coarse latent, without gradient; ``target``: latent of the clean image.
        t: (N, 1, 1, 1).

    Returns:
        The loss, the extrapolated latents (N, C, h, w) and the segment ends (N, 1, 1, 1).
    """
    edges = torch.linspace(0, 1, config.steps + 1, device=t.device, dtype=t.dtype)
    ends = edges[torch.searchsorted(edges, t, side="left").clamp(min=1)]
    x_t = path_point(source, target, t, config.sigma_min)
    v_t = velocity(x_t, t.flatten())
    r = t + config.dt
    x_r = path_point(source, target, r, config.sigma_min)
    with torch.no_grad():
        v_r = velocity(x_r, r.flatten())
        from_r = x_r + (ends - r) * v_r
        x_end = path_point(source, target, ends, config.sigma_min)
        goal = torch.where(r < ends, from_r, x_end)
    landed = x_t + (ends - t) * v_t
    loss = F.mse_loss(landed, goal) + config.alpha * F.mse_loss(v_t, v_r)
    return loss, landed, ends


def lcfm_loss(
    student: Restorer,
    x_lq: Tensor,
    x_hq: Tensor,
    z_hq: Tensor,
    config: LcfmConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The whole training loss and its terms.

    Args:
        student: its decoder is the teacher's.
        x_lq, x_hq: degraded and clean images (N, 3, H, W) in [0, 1].
        z_hq: the teacher encoder's latents of ``x_hq`` (N, C, H/8, W/8).
        generator: source of times and noise.

    Returns:
        ``loss`` = mse + (1 - beta)·consistency + beta·decoded, and the three terms.
    """
    z_mmse = student.encode(x_lq)
    mse = F.mse_loss(z_mmse, z_hq)
    repeats = config.flow_repeats
    target = z_hq.repeat(repeats, 1, 1, 1)
    noise = torch.randn(target.shape, generator=generator).to(target)
    source = z_mmse.detach().repeat(repeats, 1, 1, 1) + config.sigma_s * noise
    t = (1 - config.dt) * torch.rand((len(target), 1, 1, 1), generator=generator).to(target)
    consistency, landed, ends = consistency_loss(student.velocity, source, target, t, config)
    # One more step from where the first landed to t = 1, seen through the decoder.
    n = min(len(x_hq), config.decoded_images or len(x_hq))
    start, ends = landed.detach()[:n], ends[:n]
    final = start + (1 - ends) * student.velocity(start, ends.flatten())
    decoded = F.mse_loss(student.dec(final), x_hq[:n])
    loss = mse + (1 - config.beta) * consistency + config.beta * decoded
    return {"loss": loss, "mse": mse, "consistency": consistency, "decoded": decoded}


class LcfmTraining(L.LightningModule):
    """Trains the named parts of the student on batches ``(x_lq, x_hq, z_hq, seed)``.

    Upstream trains encoder, coarse estimator and velocity field; the rest stays as it is.
    """

    def __init__(
        self,
        student: Restorer,
        config: LcfmConfig,
        *,
        steps: int,
        lr: float,
        trained: Sequence[str] = ("enc", "mmse", "fmir"),
    ) -> None:
        super().__init__()
        self.student = student.requires_grad_(False)
        for part in trained:
            student.get_submodule(part).requires_grad_(True)
        self.config = config
        self.steps = steps
        self.lr = lr

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, int], batch_idx: int) -> Tensor:
        x_lq, x_hq, z_hq, seed = batch
        generator = torch.Generator().manual_seed(seed)
        terms = lcfm_loss(self.student, x_lq, x_hq, z_hq, self.config, generator)
        self.log_dict(terms, prog_bar=True)
        return terms["loss"]

    def configure_optimizers(self):
        return one_cycle([p for p in self.parameters() if p.requires_grad], self.lr, self.steps)

    @torch.no_grad()
    def draw(self, x_lq: Tensor, x_hq: Tensor) -> Image.Image:
        """Rows of degraded, coarse estimate, restored and clean image."""
        noise = seeded_noise((len(x_lq), *self.student.arch.latent_shape(*x_lq.shape[2:])[1:]), 0)
        restored = self.student(x_lq, noise, steps=self.config.steps, sigma_s=self.config.sigma_s)
        coarse = self.student.decode(self.student.encode(x_lq))
        return vstack_images(
            [
                hstack_images([to_image(image) for image in row])
                for row in zip(x_lq, coarse, restored, x_hq, strict=True)
            ]
        )
