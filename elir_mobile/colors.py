"""Colours of the input for a restored picture.

A restorer invents detail, and on the way it may change a hue. What the input says of colour at low
frequencies is more to be trusted, wherever the degradation keeps it: blur, noise and JPEG do, missing
pixels do not. So the low band of the two chroma channels is taken from the input, as in the wavelet colour
fix of StableSR (Wang et al. 2024, section 3.4), here with the band of a Laplacian pyramid (Burt and
Adelson 1983).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

BAND = 16  # pixels; waves longer than about twice this are the input's
# Full-range BT.601, as in JPEG (JFIF 1.02): (R, G, B) to Cb and Cr, and back.
_TO_CHROMA = np.array([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_FROM_CHROMA = np.array([[0.0, 1.402], [-0.344136, -0.714136], [1.772, 0.0]], np.float32)


def is_grey(image: Image.Image) -> bool:
    """Whether an RGB image has no colour at all."""
    red, green, blue = (channel.tobytes() for channel in image.split())
    return red == green == blue


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
    chroma = [_enlarged((theirs - ours) @ to, given.size) for to in _TO_CHROMA]
    channels = []
    for channel, (from_cb, from_cr) in zip(restored.split(), _FROM_CHROMA, strict=True):
        moved = np.asarray(channel) + from_cb * chroma[0] + from_cr * chroma[1]
        channels.append(Image.fromarray(moved.round().clip(0, 255).astype(np.uint8)))
    return Image.merge("RGB", channels)


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))
