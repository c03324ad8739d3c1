"""Colours of the input for a restored picture.

A restorer invents detail, and on the way it may change a hue. What the input says of colour at low
frequencies is more to be trusted, wherever the degradation keeps it: blur, noise and JPEG do, missing
pixels do not. So the low band of the two chroma channels is taken from the input, as in the wavelet colour
fix of StableSR (Wang et al. 2024, section 3.4), here with the band of a Laplacian pyramid (Burt and
Adelson 1983).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops

BAND = 16  # pixels; waves longer than about twice this are the input's
# Full-range BT.601, as in JPEG (JFIF 1.02): (R, G, B) to Cb and Cr, and back.
_TO_CHROMA = np.array([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_FROM_CHROMA = np.array([[0.0, 1.402], [-0.344136, -0.714136], [1.772, 0.0]], np.float32)


def is_grey(image: Image.Image) -> bool:
    """Whether an RGB image has no colour at all."""
    red, *others = image.split()
    return all(ImageChops.difference(red, other).getbbox() is None for other in others)


def strips(height: int, lines: int = 256) -> Iterator[tuple[int, int]]:
    """First line and end of each part of a large picture whose pixels are in float at one time."""
    return ((top, min(top + lines, height)) for top in range(0, height, lines))


def keep_colors(restored: Image.Image, given: Image.Image) -> Image.Image:
    """``restored`` with the chroma of ``given`` at low frequencies; grey where ``given`` is.

    Args:
        restored, given: 8-bit RGB images of one size.
    """
    if is_grey(given):
        return restored.convert("L").convert("RGB")
    small = max(1, round(given.width / BAND)), max(1, round(given.height / BAND))
    theirs, ours = (
        np.asarray(image.resize(small, Image.Resampling.BOX)).astype(np.float32)
        for image in (given, restored)
    )
    chroma = [Image.fromarray((theirs - ours) @ to) for to in _TO_CHROMA]
    out = Image.new("RGB", given.size)
    for top, bottom in strips(given.height):
        size, part = (given.width, bottom - top), (0, top, given.width, bottom)
        box = (0, top * small[1] / given.height, small[0], bottom * small[1] / given.height)
        cb, cr = (np.asarray(one.resize(size, Image.Resampling.BICUBIC, box)) for one in chroma)
        moved = np.stack([cb, cr], -1) @ _FROM_CHROMA.T + np.asarray(restored.crop(part))
        out.paste(Image.fromarray(moved.round().clip(0, 255).astype(np.uint8)), part)
    return out
