"""Latent consistency flow matching: the loss that ELIR is trained with, and its Lightning module.

Upstream ``ELIR/training/losses.py:l2_cfm_mse_loss``, and ``l2_fm_mse_loss`` for plain flow matching. All
terms live in the latent space of a frozen teacher autoencoder; the student shares its decoder and
fine-tunes its encoder. The paper's other ablations are no switches of the loss: one segment is
consistency without segments, a student whose ``mmse`` is ``nn.Identity()`` has no coarse estimator,
and an encoder that is not among the trained parts is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from elir_mobile.images import image_rows
from elir_mobile.models.autoencoder import Encoder
from elir_mobile.models.overparam import merged_once
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.training.loop import one_cycle

Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LcfmConfig:
    """Loss constants; the defaults are upstream ``configs/elir_train_bfr.yaml``."""

    objective: Literal["consistency", "flow"] = "consistency"
    steps: int = 5  # K: segments of the ODE where the objective is consistency; Euler steps of a strip
    sigma_s: float = 0.1
    sigma_min: float = 1e-5
    dt: float = 0.05  # of the consistency objective alone, like alpha
    alpha: float = 0.001  # weight of the velocity term inside the consistency loss
    beta: float = 0.001  # weight of the decoded-image term; at 0 nothing is decoded
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


def flow_matching_loss(
    velocity: Velocity, source: Tensor, target: Tensor, t: Tensor, sigma_min: float
) -> tuple[Tensor, Tensor]:
    """Plain flow matching at times ``t`` in [0, 1]: the velocity against the straight path's own.

    Arguments as of :func:`consistency_loss`.

    Returns:
        The loss, and the latents (N, C, h, w) that the velocities lead to at time 1.
    """
    x_t = path_point(source, target, t, sigma_min)
    v_t = velocity(x_t, t.flatten())
    return F.mse_loss(v_t, target - (1 - sigma_min) * source), x_t + (1 - t) * v_t


def landing(velocity: Velocity, source: Tensor, k: int, steps: int) -> Tensor:
    """Where one step from ``k``/``steps`` leads at time 1, on the path that Euler steps took there.

    Args:
        velocity: as of :func:`consistency_loss`.
        source: noised coarse latents (N, C, h, w), where the path begins.
        k: Euler steps of 1/``steps`` before; no gradient goes through them. At ``steps`` - 1 the landing is
            the sample.
    """

    def moved(z: Tensor, i: int, way: float) -> Tensor:
        return z + way * velocity(z, torch.full((len(z),), i / steps, device=z.device))

    z = source
    with torch.no_grad():
        for i in range(k):
            z = moved(z, i, 1 / steps)
    return moved(z, k, 1 - k / steps)


def draw_noise(shape: torch.Size, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Unit Gaussian noise of ``shape`` (R·N, C, h, w) and uniform times (R·N, 1, 1, 1) in [0, 1).

    Args:
        shape: R repeats, one after the other, of a batch of N images.
        seeds: (N,) int64, one for each image: what image ``i`` draws then depends on no other, however a
            batch is split over processes.
    """
    repeats = shape[0] // len(seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
    noises = [torch.randn((repeats, *shape[1:]), generator=generator) for generator in generators]
    times = [torch.rand((repeats, 1, 1, 1), generator=generator) for generator in generators]
    return torch.stack(noises, 1).flatten(0, 1), torch.stack(times, 1).flatten(0, 1)


@merged_once()
def lcfm_loss(
    student: Restorer,
    x_lq: Tensor,
    x_hq: Tensor,
    z_hq: Tensor,
    config: LcfmConfig,
    seeds: Tensor,
) -> dict[str, Tensor]:
    """The whole training loss and its terms.

    Args:
        student: its decoder is the teacher's.
        x_lq, x_hq: degraded and clean images (N, 3, H, W) in [0, 1].
        z_hq: the teacher encoder's latents of ``x_hq`` (N, C, H/8, W/8).
        seeds: of times and noise, see :func:`draw_noise`.

    Returns:
        ``loss`` = mse + (1 - beta)·flow + beta·decoded, and the terms; the flow's bears the name of
        the objective.
    """
    z_mmse = student.encode(x_lq)
    mse = F.mse_loss(z_mmse, z_hq)
    repeats = config.flow_repeats
    target = z_hq.repeat(repeats, 1, 1, 1)
    noise, uniform = (drawn.to(target) for drawn in draw_noise(target.shape, seeds))
    source = z_mmse.detach().repeat(repeats, 1, 1, 1) + config.sigma_s * noise
    n = min(len(x_hq), config.decoded_images or len(x_hq))
    if config.objective == "flow":
        flow, landed = flow_matching_loss(student.velocity, source, target, uniform, config.sigma_min)
    else:
        t = (1 - config.dt) * uniform
        flow, landed, ends = consistency_loss(student.velocity, source, target, t, config)
    terms = {"mse": mse, config.objective: flow}
    loss = mse + (1 - config.beta) * flow
    if config.beta:
        final = landed[:n]
        if config.objective == "consistency":
            # One more step from where the first landed to t = 1, seen through the decoder.
            start, ends = final.detach(), ends[:n]
            final = start + (1 - ends) * student.velocity(start, ends.flatten())
        terms["decoded"] = F.mse_loss(student.dec(final), x_hq[:n])
        loss = loss + config.beta * terms["decoded"]
    return {"loss": loss, **terms}


class Batch(NamedTuple):
    """Degraded and clean images (N, 3, H, W) in [0, 1]; (N,) keys of the clean ones; (N,) seeds."""

    x_lq: Tensor
    x_hq: Tensor
    keys: Tensor
    seeds: Tensor


class LcfmTraining(L.LightningModule):
    """Trains the named parts of the student; the teacher's latents are computed on the way.

    Upstream trains encoder, coarse estimator and velocity field; the rest stays as it is.

    Args:
        student, teacher: the teacher is frozen.
        steps, lr: length and peak of the one-cycle schedule.
        trained: parts of the student.
        cache_bytes: how much memory latents may take that were computed once; 0 where clean images
            are cropped anew each time, so that their keys do not say what is in them.
    """

    def __init__(
        self,
        student: Restorer,
        teacher: Encoder,
        config: LcfmConfig,
        *,
        steps: int,
        lr: float,
        trained: Sequence[str] = ("enc", "mmse", "fmir"),
        cache_bytes: int = 0,
    ) -> None:
        super().__init__()
        self.student = student.requires_grad_(False)
        for part in trained:
            student.get_submodule(part).requires_grad_(True)
        self.teacher = teacher.requires_grad_(False)
        self.config = config
        self.steps = steps
        self.lr = lr
        self.cache_bytes = cache_bytes
        self.cached: dict[int, Tensor] = {}  # on the CPU

    @torch.no_grad()
    def latents(self, x_hq: Tensor, keys: Tensor) -> Tensor:
        """The teacher's latents of clean images (N, 3, H, W) with these (N,) keys."""
        names = keys.tolist()
        missing = [i for i, name in enumerate(names) if name not in self.cached]
        if not missing:
            return torch.stack([self.cached[name] for name in names]).to(x_hq)
        # Of the whole batch, always: kernels round otherwise where a batch is smaller, and a resumed run,
        # whose cache is empty, would go another way.
        z_hq = self.teacher(x_hq).float()
        size = z_hq[0].numel() * z_hq.element_size()
        for i in missing:
            if (len(self.cached) + 1) * size <= self.cache_bytes:
                self.cached[names[i]] = z_hq[i].cpu()
        return z_hq

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        z_hq = self.latents(batch.x_hq, batch.keys)
        terms = lcfm_loss(self.student, batch.x_lq, batch.x_hq, z_hq, self.config, batch.seeds)
        self.log_dict(terms, prog_bar=True)
        return terms["loss"]

    def configure_optimizers(self):
        return one_cycle([p for p in self.parameters() if p.requires_grad], self.lr, self.steps)

    @torch.no_grad()
    def draw(self, x_lq: Tensor, x_hq: Tensor) -> Image.Image:
        """Rows of degraded, coarse estimate, restored and clean image, always the same noise."""
        student, config = self.student, self.config
        x_lq = x_lq.to(self.device)
        coarse = student.encode(x_lq)
        noise = seeded_noise(tuple(coarse.shape), 0).to(x_lq)
        restored = student(x_lq, noise, steps=config.steps, sigma_s=config.sigma_s)
        return image_rows([x_lq, student.decode(coarse), restored, x_hq])
