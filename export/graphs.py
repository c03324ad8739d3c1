"""What a written file holds, whatever its format: programs of operators on tensors.

Each exporter's module reads its own format into this (``read_graphs`` there), with the library that there is
for it. Constants are tensors too; what expands a compressed weight is an operator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

INTEGERS = {"int4", "uint4", "int8", "uint8", "int16", "uint16"}  # that stand for real numbers


@dataclass(frozen=True)
class Value:
    """A tensor of a program.

    Attributes:
        name: in the file.
        shape: None in the place of a side that is known only when it runs; None: nothing is known.
        dtype: as NumPy calls it, ``int4`` besides.
        constant: whether it is stored in the file.
        scalar: of a constant of one value, that value.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    constant: bool = False
    scalar: float | None = None

    @property
    def size(self) -> int | None:
        """How many values it has; None where that is not known."""
        sides = [None] if self.shape is None else self.shape
        return None if None in sides else math.prod(side for side in sides if side is not None)


@dataclass(frozen=True)
class Operator:
    """A call in a program.

    Attributes:
        kind: as the format calls it.
        name: of this one, or of what it makes.
        inputs: the tensors it reads. Of one that expands a weight: the stored values, then their scales.
        outputs: the tensors it makes.
        outside: whether no delegate of the file has it.
        refused: why LiteRT's GPU accelerator does not take it; empty where it does.
    """

    kind: str
    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    outside: bool = False
    refused: str = ""


@dataclass(frozen=True)
class Graph:
    """One program of a file: its operators in the order they run, and what goes in and out."""

    program: str
    operators: tuple[Operator, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
