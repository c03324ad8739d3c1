"""Calibration along real trajectories.

What a program will see on a device is what it sees here: degraded images go through the float
programs' own sampling loop, and the inputs of every call are kept, all K steps of every image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from elir_mobile.models.restorer import seeded_noise
from export.programs import PROGRAM_NAMES, Programs, Samples


@torch.no_grad()
def collect_samples(programs: Programs, images: Iterable[Tensor], seed: int) -> Samples:
    """Inputs of every program call while ``images`` are restored in float.

    Args:
        programs: rewritten float programs.
        images: degraded images (1, 3, H, W) in [0, 1].
        seed: image ``i`` gets the noise of ``seed + i``.

    Returns:
        For each program the input tuples in the order of the calls: one for each image for
        ``encode`` and ``decode``, K for each image for ``step``.
    """
    samples: Samples = {name: [] for name in PROGRAM_NAMES}

    def record(name: str, *inputs: Tensor) -> Tensor:
        samples[name].append(inputs)
        return programs.modules[name](*inputs)

    for index, image in enumerate(images):
        programs.restore(record, image, seeded_noise(programs.latent_shape, seed + index))
    return samples


def digest(samples: Samples) -> str:
    """SHA-256 over all calibration inputs, for the manifest."""
    sha = hashlib.sha256()
    for name in PROGRAM_NAMES:
        for inputs in samples[name]:
            for tensor in inputs:
                sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()
