"""Restored squares back into their photograph.

A square is put back with a mask that fades out before its borders. Where the squares of two faces overlap,
each pixel belongs to the face whose middle is nearer, in units of the face. A face that is left alone takes
part in that, so that a neighbour's square never paints over it. What no mask reaches keeps its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from elir_mobile.faces.align import corners, inverse, mapped, scale_of, warp

FADE = 0.25  # share of the mask's radius over which it fades out
SHARPNESS = 12.0  # how quickly one face's pixels become the next one's
# The mask at margin 0, which has the face without hair and ears, and at margin 1: middle and half axes in a
# square of side 1.
FACE_ONLY, WHOLE = np.array([0.5, 0.56, 0.30, 0.36]), np.array([0.5, 0.5, 0.5, 0.5])
AT_ONCE = 1_000_000  # pixels: more than of any face that is set in smaller than its network made it
ROUND = 4  # exponent of the mask's outline: 2 an ellipse, infinity a rectangle


@dataclass(frozen=True)
class Patch:
    """One face of a photograph.

    Attributes:
        matrix: from the photograph to its aligned square.
        size: side of that square, pixels.
        restored: (size, size, 3) uint8; None: it is left alone.
    """

    matrix: np.ndarray
    size: int
    restored: np.ndarray | None


def radius(places: np.ndarray, margin: float) -> np.ndarray:
    """Distance from the middle of a face in units of its mask's: 1 at the outline.

    Args:
        places: (..., 2) in an aligned square of side 1.
        margin: from the face alone (0) to the whole square, with hair and ears (1).
    """
    x, y, wide, high = FACE_ONLY + margin * (WHOLE - FACE_ONLY)
    across = np.abs(places - [x, y]) / [wide, high]
    out: np.ndarray = (across**ROUND).sum(-1) ** (1 / ROUND)
    return out


def faded(distance: np.ndarray) -> np.ndarray:
    """The mask at a :func:`radius`: 1 inside, 0 from the outline on, a half cosine between."""
    inside = ((1 - distance) / FADE).clip(0, 1)
    out: np.ndarray = 0.5 - 0.5 * np.cos(np.pi * inside)
    return out


def paste(photo: Image.Image, patches: Sequence[Patch], margin: float) -> Image.Image:
    """``photo`` with every restored patch in its place.

    Args:
        photo: RGB.
        patches: the faces; of those without a restored square the photograph's own pixels stay.
        margin: see :func:`radius`.

    Returns:
        A picture with the bytes of ``photo`` wherever no mask reaches.
    """
    out, size = photo.copy(), np.array(photo.size)
    for patch in patches:
        outline = mapped(inverse(patch.matrix), corners(patch.size, patch.size))
        left, top = (int(place) for place in np.floor(outline.min(0)).clip(0, size))
        right, bottom = (int(place) for place in np.ceil(outline.max(0)).clip(0, size))
        if patch.restored is None or left == right or top == bottom:
            continue
        lines = max(1, AT_ONCE // (right - left))
        for first in range(top, bottom, lines):
            there = left, first, right, min(first + lines, bottom)
            columns, rows = np.meshgrid(np.arange(left, right) + 0.5, np.arange(first, there[3]) + 0.5)
            share = _share(patch, patches, np.stack([columns, rows], -1), margin)[..., None]
            shift = np.column_stack([np.zeros((2, 2)), [left, first]])
            made = warp(patch.restored, inverse(patch.matrix) - shift, *columns.shape[::-1]).clip(0, 255)
            new = np.asarray(out.crop(there)) + share * (made - np.asarray(photo.crop(there)))
            out.paste(Image.fromarray(new.round().clip(0, 255).astype(np.uint8)), there)
    return out


def _share(patch: Patch, patches: Sequence[Patch], places: np.ndarray, margin: float) -> np.ndarray:
    """How much of each of the photograph's ``places`` (..., 2) ``patch`` paints over: its mask, less what is
    nearer to other faces."""
    mine = radius(mapped(patch.matrix, places) / patch.size, margin)
    mask = faded(mine)
    claims = mask.copy()
    for other in patches:
        if other is not patch and _meet(patch, other):
            theirs = radius(mapped(other.matrix, places) / other.size, margin)
            claims += faded(theirs) * np.exp(SHARPNESS * (mine - theirs).clip(-50, 50))
    return mask * mask / np.maximum(claims, np.finfo(float).tiny)


def _meet(one: Patch, other: Patch) -> bool:
    """Whether the circles around two squares overlap."""
    middles = [mapped(inverse(p.matrix), np.full(2, p.size / 2)) for p in (one, other)]
    reach = sum(p.size / scale_of(p.matrix) / math.sqrt(2) for p in (one, other))
    return bool(np.linalg.norm(middles[0] - middles[1]) < reach)
