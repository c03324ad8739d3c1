"""The simulation rounds what the recipe names, where the runtime would, and lets gradients through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.precision import (
    FP16,
    RECIPES,
    W4,
    W4G32,
    W8,
    W8A8,
    Grid,
    Precision,
    Recipe,
    Rule,
    check_rules,
    integer_grid,
)
from export.calibrate import calibrate
from export.executorch import layer_name, quantize, quantized
from export.gptq import adjusted_weights
from export.observers import OBSERVERS, MinMaxObserver, MseObserver, activation_bits
from export.simulate import (
    ActivationFakeQuant,
    WeightFakeQuant,
    find_layers,
    layer_names,
    restore_batch,
    simulate,
    trace,
    weight_scale,
)
from export.targets import TARGETS, realizes
from tests.conftest import STEPS, layer_grid

GROUP = 32  # input channels that share a scale in w4g32


@pytest.fixture(scope="module")
def ranges(programs, samples):
    return calibrate(programs, samples, dict.fromkeys(programs.modules, MseObserver))


def test_a_float_recipe_changes_nothing(programs, samples) -> None:
    simulated = simulate(programs, RECIPES["fp32"])
    for name, module in programs.modules.items():
        assert torch.equal(simulated.modules[name](*samples[name][0]), module(*samples[name][0]))


def test_layers_have_the_names_of_the_exported_graph(programs) -> None:
    for name, module in programs.modules.items():
        graph = torch.export.export(module, programs.example_inputs[name]).graph
        calls = [n for n in graph.nodes if n.op == "call_function"]
        exported = [layer_name(n) for n in calls if "conv" in str(n.target)]
        traced = [x.name for x in find_layers(trace(module)) if x.node.op == "call_module"]
        assert traced == exported
        sums = {
            layer_name(n)
            for n in calls
            if n.target == torch.ops.aten.add.Tensor and isinstance(n.args[1], torch.fx.Node)
        }
        assert {x.name for x in find_layers(trace(module)) if x.node.op != "call_module"} == sums


@pytest.mark.parametrize("transposed", [False, True])
def test_int8_weights_have_one_scale_an_output_channel(transposed: bool) -> None:
    layer = nn.ConvTranspose2d(6, 5, 4) if transposed else nn.Conv2d(6, 5, 3)
    grid = layer_grid(layer, W8)
    assert grid.top == 127
    scale = weight_scale(layer.weight, grid)
    assert scale.shape == ((1, 5, 1, 1) if transposed else (5, 1, 1, 1))
    levels = layer.weight / scale
    assert torch.allclose(levels.abs().amax((0, 2, 3) if transposed else (1, 2, 3)), torch.tensor(127.0))


def test_int4_weights_have_one_scale_a_block_of_input_channels() -> None:
    weight = torch.randn(3, 2 * GROUP, 3, 3)
    weight[:, :GROUP] *= 10
    grid = integer_grid(W4G32, weight.shape)
    assert (grid.top, grid.scales) == (7, (3, 2, 1, 1))
    scale = weight_scale(weight, grid)
    assert scale.shape == (3, 2 * GROUP, 1, 1)
    assert (scale[:, 0] == scale[:, GROUP - 1]).all()
    assert (scale[:, 0] > 3 * scale[:, GROUP]).all()
    turned = weight.transpose(0, 1)
    transposed = weight_scale(turned, integer_grid(W4G32, turned.shape, transposed=True))
    assert torch.equal(transposed, scale.transpose(0, 1))


@pytest.mark.parametrize("channels", [64, 33, 3])
def test_w4_has_one_scale_an_output_channel_whatever_its_inputs(channels: int) -> None:
    assert integer_grid(W4, (5, channels, 3, 3)) == Grid(4, (5, 1, 1, 1))
    assert integer_grid(W4, (channels, 5, 3, 3), transposed=True) == Grid(4, (1, 5, 1, 1))
    assert integer_grid(W4, (5, channels)) == Grid(4, (5, 1))


@pytest.mark.parametrize(
    ("channels", "bits", "groups"), [(64, 4, 2), (32, 4, 1), (48, 4, 3), (16, 4, 1), (33, 8, 1), (3, 8, 1)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_int4_halves_a_group_that_does_not_divide_the_channels_and_becomes_int8(
    channels: int, bits: int, groups: int, transposed: bool
) -> None:
    shape = (channels, 3, 4, 4) if transposed else (3, channels, 4, 4)
    grid = integer_grid(W4G32, shape, transposed=transposed)
    assert grid.bits == bits
    assert grid.scales == ((groups, 3, 1, 1) if transposed else (3, groups, 1, 1))
    assert integer_grid(W4G32, (3, channels)).scales == (3, groups)  # a linear layer


def test_activations_are_rounded_to_the_range_and_zero_is_kept() -> None:
    rounding = ActivationFakeQuant(0.5, 2.0, 8)  # widened to [0, 2]
    x = torch.linspace(-1, 3, 1001)
    out = rounding(x)
    assert out.min() == 0
    assert out.max() == pytest.approx(2)
    assert len(out.unique()) == 256
    assert rounding(torch.zeros(1)) == 0
    inside = (x > 0) & (x < 2)
    assert (out - x)[inside].abs().max() <= 2 / 255 / 2 * 1.001


@pytest.mark.parametrize(("precision", "top"), [(W8, 127), (W4, 7)])
def test_a_kept_grid_is_found_again_in_the_rounded_weight(precision: Precision, top: int) -> None:
    """Whatever training does to a weight, an exporter's own scales round it to what training saw."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 2 * GROUP, 3, 3, generator=generator)
    trained = 1.5 * start + 0.1 * torch.randn(start.shape, generator=generator)
    grid = integer_grid(precision, start.shape)
    rounded = WeightFakeQuant(grid, start=start)(trained)
    scale = weight_scale(start, grid)
    assert torch.allclose(weight_scale(rounded, grid), scale)
    levels = rounded / scale
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert levels.abs().max() == pytest.approx(top)
    assert torch.allclose(WeightFakeQuant(grid)(rounded), rounded, atol=1e-5)
    small = trained.abs() < top * scale
    assert ((rounded - trained)[small] / scale.expand_as(start)[small]).abs().quantile(0.9) <= 0.5


def test_sqnr_falls_with_the_bits(programs, samples, ranges) -> None:
    recipes = [Recipe(p.name, (Rule("*", p),)) for p in (FP16, W8, W4)] + [RECIPES["w8a8"]]
    fp16, w8, w4, w8a8 = (simulate(programs, recipe, ranges) for recipe in recipes)

    def db(simulated) -> float:
        args = samples["step"][0]
        return sqnr_db(programs.modules["step"](*args), simulated.modules["step"](*args))

    assert db(fp16) > 50 > db(w8) > db(w8a8) > 15
    assert db(w8) > db(w4) > 10


def test_only_the_named_layer_is_rounded(programs, ranges) -> None:
    layer = "enc.layers.0"
    simulated = simulate(programs, Recipe("one", (Rule(layer, W8A8),)), ranges)
    before = dict(programs.modules["encode"].named_parameters())
    changed = [
        name
        for name, value in simulated.modules["encode"].named_parameters()
        if name in before and not torch.equal(value, before[name])
    ]
    assert changed == [f"{layer}.weight"]
    rounding = [m for m in simulated.modules["encode"].modules() if isinstance(m, ActivationFakeQuant)]
    assert len(rounding) == 2  # input and output
    assert not any(isinstance(m, ActivationFakeQuant) for m in simulated.modules["decode"].modules())


def test_rounding_stands_where_executorch_puts_it(programs, samples, ranges) -> None:
    """The simulation of each program agrees with the converted PT2E graph, far above their own error."""
    recipe = RECIPES["w8a8"]
    simulated = simulate(programs, recipe, ranges)
    for name in ("encode", "step", "decode"):
        module = programs.modules[name]
        example = programs.example_inputs[name]
        real = quantize(module, example, recipe.on(programs.roles), samples[name], MseObserver)
        want = module(*samples[name][0])
        assert sqnr_db(want, simulated.modules[name](*samples[name][0])) == pytest.approx(
            sqnr_db(want, real(*samples[name][0])), abs=1.5
        )


def test_executorch_files_have_the_ranges_that_the_simulation_has(programs, samples) -> None:
    """Of the programs that keep every value; a histogram depends on what came together."""
    ranges = calibrate(programs, samples)
    for name, graph in quantized(programs, RECIPES["w8a8"], samples).items():
        scales = [
            node.args[1]
            for node in graph.graph.nodes
            if node.target == torch.ops.quantized_decomposed.quantize_per_tensor.default
        ]
        known = np.array([(high - low) / 255 for low, high in ranges[name].values()])
        off = [np.abs(np.log(known / scale)).min() for scale in scales]
        assert len(off) > 5
        if OBSERVERS[name] is MinMaxObserver:
            assert max(off) < 1e-5, name


def test_batches_give_what_single_images_give(programs, degraded, ranges) -> None:
    simulated = simulate(programs, RECIPES["w8a8"], ranges)
    noises = [seeded_noise(programs.latent_shape, i) for i in range(len(degraded))]
    images, trajectory = restore_batch(simulated, torch.cat(degraded), torch.cat(noises))
    assert len(trajectory) == STEPS + 1
    for i, (image, noise) in enumerate(zip(degraded, noises, strict=True)):
        alone, _ = restore_batch(simulated, image, noise)
        # The same arithmetic in another order flips a rounding here and there.
        assert sqnr_db(alone, images[i : i + 1]) > 30


def test_trainable_weights_round_alike_and_have_gradients(programs, samples, ranges) -> None:
    step = simulate(programs, RECIPES["w8a8"], ranges, trainable=True).modules["step"]
    args = samples["step"][0]
    same = simulate(programs, RECIPES["w8a8"], ranges).modules["step"](*args)
    assert sqnr_db(same, step(*args).detach()) > 30
    step(*args).square().mean().backward()
    weight = dict(step.named_parameters())["fmir.first_proj.parametrizations.weight.original"]
    assert weight.grad.abs().max() > 0


def test_w8a8_without_ranges_is_refused(programs) -> None:
    with pytest.raises(ValueError, match="ranges"):
        simulate(programs, RECIPES["w8a8"])


def test_integers_of_two_widths_are_refused_in_one_sentence(programs, samples) -> None:
    """A tensor between two layers has one range and one rounding: which one would be a guess."""
    w8a16 = Precision("w8a16", weight_bits=8, activation_bits=16)
    wide = Recipe("wide", (Rule("enc.*", w8a16), Rule("*", W8)))
    assert activation_bits(wide) == 16
    mixed = Recipe("both", (Rule("enc.*", w8a16), Rule("*", W8A8)))
    for refuse in (
        lambda: simulate(programs, mixed, calibrate(programs, samples)),
        lambda: adjusted_weights(programs, mixed, samples),
        lambda: realizes(TARGETS["coreml"], mixed),
    ):
        with pytest.raises(UserError, match="'both' mixes activations of 8 and 16 bits: .* the same$"):
            refuse()


def test_a_rule_by_role_needs_the_roles(programs) -> None:
    with pytest.raises(ValueError, match="take it on"):
        list(find_layers(trace(programs.modules["encode"]), RECIPES["w8a8"]))


def test_every_layer_has_a_role(programs) -> None:
    assert set(programs.roles) == {layer for names in layer_names(programs).values() for layer in names}


@pytest.mark.parametrize("name", RECIPES)
def test_no_rule_of_a_built_in_recipe_is_idle(programs, name: str) -> None:
    check_rules(RECIPES[name], programs.roles)
