"""Synthetic degradations: a clean square image in, what the restorer is given out.

Each follows the training transform of upstream ``ELIR/datasets/ffhq.py``, whose own steps (noise,
masks, grey) are in ``ELIR/datasets/dataset.py``. Values are in 8-bit units; every random number comes
from the generator that is passed in.
"""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

BFR_REFERENCE_SIDE = 512  # the side that the bfr constants below are stated for
BFR_BLUR_KERNEL = 41
BFR_BLUR_SIGMA = (0.1, 15.0)
BFR_NOISE_STD = (0.0, 20.0)
BFR_JPEG_QUALITY = (30, 100)

SR_FACTOR, SR_NOISE_STD = 8, 12.8
DENOISING_NOISE_STD = 89.6
PHOTO_NOISE_STD, PHOTO_GRAIN, PHOTO_JPEG_QUALITY = (5.0, 50.0), (0.3, 0.8), (60, 100)
PHOTO_CLEAN = 0.1  # share of pictures without noise
INPAINTING_MASKED, INPAINTING_NOISE_STD = 0.9, 25.6
COLORIZATION_NOISE_STD = 64.0
BOX_SIDE, BOX_NOISE_STD = 0.5, 25.6  # side of the hidden box, as a share of the image's


def gaussian_blur(image: Image.Image, kernel: int, sigma: float) -> Image.Image:
    """Separable Gaussian blur of odd ``kernel`` size with reflected borders."""
    radius = kernel // 2
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float32) / sigma) ** 2)
    taps /= taps.sum()
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[:, None].float()
    x = F.pad(x, (radius, radius, radius, radius), mode="reflect")
    x = F.conv2d(F.conv2d(x, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return Image.fromarray(x[:, 0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy())


def gaussian_noise(image: Image.Image, std: float, rng: np.random.Generator) -> Image.Image:
    """Additive white Gaussian noise of ``std`` in 8-bit units, rounded and clipped."""
    noisy = np.asarray(image) + rng.standard_normal((image.height, image.width, 3)) * std
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Through a JPEG file of ``quality`` and back."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def bfr_reduction(side: int, rng: np.random.Generator) -> tuple[float, int]:
    """Spread of the blur of :func:`degrade_bfr`, and the side that it reduces to, pixels: its first draws."""
    low, high = (sigma * (side / BFR_REFERENCE_SIDE) for sigma in BFR_BLUR_SIGMA)
    return rng.uniform(low, high), int(rng.integers(side // 32, int(1.2 * side)))


def degrade_bfr(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur, resize to a random size, noise, JPEG, resize back.

    The blur is stated for a side of 512 and is scaled with the side: a small image blurred by
    the full kernel has no face left in it. The other steps scale by themselves.
    """
    side = image.width
    kernel = max(3, round(BFR_BLUR_KERNEL * side / BFR_REFERENCE_SIDE) // 2 * 2 + 1)
    sigma, small = bfr_reduction(side, rng)
    image = gaussian_blur(image, kernel, sigma)
    image = image.resize((small, small), Image.Resampling.BILINEAR)
    image = gaussian_noise(image, rng.uniform(*BFR_NOISE_STD), rng)
    image = jpeg(image, int(rng.integers(BFR_JPEG_QUALITY[0], BFR_JPEG_QUALITY[1] + 1)))
    return image.resize((side, side), Image.Resampling.BILINEAR)


def degrade_sr(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bicubic reduction by 8, noise, nearest-exact enlargement to the old size."""
    small = image.resize((image.width // SR_FACTOR, image.height // SR_FACTOR), Image.Resampling.BICUBIC)
    # Pillow's nearest samples pixel centres, as torch's nearest-exact does.
    return gaussian_noise(small, SR_NOISE_STD, rng).resize(image.size, Image.Resampling.NEAREST)


def degrade_denoising(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Strong white noise."""
    return gaussian_noise(image, DENOISING_NOISE_STD, rng)


def degrade_photo_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The noise of a camera, of unknown strength: a spread of up to 50, then JPEG half of the time.

    Half of the pictures have white noise, as sensors make it, the others coarser noise of the same spread,
    as what is left of it after a camera's own processing. Some are clean, so that the restorer
    learns to leave those alone.
    """
    if rng.random() >= PHOTO_CLEAN:
        std = rng.uniform(*PHOTO_NOISE_STD)
        noise = rng.standard_normal((image.height, image.width, 3)).astype(np.float32)
        if rng.random() < 0.5:
            noise = _coarser(noise, rng.uniform(*PHOTO_GRAIN))
        noisy = np.asarray(image) + noise * np.float32(std)
        image = Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        image = jpeg(image, int(rng.integers(PHOTO_JPEG_QUALITY[0], PHOTO_JPEG_QUALITY[1] + 1)))
    return image


def _coarser(noise: np.ndarray, sigma: float) -> np.ndarray:
    """White noise (height, width, channels) blurred by a Gaussian, at its old spread."""
    taps = np.exp(-0.5 * (np.arange(-2, 3, dtype=np.float32) / np.float32(sigma)) ** 2)
    taps /= np.sqrt((taps**2).sum())
    for axis in (0, 1):
        padded = np.pad(noise, [(2, 2) if i == axis else (0, 0) for i in range(3)], mode="wrap")
        noise = sum(
            tap * np.take(padded, range(i, i + noise.shape[axis]), axis) for i, tap in enumerate(taps)
        )
    return noise


def degrade_inpainting(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Nine of ten pixels black, chosen without replacement, then noise on all."""
    pixels = np.array(image).reshape(-1, 3)
    pixels[rng.choice(len(pixels), int(len(pixels) * INPAINTING_MASKED), replace=False)] = 0
    masked = Image.fromarray(pixels.reshape(image.height, image.width, 3))
    return gaussian_noise(masked, INPAINTING_NOISE_STD, rng)


def degrade_colorization(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mean of the three channels plus one noise for all three."""
    grey = np.asarray(image).mean(-1, keepdims=True)
    grey = grey + rng.standard_normal(grey.shape) * COLORIZATION_NOISE_STD
    return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8).repeat(3, -1))


def degrade_box(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A black box of half the width and height at a random place, then noise on all."""
    pixels = np.array(image)
    height, width = int(image.height * BOX_SIDE), int(image.width * BOX_SIDE)
    top, left = rng.integers(image.height - height), rng.integers(image.width - width)
    pixels[top : top + height, left : left + width] = 0
    return gaussian_noise(Image.fromarray(pixels), BOX_NOISE_STD, rng)
