"""The degradations: their parts do what they say, and their random numbers have the stated statistics."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import elir_mobile.degradations as degradations
from elir_mobile.degradations import (
    degrade_bfr,
    degrade_box,
    degrade_colorization,
    degrade_denoising,
    degrade_inpainting,
    degrade_photo_noise,
    degrade_sr,
    gaussian_blur,
    gaussian_noise,
    jpeg,
)
from elir_mobile.tasks import ALIGNED_FACE, PHOTO, TASKS

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


@pytest.mark.parametrize("domain", [ALIGNED_FACE, PHOTO])
@pytest.mark.parametrize("task", TASKS)
def test_degraded_image_depends_on_image_and_seed_alone(task: str, domain: str) -> None:
    degrade = TASKS[task].degradation(domain)
    first, again, other = (np.asarray(degrade(picture(128), np.random.default_rng(s))) for s in (1, 1, 2))
    assert first.shape == (128, 128, 3)
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


def clipped_noise(level: float, std: float) -> tuple[float, float]:
    """Mean and spread of ``level`` plus noise of ``std`` after rounding and clipping to 8 bits."""
    values = level + np.random.default_rng(1).standard_normal(200_000) * std
    values = values.round().clip(0, 255)
    return values.mean(), values.std()


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64)


def test_sr_is_an_eighth_of_the_resolution_with_noise() -> None:
    out = array(degrade_sr(Image.new("RGB", (512, 512), (128, 128, 128)), np.random.default_rng(0)))
    blocks = out.reshape(64, 8, 64, 8, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()  # nearest enlargement: constant blocks of 8
    assert blocks[:, 0, :, 0].std() == pytest.approx(12.8, rel=0.02)
    small = picture(128).resize((16, 16), Image.Resampling.BICUBIC)
    out = array(degrade_sr(picture(128), np.random.default_rng(0)))[::8, ::8]
    assert (out - array(small)).std() == pytest.approx(12.8, rel=0.1)


def test_denoising_is_of_heavy_noise_on_faces_and_of_a_camera_s_on_photographs() -> None:
    assert TASKS["denoising"].degradation(ALIGNED_FACE) is degrade_denoising
    assert TASKS["denoising"].degradation(PHOTO) is degrade_photo_noise
    assert TASKS["bsr"].degradation(ALIGNED_FACE) is TASKS["bsr"].degradation(PHOTO)


def test_denoising_noise_has_the_stated_spread() -> None:
    out = array(degrade_denoising(Image.new("RGB", (256, 256), (128, 128, 128)), np.random.default_rng(0)))
    mean, spread = clipped_noise(128, 89.6)
    assert out.mean() == pytest.approx(mean, abs=1)
    assert out.std() == pytest.approx(spread, rel=0.01)
    assert abs(np.corrcoef(out[..., 0].ravel(), out[..., 1].ravel())[0, 1]) < 0.02  # a noise a channel


def test_inpainting_hides_nine_of_ten_pixels_in_all_channels(monkeypatch) -> None:
    grey = Image.new("RGB", (256, 256), (128, 128, 128))
    out = array(degrade_inpainting(grey, np.random.default_rng(0)))
    hidden, shown = (clipped_noise(level, 25.6) for level in (0, 128))
    assert out.mean() == pytest.approx(0.9 * hidden[0] + 0.1 * shown[0], rel=0.01)
    monkeypatch.setattr(degradations, "gaussian_noise", lambda image, std, rng: image)
    out = array(degrade_inpainting(grey, np.random.default_rng(0)))
    assert (out == out[..., :1]).all()
    assert (out[..., 0] == 0).sum() == int(0.9 * 256 * 256)


def test_colorization_is_noisy_grey_of_the_mean() -> None:
    out = array(degrade_colorization(Image.new("RGB", (256, 256), (90, 120, 174)), np.random.default_rng(0)))
    assert (out == out[..., :1]).all()
    mean, spread = clipped_noise(128, 64)
    assert out.mean() == pytest.approx(mean, abs=1)
    assert out.std() == pytest.approx(spread, rel=0.01)


def test_box_hides_a_quarter_anywhere(monkeypatch) -> None:
    white = Image.new("RGB", (64, 48), (255, 255, 255))
    out = array(degrade_box(Image.new("RGB", (256, 256), (0, 0, 0)), np.random.default_rng(0)))
    assert out.std() == pytest.approx(clipped_noise(0, 25.6)[1], rel=0.02)
    monkeypatch.setattr(degradations, "gaussian_noise", lambda image, std, rng: image)
    rng, corners = np.random.default_rng(0), []
    for _ in range(300):
        out = array(degrade_box(white, rng))
        rows, columns = np.nonzero(out[..., 0] == 0)
        assert len(rows) == 32 * 24
        assert (np.ptp(rows), np.ptp(columns)) == (23, 31)
        corners.append((rows.min(), columns.min()))
    top, left = np.array(corners).T
    assert (top.min(), top.max()) == (0, 23)
    assert (left.min(), left.max()) == (0, 31)


def test_camera_noise_is_of_every_strength_and_sometimes_none(monkeypatch) -> None:
    monkeypatch.setattr(degradations, "jpeg", lambda image, quality: image)
    noisy = [degrade_photo_noise(GREY, np.random.default_rng(seed)) for seed in range(60)]
    spreads = np.array([np.asarray(image, np.float64).std() for image in noisy])
    assert 1 <= (spreads == 0).sum() <= 15
    assert 4.5 < spreads[spreads > 0].min() < 12
    assert 42 < spreads.max() < 51


def test_coarser_noise_keeps_its_spread_and_its_neighbours_agree() -> None:
    white = np.random.default_rng(0).standard_normal((128, 128, 3)).astype(np.float32)
    coarse = degradations._coarser(white, 0.8)
    assert coarse.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(coarse[:, 1:].ravel(), coarse[:, :-1].ravel())[0, 1] > 0.3
