"""Photographs with faces at known places: clean faces set into pictures without any.

What is set is a head and not a square: the square fades out at its border, as the scene behind it differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from elir_mobile.faces.align import TEMPLATE, mapped, warp
from elir_mobile.faces.paste import faded, radius

# Side of the box around a face, from brow to chin and from ear to ear, in sides of its aligned square: what
# the face mesh says on average of the training faces (0.56 wide, 0.64 high).
BOX = 0.64


@dataclass(frozen=True)
class Placement:
    """An aligned face in a photograph.

    Attributes:
        face: square, upright, RGB.
        middle: where the middle of the square goes, x and y in pixels; it may lie outside.
        box: side of the face's box there, pixels.
        angle: by which it is turned, degrees, clockwise.
    """

    face: Image.Image
    middle: tuple[float, float]
    box: float
    angle: float = 0.0

    @property
    def matrix(self) -> np.ndarray:
        """From the face's own pixels to the photograph: (2, 3)."""
        scale, angle = self.box / BOX / self.face.width, math.radians(self.angle)
        turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return np.column_stack([turn, np.array(self.middle) - turn @ np.full(2, self.face.width / 2)])

    @property
    def points(self) -> np.ndarray:
        """Where eyes, nose and mouth are on average, (5, 2)."""
        return mapped(self.matrix, TEMPLATE * self.face.width)


def composed(photo: Image.Image, placements: Sequence[Placement]) -> Image.Image:
    """``photo`` with every face in its place."""
    out = np.asarray(photo).astype(np.float32)
    for placement in placements:
        side = placement.face.width
        rows, columns = (np.mgrid[0:side, 0:side] + 0.5) / side
        mask = faded(radius(np.stack([columns, rows], -1), 1.0))[..., None]
        reach = placement.box / BOX * math.sqrt(0.5)
        low = np.floor(np.array(placement.middle) - reach).astype(int).clip(0)
        high = np.ceil(np.array(placement.middle) + reach).astype(int).clip(0, photo.size)
        matrix = placement.matrix.copy()
        matrix[:, 2] -= low
        layer = np.concatenate([np.asarray(placement.face) * mask, mask], -1)
        # A border of nothing, so that what is mirrored beyond it is nothing, too.
        layer = np.pad(layer, ((side, side), (side, side), (0, 0)))
        matrix[:, 2] -= matrix[:, :2] @ np.full(2, side)
        set_in = warp(layer, matrix, *(high - low))
        there = out[low[1] : high[1], low[0] : high[0]]
        there[:] = there * (1 - set_in[..., 3:].clip(0, 1)) + set_in[..., :3]
    return Image.fromarray(out.round().clip(0, 255).astype(np.uint8))
