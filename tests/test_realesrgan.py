"""The Real-ESRGAN degradation: kernels and noise have their stated moments, the order is upstream's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

import elir_mobile.realesrgan as realesrgan
from elir_mobile.realesrgan import (
    FIRST,
    SECOND,
    add_noise,
    blur_kernel,
    degrade_bsr,
    filter2d,
    poisson_noise,
    random_kernel,
    sinc_kernel,
)


def moments(kernel: torch.Tensor) -> np.ndarray:
    axis = np.arange(len(kernel)) - len(kernel) // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    k = kernel.double().numpy()
    return np.array([[(k * x * x).sum(), (k * x * y).sum()], [(k * x * y).sum(), (k * y * y).sum()]])


def test_gaussian_kernel_has_the_covariance_of_its_ellipse() -> None:
    angle, sigma = 0.6, (3.0, 1.5)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = turn @ np.diag([9.0, 2.25]) @ turn.T
    assert moments(blur_kernel("gaussian", 31, sigma, angle)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("shape", ["generalized", "plateau"])
def test_shapes_follow_their_formula(shape: str) -> None:
    kernel = blur_kernel(shape, 21, (2.0, 2.0), beta=2.0)
    q = (3 / 2.0) ** 2
    expected = math.exp(-(q**2) / 2) if shape == "generalized" else 1 / (1 + q**2)
    assert (kernel[10, 13] / kernel[10, 10]).item() == pytest.approx(expected, rel=1e-5)
    assert kernel.sum().item() == pytest.approx(1)


def test_sinc_passes_low_and_stops_high_frequencies() -> None:
    response = torch.fft.fft2(sinc_kernel(101, math.pi / 2)).abs()
    frequency = torch.fft.fftfreq(101) * 2 * math.pi
    radius = torch.hypot(frequency[:, None], frequency[None, :])
    assert response[radius < 0.4 * math.pi].mean().item() == pytest.approx(1, abs=0.03)
    assert response[(radius > 0.6 * math.pi) & (radius < math.pi)].mean().item() < 0.03


def test_random_kernels_are_of_every_size_and_keep_brightness() -> None:
    rng = np.random.default_rng(0)
    kernels = [random_kernel(order, rng) for _ in range(300) for order in (FIRST, SECOND)]
    assert {len(kernel) for kernel in kernels} == set(range(7, 22, 2))
    assert all(kernel.sum().item() == pytest.approx(1, abs=1e-5) for kernel in kernels)
    ringing = np.mean([kernel.min().item() < 0 for kernel in kernels])
    assert ringing == pytest.approx(0.1, abs=0.04)  # only sinc kernels go below zero
    flat = torch.full((1, 3, 32, 32), 0.5)
    assert torch.allclose(filter2d(flat, kernels[0]), flat, atol=1e-5)


def test_filter_is_the_same_kernel_on_each_channel() -> None:
    x = torch.zeros(1, 3, 15, 15)
    x[:, 1, 7, 7] = 1
    kernel = blur_kernel("gaussian", 7, (1.0, 2.0), 0.3)
    out = filter2d(x, kernel)
    assert torch.allclose(out[0, 1, 4:11, 4:11], kernel.flip(0, 1))
    assert out[0, [0, 2]].abs().max() == 0


def test_gaussian_noise_has_the_stated_range_and_share_of_grey(monkeypatch) -> None:
    monkeypatch.setattr(realesrgan, "GAUSSIAN_PROBABILITY", 1.0)
    rng, spreads, greys = np.random.default_rng(0), [], []
    x = torch.full((1, 3, 24, 24), 0.5)
    for _ in range(400):
        noise = (add_noise(x, FIRST, rng) - x)[0]
        spreads.append(noise.std().item() * 255)
        greys.append(torch.equal(noise[0], noise[1]))
    assert np.mean(greys) == pytest.approx(0.4, abs=0.06)
    assert np.mean(spreads) == pytest.approx(15.5, abs=1)
    assert 0.9 < min(spreads) < 2
    assert 28 < max(spreads) < 32


@pytest.mark.parametrize("grey", [False, True])
def test_poisson_noise_has_the_variance_of_its_photons(grey: bool) -> None:
    levels = torch.arange(64).repeat(3, 64, 4).float()[None] / 255  # 64 levels: 64 photons at white
    noise = poisson_noise(levels, grey, np.random.default_rng(0))
    assert noise.shape[1] == (1 if grey else 3)
    for level in (8, 40, 60):
        column = noise[..., level::64]
        assert column.mean().item() == pytest.approx(0, abs=0.005)
        assert column.var().item() == pytest.approx(level / 255 / 64, rel=0.2)


def test_bsr_image_is_a_quarter_of_the_resolution() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (128, 160, 3), dtype=np.uint8))
    for seed in range(5):
        out = degrade_bsr(image, np.random.default_rng(seed))
        assert out.size == image.size
        spectrum = np.abs(np.fft.fft2(np.asarray(out, np.float64).mean(-1) - 128))
        low = spectrum[:20, :24].mean() + spectrum[-20:, :24].mean()
        assert spectrum[48:80, 60:100].mean() < 0.1 * low  # nothing above the quarter's frequencies


@pytest.mark.parametrize("second_order", [0.0, 1.0])
def test_order_of_the_steps_is_upstreams(monkeypatch, second_order: float) -> None:
    """One or two rounds with a JPEG between, then [resize, sinc] and a JPEG in either order."""
    steps: list[str] = []

    def record(name: str) -> None:
        inner = getattr(realesrgan, name)
        monkeypatch.setattr(realesrgan, name, lambda *args: steps.append(name) or inner(*args))

    for name in ("filter2d", "resize", "add_noise", "compress"):
        record(name)
    image, seen = Image.new("RGB", (64, 64), (90, 120, 174)), set()
    for seed in range(300):  # the rarest order comes once in fifty
        steps.clear()
        degrade_bsr(image, np.random.default_rng(seed), second_order)
        seen.add(" ".join(steps))
    first = "filter2d resize add_noise compress"
    seconds = [""] if not second_order else [" filter2d resize add_noise", " resize add_noise"]
    ends = [" compress resize filter2d", " compress resize", " resize filter2d compress", " resize compress"]
    assert seen == {first + second + end for second in seconds for end in ends}


def test_jpeg_qualities_fill_their_range(monkeypatch) -> None:
    qualities: list[int] = []
    monkeypatch.setattr(realesrgan, "jpeg", lambda image, quality: qualities.append(quality) or image)
    for seed in range(200):
        degrade_bsr(Image.new("RGB", (48, 48)), np.random.default_rng(seed))
    assert len(qualities) == 400
    assert (min(qualities), max(qualities)) == (30, 95)
    assert np.mean(qualities) == pytest.approx(62.5, abs=3)
