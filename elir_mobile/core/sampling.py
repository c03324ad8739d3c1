"""The one sampling loop, whatever computes the three programs: tensors, arrays, exported files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

PROGRAMS = ("encode", "step", "decode")

Latent = TypeVar("Latent", bound=Any)  # a tensor or an array: it adds and scales


def sample(
    encode: Callable[[Latent], Latent],
    step: Callable[[Latent, int], Latent],
    decode: Callable[[Latent], Latent],
    x: Latent,
    noise: Latent,
    *,
    steps: int,
    sigma_s: float,
    fidelity: float = 0.0,
) -> tuple[Latent, list[Latent]]:
    """Restore one image ``x`` (1, 3, H, W) in [0, 1] with unit Gaussian ``noise`` of the latent's shape.

    Args:
        fidelity: 0 decodes the sample, 1 the coarse estimate, which is nearer to the truth on average and
            smoother; between them the latents are mixed.

    Returns:
        The restored image and the trajectory: the K+1 latents from the noised coarse estimate
        to the last step's output, or the first alone where ``fidelity`` is 1.
    """
    coarse = encode(x)
    trajectory = [coarse + sigma_s * noise]
    if fidelity == 1:
        return decode(coarse), trajectory
    for k in range(steps):
        trajectory.append(step(trajectory[-1], k))
    z = trajectory[-1]
    return decode(z + fidelity * (coarse - z) if fidelity else z), trajectory


@dataclass(frozen=True)
class Loop:
    """Three programs on float32 arrays, ready to restore.

    Attributes:
        encode: image (1, 3, H, W) in [0, 1] → coarse latent (1, C, H/8, W/8).
        step: latent and index k → latent after that Euler step.
        decode: latent → image in [0, 1].
        steps: K.
        sigma_s: scale of the noise.
    """

    encode: Callable[[np.ndarray], np.ndarray]
    step: Callable[[np.ndarray, int], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]
    steps: int
    sigma_s: float

    def restore(self, x: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """:func:`sample` with these programs."""
        return sample(self.encode, self.step, self.decode, x, noise, steps=self.steps, sigma_s=self.sigma_s)
