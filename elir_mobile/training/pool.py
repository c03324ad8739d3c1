"""A pool of prepared training examples, to which a few are added at every step.

Degrading a picture and encoding it cost as much as a training step on it. So an example serves many
times, until the pool is full and a new one takes its place. It begins small: training need not wait.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Make = Callable[[np.random.Generator, int], tuple[Tensor, ...]]
CHUNK = 16  # examples made at a time at the beginning


class Pool:
    """Examples made by ``make(generator, count)``: tensors (count, …), equal places belong together.

    Args:
        first: how many there are at the beginning, a multiple of ``CHUNK``.
        most: how many there can be.
    """

    def __init__(self, make: Make, first: int, most: int, seed: int) -> None:
        self.make = make
        self.first = first
        self.most = most
        self.seed = seed
        self.made = 0
        self.examples: tuple[Tensor, ...] = ()

    def _begin(self) -> None:
        rng = np.random.default_rng([self.seed, self.first])
        chunks = [self.make(rng, CHUNK) for _ in range(self.first // CHUNK)]
        self.examples = tuple(
            torch.empty((self.most, *column[0].shape[1:]), dtype=column[0].dtype)
            for column in zip(*chunks, strict=True)
        )
        for chunk in chunks:
            self._put(chunk)

    def _put(self, new: tuple[Tensor, ...]) -> None:
        places = [(self.made + i) % self.most for i in range(len(new[0]))]
        for column, values in zip(self.examples, new, strict=True):
            column[places] = values
        self.made += len(places)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, ...]:
        """``count`` examples, with replacement."""
        if not self.made:
            self._begin()
        picks = torch.from_numpy(rng.integers(min(self.made, self.most), size=count))
        return tuple(column[picks] for column in self.examples)

    def add(self, rng: np.random.Generator, count: int) -> None:
        """``count`` more; where the pool is full, the oldest go."""
        if not self.made:
            self._begin()
        self._put(self.make(rng, count))
