"""The three programs of an exported file, or of the float network, on tensors; and the picture they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elir_mobile.core.sampling import Loop, sample
from elir_mobile.runtimes.programs import Program, open_programs


@dataclass(frozen=True)
class Runner:
    """Three programs, ready to run.

    Attributes:
        encode: image (1, 3, H, W) in [0, 1] → coarse latent (1, C, H/8, W/8).
        step: latent and step index k → latent after that Euler step.
        decode: latent → image (1, 3, H, W) in [0, 1].
    """

    encode: Callable[[Tensor], Tensor]
    step: Callable[[Tensor, int], Tensor]
    decode: Callable[[Tensor], Tensor]

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


def open_runner(target: str, path: Path, table: Tensor, threads: int | None = None) -> Runner:
    """The runner of the file at ``path``, opened with the runtime of ``target``.

    Args:
        table: the K-row table of time biases, (K, ΣC).
        threads: that the runtime may use; None: one for each core.

    Raises:
        UserError: no such target, its runtime is not installed, or the file cannot be loaded.
    """
    return make_runner(open_programs(target, path, threads), table)


def make_runner(programs: Mapping[str, Program], table: Tensor) -> Runner:
    """``programs`` on tensors, their step taking the index of its table row."""

    def run(name: str, *inputs: Tensor) -> Tensor:
        return torch.from_numpy(programs[name](*(tensor.numpy() for tensor in inputs)))

    return Runner(
        lambda x: run("encode", x),
        lambda z, k: run("step", z, table[k].view(1, -1, 1, 1)),
        lambda z: run("decode", z),
    )
