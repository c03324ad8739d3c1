"""Training squares: random crops of photographs, and faces moved and tinted a little.

Everything is (height, width, 3) uint8, and the generator that is passed in decides everything.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from elir_mobile.data.faces import CROP_BOX

SHRINK = (0.5, 1.0)  # range of the factor by which half of the photographs' crops are reduced
FACE_SHIFT, FACE_ZOOM = 4.0, 0.05  # pixels of the 160-pixel square; share of its side
BRIGHTNESS, TINT = 0.1, 0.04  # largest change of all channels together, and of each


def random_crop(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A square of ``picture``, mirrored half of the time: the liveliest of three places.

    Skies and walls fill most of a photograph, and there is little to be learned from them.
    """
    factor = rng.uniform(*SHRINK) if rng.random() < 0.5 else 1.0
    extent = min(round(side / factor), *picture.shape[:2])
    places = []
    for _ in range(3):
        top, left = (int(rng.integers(length - extent + 1)) for length in picture.shape[:2])
        places.append(picture[top : top + extent, left : left + extent])
    crop = max(places, key=lambda place: float(place[::4, ::4].std()))
    if extent != side:
        crop = np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def jittered_face(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """The square of an aligned 178×218 face, a little moved and tinted, mirrored half of the time."""
    left, top, right, bottom = CROP_BOX
    centre = np.array([left + right, top + bottom]) / 2 + rng.uniform(-FACE_SHIFT, FACE_SHIFT, 2)
    half = (right - left) / 2 * rng.uniform(1 - FACE_ZOOM, 1 + FACE_ZOOM)
    low = np.maximum(centre - half, 0)
    high = np.minimum(centre + half, [picture.shape[1], picture.shape[0]])
    face = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS, (*low, *high))
    gain = (1 + rng.uniform(-BRIGHTNESS, BRIGHTNESS)) * (1 + rng.uniform(-TINT, TINT, 3))
    tinted = (np.asarray(face) * gain).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(tinted[:, ::-1] if rng.random() < 0.5 else tinted)
