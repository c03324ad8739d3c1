"""LiteRT: the three programs as signatures of one ``.tflite``, each in one XNNPACK partition.

litert-torch converts the float programs, channels last; ai-edge-quantizer then rewrites the layers
that the recipe names, and only those (https://ai.google.dev/edge/litert). In between every tensor that
a recipe can speak of gets the name of its layer, since the converter's own names repeat: they drop the
lists a module stands in. Inputs, outputs, norms and activation functions stay in float32.
"""

from __future__ import annotations

import copy
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from elir_mobile.precision import Recipe
from export.forms import GroupNormConv, GroupNormGpu
from export.graphs import Graph, Operator, Value
from export.observers import HistogramObserver, bounds, make_observer, observer_of
from export.programs import Delegation, Programs, Samples, check_samples

CONV, TRANSPOSE_CONV, ADD, PAD = "CONV_2D", "TRANSPOSE_CONV", "ADD", "PAD"
# Those of our programs that LiteRT's GPU accelerator 2.2.0 takes and computes right (docs/upstream.md).
GPU_OPERATORS = {
    ADD, CONV, PAD, TRANSPOSE_CONV, "CONCATENATION", "DEQUANTIZE", "LOGISTIC", "MINIMUM", "MUL", "RESHAPE",
    "RSQRT", "SLICE", "SUB", "SUM", "TANH", "TRANSPOSE",
}  # fmt: skip
# Index of the activation, the filter and the bias among an operator's inputs.
_OPERANDS = {CONV: (0, 1, 2), TRANSPOSE_CONV: (2, 1, 3)}
# Class and name of a module in the converter's tensor names, "torch.nn.modules.conv.Conv2d_first_proj".
_MODULE = re.compile(r"(?:\w+\.)*([A-Za-z0-9]+)_(.+)")
_PAD_SUFFIX = ".pad"


class Tagged(nn.Module):
    """A layer called by its whole path: of a module the converter's names keep the last part only."""

    def __init__(self, path: str, layer: nn.Module) -> None:
        super().__init__()
        self.tag = path.replace(".", "|")
        self.add_module(self.tag, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.tag)(x)


def tagged(module: nn.Module) -> nn.Module:
    """A copy of ``module`` with every convolution in a :class:`Tagged`, but for those of the norms."""
    copied = copy.deepcopy(module).eval()
    norms = tuple(name + "." for name, m in copied.named_modules() if isinstance(m, GroupNormConv))
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and not name.startswith(norms):
            parent, _, attribute = name.rpartition(".")
            setattr(copied.get_submodule(parent), attribute, Tagged(name, layer))
    return copied


def model_of(content: bytes) -> Any:
    """The model in a ``.tflite`` (``ModelT``).

    Some files have their weights behind the flatbuffer. LiteRT gives those as bytes, which its packer
    writes one by one in Python; arrays it copies.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.asarray(buffer.data, np.uint8)
    return model


def packed(model: Any) -> bytes:
    """The ``.tflite`` of a model, see :func:`model_of`."""
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def convert(programs: Programs) -> bytes:
    """The float ``.tflite``, its tensors named after their layers."""
    with _deep_recursion(), _mended_converter():
        import litert_torch

        litert_torch.config.show_progress = False
        converter: Any = litert_torch
        for name, module in programs.modules.items():
            converter = converter.signature(name, tagged(module), programs.example_inputs[name])
        model = model_of(converter.convert().model_content())
    _name_tensors(model)
    return packed(model)


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """The recursion limit that litert-torch copies graphs with, for as long as the block runs.

    It sets the limit on import and leaves it there. Deeply nested JSON, which Python refuses at its
    own limit, would then overrun the stack and take the process down.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # litert_converter.tools.model_utils.RECURSION_LIMIT
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


_last_converted = lru_cache(maxsize=1)(convert)  # one conversion serves every recipe


@contextmanager
def _mended_converter() -> Iterator[None]:
    """Mends two faults of litert-torch 0.9.4 while the block runs; both swap weights of equal shape.

    ``RuntimeFoldPass`` computes constants in the order of the operators, but puts them back in the order
    of a set. And constants are shared by shape and address: a tensor that one signature has freed lends
    its address, and so its values, to another signature's. Here the places come in the order of the
    operators too, and no tensor is freed before the conversion ends.
    """
    from litert_torch._convert.runtime_fold import RuntimeFoldPass
    from litert_torch.backend.inline_consts import _ConstantFingerprint

    extract, fingerprint = RuntimeFoldPass._extract_constants, _ConstantFingerprint.from_tensor
    kept = []

    def in_order(self: Any, function: Any) -> tuple[list, list]:
        ops, values = extract(self, function)
        wanted = set(values)
        return ops, [result for op in ops for result in op.results if result in wanted]

    def keeping(tensor: Tensor) -> _ConstantFingerprint:
        kept.append(tensor)
        return fingerprint(tensor)

    with (
        patch.object(RuntimeFoldPass, "_extract_constants", in_order),
        patch.object(_ConstantFingerprint, "from_tensor", keeping),
    ):
        yield


@dataclass(frozen=True)
class LayerOp:
    """An operator that a recipe can speak of.

    Attributes:
        kind: ``CONV_2D``, ``TRANSPOSE_CONV``, ``ADD``, or ``PAD`` of the convolution behind it.
        layer: its name in the recipe.
        output: name of its output tensor, the layer's with a suffix where that is taken.
        activations: names of its inputs that are computed.
    """

    kind: str
    layer: str
    output: str
    activations: tuple[str, ...]


def _operators(model: Any, subgraph: Any) -> Iterator[tuple[str, Any]]:
    from ai_edge_litert.tools import flatbuffer_utils

    for op in subgraph.operators:
        yield flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) or "CUSTOM", op


def _signatures(model: Any) -> Iterator[tuple[Any, Any]]:
    """Each signature with its subgraph."""
    for signature in model.signatureDefs:
        yield signature, model.subgraphs[signature.subgraphIndex]


def _name_tensors(model: Any) -> None:
    """Name outputs, filters and biases after their layers, all other tensors by their index.

    Short names matter: the converter's are some hundred bytes each, a megabyte in all.
    """
    for signature, subgraph in _signatures(model):
        key = signature.signatureKey.decode()
        names = {argument.tensorIndex: f"{key}/{argument.name.decode()}" for argument in signature.inputs}
        seen: Counter[str] = Counter()
        pads = set()
        for kind, op in _operators(model, subgraph):
            output = op.outputs[0]
            layer = None
            if kind in _OPERANDS:
                activation, weight, bias = (op.inputs[i] for i in _OPERANDS[kind])
                layer = _tag(subgraph.tensors[weight].name.decode())
                if layer is not None:
                    names.setdefault(weight, f"{layer}.weight")
                    names.setdefault(bias, f"{layer}.bias")
                    if activation in pads:
                        names[activation] = layer + _PAD_SUFFIX
            # A constant is added by the clip and the norms, which no recipe speaks of.
            elif kind == ADD and all(
                model.buffers[subgraph.tensors[i].buffer].data is None for i in op.inputs
            ):
                layer = _add_layer(subgraph.tensors[output].name.decode())
            elif kind == PAD:
                pads.add(output)
            if layer is not None:
                seen[layer] += 1
                names[output] = layer if seen[layer] == 1 else f"{layer}:{seen[layer]}"
        for index, tensor in enumerate(subgraph.tensors):
            tensor.name = names.get(index, f"{key}/{index}").encode()


def _tag(name: str) -> str | None:
    """Recipe name of the convolution whose filter the converter called ``name``; None for a norm's."""
    found = {m[2] for part in re.split("[;/]", name) if (m := _MODULE.fullmatch(part)) and "|" in m[2]}
    if len(found) > 1:
        raise ValueError(f"the filter '{name}' belongs to several layers")
    return found.pop().replace("|", ".") if found else None


def _add_layer(name: str) -> str | None:
    """Recipe name of the addition whose output the converter called ``name``; None for a norm's.

    The name lists the modules whose operators were fused into it, from the outermost one; a program's
    own output is named by the signature instead.
    """
    paths = set()
    for hierarchy in filter(lambda part: "." in part, name.split(";")):
        modules = [m for part in hierarchy.split("/")[1:] if (m := _MODULE.fullmatch(part))]
        if any(m[1] in (GroupNormConv.__name__, GroupNormGpu.__name__) for m in modules):
            return None
        if not modules or not modules[-1][0].startswith("torch."):
            paths.add(".".join([*(m[2] for m in modules), "add"]))
    if len(paths) > 1:
        raise ValueError(f"the sum '{name}' belongs to several layers")
    return paths.pop() if paths else "add"


def layer_ops(model: Any, subgraph: Any) -> list[LayerOp]:
    """The operators of a named model's subgraph that a recipe can speak of, in order."""
    found = []
    for kind, op in _operators(model, subgraph):
        name = subgraph.tensors[op.outputs[0]].name.decode()
        if kind not in (CONV, TRANSPOSE_CONV, ADD, PAD) or "/" in name:
            continue
        inputs = [subgraph.tensors[i] for i in op.inputs]
        activations = tuple(t.name.decode() for t in inputs if model.buffers[t.buffer].data is None)
        layer = name.removesuffix(_PAD_SUFFIX) if kind == PAD else name.partition(":")[0]
        found.append(LayerOp(kind, layer, name, activations))
    return found


def quantize(content: bytes, recipe: Recipe, samples: Samples) -> bytes:
    """Give every layer of a named float model the precision that ``recipe`` says.

    Args:
        content: what :func:`convert` returned.
        recipe: rules by layer names alone (``Recipe.on``).
        samples: calibration inputs of each signature, where activations become integers.

    Raises:
        ValueError: a precision that LiteRT does not have.
    """
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe import AlgorithmName, TFLOperationName

    operations = {
        CONV: TFLOperationName.CONV_2D,
        TRANSPOSE_CONV: TFLOperationName.CONV_2D_TRANSPOSE,
        ADD: TFLOperationName.ADD,
        PAD: TFLOperationName.PAD,
    }
    model = model_of(content)
    quantizer = Quantizer(content)
    observed: dict[str, dict[str, HistogramObserver]] = {}
    changed = False
    for signature, subgraph in _signatures(model):
        for op in layer_ops(model, subgraph):
            precision = recipe.precision_of(op.layer)
            # The quantizer matches an operator by its output's name with a semicolon behind it.
            scope, operation = f"^{re.escape(op.output)};$", operations[op.kind]
            bits = precision.activation_bits
            if precision.weight_group is not None or precision.weight_bits == 4:
                raise ValueError(f"LiteRT cannot give '{op.layer}' the precision {precision.name}")
            if bits is not None:
                quantizer.add_static_config(
                    scope, operation, activation_num_bits=bits, weight_num_bits=precision.weight_bits
                )
                program = signature.signatureKey.decode()
                observers = observed.setdefault(program, {})
                for name in (*op.activations, op.output):
                    observers.setdefault(name, make_observer(observer_of(program), bits))
            elif op.kind not in _OPERANDS or not (precision.half or precision.weight_bits):
                continue
            elif precision.weight_bits:
                quantizer.add_weight_only_config(scope, operation, num_bits=precision.weight_bits)
            else:
                quantizer.add_weight_only_config(
                    scope, operation, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
                )
            changed = True
    if not changed:
        return content
    ranges = _calibrate(model, observed, samples) if observed else None
    return bytes(
        quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
    )


def _calibrate(
    model: Any, observed: dict[str, dict[str, HistogramObserver]], samples: Samples
) -> dict[str, dict[str, np.ndarray]]:
    """Ranges of activations. The float model runs with the tensors as further outputs.

    Args:
        model: a named float model; not changed.
        observed: observers of each signature's tensors, by name.
        samples: inputs of each signature.

    Returns:
        ``{tensor name: {"min", "max"}}``.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.schema_py_generated import TensorMapT

    probed = copy.copy(model)
    probed.subgraphs = [copy.copy(subgraph) for subgraph in model.subgraphs]
    probed.signatureDefs = [copy.copy(signature) for signature in model.signatureDefs]
    for signature, subgraph in _signatures(probed):
        signature.outputs, subgraph.outputs = list(signature.outputs), list(subgraph.outputs)
        for index, tensor in enumerate(subgraph.tensors):
            name = tensor.name.decode()
            if name in observed.get(signature.signatureKey.decode(), ()) and index not in subgraph.inputs:
                probe = TensorMapT()
                probe.name, probe.tensorIndex = name, index
                signature.outputs.append(probe)
                if index not in subgraph.outputs:
                    subgraph.outputs.append(index)
    interpreter = Interpreter(model_content=packed(probed), num_threads=torch.get_num_threads())
    ranges = {}
    for signature, observers in observed.items():
        runner = interpreter.get_signature_runner(signature)
        for inputs in samples[signature]:
            values = {f"args_{i}": tensor.numpy() for i, tensor in enumerate(inputs)}
            values |= {f"{signature}/{name}": value for name, value in values.items()}
            values |= runner(**{name: values[name] for name in values if "/" not in name})
            for name, observer in observers.items():
                observer(torch.from_numpy(values[name]))
        for name, observer in observers.items():
            low_high = zip(("min", "max"), bounds(observer), strict=True)
            ranges[name] = {key: np.array([value], np.float32) for key, value in low_high}
    return ranges


def delegation(content: bytes, signature: str) -> Delegation:
    """How the runtime splits a signature, read from the interpreter after XNNPACK took its part.

    The interpreter lists the operators of the first subgraph only, those it replaced included. So the
    signature's subgraph is put first, and what really runs is followed from the outputs backwards.
    """
    from ai_edge_litert.interpreter import Interpreter

    model = model_of(content)
    chosen, subgraph = next(
        (s, graph) for s, graph in _signatures(model) if s.signatureKey.decode() == signature
    )
    chosen.subgraphIndex = 0
    model.subgraphs, model.signatureDefs = [subgraph], [chosen]
    interpreter = Interpreter(model_content=packed(model), num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    # Delegates come last, so that their outputs take the place of what they replaced.
    producers = {int(o): op for op in interpreter._get_ops_details() for o in op["outputs"]}
    running: dict[int, str] = {}
    waiting = [int(detail["index"]) for detail in interpreter.get_output_details()]
    while waiting:
        op = producers.get(waiting.pop())
        if op is not None and op["index"] not in running:
            running[op["index"]] = op["op_name"]
            waiting += [int(i) for i in op["inputs"] if i >= 0]
    outside = [name for _, name in sorted(running.items()) if name != "DELEGATE"]
    return Delegation(len(running) - len(outside), tuple(outside))


def lower(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
    """Convert, quantize by ``recipe`` and write one ``.tflite``; norms are :class:`GroupNormConv`. A
    :data:`export.targets.Lower`."""
    content = _lowered(programs, recipe, samples)
    delegations = {name: delegation(content, name) for name in programs.modules}
    path.write_bytes(content)
    return delegations


def _lowered(programs: Programs, recipe: Recipe, samples: Samples) -> bytes:
    check_samples(recipe, samples)
    return quantize(_last_converted(programs), recipe.on(programs.roles), samples)


def lower_for_gpu(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
    """As :func:`lower` for the GPU accelerator; its programs have norms as :class:`GroupNormGpu`."""
    content = _lowered(programs, recipe, samples)
    delegations = gpu_delegation(content)
    path.write_bytes(content)
    return delegations


def gpu_delegation(content: bytes) -> dict[str, Delegation]:
    """What the GPU accelerator takes and leaves of each signature, see :func:`gpu_refusal`."""
    model = model_of(content)
    found = {}
    for signature, subgraph in _signatures(model):
        inside: Counter[str] = Counter()
        outside = []
        for kind, op in _operators(model, subgraph):
            if gpu_refusal(subgraph, kind, op):
                outside.append(kind)
            else:
                inside[kind] += 1
        found[signature.signatureKey.decode()] = Delegation(1, tuple(outside), dict(inside))
    return found


def gpu_refusal(subgraph: Any, kind: str, op: Any) -> str:
    """Why the GPU accelerator does not take an operator, by rules that it was found to have; empty: it does.

    It takes the operators of ``GPU_OPERATORS`` on at most four dimensions, a TRANSPOSE_CONV without a fused
    activation, and no grouped convolution.
    """
    tensors = [subgraph.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
    if kind not in GPU_OPERATORS:
        return "not among those that it was seen to compute"
    if any(len(_shape(tensor)) > 4 for tensor in tensors):
        return "more than four dimensions"
    if kind == TRANSPOSE_CONV and op.builtinOptions.fusedActivationFunction != 0:
        return "an activation function fused into it"
    if kind == CONV and tensors[0].shape[-1] != tensors[1].shape[-1]:
        return "its weights in groups of channels"
    return ""


def _shape(tensor: Any) -> list[int]:
    """Sides of a tensor, -1 for one that is known only when it runs; of a scalar there is no list at all."""
    dynamic = tensor.shapeSignature
    sides = tensor.shape if dynamic is None or not len(dynamic) else dynamic
    return [] if sides is None else [int(side) for side in sides]


def read_graphs(path: Path) -> list[Graph]:
    """The signatures of a ``.tflite``; of one that has none, its subgraphs by their number.

    Raises:
        Exception: of whatever kind flatbuffers raises on bytes that are no such file.
    """
    from ai_edge_litert.schema_py_generated import TensorType

    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError(f"{path} has not the mark of a .tflite")
    model = model_of(content)
    dtypes = {code: name.lower() for name, code in vars(TensorType).items() if name.isupper()}
    named = [(str(number), graph) for number, graph in enumerate(model.subgraphs)]
    if model.signatureDefs:
        named = [(signature.signatureKey.decode(), graph) for signature, graph in _signatures(model)]

    def value(tensor: Any) -> Value:
        data, dtype = model.buffers[tensor.buffer].data, dtypes[tensor.type]
        constant, scalar = data is not None and len(data) > 0, None
        shape = tuple(None if side < 0 else side for side in _shape(tensor))
        if constant and math.prod(side or 0 for side in shape) == 1 and dtype in ("float16", "float32"):
            scalar = float(np.frombuffer(bytes(data), dtype)[0])
        return Value(tensor.name.decode(), shape, dtype, constant, scalar)

    graphs = []
    for name, subgraph in named:
        values = [value(tensor) for tensor in subgraph.tensors]

        def of(indices: Any, values: list[Value] = values) -> tuple[Value, ...]:
            return tuple(values[i] for i in indices if i >= 0)

        operators = tuple(
            Operator(
                kind,
                values[op.outputs[0]].name,
                of(op.inputs),
                of(op.outputs),
                refused=gpu_refusal(subgraph, kind, op),
            )
            for kind, op in _operators(model, subgraph)
        )
        graphs.append(Graph(name, operators, of(subgraph.inputs), of(subgraph.outputs)))
    return graphs


def npu_delegation(content: bytes) -> dict[str, Delegation]:
    """The partitions of each signature of a file compiled for an NPU, and the operators left outside.

    A partition is one custom operator, which LiteRT dispatches to the NPU.
    """

    model = model_of(content)
    found = {}
    for signature, subgraph in _signatures(model):
        kinds = [kind for kind, _ in _operators(model, subgraph)]
        outside = tuple(kind for kind in kinds if kind != "CUSTOM")
        found[signature.signatureKey.decode()] = Delegation(len(kinds) - len(outside), outside)
    return found
