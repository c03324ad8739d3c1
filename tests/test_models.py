"""The reference network against the published numbers, and against formulas written out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elir_mobile.models.autoencoder import Decoder, Encoder
from elir_mobile.models.coarse import ConvAct
from elir_mobile.models.overparam import merged_once
from elir_mobile.models.restorer import Architecture, Restorer, sample, seeded_noise
from elir_mobile.models.velocity import NormActConv, time_embedding
from tests.conftest import SIGMA_S, STEPS


def millions(module: nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


@pytest.mark.parametrize(
    ("arch", "total"),
    [
        (Architecture(), 37.52),
        (Architecture(n_mid_blocks=1), 26.89),
        (Architecture(n_mid_blocks=1, hid_channels=96), 19.08),
    ],
    ids=["bfr", "sr denoising inpainting", "bsr"],
)
def test_released_sizes_have_the_published_parameter_counts(arch: Architecture, total: float) -> None:
    assert millions(Restorer(arch)) == total


def test_bfr_parts_have_the_published_parameter_counts() -> None:
    net = Restorer(Architecture())
    assert [millions(part) for part in (net.enc, net.mmse, net.fmir, net.dec)] == [1.23, 5.50, 29.56, 1.23]


def test_parameter_names_are_the_published_ones() -> None:
    names = set(Restorer(Architecture(n_mid_blocks=1)).state_dict())
    for name in (
        "enc.layers.0.weight",
        "enc.layers.1.conv.4.bias",
        "dec.layers.18.weight",
        "mmse.lrm.2.RDB3.conv5.block.0.weight",
        "fmir.time_mlp.linear2.bias",
        "fmir.down_blocks.1.1.conv.weight",
        "fmir.up_blocks.0.0.convtr.weight",
        "fmir.up_blocks.3.1.block2.block.2.weight",
        "fmir.final_block.block.0.weight",
        "fmir.final_proj.bias",
    ):
        assert name in names
    assert "enc.layers.2.bias" not in names  # stride-2 convolutions have none


def stem_kernel(weight: Tensor) -> Tensor:
    """Kernel of the 6×6 stride-2 convolution that equals ``pixel_unshuffle(2)`` and a 3×3 convolution.

    Args:
        weight: (O, 4·I, 3, 3), the 3×3 convolution's, padding 1.

    Returns:
        (O, I, 6, 6), for padding 2.
    """
    out, channels = weight.shape[0], weight.shape[1] // 4
    parts = weight.reshape(out, channels, 2, 2, 3, 3)  # row and column within a 2×2 cell, then the cells
    return parts.permute(0, 1, 4, 2, 5, 3).reshape(out, channels, 6, 6)


def head_kernel(weight: Tensor) -> Tensor:
    """Kernel of the 6×6 stride-2 transposed convolution that equals 3×3 and ``pixel_shuffle(2)``.

    Args:
        weight: (4·O, I, 3, 3), the 3×3 convolution's, padding 1; its bias must be the same in the four
            channels of a pixel.

    Returns:
        (I, O, 6, 6), for padding 2.
    """
    channels, n_in = weight.shape[0] // 4, weight.shape[1]
    # A transposed convolution spreads what a convolution gathers: the cells run backwards.
    parts = weight.reshape(channels, 2, 2, n_in, 3, 3).flip(4, 5)
    return parts.permute(3, 0, 4, 1, 5, 2).reshape(n_in, channels, 6, 6)


def test_the_half_forms_stem_is_pixel_unshuffle_and_a_3x3_convolution() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 16, 24), torch.randn(5, 12, 3, 3) / 10, torch.randn(5)
    expected = F.conv2d(F.pixel_unshuffle(x, 2), weight, bias, padding=1)
    got = F.conv2d(x, stem_kernel(weight), bias, stride=2, padding=2)
    assert torch.allclose(got, expected, atol=1e-5)


def test_the_half_forms_head_is_a_3x3_convolution_and_pixel_shuffle() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 7, 8, 12), torch.randn(12, 7, 3, 3) / 10, torch.randn(3)
    expected = F.pixel_shuffle(F.conv2d(x, weight, bias.repeat_interleave(4), padding=1), 2)
    got = F.conv_transpose2d(x, head_kernel(weight), bias, stride=2, padding=2)
    assert torch.allclose(got, expected, atol=1e-5)


def test_the_half_form_has_the_same_sizes_and_no_layer_at_full_resolution() -> None:
    sides = []
    encoder, decoder = Encoder(8, 16, "half"), Decoder(8, 16, "half")
    for layer in (*encoder.layers, *decoder.layers):
        layer.register_forward_hook(lambda layer, x, y: sides.append((x[0].shape[-1], y.shape[-1])))
    image = torch.rand(1, 3, 48, 64)
    latent = encoder(image)
    assert latent.shape == (1, 16, 6, 8)
    assert decoder(latent).shape == image.shape
    assert [pair for pair in sides if 64 in pair] == [(64, 32), (32, 64)]
    assert isinstance(encoder.layers[0], nn.Conv2d)
    assert isinstance(decoder.layers[-1], nn.ConvTranspose2d)


def test_time_embedding_is_the_formula() -> None:
    got = time_embedding(torch.tensor([0.4]), 160)[0]
    for i in (0, 1, 40, 79):
        arg = 1000 * 0.4 * math.exp(-i * math.log(10000) / 79)
        assert got[i].item() == pytest.approx(math.cos(arg), abs=2e-4)  # float32 phase up to 400
        assert got[80 + i].item() == pytest.approx(math.sin(arg), abs=2e-4)


def test_overparametrized_blocks_equal_their_two_convolutions() -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 32, 9, 7)
    coarse = ConvAct(32, 8, True, overparametrized=True)
    assert torch.allclose(coarse(x), coarse.block(x), atol=1e-5)
    flow = NormActConv(32, 64, overparametrized=True)
    assert torch.allclose(flow(x), flow.block(x), atol=1e-5)


def test_gradients_reach_both_convolutions_of_a_pair() -> None:
    block = ConvAct(4, 4, True, overparametrized=True)
    block(torch.randn(1, 4, 5, 5)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_kernels_merged_once_give_the_same_gradients(overparametrized) -> None:
    block = copy.deepcopy(overparametrized.mmse.lrm[0].RDB1.conv1).requires_grad_(True)
    first, second = torch.randn(2, 1, 16, 5, 5)

    def gradients() -> list[torch.Tensor]:
        block.zero_grad()
        with torch.no_grad():
            block(second)
        (block(first).square().sum() + block(second).sum()).backward()
        return [p.grad.clone() for p in block.parameters() if p.grad is not None]

    apart = gradients()
    with merged_once():
        once = gradients()
    assert len(apart) == 4
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(apart, once, strict=True))


def test_kernels_are_merged_anew_after_an_update(overparametrized) -> None:
    block = copy.deepcopy(overparametrized.mmse.lrm[0].RDB1.conv1)
    x = torch.randn(1, 16, 5, 5)
    for _ in range(2):
        with merged_once():
            out = block(x)
        assert torch.allclose(out, block.block(x), atol=1e-5)
        block.block[0].weight.data.mul_(2)


def test_forward_is_the_sampling_loop_written_out(restorer, degraded, noise) -> None:
    x = degraded[0]
    z = restorer.mmse(restorer.enc(x)) + SIGMA_S * noise
    for k in range(STEPS):
        z = z + restorer.fmir(z, time_embedding(torch.tensor([k / STEPS]), 32)) / STEPS
    expected = restorer.dec(z).clamp(0, 1)
    assert torch.equal(restorer(x, noise, steps=STEPS, sigma_s=SIGMA_S), expected)


def test_sample_returns_every_latent_of_the_trajectory() -> None:
    out, trajectory = sample(
        lambda x: x, lambda z, k: z + k + 1, lambda z: -z, torch.zeros(1), torch.ones(1), steps=3, sigma_s=0.5
    )
    assert [z.item() for z in trajectory] == [0.5, 1.5, 3.5, 6.5]
    assert out.item() == -6.5


def test_noise_depends_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    first = seeded_noise((1, 2, 3), 5)
    torch.manual_seed(4)
    assert torch.equal(first, seeded_noise((1, 2, 3), 5))
    assert not torch.equal(first, seeded_noise((1, 2, 3), 6))
