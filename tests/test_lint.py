"""Hazards of written files: each check on a file that has the fault, and on one that has not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner, Result

from elir_mobile.bundle import read_bundle
from elir_mobile.cli.main import app
from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.coreml import coremltools
from export import lint as linter
from export.executorch import write
from export.forms import GroupNorm4d, GroupNormConv, GroupNormGpu
from export.lint import CHECKS, READERS, Finding, lint
from export.litert import convert
from export.programs import Programs

pytestmark = pytest.mark.lowering
ROOT = Path(__file__).parents[1]


def onnx_file(path: Path, nodes: list, shape: tuple, out: tuple, constants: dict | None = None) -> Path:
    """An ``.onnx`` file from ``x`` to ``y``."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sides)
        for name, sides in (("x", shape), ("y", out))
    )
    stored = [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def five(path: Path, sides: list[int]) -> Path:
    """A reshape and back."""
    nodes = [
        helper.make_node("Reshape", ["x", "there"], ["z"]), helper.make_node("Reshape", ["z", "back"], ["y"])
    ]  # fmt: skip
    constants = {"there": np.array(sides), "back": np.array([1, 4, 4, 4])}
    return onnx_file(path, nodes, (1, 4, 4, 4), (1, 4, 4, 4), constants)


def mean_of_squares(path: Path, side: int, scale: float) -> Path:
    """``mean((scale · x)²)`` over a picture's columns."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"]),
        helper.make_node("Mul", ["s", "s"], ["q"]),
        helper.make_node("ReduceMean", ["q", "axes"], ["y"], keepdims=1),
    ]
    constants = {"scale": np.float32(scale), "axes": np.array([3])}
    return onnx_file(path, nodes, (1, 2, 4, side), (1, 2, 4, 1), constants)


def shuffled(path: Path, quantized: bool) -> Path:
    """Depth to space, between a pair of roundings or between none."""
    name = "d" if quantized else "x"
    nodes = [helper.make_node("DepthToSpace", [name], ["y"], blocksize=2)]
    constants: dict = {}
    if quantized:
        nodes[:0] = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        ]
        constants = {"scale": np.float32(0.1), "zero": np.uint8(7)}
    return onnx_file(path, nodes, (1, 4, 4, 4), (1, 1, 8, 8), constants)


def one_node(path: Path, kind: str, shape: tuple = (1, 2, 4, 4), out: tuple = (1, 2, 4, 4)) -> Path:
    return onnx_file(path, [helper.make_node(kind, ["x"], ["y"])], shape, out)


def package(path: Path, body: Callable, shape: tuple, weights: dict | None = None, half: bool = True) -> Path:
    """A Core ML package of ``body``; ``weights``: how they are stored."""
    with coremltools() as ct:
        import coremltools.optimize.coreml as cto
        from coremltools.converters.mil import Builder as mb

        @mb.program(input_specs=[mb.TensorSpec(shape=shape)], opset_version=ct.target.iOS18)
        def program(x):  # noqa: ANN001, ANN202
            return body(mb, x)

        model = ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
        )
        if weights is not None:
            kind = weights.pop("kind")
            config = getattr(cto, f"Op{kind}Config")(weight_threshold=0, **weights)
            compress = cto.palettize_weights if kind == "Palettizer" else cto.linear_quantize_weights
            model = compress(model, cto.OptimizationConfig(global_config=config))
        model.save(str(path))
    return path


def conv(mb, x):  # noqa: ANN001, ANN201
    weight = np.random.default_rng(0).normal(size=(32, 64, 1, 1)).astype(np.float32)
    return mb.conv(x=x, weight=weight)


PICTURE = (1, 64, 4, 4)
LINEAR = {"kind": "LinearQuantizer", "mode": "linear_symmetric"}


def tflite(path: Path, module: nn.Module, shape: tuple) -> Path:
    programs = Programs({"step": module.eval()}, {"step": (torch.zeros(shape),)}, torch.zeros(1, 1), 1, 0.1)
    path.write_bytes(convert(programs))
    return path


class Turned(nn.Module):
    """A transposed convolution, with a ReLU behind it or without."""

    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.layer, self.relu = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)
        return torch.relu(out) if self.relu else out


class Ranks(nn.Module):
    """A sum over five dimensions, or over four."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(1, 2, 4, 8, 8).sum(2) * 2.0 if self.rank == 5 else x.view(2, 4, 8, 8).sum(1) * 2.0


class Summed(nn.Module):
    """Convolution and a running sum, which Vulkan does not take, or without it."""

    def __init__(self, running: bool) -> None:
        super().__init__()
        self.layer, self.running = nn.Conv2d(4, 4, 3, padding=1), running

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)
        return torch.cumsum(out, 3) if self.running else out


def vulkan(path: Path, module: nn.Module, shape: tuple = (1, 4, 8, 8)) -> Path:
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    exported = {"step": torch.export.export(module.eval(), (torch.randn(shape),))}
    write(exported, lambda: [VulkanPartitioner({"force_fp16": True})], path)
    return path


Case = tuple[str, str, Callable[[Path], Path], Callable[[Path], Path]]
# Suffix, check, a file with its fault and one without. All that decides is the fault itself.
CASES: dict[str, Case] = {
    "onnx/qnn ranks": (".onnx", "ranks", lambda p: five(p, [1, 2, 2, 4, 4]), lambda p: five(p, [1, 2, 8, 4])),
    "onnx/qnn half_sums": (
        ".onnx", "half_sums",
        lambda p: mean_of_squares(p, 256, 1.0), lambda p: mean_of_squares(p, 256, 256**-0.5),
    ),
    "onnx/qnn quantized_shuffles": (
        ".onnx", "quantized_shuffles", lambda p: shuffled(p, True), lambda p: shuffled(p, False),
    ),
    "onnx/qnn not_in_qnn": (
        ".onnx", "not_in_qnn", lambda p: one_node(p, "Erf"), lambda p: one_node(p, "Relu")
    ),
    "onnx/qnn dynamic_shapes": (
        ".onnx", "dynamic_shapes",
        lambda p: one_node(p, "Relu", *2 * [(1, 2, "height", 4)]), lambda p: one_node(p, "Relu"),
    ),
    "coreml ranks": (
        ".mlpackage", "ranks",
        lambda p: package(p, lambda mb, x: mb.relu(x=mb.reshape(x=x, shape=(1, 2, 32, 4, 4))), PICTURE),
        lambda p: package(p, lambda mb, x: mb.relu(x=mb.reshape(x=x, shape=(64, 16))), PICTURE),
    ),
    "coreml last_axes": (
        ".mlpackage", "last_axes",
        lambda p: package(p, lambda mb, x: mb.reshape(x=mb.relu(x=x), shape=(1, 64)), (1, 64, 1, 1)),
        lambda p: package(p, lambda mb, x: mb.relu(x=x), (1, 64)),
    ),
    "coreml weight_blocks, int4": (
        ".mlpackage", "weight_blocks",
        lambda p: package(p, conv, PICTURE, LINEAR | {"dtype": "int4", "granularity": "per_block"}),
        lambda p: package(p, conv, PICTURE, LINEAR | {"dtype": "int4", "granularity": "per_channel"}),
    ),
    "coreml weight_blocks, int8": (
        ".mlpackage", "weight_blocks",
        lambda p: package(p, conv, PICTURE, LINEAR | {"granularity": "per_block", "block_size": 16}),
        lambda p: package(p, conv, PICTURE, LINEAR | {"granularity": "per_tensor"}),
    ),
    "coreml weight_blocks, palette": (
        ".mlpackage", "weight_blocks",
        lambda p: package(p, conv, PICTURE, {"kind": "Palettizer", "mode": "uniform", "nbits": 4}),
        lambda p: package(p, conv, PICTURE),
    ),
    "coreml half_sums": (
        ".mlpackage", "half_sums",
        lambda p: package(p, lambda mb, x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False), (1, 2, 20, 20)),
        lambda p: package(p, lambda mb, x: mb.reduce_mean(x=x, axes=[3], keep_dims=False), (1, 2, 20, 20)),
    ),
    "coreml half_sums in float32": (
        ".mlpackage", "half_sums",
        lambda p: package(p, lambda mb, x: mb.reduce_sum_square(x=x, axes=[3]), (1, 2, 4, 4)),
        lambda p: package(
            p, lambda mb, x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False), (1, 2, 20, 20), half=False
        ),
    ),
    "litert/gpu half_sums": (
        ".tflite", "half_sums",
        lambda p: tflite(p, GroupNormConv(nn.GroupNorm(2, 8)), (1, 8, 20, 20)),
        lambda p: tflite(p, GroupNormGpu(nn.GroupNorm(2, 8)), (1, 8, 20, 20)),
    ),
    "litert/gpu refused": (
        ".tflite", "refused",
        lambda p: tflite(p, Turned(True), (1, 8, 8, 8)), lambda p: tflite(p, Turned(False), (1, 8, 8, 8)),
    ),
    "litert/gpu ranks": (
        ".tflite", "ranks",
        lambda p: tflite(p, Ranks(5), (1, 8, 8, 8)), lambda p: tflite(p, Ranks(4), (1, 8, 8, 8)),
    ),
    "executorch/vulkan outside": (
        ".pte", "outside", lambda p: vulkan(p, Summed(True)), lambda p: vulkan(p, Summed(False)),
    ),
    "executorch/vulkan half_sums": (
        ".pte", "half_sums",
        lambda p: vulkan(p, GroupNorm4d(nn.GroupNorm(2, 8)), (1, 8, 20, 20)),
        lambda p: vulkan(p, Summed(False)),
    ),
}  # fmt: skip


def found(check: str, path: Path, target: str) -> list[Finding]:
    """What one check finds, and nothing of the others."""
    names = {c.__name__: c for c in CHECKS}
    graphs = READERS[target.partition("/")[0]](path)
    return [finding for graph in graphs for finding in names[check](graph, target)]


@pytest.mark.parametrize("case", CASES)
def test_a_check_finds_its_fault_and_nothing_where_there_is_none(case: str, tmp_path: Path) -> None:
    suffix, check, faulty, sound = CASES[case]
    target = case.partition(" ")[0]
    bad, good = faulty(tmp_path / f"bad{suffix}"), sound(tmp_path / f"good{suffix}")
    assert found(check, bad, target)
    assert not found(check, good, target)
    assert not lint(good, target)
    assert {f.what for f in found(check, bad, target)} & {f.what for f in lint(bad, target)}
    if suffix != ".mlpackage":  # on a processor it does no harm
        assert not lint(bad, {".onnx": "onnx", ".tflite": "litert", ".pte": "executorch"}[suffix])


def test_every_check_has_a_case_and_a_source_that_is_there() -> None:
    assert {check for _, check, _, _ in CASES.values()} == {check.__name__ for check in CHECKS}
    sources = {name: value for name, value in vars(linter).items() if name.endswith("_URL")}
    for value in sources.values():
        for source in value.split(", "):
            assert source.startswith("https://") or "_" in source or (ROOT / source).is_file(), source


def call(*arguments: object, code: int) -> Result:
    result = CliRunner().invoke(app, ["lint", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_a_line_says_what_where_why_and_where_it_is_known_from(tmp_path: Path) -> None:
    bad = shuffled(tmp_path / "step.onnx", True)
    lines = call(bad, "--target", "onnx/qnn", code=1).output.splitlines()
    assert lines == [
        f"{bad}: step: DepthToSpace (y): a quantized pixel shuffle: on a Snapdragon's NPU it lost 6.7 dB "
        "against nearest upsampling and a convolution: https://github.com/qualcomm/aimet/issues/4060",
        "1 files, 1 findings",
    ]
    good = five(tmp_path / "good.onnx", [1, 2, 8, 4])
    assert call(good, code=0).output == "1 files, 0 findings\n"


def test_many_of_one_kind_are_one_line(tmp_path: Path) -> None:
    nodes = [helper.make_node("Erf", [a], [b]) for a, b in (("x", "z"), ("z", "w"), ("w", "y"))]
    path = onnx_file(tmp_path / "a.onnx", nodes, (1, 2, 4, 4), (1, 2, 4, 4))
    (finding,) = lint(path, "onnx/qnn")
    assert finding.name == "z and 2 more"


def test_a_bundle_is_looked_into_file_by_file(micro_bundle: Path, tmp_path: Path) -> None:
    files = read_bundle(micro_bundle).manifest["files"]
    lines = call(micro_bundle, code=0).output.splitlines()
    assert lines[-1] == f"{len(files)} files, 0 findings"


def test_a_file_in_a_bundle_that_no_reader_knows_is_named_and_no_error(
    micro_bundle: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(micro_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["target"] = "coreai"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    lines = call(folder, code=0).output.splitlines()
    first = folder / manifest["files"][0]["path"]
    assert lines[0] == f"{first}: not looked into: there is no reader of Core AI files here"
    assert lines[-1] == f"{len(manifest['files']) - 1} files, 0 findings"


def test_the_manifest_says_what_a_file_is_for(tmp_path: Path) -> None:
    path = tflite(tmp_path / "head.tflite", Turned(True), (1, 8, 8, 8))
    assert not lint(path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"files": [{"path": "head.tflite", "target": "litert/gpu"}]}))
    assert [finding.what for finding in lint(path)] == ["an activation function fused into it"]
    assert not lint(path, "litert")
    for text in ("{", "[]", '{"files": 3}'):  # of something else
        manifest.write_text(text)
        assert not lint(path)


def test_a_pte_without_a_manifest_is_for_its_delegate(tmp_path: Path) -> None:
    path = vulkan(tmp_path / "a.pte", Summed(True))
    assert [finding.what for finding in lint(path)] == ["outside the delegate"]


def test_what_cannot_be_looked_into_is_a_sentence_and_the_others_are_linted(tmp_path: Path) -> None:
    bad = package(tmp_path / "bad.mlpackage", lambda mb, x: mb.relu(x=x), (1, 64, 1, 1))
    broken = []
    for name in ("a.tflite", "b.onnx", "c.pte", "d.txt"):
        broken.append(tmp_path / name)
        broken[-1].write_bytes(b"no such file")
    empty = tmp_path / "e.mlpackage"
    empty.mkdir()
    broken += [empty, tmp_path / "nothing.onnx"]
    output = call(bad, *broken, code=2).output
    assert "whose last axis is 1" in output
    for path in broken:
        (line,) = [line for line in output.splitlines() if line.startswith("error:") and str(path) in line]
        assert re.search("damaged|no program|cannot be looked into|there is no", line), line
    assert "leave --target out" in call(bad, "--target", "litert/gpu", code=2).output
    assert "unknown target 'tpu'" in call(bad, "--target", "tpu", code=2).output
    with pytest.raises(UserError, match="check the path"):
        lint(tmp_path / "none")
