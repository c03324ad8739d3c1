"""The ``.tflite`` files: structure, execution, and agreement with float."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import BuiltinOperator
from ai_edge_litert.tools import flatbuffer_utils
from torch import nn

from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import FP32, RECIPES, W4, W8, W8A8, Recipe, Rule
from elir_mobile.runtimes.runner import Runner, open_runner
from export import litert
from export.programs import Programs, build_programs
from export.targets import TARGETS
from tests.conftest import SIGMA_S, SIZE, STEPS

pytestmark = pytest.mark.lowering

PRECISIONS = TARGETS["litert"].precisions
LEAST_DB = {"fp32": 90, "fp16": 50, "w8": 25, "w8a8": 18}


@pytest.fixture(scope="module")
def litert_programs(restorer) -> Programs:
    target = TARGETS["litert"]
    return build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=target.form)


@pytest.fixture(scope="module")
def converted(litert_programs) -> bytes:
    """Converting is what takes long: once for all precisions, by tests/lowering.py for all tests."""
    return litert._last_converted(litert_programs)


@pytest.fixture(scope="module")
def lowered(litert_programs, samples, tmp_path_factory):
    """Files and delegation of every precision, by the target's own entry."""
    folder = tmp_path_factory.mktemp("tflite")
    return {
        name: (
            folder / f"{name}.tflite",
            TARGETS["litert"].lower(litert_programs, RECIPES[name], samples, folder / f"{name}.tflite"),
        )
        for name in PRECISIONS
    }


@pytest.fixture(scope="module")
def runners(lowered, litert_programs) -> dict[str, Runner]:
    return {name: open_runner("litert", path, litert_programs.table) for name, (path, _) in lowered.items()}


def weights(content: bytes) -> dict[str, Any]:
    """Stored type of every layer's filter in a ``.tflite``."""
    model = flatbuffer_utils.read_model_from_bytearray(content)
    return {
        name.removesuffix(".weight"): flatbuffer_utils.type_to_name(tensor.type)
        for subgraph in model.subgraphs
        for tensor in subgraph.tensors
        if (name := tensor.name.decode()).endswith(".weight")
        and model.buffers[tensor.buffer].data is not None
    }


def layers(programs: Programs) -> dict[str, nn.Module]:
    """Convolutions of the programs by their recipe names."""
    return {
        name: m
        for module in programs.modules.values()
        for name, m in module.named_modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and "gather" not in name and "spread" not in name
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_signature_is_one_partition_with_nothing_outside(lowered, precision: str) -> None:
    delegations = lowered[precision][1]
    assert list(delegations) == ["encode", "step", "decode"]
    for name, delegation in delegations.items():
        assert (delegation.delegates, delegation.ops_outside) == (1, ()), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_inputs_and_outputs_are_float32(lowered, precision: str) -> None:
    interpreter = Interpreter(model_path=str(lowered[precision][0]))
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        details = [*runner.get_input_details().values(), *runner.get_output_details().values()]
        assert {detail["dtype"] for detail in details} == {np.float32}


def test_a_file_is_packed_as_litert_packs_it_and_from_arrays(lowered) -> None:
    """Whatever is bytes in a model is written byte by byte, for half a minute for the demo."""
    content = lowered["w8a8"][0].read_bytes()
    theirs = flatbuffer_utils.read_model_from_bytearray(content)
    assert any(isinstance(buffer.data, bytes) for buffer in theirs.buffers)  # it would be
    ours = litert.model_of(content)
    assert {type(buffer.data) for buffer in ours.buffers} <= {np.ndarray, type(None)}
    assert litert.packed(ours) == bytes(flatbuffer_utils.convert_object_to_bytearray(theirs))


def test_operators_outside_the_partition_are_named(converted) -> None:
    model = flatbuffer_utils.read_model_from_bytearray(converted)
    tanh = next(
        code
        for index, code in enumerate(model.operatorCodes)
        if flatbuffer_utils.opcode_to_name(model, index) == "TANH"
    )
    tanh.builtinCode, tanh.deprecatedBuiltinCode = BuiltinOperator.ZEROS_LIKE, BuiltinOperator.ZEROS_LIKE
    found = litert.delegation(bytes(flatbuffer_utils.convert_object_to_bytearray(model)), "decode")
    assert (found.delegates, found.ops_outside) == (2, ("ZEROS_LIKE",))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_restored_image_stays_near_eager(runners, restorer, degraded, noise, precision: str) -> None:
    for image in degraded:
        out, _ = runners[precision].restore(image, noise, steps=STEPS, sigma_s=SIGMA_S)
        expected = restorer(image, noise, steps=STEPS, sigma_s=SIGMA_S)
        assert sqnr_db(expected, out) > LEAST_DB[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_decoded_images_are_clipped_whatever_the_latent(runners, litert_programs, precision: str) -> None:
    latent = 20 * torch.randn(litert_programs.latent_shape, generator=torch.Generator().manual_seed(0))
    image = runners[precision].decode(latent)
    assert image.min() >= 0
    assert image.max() <= 1


def test_few_transposes_are_left(converted) -> None:
    model = flatbuffer_utils.read_model_from_bytearray(converted)
    for subgraph in model.subgraphs:
        names = [flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) for op in subgraph.operators]
        assert names.count("TRANSPOSE") <= 2  # in and out


def test_every_layer_is_found_by_its_name_with_its_weights(litert_programs, converted) -> None:
    model = flatbuffer_utils.read_model_from_bytearray(converted)
    stored = {
        tensor.name.decode().removesuffix(".weight"): np.frombuffer(model.buffers[tensor.buffer].data, "<f4")
        for subgraph in model.subgraphs
        for tensor in subgraph.tensors
        if tensor.name.decode().endswith(".weight")
    }
    expected = layers(litert_programs)
    assert stored.keys() == expected.keys()
    for name, layer in expected.items():
        axes = (0, 2, 3, 1) if isinstance(layer, nn.Conv2d) else (1, 2, 3, 0)
        weight = layer.weight.permute(*axes).flatten().numpy()
        # The residual scale of a dense block may have gone into its last convolution, and the
        # decoder's soft clamp, 3·tanh(z/3), into its first.
        scale = np.dot(stored[name], weight) / np.dot(weight, weight)
        assert np.allclose(stored[name], scale * weight, atol=1e-6), name
        assert any(
            np.isclose(scale, s, rtol=1e-4) for s in ((3,) if name == "dec.layers.0" else (1, 0.2, 0.04))
        ), name


def test_sums_are_called_by_the_module_they_stand_in(converted) -> None:
    model = flatbuffer_utils.read_model_from_bytearray(converted)
    sums = [
        {op.layer for op in litert.layer_ops(model, subgraph) if op.kind == litert.ADD}
        for subgraph in model.subgraphs
    ]
    blocks = (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)
    dense = {f"mmse.lrm.0.RDB{i}.add" for i in (1, 2, 3)}
    assert sums[0] == {*(f"enc.layers.{i}.add" for i in blocks), *dense, "mmse.lrm.0.add", "mmse.add"}
    assert sums[1] == {"fmir.add", "add"}
    assert sums[2] == {f"dec.layers.{i}.add" for i in (2, 3, 4, 7, 8, 9, 12, 13, 14, 17)}


def test_recipe_decides_layer_by_layer(litert_programs, converted, samples, tmp_path: Path) -> None:
    recipe = Recipe(
        "by-layer",
        (
            Rule("enc.layers.3.conv.2", FP32),
            Rule("fmir.mid_blocks.0.block2.block.2", FP32),
            Rule("fmir.*", W8),
            Rule("*add", FP32),
            Rule("*", W8A8),
        ),
    )
    found = weights(litert.quantize(converted, recipe, samples))
    assert found.keys() == layers(litert_programs).keys()
    kept = {name for name, kind in found.items() if kind == "FLOAT32"}
    assert kept == {"enc.layers.3.conv.2", "fmir.mid_blocks.0.block2.block.2"}
    assert {kind for name, kind in found.items() if name not in kept} == {"INT8"}


def test_everything_in_int8_runs(
    litert_programs, converted, samples, degraded, noise, tmp_path: Path
) -> None:
    """Every convolution and sum, the program's own output and input included."""
    path = tmp_path / "all.tflite"
    path.write_bytes(litert.quantize(converted, Recipe("all", (Rule("*", W8A8),)), samples))
    runner = open_runner("litert", path, litert_programs.table)
    out, _ = runner.restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    assert out.isfinite().all()


def test_four_bit_weights_are_refused(converted) -> None:
    with pytest.raises(ValueError, match="w4"):
        litert.quantize(converted, Recipe("w4", (Rule("*", W4),)), {})


def test_file_is_about_as_large_as_its_weights(lowered, litert_programs) -> None:
    """Nothing is stored twice: the signatures share what they have in common."""
    count = sum(layer.weight.numel() for layer in layers(litert_programs).values())
    sizes = {name: path.stat().st_size for name, (path, _) in lowered.items()}
    graph = 200_000  # operators and names, whatever the precision
    assert sizes["fp32"] < 4 * count * 1.05 + graph
    assert sizes["fp16"] < 2 * count * 1.05 + graph
    assert sizes["w8"] < count * 1.05 + graph
    assert sizes["w8a8"] < count * 1.05 + graph


def test_converting_twice_gives_the_same_bytes(litert_programs, converted, samples) -> None:
    assert litert.convert(litert_programs) == converted
    recipe = RECIPES["w8a8"].on(litert_programs.roles)
    assert litert.quantize(converted, recipe, samples) == litert.quantize(converted, recipe, samples)


def test_the_converter_leaves_pythons_recursion_limit_alone(converted) -> None:
    assert sys.getrecursionlimit() < 100_000


def test_w8a8_without_samples_is_refused(litert_programs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calibration"):
        litert.lower(litert_programs, RECIPES["w8a8"], {}, tmp_path / "no.tflite")
    assert not list(tmp_path.iterdir())


def test_outputs_are_not_overwritten_by_the_next_call(runners, degraded) -> None:
    first = runners["w8a8"].encode(degraded[0])
    kept = first.clone()
    runners["w8a8"].encode(degraded[1])
    assert torch.equal(first, kept)


@pytest.mark.parametrize("keep", [0, 1000, 100_000])
def test_damaged_file_is_one_clear_error(lowered, litert_programs, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "bad.tflite"
    content = lowered["fp32"][0].read_bytes()
    path.write_bytes(content[:keep] if keep else b"not a model" * 100)
    with pytest.raises(UserError, match="not a LiteRT model"):
        open_runner("litert", path, litert_programs.table)


def test_file_without_a_signature_is_one_clear_error(converted, litert_programs, tmp_path: Path) -> None:
    model = flatbuffer_utils.read_model_from_bytearray(converted)
    model.signatureDefs = [s for s in model.signatureDefs if s.signatureKey != b"step"]
    path = tmp_path / "part.tflite"
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    with pytest.raises(UserError, match="no signature 'step'"):
        open_runner("litert", path, litert_programs.table)


def test_missing_package_is_one_clear_error(monkeypatch, litert_programs, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="pip install"):
        open_runner("litert", tmp_path / "any.tflite", litert_programs.table)
