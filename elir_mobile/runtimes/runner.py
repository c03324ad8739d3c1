"""What every runtime looks like from outside: three callables, and the picture they make together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from elir_mobile.core.sampling import Loop, sample


@dataclass(frozen=True)
class Runner:
    """The three programs of one artifact, ready to run.

    Attributes:
        target: ``eager``, ``executorch``, …
        precision: the recipe's name.
        encode: image (1, 3, H, W) in [0, 1] → coarse latent (1, C, H/8, W/8).
        step: latent and step index k → latent after that Euler step.
        decode: latent → image (1, 3, H, W) in [0, 1].
        timed: whether their speed is the artifact's. An interpreter that only shows what a file
            computes says nothing of it.
    """

    target: str
    precision: str
    encode: Callable[[Tensor], Tensor]
    step: Callable[[Tensor, int], Tensor]
    decode: Callable[[Tensor], Tensor]
    timed: bool = True

    @torch.no_grad()
    def restore(
        self, x: Tensor, noise: Tensor, *, steps: int, sigma_s: float, fidelity: float = 0.0
    ) -> tuple[Tensor, list[Tensor]]:
        """Restored image and trajectory, see :func:`elir_mobile.core.sampling.sample`."""
        return sample(
            self.encode, self.step, self.decode, x, noise, steps=steps, sigma_s=sigma_s, fidelity=fidelity
        )

    def loop(self, steps: int, sigma_s: float) -> Loop:
        """The same programs on NumPy arrays."""

        @torch.no_grad()
        def run(program: Callable[..., Tensor], x: np.ndarray, *k: int) -> np.ndarray:
            return program(torch.from_numpy(x), *k).numpy()

        encode, step, decode = (partial(run, program) for program in (self.encode, self.step, self.decode))
        return Loop(encode, step, decode, steps, sigma_s)
