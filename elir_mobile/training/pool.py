"""A pool of prepared training examples, of which a few are made anew at every step.

Degrading a picture and encoding it cost as much as a training step on it. So an example serves several
times before another takes its place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Make = Callable[[np.random.Generator, int], tuple[Tensor, ...]]
CHUNK = 16  # examples made at a time when the pool is filled


class Pool:
    """Examples made by ``make(generator, count)``: tensors (count, …), equal places belong together."""

    def __init__(self, make: Make, size: int, seed: int) -> None:
        self.make = make
        rng = np.random.default_rng([seed, size])
        chunks = [make(rng, CHUNK) for _ in range(size // CHUNK)]
        self.examples = tuple(torch.cat(column) for column in zip(*chunks, strict=True))
        self.next = 0

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, ...]:
        """``count`` examples, with replacement."""
        picks = torch.from_numpy(rng.integers(len(self.examples[0]), size=count))
        return tuple(column[picks] for column in self.examples)

    def refresh(self, rng: np.random.Generator, count: int) -> None:
        """Replace the ``count`` oldest examples."""
        places = [(self.next + i) % len(self.examples[0]) for i in range(count)]
        for column, new in zip(self.examples, self.make(rng, count), strict=True):
            column[places] = new
        self.next = (self.next + count) % len(self.examples[0])
