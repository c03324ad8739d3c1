"""Bias correction brings mean outputs back; reconstruction rounds better than to the nearest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import FP32, RECIPES, W4, W4G32, W8, W8A8, Precision, Recipe, Rule
from export.calibrate import calibrate
from export.gptq import PATCHES, adjusted_weights, correct_biases, input_moments, reconstruct, with_weights
from export.observers import MinMaxObserver
from export.programs import Programs, build_programs
from export.samples import collect_samples
from export.simulate import simulate, weight_scale
from export.targets import TARGETS
from tests.conftest import SIGMA_S, SIZE, STEPS, layer_grid

# Rounds every convolution, so that every one is corrected, as the built-in recipe does not.
RECIPE = Recipe(
    "int8", (Rule("mmse.*add", FP32), Rule("fmir.*add", FP32), Rule("add", FP32), Rule("*", W8A8))
)


@pytest.fixture(scope="module")
def samples(programs, degraded):
    return collect_samples(programs, degraded[:2], seed=0)


def test_bias_correction_restores_the_mean_outputs(programs, samples) -> None:
    ranges = calibrate(programs, samples, dict.fromkeys(programs.modules, MinMaxObserver))
    plain = simulate(programs, RECIPE, ranges)
    corrected_programs = correct_biases(programs, RECIPE, ranges, samples, reference=programs)
    corrected = simulate(corrected_programs, RECIPE, ranges)
    (image,) = (torch.cat(parts) for parts in zip(*samples["encode"], strict=True))
    want = programs.modules["encode"](image).mean((0, 2, 3))
    off = (plain.modules["encode"](image).mean((0, 2, 3)) - want).abs().mean()
    left = (corrected.modules["encode"](image).mean((0, 2, 3)) - want).abs().mean()
    assert left < 0.3 * off
    # Only biases moved, and those of the given programs not at all.
    for key, value in corrected_programs.modules["decode"].state_dict().items():
        if key.endswith("weight"):
            assert torch.equal(value, programs.modules["decode"].state_dict()[key])
    stride = "enc.layers.2.bias"
    assert stride in corrected_programs.modules["encode"].state_dict()
    assert stride not in programs.modules["encode"].state_dict()


@pytest.mark.parametrize(
    ("precision", "program", "pattern", "name"),
    [
        (W8, "encode", "mmse.*.conv[12].*", "mmse.lrm.0.RDB1.conv1.block.0"),
        (W4, "step", "fmir.*.block[12].*", "fmir.mid_blocks.0.block2.block.2"),
        (W4G32, "step", "fmir.*.block[12].*", "fmir.mid_blocks.0.block2.block.2"),
    ],
)
def test_reconstruction_beats_rounding_to_the_nearest_and_stays_on_the_grid(
    programs, samples, precision: Precision, program: str, pattern: str, name: str
) -> None:
    recipe = Recipe("few", (Rule("*.add", FP32), Rule(pattern, precision)))
    better = reconstruct(programs, recipe, {}, samples)
    plain, moved = simulate(programs, recipe), simulate(better, recipe)
    inputs = samples[program][0]
    want = programs.modules[program](*inputs)
    nearest_db = sqnr_db(want, plain.modules[program](*inputs))
    assert sqnr_db(want, moved.modules[program](*inputs)) > nearest_db + 0.5
    before, after = (p.modules[program].get_submodule(name).weight for p in (programs, better))
    grid = layer_grid(programs.modules[program].get_submodule(name), precision)
    assert grid.top == {W8: 127, W4: 7, W4G32: 7}[precision]
    scale = weight_scale(before, grid)
    assert torch.allclose(weight_scale(after, grid), scale)  # the exporter finds the same scale
    levels = after / scale
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert not torch.equal(levels.round(), (before / scale).round())


def test_adjusted_weights_fit_every_target_and_halve_the_error(restorer, programs, samples) -> None:
    recipe = Recipe("w8", (Rule("*.add", FP32), Rule("*", W8)))
    moved = adjusted_weights(programs, recipe, samples)
    litert = TARGETS["litert"]
    other = build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=litert.form)
    for form in (programs, other):
        better = with_weights(form, moved)
        for name in ("encode", "step"):
            rounded = {
                key: layer
                for key, layer in better.modules[name].named_modules()
                if f"{key}.weight" in moved[name]
            }
            assert rounded
            for key, layer in rounded.items():
                levels = layer.weight / weight_scale(layer.weight, layer_grid(layer, W8))
                assert torch.allclose(levels, levels.round(), atol=1e-3), key
    # The form that can be simulated: the other's norms are convolutions, which no recipe may round.
    inputs = samples["encode"][0]
    want = programs.modules["encode"](*inputs)
    plain = sqnr_db(want, simulate(programs, recipe).modules["encode"](*inputs))
    better_db = sqnr_db(want, simulate(with_weights(programs, moved), recipe).modules["encode"](*inputs))
    assert better_db > plain + 3


@pytest.mark.parametrize("seed", [0, 100, 300])
def test_adjusted_weights_bring_the_encoder_nearer_with_integer_activations_too(programs, seed: int) -> None:
    """On pictures that calibration did not see, with eight pairs: two make it worse in one case of four."""

    def pictures(count: int, first: int) -> list[torch.Tensor]:
        noises = [np.random.default_rng(first + i).random((1, 3, 5, 5), np.float32) for i in range(count)]
        return [F.interpolate(torch.from_numpy(x), SIZE, mode="bicubic").clamp(0, 1) for x in noises]

    recipe = RECIPES["w8a8"]
    samples = collect_samples(programs, pictures(8, seed), 0)
    moved = with_weights(programs, adjusted_weights(programs, recipe, samples))
    images = torch.cat(pictures(16, 1000))
    want = programs.modules["encode"](images)
    plain, better = (
        sqnr_db(want, simulate(form, recipe, calibrate(form, samples)).modules["encode"](images))
        for form in (programs, moved)
    )
    assert better > plain


def test_biases_of_reconstructed_weights_are_corrected_towards_float(programs, samples) -> None:
    """Weights that lie on their grid are rounded no further: what they did to the means is against float."""
    recipe = Recipe("w8", (Rule("*", W8),))
    adjusted = with_weights(programs, adjusted_weights(programs, recipe, samples))
    few = reconstruct(programs, recipe, {}, samples)
    (image,) = (torch.cat(parts) for parts in zip(*samples["encode"], strict=True))
    want = programs.modules["encode"](image)

    def shift(of: Programs) -> float:
        found = simulate(of, recipe).modules["encode"](image)
        return (found.mean((0, 2, 3)) - want.mean((0, 2, 3))).abs().mean().item()

    assert shift(adjusted) < 0.1 * shift(few)
    assert sqnr_db(want, simulate(adjusted, recipe).modules["encode"](image)) > sqnr_db(
        want, simulate(few, recipe).modules["encode"](image)
    )


def test_biases_are_corrected_where_weights_alone_are_rounded(programs, samples) -> None:
    corrected = {
        name: {key for tensors in adjusted_weights(programs, recipe, samples).values() for key in tensors}
        for name, recipe in (("w8", Recipe("w8", (Rule("*", W8),))), ("w8a8", RECIPE))
    }
    assert any(key.endswith(".bias") for key in corrected["w8"])
    assert all(key.endswith(".weight") for key in corrected["w8a8"])


class LargestTensor(TorchDispatchMode):
    """Counts the values of the largest tensor that any operator makes."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if (
            isinstance(out, torch.Tensor)
            and out.numel() == out.untyped_storage().size() // out.element_size()
        ):
            self.values = max(self.values, out.numel())
        return out


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 4, stride=2), nn.Conv2d(64, 4, 1)]
)
def test_moments_are_those_of_all_patches_without_copying_them(conv: nn.Conv2d) -> None:
    small = torch.randn(2, conv.in_channels, 12, 9, generator=torch.Generator().manual_seed(0))
    few = small[:, :, :6, :5]  # no more patches than are drawn: all of them
    columns = nn.functional.unfold(few, conv.kernel_size, padding=conv.padding, stride=conv.stride)
    columns = columns.transpose(0, 1).flatten(1)
    assert torch.allclose(input_moments(conv, few), (columns @ columns.T).double(), atol=1e-4)
    large = torch.randn(1, conv.in_channels, 300, 300)
    with LargestTensor() as largest:
        moments = input_moments(conv, large)
    taps = len(moments)
    assert largest.values <= max(conv.in_channels * 302**2, taps**2, PATCHES * taps**2)


def test_moments_of_an_image_of_stripes_see_every_row() -> None:
    """A stride that the width is a multiple of would only ever meet one column."""
    conv = nn.Conv2d(1, 1, 1)
    x = torch.zeros(1, 1, 64, 64)
    x[..., 1::2] = 1  # every other column
    moments = input_moments(conv, x).item() / PATCHES
    assert 0 < moments < 1
    wide = torch.zeros(1, 4, 64, 64)
    wide[:, :, :, 1::2] = 1
    diagonal = input_moments(nn.Conv2d(4, 1, 1), wide).diagonal() / (PATCHES * 4)
    assert (diagonal - 0.5).abs().max() < 0.35
