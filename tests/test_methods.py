"""Bias correction brings mean outputs back; reconstruction rounds better than to the nearest."""

from __future__ import annotations

import pytest
import torch

from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import FP32, W4, W8, W8A8, Recipe, Rule
from export.observers import MinMaxObserver
from export.programs import build_programs
from export.samples import collect_samples
from export.targets import TARGETS
from quant.fakequant import calibrate, simulate, weight_scale
from quant.methods import correct_biases, improved_weights, reconstruct, with_weights
from tests.conftest import SIGMA_S, SIZE, STEPS

# Rounds every convolution, so that every one is corrected, as the built-in recipe does not.
RECIPE = Recipe(
    "int8", (Rule("mmse.*add", FP32), Rule("fmir.*add", FP32), Rule("add", FP32), Rule("*", W8A8))
)


@pytest.fixture(scope="module")
def samples(programs, degraded):
    return collect_samples(programs, degraded[:2], seed=0)


def test_bias_correction_restores_the_mean_outputs(programs, samples) -> None:
    ranges = calibrate(programs, samples, MinMaxObserver)
    plain = simulate(programs, RECIPE, ranges)
    corrected_programs = correct_biases(programs, RECIPE, ranges, samples)
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
    ],
)
def test_reconstruction_beats_rounding_to_the_nearest_and_stays_on_the_grid(
    programs, samples, precision: str, program: str, pattern: str, name: str
) -> None:
    recipe = Recipe("few", (Rule("*.add", FP32), Rule(pattern, precision)))
    better = reconstruct(programs, recipe, {}, samples)
    plain, moved = simulate(programs, recipe), simulate(better, recipe)
    inputs = samples[program][0]
    want = programs.modules[program](*inputs)
    nearest_db = sqnr_db(want, plain.modules[program](*inputs))
    assert sqnr_db(want, moved.modules[program](*inputs)) > nearest_db + 0.5
    before, after = (p.modules[program].get_submodule(name).weight for p in (programs, better))
    scale, top = weight_scale(before, precision)
    assert top == {W8: 127, W4: 7}[precision]
    assert torch.allclose(weight_scale(after, precision)[0], scale)  # the exporter finds the same scale
    levels = after / scale
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert not torch.equal(levels.round(), (before / scale).round())


def test_improved_weights_fit_every_target_and_halve_the_error(restorer, programs, samples) -> None:
    recipe = Recipe("w8", (Rule("*.add", FP32), Rule("*", W8)))
    moved = improved_weights(programs, recipe, samples)
    litert = TARGETS["litert"]
    other = build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=litert.form)
    for form in (programs, other):
        better = with_weights(form, moved)
        for name in ("encode", "step"):
            rounded = {
                key: layer.weight
                for key, layer in better.modules[name].named_modules()
                if f"{key}.weight" in moved[name]
            }
            assert rounded
            for key, weight in rounded.items():
                levels = weight / weight_scale(weight, W8)[0]
                assert torch.allclose(levels, levels.round(), atol=1e-3), key
    # The form that can be simulated: the other's norms are convolutions, which no recipe may round.
    inputs = samples["encode"][0]
    want = programs.modules["encode"](*inputs)
    plain = sqnr_db(want, simulate(programs, recipe).modules["encode"](*inputs))
    better_db = sqnr_db(want, simulate(with_weights(programs, moved), recipe).modules["encode"](*inputs))
    assert better_db > plain + 3
