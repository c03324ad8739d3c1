"""Random batches of images that lie in memory, mirrored and degraded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elir_mobile.images import to_image, to_tensor
from elir_mobile.tasks import Task
from elir_mobile.training.loop import draw_seed


@dataclass(frozen=True)
class Draw:
    """A batch of N.

    Attributes:
        picks: index of each image, and 1 if it is mirrored.
        degraded: (N, 3, H, W) in [0, 1].
        clean: the same before degradation.
        seed: for the noise of the batch; that of the degradations too.
    """

    picks: list[tuple[int, int]]
    degraded: Tensor
    clean: Tensor
    seed: int


def degrade(image: Tensor, task: Task, rng: np.random.Generator) -> Tensor:
    """The task's degradation of a uint8 image (3, H, W): float (3, H, W) in [0, 1]."""
    return to_tensor(task.degrade(to_image(image.float() / 255), rng))


def draw_clean(
    images: Tensor, count: int, generator: torch.Generator
) -> tuple[list[tuple[int, int]], Tensor]:
    """Picks, see :class:`Draw`, and images (count, 3, H, W) uint8 of ``images``, with replacement."""
    indices = torch.randint(len(images), (count,), generator=generator).tolist()
    mirrored = torch.randint(2, (count,), generator=generator).tolist()
    picks = list(zip(indices, mirrored, strict=True))
    return picks, torch.stack([images[i].flip(-1) if mirror else images[i] for i, mirror in picks])


def draw_batch(images: Tensor, task: Task, count: int, generator: torch.Generator) -> Draw:
    """What :func:`draw_clean` draws, degraded; the generator decides everything."""
    picks, clean = draw_clean(images, count, generator)
    seed = draw_seed(generator)
    rng = np.random.default_rng(seed)
    degraded = torch.stack([degrade(image, task, rng) for image in clean])
    return Draw(picks, degraded, clean.float() / 255, seed)
