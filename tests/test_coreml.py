"""The Core ML packages: structure, weights, and agreement with float as the interpreter computes it."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elir_mobile.core.errors import UserError
from elir_mobile.core.manifest import bytes_of
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import FP16, RECIPES, W4, W4G32, W8, W8A8, Grid, Recipe, Rule
from elir_mobile.runtimes.coreml import (
    Functions,
    coremltools,
    interpreting_programs,
    mil_program,
    packages,
    predicting_programs,
    read_package,
)
from elir_mobile.runtimes.runner import Runner, make_runner, open_runner
from export.calibrate import calibrate
from export.coreml import (
    IOS17,
    Converted,
    convolutions,
    float_models,
    has_integer_inputs,
    is_transposed,
    lower,
    realize,
    stored_grid,
    wanted_grid,
    weight_of,
    write,
)
from export.gptq import adjusted_weights, with_weights
from export.observers import OBSERVERS, HistogramObserver, MinMaxObserver, bounds, make_observer
from export.samples import collect_samples
from export.simulate import find_layers, trace, weight_scale
from tests.conftest import SIGMA_S, STEPS, layer_grid

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("coremltools") is None, reason="needs the extra [coreml]"),
    pytest.mark.lowering,
]
FUNCTIONS = ("encode", "step", "decode", "encode_image")
MIXED = Recipe(
    "mixed",
    (
        Rule("dec.layers.3.conv.2", FP16),
        Rule("dec.*", W4G32),
        Rule("fmir.up_blocks.*", W8A8),
        Rule("fmir.first_proj", W4G32),
        Rule("fmir.mid_blocks.*", W4),
        Rule("*", W8),
    ),
)
# What is written of each recipe: coremltools takes seconds for each function.
WRITTEN = {
    "fp32": ("encode", "step", "decode"),
    "fp16": FUNCTIONS,
    "w8": FUNCTIONS,
    "w8a8": ("encode", "step"),
    "mixed": ("step", "decode"),
}


@dataclass(frozen=True)
class Exported:
    path: Path
    recipe: Recipe


@pytest.fixture(scope="module")
def samples(programs, degraded):
    # The last picture is the darkest: taking its range for all of them would be seen.
    images = [*degraded[:-1], degraded[-1] * 0.5]
    return collect_samples(programs, images, seed=0)


@pytest.fixture(scope="module")
def half(programs) -> dict[str, Converted]:
    return float_models(programs, half=True)


@pytest.fixture(scope="module")
def exported(programs, half, samples, tmp_path_factory) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("coreml")
    single = float_models(programs, half=False, functions=WRITTEN["fp32"])
    found = {}
    for name, functions in WRITTEN.items():
        recipe = MIXED if name == "mixed" else RECIPES[name]
        path = folder / f"{name}.mlpackage"
        models = single if name == "fp32" else half
        write({f: models[f] for f in functions}, programs, recipe, samples, path)
        found[name] = Exported(path, recipe)
    return found


@pytest.fixture(scope="module")
def runners(exported, programs) -> dict[str, Runner]:
    return {
        name: open_runner("coreml", exported[name].path, programs.table) for name in ("fp32", "fp16", "w8")
    }


def loaded(path: Path) -> Any:
    with coremltools() as ct:
        model = ct.models.MLModel(str(path), skip_model_load=True)
        return mil_program(model.get_spec(), model.weights_dir)


def spec_of(path: Path) -> Any:
    with coremltools() as ct:
        return ct.utils.load_spec(str(path))


def weight_bytes(path: Path) -> int:
    return bytes_of(path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin")


def test_one_package_has_every_function_with_float32_tensors_outside(exported, programs) -> None:
    for precision in ("fp16", "w8"):
        functions = {f.name: f for f in spec_of(exported[precision].path).description.functions}
        assert tuple(functions) == FUNCTIONS
        for name in programs.modules:
            for feature in [*functions[name].input, *functions[name].output]:
                assert feature.type.multiArrayType.dataType == 65568  # FLOAT32 in Model.proto
        assert functions["encode_image"].input[0].type.WhichOneof("Type") == "imageType"


def test_metadata_is_filled_in(exported) -> None:
    description = spec_of(exported["w8"].path).description
    about = description.metadata
    assert about.author
    assert about.license
    assert "encode(image)" in about.shortDescription
    assert (about.userDefined["recipe"], about.userDefined["steps"]) == ("w8", str(STEPS))
    assert float(about.userDefined["sigma_s"]) == SIGMA_S
    for function in description.functions:
        assert all(feature.shortDescription for feature in [*function.input, *function.output])


@pytest.mark.parametrize(("precision", "least_db"), [("fp32", 90), ("fp16", 45), ("w8", 25)])
def test_restores_as_eager_does(runners, restorer, degraded, noise, precision: str, least_db: float) -> None:
    out, _ = runners[precision].restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    expected = restorer(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    assert sqnr_db(expected, out) > least_db


def test_w8a8_programs_stay_near_float(exported, programs, samples) -> None:
    functions = read_package(exported["w8a8"].path)
    (image,) = samples["encode"][0]
    z, row = samples["step"][0]
    encoded = functions["encode"]({"image": image})[0]
    assert sqnr_db(programs.modules["encode"](image), encoded) > 15
    assert sqnr_db(programs.modules["step"](z, row), functions["step"]({"latent": z, "row": row})[0]) > 15


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8", "w8a8", "mixed"])
def test_every_layer_has_the_precision_of_its_recipe(exported, half, programs, precision: str) -> None:
    file = exported[precision]
    recipe = file.recipe.on(programs.roles)
    program = loaded(file.path)
    assert set(program.functions) == set(WRITTEN[precision])
    for name, function in program.functions.items():
        converted, ops = half[name], convolutions(function)
        for op, layer in zip(ops, converted.layers, strict=True):
            wanted = recipe.precision_of(layer)
            assert stored_grid(op) == wanted_grid(op, wanted), (name, layer)
            # coremltools quantizes no activations around transposed convolutions.
            if wanted.weight_bits is not None:
                integer = wanted.integer and not is_transposed(op)
                assert has_integer_inputs(op) == integer, (name, layer)
            if wanted.weight_bits is None:  # what is not rounded runs in float16 beside what is
                kind = np.float32 if precision == "fp32" else np.float16
                assert weight_of(op).outputs[0].val.dtype == kind, (name, layer)


def test_a_layer_left_float_keeps_its_very_weights(exported, half, restorer) -> None:
    ops = convolutions(loaded(exported["mixed"].path).functions["decode"])
    op = ops[half["decode"].layers.index("dec.layers.3.conv.2")]
    weight = restorer.get_submodule("dec.layers.3.conv.2").weight
    assert np.array_equal(weight_of(op).outputs[0].val, weight.half().numpy())


def test_layers_are_matched_to_their_convolutions(half, programs) -> None:
    for name, converted in half.items():
        program = programs.modules[name.removesuffix("_image")]
        ops = convolutions(converted.model._mil_program.functions["main"])
        for op, layer in zip(ops, converted.layers, strict=True):
            weight = program.get_submodule(layer).weight.flatten()
            stored = torch.from_numpy(weight_of(op).outputs[0].val.astype(np.float32)).flatten()
            # Not equal: coremltools folds a scale after the convolution into it.
            assert torch.cosine_similarity(weight, stored, 0) > 0.9999, layer


def test_w4g32_is_int4_where_a_group_divides_the_channels_and_w4_everywhere(exported, half) -> None:
    ops = convolutions(loaded(exported["mixed"].path).functions["decode"])
    grids = {layer: stored_grid(op) for op, layer in zip(ops, half["decode"].layers, strict=True)}
    assert grids["dec.layers.0"] == Grid(4, (8, 1, 1, 1))  # 16 channels
    assert grids["dec.layers.18"] == Grid(8, (3, 1, 1, 1))  # 8 channels
    step = convolutions(loaded(exported["mixed"].path).functions["step"])
    by_name = dict(zip(half["step"].layers, step, strict=True))
    assert stored_grid(by_name["fmir.first_proj"]) == Grid(4, (32, 1, 1, 1))  # 16 channels
    wide = stored_grid(by_name["fmir.mid_blocks.0.block2.block.2"])
    assert wide == Grid(4, (64, 1, 1, 1))  # 64 channels in, a scale for each out


def levels(op: Any) -> torch.Tensor:
    """The integers that a convolution's weight is stored as."""
    return torch.from_numpy(weight_of(op).inputs["data"].val.astype(np.float32))


def simulated_levels(layer: torch.nn.Module, grid: Grid) -> torch.Tensor:
    return (layer.weight / weight_scale(layer.weight, grid)).round().clamp(-grid.top, grid.top)


def test_the_files_integers_are_those_of_the_simulation(exported, half, programs) -> None:
    seen = set()
    for name in ("w8", "mixed"):
        recipe = exported[name].recipe.on(programs.roles)
        for function, body in loaded(exported[name].path).functions.items():
            program = programs.modules[function.removesuffix("_image")]
            for op, layer in zip(convolutions(body), half[function].layers, strict=True):
                module = program.get_submodule(layer)
                grid = layer_grid(module, recipe.precision_of(layer))
                if grid is None:
                    continue
                seen.add((grid.bits, op.op_type))
                assert are_nearest(op, module.weight, grid), (name, layer)
    assert seen == {(8, "conv"), (8, "conv_transpose"), (4, "conv")}  # int4 transposed: below


def are_nearest(op, weight: torch.Tensor, grid: Grid) -> bool:
    """Whether a file has the nearest integers, but that weight, its largest and scale are float16 there."""
    off = (levels(op) - weight / weight_scale(weight, grid)).abs().max()
    return bool(off <= 0.5 + grid.top * 3 * 2**-11)


def test_reconstructed_weights_lie_on_the_grid_of_their_file(programs, samples) -> None:
    """Each integer that reconstruction chose is the one that is written."""
    recipe = Recipe("w4", (Rule("*", W4),))
    better = with_weights(programs, adjusted_weights(programs, recipe, samples))
    converted = float_models(better, half=True, functions=("step",))["step"]
    model = realize(converted, recipe, {})
    body = mil_program(model.get_spec(), model.weights_dir).functions["main"]
    for op, layer in zip(convolutions(body), converted.layers, strict=True):
        module = better.modules["step"].get_submodule(layer)
        if isinstance(module, torch.nn.ConvTranspose2d):
            assert layer_grid(module, W4).bits == 4
            assert are_nearest(op, module.weight, layer_grid(module, W4)), layer
            continue
        assert torch.equal(levels(op), simulated_levels(module, layer_grid(module, W4))), layer


def test_no_norm_silu_or_addition_is_quantized(exported) -> None:
    for function in loaded(exported["w8a8"].path).functions.values():
        for op in function.operations:
            if op.op_type in ("add", "silu", "reduce_mean", "rsqrt", "mul"):
                assert op.outputs[0].dtype.__name__ in ("fp16", "fp32")
            if op.op_type == "quantize":
                # Beside a convolution: its input, or its output with the ReLU after it.
                after = op.outputs[0].child_ops[0].outputs[0].child_ops
                before = op.inputs["input"].op
                beside = {before.op_type} if before else set()
                if beside == {"relu"}:
                    beside = {before.inputs["x"].op.op_type}
                assert "conv" in beside | {child.op_type for child in after}


def test_activation_scales_are_those_of_our_ranges(exported, samples, half) -> None:
    """Guards the private function of coremltools that the calibration stands in for."""
    from coremltools.optimize.coreml import _post_training_quantization as ptq

    assert list(inspect.signature(ptq._get_activation_calibration_stats).parameters) == [
        "fpmodel",
        "sample_data",
        "calibration_op_group_size",
    ]
    (op,) = [
        op for op in loaded(exported["w8a8"].path).functions["encode"].operations
        if op.op_type == "quantize" and op.inputs["input"].name == "image_to_fp16"
    ]  # fmt: skip
    observer = make_observer(MinMaxObserver)
    for (image,) in samples["encode"]:
        observer(image.half().float())
    low, high = bounds(observer)
    assert op.scale.val == pytest.approx((high - low) / 255, rel=2e-3)
    # Not of the last sample alone, which is what coremltools' own merging gives.
    assert len(samples["encode"]) > 1
    assert samples["encode"][-1][0].max() < 0.9 * high


def test_the_encoder_has_the_whole_range(exported, programs, samples) -> None:
    """The few largest values too, which a histogram gives up."""
    program, chosen, other = "encode", MinMaxObserver, HistogramObserver
    body = loaded(exported["w8a8"].path).functions[program]
    ranges = {
        kind: calibrate(programs, samples, {**OBSERVERS, program: kind})[program] for kind in (chosen, other)
    }
    off: dict[type, list[float]] = {kind: [] for kind in ranges}
    found = [
        layer for layer in find_layers(trace(programs.modules[program])) if layer.node.op == "call_module"
    ]
    for layer, op in zip(found, convolutions(body), strict=True):
        if has_integer_inputs(op) and not layer.name.startswith("mmse"):  # sums in between are scaled there
            scale = float(op.inputs["x"].op.inputs["scale"].val)
            for kind, known in ranges.items():
                low, high = known[layer.inputs[0].name]
                off[kind].append(abs(np.log(255 * scale / (max(high, 0) - min(low, 0)))))
    assert len(off[chosen]) > 30
    assert np.median(off[chosen]) < 0.01
    assert np.mean(off[chosen]) < 0.5 * np.mean(off[other])


def test_picture_and_tensor_input_agree(exported, degraded) -> None:
    functions = read_package(exported["fp16"].path)
    picture = (255 * degraded[0]).round()
    from_picture = functions["encode_image"]({"image": picture})[0]
    assert sqnr_db(functions["encode"]({"image": picture / 255})[0], from_picture) > 45


def test_picture_function_shares_the_weights(exported, programs) -> None:
    # Two bytes a parameter for each program once, and a little for offsets and alignment.
    parameters = sum(p.numel() for m in programs.modules.values() for p in m.parameters())
    constants = 64 * 3 * sum(1 for m in programs.modules.values() for _ in m.parameters())
    assert weight_bytes(exported["fp16"].path) < 2 * parameters + constants
    assert weight_bytes(exported["w8"].path) < parameters + 2 * constants


def test_decoded_images_are_clipped_whatever_the_latent(runners, programs) -> None:
    latent = 20 * torch.randn(programs.latent_shape, generator=torch.Generator().manual_seed(0))
    image = runners["fp16"].decode(latent)
    assert image.min() == 0
    assert image.max() == 1


def ops_of(functions: Functions) -> list[tuple[str, str]]:
    return [(call.kind, call.name) for function in functions.values() for call in function.calls]


def test_converting_twice_gives_the_same_weights_and_operators(programs, half, tmp_path: Path) -> None:
    models = {"once": {"step": half["step"]}, "again": float_models(programs, True, functions=("step",))}
    paths = [tmp_path / name for name in models]
    for path in paths:
        write(models[path.name], programs, RECIPES["fp16"], {}, path)
    digests = [
        hashlib.sha256((path / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()).hexdigest()
        for path in paths
    ]
    assert digests[0] == digests[1]
    assert ops_of(read_package(paths[0])) == ops_of(read_package(paths[1]))
    assert {path.name for path in tmp_path.iterdir()} == set(models)


def test_ios17_has_a_package_for_each_function(programs, samples, tmp_path: Path) -> None:
    recipe = Recipe("w8", (Rule("fmir.up_blocks.*", W8), Rule("*", FP16)))
    models = float_models(programs, True, IOS17, ("step",))
    with pytest.raises(ValueError, match="iOS 17 knows no weights but int8"):
        write(models, programs, RECIPES["w4"], samples, tmp_path / "w4", IOS17)
    write(models, programs, recipe, samples, tmp_path / "w8", IOS17)
    (package,) = (tmp_path / "w8").iterdir()
    assert package.name == "step.mlpackage"
    spec = spec_of(package)
    assert spec.specificationVersion == 8  # iOS 17
    assert spec.description.metadata.author
    ops = convolutions(loaded(package).functions["main"])
    kinds = {layer: weight_of(op).op_type for op, layer in zip(ops, models["step"].layers, strict=True)}
    assert {kind for layer, kind in kinds.items() if layer.startswith("fmir.up_blocks")} == {
        "constexpr_affine_dequantize"
    }
    assert kinds["fmir.first_proj"] == "const"
    z, row = samples["step"][0]
    out = read_package(package)["main"]({"latent": z, "row": row})[0]
    assert sqnr_db(programs.modules["step"](z, row), out) > 10


def test_packages_are_found_in_a_folder_too(tmp_path: Path) -> None:
    for name in ("encode", "step", "decode"):
        (tmp_path / f"{name}.mlpackage").mkdir()
    assert packages(tmp_path)["step"] == (tmp_path / "step.mlpackage", "main")


def test_calibrated_recipe_without_samples_is_refused(programs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calibration"):
        lower(programs, RECIPES["w8a8"], {}, tmp_path / "no.mlpackage")
    assert not list(tmp_path.iterdir())


def test_damaged_package_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.mlpackage"
    path.mkdir()
    (path / "Manifest.json").write_text("{")
    with pytest.raises(UserError, match="not a Core ML package"):
        interpreting_programs(path)
    with pytest.raises(UserError, match="is missing"):
        interpreting_programs(tmp_path)


@pytest.mark.macos
@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on a Mac only")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8"])
def test_core_ml_computes_what_the_interpreter_does(exported, programs, degraded, noise, precision) -> None:
    path = exported[precision].path
    outs = [
        make_runner(read(path), programs.table).restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)[0]
        for read in (predicting_programs, interpreting_programs)
    ]
    assert sqnr_db(outs[1], outs[0]) > (60 if precision == "fp32" else 25)
