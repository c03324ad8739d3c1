"""From a photograph to the square that a face network was trained on, and back.

Coordinates are in pixels and continuous: pixel ``i`` covers ``i`` to ``i + 1``, so that a picture and its
reduction differ by a factor alone. A map is a (2, 3) float64 matrix: ``A @ (x, y, 1)``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

# Left eye, right eye (as seen in the picture), nose, left and right corner of the mouth in a square of side
# 1: the mean positions in FFHQ that facexlib gives for 512 pixels (``FaceRestoreHelper.face_template``).
TEMPLATE = (
    np.array(
        [
            [192.98138, 239.94708],
            [318.90277, 240.19360],
            [256.63416, 314.01935],
            [201.26117, 371.41043],
            [313.08905, 371.15118],
        ]
    )
    / 512
)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that bring ``source`` nearest to ``target`` in least squares.

    Umeyama's problem (1991) in the plane, where a turn with a scale is one complex factor, and never a
    mirror image.

    Args:
        source, target: points (N, 2), N ≥ 2, not all of ``source`` in one place.

    Returns:
        The map from ``source`` to ``target``.
    """
    p, q = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    centred = p - p.mean()
    factor = (centred.conj() * (q - q.mean())).sum() / (np.abs(centred) ** 2).sum()
    shift = q.mean() - factor * p.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The map back."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def mapped(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2) through ``matrix``."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def scale_of(matrix: np.ndarray) -> float:
    """How many times longer a similarity makes things."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def corners(width: float, height: float) -> np.ndarray:
    """The four corners of a picture: (4, 2)."""
    return np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])


def warp(pixels: np.ndarray | Image.Image, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture through a similarity, in float: bicubic, reduced with antialiasing first where it shrinks.

    Args:
        pixels: (H, W, C), any number type, or an 8-bit picture; its borders are mirrored, as FFHQ's are.
        matrix: from ``pixels`` to the result.
        width, height: of the result.

    Returns:
        (height, width, C) float32 in the units of ``pixels``; bicubic, so a little beyond their range.
    """
    back = inverse(matrix)
    needed = mapped(back, corners(width, height))
    scale = scale_of(matrix)
    margin = 2 + 2 / min(scale, 1)  # what the filters reach
    size = np.array(pixels.size if isinstance(pixels, Image.Image) else pixels.shape[1::-1])
    first, last = needed.min(0) - margin, needed.max(0) + margin
    # What lies beyond a border is mirrored from as far inside.
    low = np.floor(np.minimum(first, 2 * size - last).clip(0, size - 1)).astype(int)
    high = np.ceil(np.maximum(last, -first)).astype(int).clip(None, size)
    if isinstance(pixels, Image.Image):
        part = np.asarray(pixels.crop((*low, *high)))
    else:
        part = pixels[low[1] : high[1], low[0] : high[0]]
    channels = []
    for channel in np.moveaxis(part, -1, 0):  # one after another, since in float a large face takes gigabytes
        x = torch.from_numpy(channel.astype(np.float32))[None, None]
        if scale < 1:
            smaller = [max(1, round(side * scale)) for side in channel.shape]
            x = F.interpolate(x, size=smaller, mode="bicubic", antialias=True)
        channels.append(x)
    x = torch.cat(channels, 1)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    places = mapped(back, np.stack([columns, rows], -1)) - low
    grid = torch.from_numpy(2 * places / [part.shape[1], part.shape[0]] - 1)[None].float()
    out = F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return out[0].permute(1, 2, 0).numpy()
