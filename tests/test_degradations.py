"""The bfr degradation: its parts do what they say, and its random numbers have the stated ranges."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import elir_mobile.degradations as degradations
from elir_mobile.degradations import degrade_bfr, gaussian_blur, gaussian_noise, jpeg

GREY = Image.new("RGB", (128, 128), (128, 128, 128))


def picture(side: int) -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("std", [5.0, 20.0])
def test_noise_has_the_asked_spread(std: float) -> None:
    noisy = np.asarray(gaussian_noise(GREY, std, np.random.default_rng(0)), np.float64)
    assert noisy.std() == pytest.approx(std, rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.5)


def test_blur_spreads_a_point_by_sigma() -> None:
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    line = np.asarray(gaussian_blur(Image.fromarray(point), 21, 2.0), np.float64)[..., 0]
    weights = line / line.sum()
    variance = (weights.sum(0) * (np.arange(41) - 20) ** 2).sum()
    assert np.sqrt(variance) == pytest.approx(2.0, rel=0.15)  # 8-bit rounding cuts the tails
    assert weights.argmax() == 20 * 41 + 20


def test_blur_keeps_a_flat_image_to_the_border() -> None:
    assert (np.asarray(gaussian_blur(GREY, 11, 3.0)) == 128).all()


def test_jpeg_loses_more_at_lower_quality() -> None:
    image = gaussian_noise(picture(64), 10, np.random.default_rng(0))
    clean = np.asarray(image, np.float64)
    errors = [((np.asarray(jpeg(image, q), np.float64) - clean) ** 2).mean() for q in (95, 60, 30)]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_degraded_image_depends_on_image_and_seed_alone() -> None:
    first, again, other = (np.asarray(degrade_bfr(picture(128), np.random.default_rng(s))) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("side", [128, 512])
def test_random_numbers_have_the_stated_ranges(monkeypatch, side: int) -> None:
    sigmas, kernels, stds, qualities, smalls = [], [], [], [], []

    def blur(image, kernel, sigma):
        kernels.append(kernel)
        sigmas.append(sigma)
        return image

    def noise(image, std, rng):
        stds.append(std)
        smalls.append(image.width)
        return image

    def through_jpeg(image, quality):
        qualities.append(quality)
        return image

    monkeypatch.setattr(degradations, "gaussian_blur", blur)
    monkeypatch.setattr(degradations, "gaussian_noise", noise)
    monkeypatch.setattr(degradations, "jpeg", through_jpeg)
    image, rng = Image.new("RGB", (side, side)), np.random.default_rng(0)
    for _ in range(400):
        assert degrade_bfr(image, rng).size == (side, side)
    scale = side / 512
    assert set(kernels) == {41 if side == 512 else 11}
    for values, low, high in (
        (sigmas, 0.1 * scale, 15 * scale),
        (stds, 0, 20),
        (qualities, 30, 100),
        (smalls, side // 32, 1.2 * side),
    ):
        assert low <= min(values) <= low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) <= max(values) <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, rel=0.08)
