"""The tiny network that the tests run: every kind of layer, as few of each as there can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from elir_mobile.checkpoints import build_restorer
from elir_mobile.models.restorer import Architecture, Restorer, seeded_noise
from export.programs import Programs, build_programs

TINY = Architecture(
    enc_width=8,
    dec_width=8,
    latent_channels=16,
    coarse_width=8,
    n_rrdb=1,
    hid_channels=32,
    n_mid_blocks=1,
    ch_mult=(1, 2),
    t_emb_dim=32,
)
SIZE, STEPS, SIGMA_S = 64, 2, 0.1


@pytest.fixture(scope="session")
def overparametrized() -> Restorer:
    """Random weights under which signals survive the depth: default ones fade to the biases."""
    torch.manual_seed(0)
    restorer = Restorer(TINY, overparametrized=True)
    for m in restorer.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(m.weight)
            m.weight.data *= 0.8
        if isinstance(m, nn.GroupNorm):
            nn.init.normal_(m.weight, 1, 0.2)
            nn.init.normal_(m.bias, 0, 0.2)
    restorer.enc.layers[-1].weight.data *= 4
    restorer.dec.layers[-1].weight.data *= 0.3
    nn.init.constant_(restorer.dec.layers[-1].bias, 0.5)  # pictures around grey, hardly clipped
    return restorer.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def restorer(overparametrized: Restorer) -> Restorer:
    return build_restorer(overparametrized.state_dict())


@pytest.fixture(scope="session")
def programs(restorer: Restorer) -> Programs:
    return build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S)


@pytest.fixture(scope="session")
def degraded() -> list[Tensor]:
    """Smooth random pictures with noise, (1, 3, SIZE, SIZE) each."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(3):
        small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        picture = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32) / 255
        picture = (picture + rng.normal(0, 0.03, picture.shape).astype(np.float32)).clip(0, 1)
        images.append(torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous())
    return images


@pytest.fixture(scope="session")
def noise(programs: Programs) -> Tensor:
    return seeded_noise(programs.latent_shape, 7)


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Three small colour pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(3):
        small = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        small.resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder
