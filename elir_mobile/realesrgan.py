"""The Real-ESRGAN degradation of the blind super-resolution task: ×4, with everything that photos suffer.

Real-ESRGAN (https://arxiv.org/abs/2107.10833, sections 3.1 to 3.4) with the settings of upstream
``ELIR/datasets/blindsr.py`` and ``imagenet.py``; kernels and noise as BasicSR's ``degradations.py``
defines them. Upstream turns the second blur, resize and noise off (``second_order_prob`` 0); the
second JPEG and the sinc filter always run. Images here are tensors (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from elir_mobile.degradations import jpeg
from elir_mobile.images import to_image, to_tensor

FACTOR = 4
KERNEL_SIZES = range(7, 22, 2)
SHAPES = ("gaussian", "generalized", "plateau")
SHAPE_PROBABILITY = ((0.45, 0.25), (0.12, 0.03), (0.12, 0.03))  # (isotropic, anisotropic) of each
BETA = {"gaussian": (1.0, 1.0), "generalized": (0.5, 4.0), "plateau": (1.0, 2.0)}
SINC_PROBABILITY, FINAL_SINC_PROBABILITY = 0.1, 0.8
GREY_NOISE_PROBABILITY = 0.4
GAUSSIAN_PROBABILITY = 0.5
JPEG_QUALITY = (30, 95)
MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Order:
    """Settings of one round of blur, resize and noise.

    Attributes:
        blur: probability of blurring at all.
        sigma: range of the kernels' spread, pixels.
        resize: probabilities of enlarging, reducing, keeping the size.
        scale: smallest and largest resize factor.
        gaussian: range of the Gaussian noise's spread, 8-bit units.
        poisson: range of the Poisson noise's scale.
    """

    blur: float
    sigma: tuple[float, float]
    resize: tuple[float, float, float]
    scale: tuple[float, float]
    gaussian: tuple[float, float]
    poisson: tuple[float, float]


FIRST = Order(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0))
SECOND = Order(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))


def blur_kernel(
    shape: str, side: int, sigma: tuple[float, float], angle: float = 0.0, beta: float = 1.0
) -> Tensor:
    """Kernel (side, side) with sum one, from the quadratic form q of a rotated ellipse.

    ``gaussian``: exp(-q/2); ``generalized``: exp(-q^beta / 2); ``plateau``: 1 / (1 + q^beta).
    """
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag(np.square(sigma)) @ turn.T)
    axis = np.arange(side) - side // 2
    grid = np.stack(np.meshgrid(axis, axis), -1)
    q = np.einsum("yxi,ij,yxj->yx", grid, inverse, grid) ** beta
    kernel = 1 / (1 + q) if shape == "plateau" else np.exp(-q / 2)
    return torch.from_numpy(kernel / kernel.sum()).float()


def sinc_kernel(side: int, cutoff: float) -> Tensor:
    """Ideal circular low pass at ``cutoff`` (radians a pixel) cut to (side, side), with sum one.

    cutoff · J1(cutoff · r) / (2πr); in the centre its limit, cutoff² / 4π.
    """
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    radius = torch.hypot(axis[:, None], axis[None, :])
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[side // 2, side // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).float()


def random_kernel(order: Order, rng: np.random.Generator) -> Tensor:
    """A blur kernel of random size and kind: sinc, or one of three shapes, round or elliptic."""
    side = int(rng.choice(KERNEL_SIZES))
    if rng.random() < SINC_PROBABILITY:
        return sinc_kernel(side, rng.uniform(math.pi / (3 if side < 13 else 5), math.pi))
    kind = int(rng.choice(6, p=np.ravel(SHAPE_PROBABILITY)))
    shape, elliptic = SHAPES[kind // 2], kind % 2 == 1
    first, second = rng.uniform(*order.sigma, size=2)
    low, high = BETA[shape]
    # Half of the exponents are below one, however narrow that side of the range.
    beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    if not elliptic:
        return blur_kernel(shape, side, (first, first), 0.0, beta)
    return blur_kernel(shape, side, (first, second), rng.uniform(-math.pi, math.pi), beta)


def filter2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel of (1, 3, H, W) filtered with the odd ``kernel``, borders reflected."""
    radius = len(kernel) // 2
    padded = F.pad(x, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)


def poisson_noise(x: Tensor, grey: bool, rng: np.random.Generator) -> Tensor:
    """Noise of counting photons: one count for each grey level that the image has, to a power of two."""
    if grey:
        weights = torch.tensor([0.2989, 0.587, 0.114])  # ITU-R 601-2 luma, as rgb_to_grayscale
        x = (x * weights[:, None, None]).sum(1, keepdim=True)
    x = (x * 255).round().clamp(0, 255) / 255
    photons = 2 ** math.ceil(math.log2(len(x.unique())))
    return torch.from_numpy(rng.poisson(x.double().numpy() * photons) / photons).float() - x


def add_noise(x: Tensor, order: Order, rng: np.random.Generator) -> Tensor:
    """Gaussian or Poisson noise, for each channel its own or one for all; clipped."""
    gaussian, grey = rng.random() < GAUSSIAN_PROBABILITY, rng.random() < GREY_NOISE_PROBABILITY
    if gaussian:
        shape = (1, 1 if grey else 3, *x.shape[2:])
        spread = rng.uniform(*order.gaussian) / 255
        noise = torch.from_numpy(rng.standard_normal(shape)).float() * spread
    else:
        noise = poisson_noise(x, grey, rng) * rng.uniform(*order.poisson)
    return (x + noise).clamp(0, 1)


def resize(x: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """(1, 3, H, W) to ``size`` by a random method; none of them smooths before reducing but ``area``."""
    return F.interpolate(x, size=size, mode=str(rng.choice(MODES)))


def compress(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Through a JPEG file of random quality."""
    quality = int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    return to_tensor(jpeg(to_image(x[0].clamp(0, 1)), quality))[None]


def apply_order(x: Tensor, order: Order, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Blur, resize to a random multiple of ``size``, noise."""
    if rng.random() < order.blur:
        x = filter2d(x, random_kernel(order, rng))
    low, high = order.scale
    ranges = ((1, high), (low, 1), (1, 1))
    scale = rng.uniform(*ranges[int(rng.choice(3, p=order.resize))])
    x = resize(x, (max(1, int(size[0] * scale)), max(1, int(size[1] * scale))), rng)
    return add_noise(x, order, rng)


def reduce_bsr(image: Image.Image, rng: np.random.Generator, second_order: float = 0.0) -> Tensor:
    """A quarter of the resolution with blur, noise, JPEG and ringing: (1, 3, H/4, W/4), not clipped.

    Args:
        image: RGB, sides at least 48 pixels.
        rng: source of every random number.
        second_order: probability of the second blur, resize and noise. 0 as upstream trained;
            1 is the Real-ESRGAN paper's.
    """
    x = to_tensor(image)[None]
    height, width = x.shape[2:]
    small = height // FACTOR, width // FACTOR
    x = compress(apply_order(x, FIRST, (height, width), rng), rng)
    if rng.random() < second_order:
        x = apply_order(x, SECOND, small, rng)
    sinc = None
    if rng.random() < FINAL_SINC_PROBABILITY:
        side = int(rng.choice(KERNEL_SIZES))
        sinc = sinc_kernel(side, rng.uniform(math.pi / 3, math.pi))
    jpeg_first = rng.random() < 0.5
    if jpeg_first:
        x = compress(x, rng)
    x = resize(x, small, rng)
    if sinc is not None:
        x = filter2d(x, sinc)
    if not jpeg_first:
        x = compress(x, rng)
    return x


def degrade_bsr(image: Image.Image, rng: np.random.Generator, second_order: float = 0.0) -> Image.Image:
    """What :func:`reduce_bsr` makes of ``image``, enlarged to the old size."""
    x = reduce_bsr(image, rng, second_order)
    x = F.interpolate(x, size=(image.height, image.width), mode="bicubic")
    return to_image(x[0].clamp(0, 1))
