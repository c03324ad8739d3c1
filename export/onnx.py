"""ONNX: a folder with one ``.onnx`` file for each program, rounding written as QDQ pairs of operators.

What is exported is the simulation's own graph (``export/simulate.py``): rounding stands where it is
simulated, with our own ranges, around the layers that the recipe names and nowhere else. PyTorch's tracing
exporter writes a marker where an activation is rounded; here the markers become pairs of operators, and
weights integers with a scale for each output channel (https://onnx.ai/onnx/operators/, "QuantizeLinear").
Activations are unsigned and weights signed, as NPUs take them
(https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html).
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elir_mobile.precision import Recipe
from elir_mobile.runtimes.onnx import OUTPUT
from elir_mobile.runtimes.programs import INPUTS
from export.calibrate import calibrate
from export.executorch import Half
from export.graphs import Graph, Operator, Value
from export.observers import activation_bits
from export.programs import Delegation, Programs, Samples, check_samples
from export.simulate import ActivationFakeQuant, Layer, Ranges, simulate_program, weight_scale

EXPORTED_OPSET = 20  # the highest of the tracing exporter
OPSET = 21  # the first whose QuantizeLinear knows 16 bits; none of our other operators changed with it
IR_VERSION = 10  # that belongs to opset 21
_DOMAIN, _ROUND = "elir", "Round"


class _Mark(torch.autograd.Function):
    """Nothing in PyTorch, a node ``elir::Round`` in the exported graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero: int, levels: int) -> Tensor:
        return x.clone()

    @staticmethod
    def symbolic(g: Any, x: Any, scale: float, zero: int, levels: int) -> Any:
        node = g.op(f"{_DOMAIN}::{_ROUND}", x, scale_f=scale, zero_i=zero, levels_i=levels)
        return node.setType(x.type())


class _Marker(nn.Module):
    """What stands in for an :class:`ActivationFakeQuant` while a graph is exported."""

    def __init__(self, rounding: ActivationFakeQuant) -> None:
        super().__init__()
        zero = int(rounding.zero) - rounding.least  # of unsigned integers
        self.facts = float(rounding.scale), zero, rounding.most - rounding.least + 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Mark.apply(x, *self.facts)
        return out


def model_of(name: str, module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """Program ``name`` as PyTorch exports it (``onnx.ModelProto``), markers included."""
    import onnx

    content: Any = io.BytesIO()  # which the tracing exporter takes, though its annotation says a path
    marked = any(isinstance(part, _Marker) for part in module.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that PyTorch has another exporter
        torch.onnx.export(
            module.eval(),
            example,
            content,
            input_names=list(INPUTS[name]),
            output_names=[OUTPUT],
            opset_version=EXPORTED_OPSET,
            custom_opsets={_DOMAIN: 1} if marked else {},
            dynamo=False,
        )
    model = onnx.load_from_string(content.getvalue())
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    return model


def rounded_model(
    name: str, module: nn.Module, example: tuple[Tensor, ...], recipe: Recipe, ranges: Ranges
) -> Any:
    """Program ``name`` with the rounding of ``recipe``, which speaks of layer names alone."""
    graph, layers = simulate_program(module, recipe, ranges.get(name, {}))
    for place, rounding in list(graph.named_children()):
        if isinstance(rounding, ActivationFakeQuant):
            setattr(graph, place, _Marker(rounding))
    model = model_of(name, graph, example)
    scales = _write_activations(model.graph)
    _write_weights(model.graph, layers, scales)
    return model


def _write_activations(graph: Any) -> dict[str, float]:
    """Put QuantizeLinear and DequantizeLinear where the markers are.

    Returns:
        The scale of every tensor that comes out of such a pair.
    """
    from onnx import helper, numpy_helper

    nodes, scales = [], {}
    for node in graph.node:
        if node.op_type != _ROUND:
            nodes.append(node)
            continue
        facts = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        (source,), (out,) = node.input, node.output
        kind = np.uint8 if facts["levels"] <= 256 else np.uint16
        constants = {"scale": np.float32(facts["scale"]), "zero": kind(facts["zero"])}
        parameters = [f"{out}.{key}" for key in constants]
        graph.initializer.extend(
            numpy_helper.from_array(np.array(value), parameter)
            for parameter, value in zip(parameters, constants.values(), strict=True)
        )
        integer = f"{out}.integer"
        nodes.append(helper.make_node("QuantizeLinear", [source, *parameters], [integer], f"{out}.quantize"))
        nodes.append(helper.make_node("DequantizeLinear", [integer, *parameters], [out], f"{out}.dequantize"))
        scales[out] = facts["scale"]
    del graph.node[:]
    graph.node.extend(nodes)
    return scales


def _write_weights(graph: Any, layers: list[Layer], scales: dict[str, float]) -> None:
    """Store the weights that the simulation rounded as integers, and biases beside integer activations too.

    Raises:
        ValueError: a grid that is not one scale for each output channel.
    """
    from onnx import helper, numpy_helper

    initializers = {tensor.name: tensor for tensor in graph.initializer}
    readers = {node.input[1]: node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")}
    added = []

    def store(tensor: str, integers: np.ndarray, scale: np.ndarray, axis: int) -> None:
        names = [f"{tensor}.integer", f"{tensor}.scale", f"{tensor}.zero"]
        initializers[tensor].CopyFrom(numpy_helper.from_array(integers, names[0]))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), names[1]))
        # It may be left out, but ONNX Runtime 1.32 then fails where it makes such weights unsigned.
        zero = np.zeros(len(scale), integers.dtype)
        graph.initializer.append(numpy_helper.from_array(zero, names[2]))
        added.append(helper.make_node("DequantizeLinear", names, [tensor], f"{tensor}.dequantize", axis=axis))

    for layer in layers:
        if layer.grid is None or layer.module is None:
            continue
        axis = 1 if isinstance(layer.module, nn.ConvTranspose2d) else 0
        if any(n != 1 for place, n in enumerate(layer.grid.scales) if place != axis) or layer.grid.bits != 8:
            raise ValueError(f"ONNX files have int8 weights alone: '{layer.name}' is {layer.precision.name}")
        weight = layer.module.get_parameter("weight")
        scale = weight_scale(weight, layer.grid)
        integers = (weight / scale).round().to(torch.int8).numpy()
        channels = scale.flatten().double().numpy()
        node = readers[f"{layer.name}.weight"]
        store(node.input[1], integers, channels, axis)
        if layer.precision.integer and len(node.input) > 2:
            steps = channels * scales[node.input[0]]
            bias = np.round(numpy_helper.to_array(initializers[node.input[2]]) / steps)
            if np.abs(bias).max() < np.iinfo(np.int32).max:
                store(node.input[2], bias.astype(np.int32), steps, 0)
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def lower(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
    """Write a folder of the programs in the precisions of ``recipe``; integer weights are int8 with a scale
    for each output channel. A :data:`export.targets.Lower`."""
    import onnx

    check_samples(recipe, samples)
    ranges = {}
    if recipe.needs_calibration:
        ranges = calibrate(programs, samples, bits=activation_bits(recipe) or 8)
    recipe = recipe.on(programs.roles)
    path.mkdir()
    for name, module in programs.modules.items():
        example = programs.example_inputs[name]
        if recipe.half:
            model = model_of(name, Half(module), example)
        else:
            model = rounded_model(name, module, example, recipe, ranges)
        onnx.checker.check_model(model)
        (path / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return {name: Delegation(0, ()) for name in programs.modules}


def read_graphs(path: Path) -> list[Graph]:
    """The program of an ``.onnx`` file, or those of a folder of them, called after their files.

    Raises:
        Exception: of whatever kind onnx raises on bytes that are no such file.
    """
    import onnx

    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    return [_graph(file.stem, onnx.shape_inference.infer_shapes(onnx.load(file)).graph) for file in files]


def _graph(name: str, graph: Any) -> Graph:
    from onnx import helper, numpy_helper

    values: dict[str, Value] = {}

    def constant(name: str, tensor: Any) -> None:
        array = numpy_helper.to_array(tensor)
        plain = array.size == 1 and np.issubdtype(array.dtype, np.floating)
        scalar = float(array.ravel()[0]) if plain else None
        values[name] = Value(name, tuple(array.shape), array.dtype.name, True, scalar)

    for info in (*graph.input, *graph.value_info, *graph.output):
        kind = info.type.tensor_type
        sides = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "unknown"
        values[info.name] = Value(info.name, sides if kind.HasField("shape") else None, dtype)
    for tensor in graph.initializer:
        constant(tensor.name, tensor)
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constant(node.output[0], node.attribute[0].t)
        else:
            nodes.append(node)

    def of(names: Any) -> tuple[Value, ...]:
        return tuple(values.get(name, Value(name, None, "unknown")) for name in names if name)

    operators = tuple(
        Operator(node.op_type, node.name or node.output[0], of(node.input), of(node.output)) for node in nodes
    )
    stored = {tensor.name for tensor in graph.initializer}
    inputs = of(info.name for info in graph.input if info.name not in stored)
    return Graph(name, operators, inputs, of(info.name for info in graph.output))
