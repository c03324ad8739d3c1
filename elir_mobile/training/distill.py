"""Distill any ELIR checkpoint into a lighter one: another form of the autoencoder, fewer Euler steps.

The command is :mod:`elir_mobile.cli.distill`. Nothing but pictures is needed: what the teacher makes of them
is what the student learns. Pictures are degraded as the task says, and each stage goes on where it was
stopped (:mod:`elir_mobile.training.stage`):

1. ``encoder``: the teacher's latents, before and behind its coarse estimator, which the student keeps.
2. ``decoder``: the teacher's pictures of the teacher's latents, by L1, image gradients and LPIPS on VGG-16.
3. ``flow``: K steps of the student from its own coarse latents, each landing where the teacher's
   trajectory is at that time; the teacher's velocity field is where it begins.

A stage is left out where student and teacher do not differ in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from elir_mobile.checkpoints import ModelInfo, save_weights
from elir_mobile.core.errors import UserError, say
from elir_mobile.data.crops import random_crop
from elir_mobile.images import Source, list_images, read_image, readable, square
from elir_mobile.metrics.fidelity import psnr
from elir_mobile.metrics.perceptual import lpips, lpips_available
from elir_mobile.models.autoencoder import Form
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.tasks import ALIGNED_FACE, Task
from elir_mobile.training import demo
from elir_mobile.training.autoencoder import PERCEPTUAL_WEIGHT, reconstruction_loss
from elir_mobile.training.demo import in_batches, save_rows, stacked
from elir_mobile.training.pool import Pool
from elir_mobile.training.stage import Plan, train

LR = 1e-3
BATCH = 8
POOL = 128, 2048  # examples at first and at most
MORE = 1  # examples that are added at every step
SHARES = {"encoder": 0.25, "decoder": 0.45, "flow": 0.3}  # of the minutes
HELD_OUT = 8  # pictures at most that the strips and figures show, of every tenth
PERCEPTUAL_IMAGES = 2  # of a batch: VGG costs as much as all else


@dataclass(frozen=True)
class Distillation:
    """What is asked for.

    Attributes:
        steps: the student's K.
        size: side of the training squares, pixels.
        minutes: of processor time, for all stages together.
    """

    task: Task
    info: ModelInfo
    steps: int
    size: int
    minutes: float
    seed: int = 0


def student_of(teacher: Restorer, autoencoder: Form) -> Restorer:
    """A network of the teacher's widths with another form of the autoencoder, and everything else its own."""
    student = Restorer(replace(teacher.arch, autoencoder=autoencoder))
    same = autoencoder == teacher.arch.autoencoder
    for name, part in student.named_children():
        if same or name in ("mmse", "fmir"):
            part.load_state_dict(getattr(teacher, name).state_dict())
    return student


def at_time(path: list[Tensor], t: float) -> Tensor:
    """The point of a trajectory at ``t`` in [0, 1]: Euler steps are straight, so between two it is theirs."""
    place = t * (len(path) - 1)
    k = min(int(place), len(path) - 2)
    return torch.lerp(path[k], path[k + 1], place - k)


class Distiller:
    """One run: teacher, student and pictures.

    Args:
        folder: of the pictures; every tenth, in the order of names, is held out, at least one.

    Raises:
        UserError: fewer than two pictures.
    """

    def __init__(self, teacher: Restorer, student: Restorer, asked: Distillation, folder: Path) -> None:
        self.teacher, self.student, self.asked = teacher.eval().requires_grad_(False), student.eval(), asked
        self.student.requires_grad_(False)
        paths = list_images(folder, say)
        if len(paths) < 2:
            raise UserError(f"{folder} has one image: put in more, one of ten is held out")
        self.images = Source([path for index, path in enumerate(paths) if index % 10 != 1])
        rng = np.random.default_rng([asked.seed, 1])
        kept = islice(readable(paths[1::10], say), HELD_OUT)
        heldout = [square(read_image(path), asked.size) for path in kept]
        if not heldout:
            raise UserError(f"none of the images of {folder} that are held out can be read: put in others")
        self.clean = stacked([np.asarray(image) for image in heldout]).float() / 255
        self.degrade = asked.task.degradation(asked.info.domain)
        self.shown = stacked([np.asarray(self.degrade(image, rng)) for image in heldout]).float() / 255

    def degraded(self, count: int, rng: np.random.Generator) -> Tensor:
        """Degraded training squares (count, 3, side, side) uint8: crops of photographs, whole faces."""
        squares = []
        for _ in range(count):
            image = self.images[int(rng.integers(len(self.images)))]
            if self.asked.info.domain == ALIGNED_FACE or min(image.size) < self.asked.size:
                image = square(image, self.asked.size)
            else:
                image = Image.fromarray(random_crop(np.asarray(image), self.asked.size, rng))
            squares.append(np.asarray(self.degrade(image, rng)))
        return stacked(squares)

    @torch.no_grad()
    def made(self, rng: np.random.Generator, count: int) -> tuple[Tensor, ...]:
        """Degraded squares (uint8), the noise, the teacher's latents at the student's times (N, K+1, …)."""
        squares = self.degraded(count, rng)
        coarse = in_batches(self.teacher.encode, squares.float() / 255, BATCH)
        noise = seeded_noise(tuple(coarse.shape), int(rng.integers(2**31)))
        steps, sigma_s = self.asked.info.steps, self.asked.info.sigma_s
        path = self.teacher.trajectory(coarse, noise, steps=steps, sigma_s=sigma_s)
        points = [at_time(path, k / self.asked.steps) for k in range(self.asked.steps + 1)]
        return squares, noise, torch.stack(points, 1)

    def run(self, folder: Path) -> Path:
        """Every stage that is wanted, and the student's weights: ``folder/distilled.safetensors``."""
        other_form = self.student.arch.autoencoder != self.teacher.arch.autoencoder
        wanted = ["encoder", "decoder"] if other_form else []
        wanted += ["flow"] if other_form or self.asked.steps != self.asked.info.steps else []
        if not wanted:
            raise UserError("the student would be the teacher: ask for another --autoencoder or --steps")
        whole = sum(SHARES[name] for name in wanted)
        pool = Pool(self.made, *POOL, self.asked.seed)
        for number, name in enumerate(wanted):
            minutes = self.asked.minutes * SHARES[name] / whole
            plan = Plan(minutes, LR, 100 * self.asked.seed + number)
            self._stage(name, pool, folder / name, plan)
        path = folder / "distilled.safetensors"
        info = self.asked.info
        save_weights(
            self.student,
            path,
            task=self.asked.task.name,
            size=info.size,
            steps=self.asked.steps,
            sigma_s=info.sigma_s,
            domain=info.domain,
        )
        return path

    def _stage(self, name: str, pool: Pool, folder: Path, plan: Plan) -> None:
        parts = {"encoder": self.student.enc, "decoder": self.student.dec, "flow": self.student.fmir}
        part: nn.Module = parts[name].requires_grad_(True)
        losses = {"encoder": self._encoder_loss, "decoder": self._decoder_loss, "flow": self._flow_loss}

        def loss(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
            pool.add(rng, MORE)
            squares, noise, points = pool.draw(rng, BATCH)
            return {"loss": losses[name](squares.float() / 255, noise, points)}

        train(part, loss, self._show, folder, plan)
        part.requires_grad_(False)

    def _encoder_loss(self, x: Tensor, noise: Tensor, points: Tensor) -> Tensor:
        with torch.no_grad():
            latent = self.teacher.enc(x)
        ours = self.student.enc(x)
        coarse = points[:, 0] - self.asked.info.sigma_s * noise
        return F.mse_loss(ours, latent) + F.mse_loss(self.student.mmse(ours), coarse)

    def _decoder_loss(self, x: Tensor, noise: Tensor, points: Tensor) -> Tensor:
        with torch.no_grad():
            picture = self.teacher.decode(points[:, -1])
        out = self.student.dec(points[:, -1])
        loss = reconstruction_loss(out, picture)
        if lpips_available():
            near = out[:PERCEPTUAL_IMAGES].clamp(0, 1)
            loss = loss + PERCEPTUAL_WEIGHT * lpips(near, picture[:PERCEPTUAL_IMAGES], "vgg16").mean()
        return loss

    def _flow_loss(self, x: Tensor, noise: Tensor, points: Tensor) -> Tensor:
        with torch.no_grad():
            coarse = self.student.encode(x)
        sigma_s = self.asked.info.sigma_s
        path = self.student.trajectory(coarse, noise, steps=self.asked.steps, sigma_s=sigma_s)
        return F.mse_loss(torch.stack(path[1:], 1), points[:, 1:])

    def _show(self, path: Path) -> str:
        """Student against teacher and both against the truth, on the held-out pictures."""
        sigma_s = self.asked.info.sigma_s
        made = []
        for network, steps in ((self.teacher, self.asked.info.steps), (self.student, self.asked.steps)):
            coarse = in_batches(network.encode, self.shown, BATCH)
            noise = seeded_noise(tuple(coarse.shape), self.asked.seed)
            z = network.trajectory(coarse, noise, steps=steps, sigma_s=sigma_s)[-1]
            made.append(in_batches(network.decode, z, BATCH))
        teacher, student = made
        save_rows([self.shown, teacher, student, self.clean], path)
        return (
            f"student against teacher {figures(student, teacher)} | against the truth: "
            f"student {figures(student, self.clean)}, teacher {figures(teacher, self.clean)}"
        )


def figures(out: Tensor, ref: Tensor) -> str:
    """:func:`elir_mobile.training.demo.figures`, without LPIPS where its weights are not installed."""
    if lpips_available():
        return demo.figures(out, ref)
    return f"{float(psnr(out, ref).clamp(max=99).mean()):.2f} dB"
