"""Hazards of written files: what a phone's chip is known to compute wrongly, slowly or not at all.

Each check looks at one program of a file, as ``export/graphs.py`` has it, and at the chip that it is for.
What it finds is a hazard and no measurement: nothing is run. Where each is known from stands beside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from elir_mobile.core.errors import UserError
from elir_mobile.core.manifest import MANIFEST
from elir_mobile.runtimes.table import RUNTIMES, canonical, get_runtime
from export import coreml, executorch, litert, onnx
from export.graphs import INTEGERS, Graph, Operator, Value

# What computes the files of a target, by the last part of its name. All others are for processors: what most
# checks look for is known to do no harm there.
NEURAL_ENGINE, GPU, NPU, PROCESSOR = "the Neural Engine", "a phone's GPU", "a Snapdragon's NPU", "a processor"
CHIPS = {
    "coreml": NEURAL_ENGINE,
    "coreai": NEURAL_ENGINE,
    "gpu": GPU,
    "vulkan": GPU,
    "qnn": NPU,
}
# The target of a ``.pte`` by its delegate, where no manifest says it.
DELEGATES = {
    "XnnpackBackend": "executorch",
    "VulkanBackend": "executorch/vulkan",
    "CoreMLBackend": "executorch/coreml",
}

ACTIVATION = 200.0  # the largest that is reckoned with; see docs/chips.md for the demo's
HALF_MAX = 65504.0  # of float16
LINE_BYTES = 64  # of the Neural Engine's memory, which the last axis is padded to
PADDED_BYTES = 2**20  # a tensor inside a program may be padded to so much before it is worth a line

RANKS_URL = "https://github.com/google-ai-edge/litert-samples, compiled_model_api/image_restoration"
LAYOUT_URL = "https://machinelearning.apple.com/research/neural-engine-transformers"
BLOCKS_URL = (
    "https://github.com/apple/coreai-torch/issues/93, https://github.com/apple/coreai-models/issues/279, "
    "https://github.com/apple/coremltools/issues/2510"
)
PALETTES_URL = (
    "https://github.com/apple/coremltools/pull/2688, https://github.com/apple/coremltools/issues/2716"
)
SHUFFLE_URL = "https://github.com/qualcomm/aimet/issues/4060"
QNN_URL = "https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html"
ACCELERATOR_URL = "docs/upstream.md"
HALF_URL = "docs/chips.md"
OUTSIDE_URL = "docs/decisions.md"
# What a chip does with dynamic shapes, and where that is said.
DYNAMIC = {
    NEURAL_ENGINE: (
        "the Neural Engine takes the default shape alone of those in a range",
        "https://developer.apple.com/forums/thread/724930",
    ),
    GPU: (
        "the graph is compiled for one shape: the delegate refuses it, or compiles it anew",
        "https://github.com/tensorflow/tensorflow/issues/38036",
    ),
    NPU: ("the execution provider has no dynamic shapes", QNN_URL),
}

_SUMS = {
    "SUM", "MEAN", "reduce_sum", "reduce_mean", "ReduceSum", "ReduceMean", "GlobalAveragePool",
    "aten.sum.dim_IntList", "aten.mean.dim", "aten::sum.IntList_out", "aten::mean.out",
}  # fmt: skip
_SUMS_OF_SQUARES = {"reduce_sum_square", "reduce_l2_norm", "ReduceSumSquare", "ReduceL2"}
_MEANS = {"MEAN", "reduce_mean", "ReduceMean", "GlobalAveragePool", "aten.mean.dim", "aten::mean.out"}
_ROOTS = {"reduce_l2_norm", "ReduceL2"}
_PRODUCTS = {"MUL", "mul", "Mul", "aten.mul.Tensor", "aten.mul.Scalar", "aten::mul.out"}
_QUOTIENTS = {"DIV", "real_div", "Div", "aten.div.Tensor", "aten.div.Scalar", "aten::div.out"}
_SQUARES = {"SQUARE", "square"}
_POWERS = {"POW", "pow", "Pow", "aten.pow.Tensor_Scalar"}
_MOVES = {
    "RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "CAST", "SQUEEZE", "EXPAND_DIMS",
    "reshape", "transpose", "slice_by_index", "cast", "squeeze", "expand_dims",
    "Reshape", "Transpose", "Slice", "Cast", "Squeeze", "Unsqueeze", "Identity",
    "aten.view_copy.default", "aten.permute_copy.default", "aten.slice_copy.Tensor", "aten.clone.default",
}  # fmt: skip
_SHUFFLES = {
    "DEPTH_TO_SPACE", "pixel_shuffle", "depth_to_space", "DepthToSpace", "aten.pixel_shuffle.default",
    "aten::pixel_shuffle.out",
}  # fmt: skip
_TO_INTEGERS = {"QUANTIZE", "quantize", "QuantizeLinear"}
_FROM_INTEGERS = {"DEQUANTIZE", "dequantize", "DequantizeLinear"}
# Of ``QNN_URL``, "Supported ONNX operators", those of onnx itself that need no fusion.
QNN_OPERATORS = {
    "Abs", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "AveragePool", "BatchNormalization",
    "Cast", "Ceil", "Clip", "Concat", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace",
    "DequantizeLinear", "Div", "Einsum", "Elu", "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater",
    "GreaterOrEqual", "GridSample", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity",
    "InstanceNormalization", "Inverse", "IsNaN", "LRN", "LSTM", "LayerNormalization", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "MatMul", "Max", "MaxPool", "Mean",
    "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear",
    "RandomNormalLike", "RandomUniformLike", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "RMSNormalization", "Reshape", "Resize", "RoiAlign",
    "RotaryEmbedding", "Round", "STFT", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Sin",
    "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan",
    "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Unsqueeze", "Upsample", "Where",
}  # fmt: skip


def chip_of(target: str) -> str:
    """What computes the files of ``target``, in words."""
    return CHIPS.get(target.rpartition("/")[2], PROCESSOR)


@dataclass(frozen=True)
class Finding:
    """A hazard.

    Attributes:
        program: of the file.
        operator: its kind, or what the tensor is that the hazard is about.
        name: of the operator or tensor, in the file.
        what: is found.
        why: it is a hazard.
        source: where that is known from.
    """

    program: str
    operator: str
    name: str
    what: str
    why: str
    source: str


def _tensors(graph: Graph) -> Iterator[tuple[str, Value]]:
    """What a program reads, makes and gives, each once, with the kind of what makes it."""
    yield from (("input", value) for value in graph.inputs)
    yield from ((op.kind, value) for op in graph.operators for value in op.outputs)


def ranks(graph: Graph, target: str) -> Iterator[Finding]:
    """Tensors of more than four dimensions, on whatever is no processor."""
    if (chip := chip_of(target)) == PROCESSOR:
        return
    for kind, value in _tensors(graph):
        if value.shape is not None and len(value.shape) > 4 and not value.constant:
            what = f"a tensor of {len(value.shape)} dimensions"
            why = f"{chip} is made for four, and refuses more or gives them to the processor"
            yield Finding(graph.program, kind, value.name, what, why, RANKS_URL)


def last_axes(graph: Graph, target: str) -> Iterator[Finding]:
    """Inputs and outputs whose last axis is 1, and large tensors in between, on the Neural Engine."""
    if (chip := chip_of(target)) != NEURAL_ENGINE:
        return
    ends = {value.name for value in (*graph.inputs, *graph.outputs)}
    for kind, value in _tensors(graph):
        size = value.size
        if value.constant or size is None or not value.shape or len(value.shape) < 2 or value.shape[-1] != 1:
            continue
        if size > 1 and (value.name in ends or size * LINE_BYTES >= PADDED_BYTES):
            what = f"{value.shape}, whose last axis is 1"
            why = f"{chip} pads that axis to {LINE_BYTES} bytes: 32 times the memory in float16, and as slow"
            yield Finding(graph.program, kind, value.name, what, why, LAYOUT_URL)


def weight_blocks(graph: Graph, target: str) -> Iterator[Finding]:
    """Integer weights with a scale for each block, and palettes, on the Neural Engine."""
    if (chip := chip_of(target)) != NEURAL_ENGINE:
        return
    for op in graph.operators:
        if op.kind == "constexpr_lut_to_dense":
            what = "weights in a palette"
            why = f"packages with palettes end while they are loaded for {chip}, or compute something else"
            yield Finding(graph.program, op.kind, op.name, what, why, PALETTES_URL)
        elif op.kind == "constexpr_blockwise_shift_scale" and _in_blocks(*op.inputs[:2]):
            data, scale = op.inputs[:2]
            what = f"{data.dtype} weights {data.shape} with scales {scale.shape}: a scale for each block"
            why = f"{chip} has scales for output channels alone, and gives blocks those of others"
            yield Finding(graph.program, op.kind, op.name, what, why, BLOCKS_URL)


def _in_blocks(data: Value, scale: Value) -> bool:
    """Whether scales are not one for the whole tensor, nor one for each place along one axis."""
    pairs = list(zip(data.shape or (), scale.shape or (), strict=False))
    several = [(side, count) for side, count in pairs if count != 1]
    return len(several) > 1 or any(side != count for side, count in several)


def half_sums(graph: Graph, target: str) -> Iterator[Finding]:
    """Sums and means that leave float16 with activations of 200, where the chip adds up in float16.

    How large a value can be is followed from where it is scaled, squared or averaged; whatever else an
    operator makes is taken for an activation.
    """
    if (chip := chip_of(target)) == PROCESSOR:
        return
    known: dict[str, float] = {}

    def bound(value: Value) -> float:
        return known.get(value.name, ACTIVATION)

    for op in graph.operators:
        read = [value for value in op.inputs if not value.constant]
        scalars = [value.scalar for value in op.inputs if value.scalar is not None]
        largest = bound(read[0]) if read else ACTIVATION
        made = None
        if op.kind in _SUMS | _SUMS_OF_SQUARES and read and op.outputs:
            terms = _ratio(read[0].size, op.outputs[0].size)
            each = largest**2 if op.kind in _SUMS_OF_SQUARES else largest
            halves = chip != NEURAL_ENGINE or op.outputs[0].dtype == "float16"  # its float32 is a processor's
            if terms is not None:
                made = each if op.kind in _MEANS else each * terms
                if halves and each * terms > HALF_MAX:
                    what = (
                        f"a sum of {terms:g} {'squares' if each > ACTIVATION else 'values'} of up to {each:g}"
                    )
                    why = f"it may reach {each * terms:.3g}, and float16 ends at {HALF_MAX:g} on {chip}"
                    yield Finding(graph.program, op.kind, op.name, what, why, HALF_URL)
                made = math.sqrt(made) if op.kind in _ROOTS else made
        elif _squares(op, read, scalars):
            made = largest**2
        elif op.kind in _PRODUCTS and len(read) == 1 and scalars:
            made = largest * abs(scalars[0])
        elif op.kind in _QUOTIENTS and len(read) == 1 and scalars and op.inputs[0] is read[0] and scalars[0]:
            made = largest / abs(scalars[0])
        elif op.kind in _MOVES and read:
            made = largest
        if made is not None:
            known.update((value.name, made) for value in op.outputs)


def _squares(op: Operator, read: list[Value], scalars: list[float]) -> bool:
    twice = len(read) == 2 and read[0].name == read[1].name
    return (
        op.kind in _SQUARES or (op.kind in _POWERS and scalars == [2.0]) or (op.kind in _PRODUCTS and twice)
    )


def _ratio(size: int | None, other: int | None) -> float | None:
    return size / other if size and other else None


def quantized_shuffles(graph: Graph, target: str) -> Iterator[Finding]:
    """Pixel shuffles (depth to space) of integers, on a Snapdragon's NPU."""
    if (chip := chip_of(target)) != NPU:
        return
    made = {value.name: op for op in graph.operators for value in op.outputs}
    rounded = {value.name for op in graph.operators if op.kind in _TO_INTEGERS for value in op.inputs}
    for op in graph.operators:
        if op.kind not in _SHUFFLES or not op.inputs:
            continue
        before = made.get(op.inputs[0].name)
        integers = (
            op.inputs[0].dtype in INTEGERS
            or (before is not None and before.kind in _FROM_INTEGERS)
            or any(value.name in rounded for value in op.outputs)
        )
        if integers:
            why = f"on {chip} it lost 6.7 dB against nearest upsampling and a convolution"
            yield Finding(graph.program, op.kind, op.name, "a quantized pixel shuffle", why, SHUFFLE_URL)


def outside(graph: Graph, target: str) -> Iterator[Finding]:
    """Operators that the delegate does not have, in files for GPU, NPU or Neural Engine."""
    for op in graph.operators:
        if op.outside and chip_of(target) != PROCESSOR:
            why = "tensors go to the processor and back around it"
            yield Finding(graph.program, op.kind, op.name, "outside the delegate", why, OUTSIDE_URL)


def not_in_qnn(graph: Graph, target: str) -> Iterator[Finding]:
    """ONNX operators that Qualcomm's execution provider does not list."""
    for op in graph.operators:
        if target == "onnx/qnn" and op.kind not in QNN_OPERATORS:
            what = "not among the operators that the execution provider lists"
            why = "it goes to the processor, or ends the run where that is not allowed"
            yield Finding(graph.program, op.kind, op.name, what, why, QNN_URL)


def refused(graph: Graph, target: str) -> Iterator[Finding]:
    """Operators that LiteRT's GPU accelerator refuses, or computes wrongly."""
    for op in graph.operators:
        if target == "litert/gpu" and op.refused:
            why = "LiteRT's GPU accelerator refuses such an operator, or makes zeros of it without an error"
            yield Finding(graph.program, op.kind, op.name, op.refused, why, ACCELERATOR_URL)


def dynamic_shapes(graph: Graph, target: str) -> Iterator[Finding]:
    """Inputs, or else other tensors, whose shape is known only when the program runs; not on processors."""
    if (chip := chip_of(target)) == PROCESSOR:
        return
    why, source = DYNAMIC[chip]
    dynamic = [(kind, v) for kind, v in _tensors(graph) if v.shape is not None and None in v.shape]
    given = [(kind, value) for kind, value in dynamic if value in graph.inputs]
    for kind, value in given or dynamic:
        shape = ", ".join("?" if side is None else str(side) for side in value.shape or ())
        yield Finding(graph.program, kind, value.name, f"a dynamic shape ({shape})", why, source)


# Each is given a program and the target of its file.
CHECKS: tuple[Callable[[Graph, str], Iterator[Finding]], ...] = (
    dynamic_shapes,
    ranks,
    last_axes,
    weight_blocks,
    half_sums,
    quantized_shuffles,
    outside,
    not_in_qnn,
    refused,
)

READERS: dict[str, Callable[[Path], list[Graph]]] = {
    "executorch": executorch.read_graphs,
    "litert": litert.read_graphs,
    "coreml": coreml.read_graphs,
    "onnx": onnx.read_graphs,
}
_SUFFIXES = {RUNTIMES[name].suffix: name for name in READERS} | {".onnx": "onnx"}


def title_without_reader(target: str) -> str | None:
    """The runtime of ``target`` in words, if its files cannot be looked into; None if they can."""
    runtime = get_runtime(target)
    return None if runtime.name.partition("/")[0] in READERS else runtime.title


def lint(path: Path, target: str | None = None) -> list[Finding]:
    """The hazards of one file; many of one kind in a program are one, with the first one's name.

    Args:
        target: what it is for; None: what the manifest of the bundle around it says, or else its suffix and,
            of a ``.pte``, its delegate.

    Raises:
        UserError: there is no such file, or it is damaged, or of a format that is not known.
    """
    runtime = _runtime(path)
    if target is not None and get_runtime(target).name.partition("/")[0] != runtime:
        raise UserError(f"{path} is no {target} file: leave --target out, or name one of {runtime}")
    RUNTIMES[runtime].load()
    try:
        known = canonical(target) if target else _named_target(path) or _own_target(path, runtime)
        graphs = READERS[runtime](path)
    except (UserError, ImportError):
        raise
    except Exception as error:  # whatever a library raises on bytes that are not what their name says
        raise UserError(f"{path} is damaged, or no {RUNTIMES[runtime].title} file") from error
    if not graphs:
        raise UserError(f"{path} holds no program: export it again")
    return _together(finding for graph in graphs for check in CHECKS for finding in check(graph, known))


def _together(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for those of one program that differ by name and figures alone."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        key = (finding.program, finding.operator, finding.source, re.sub(r"[\d.e+]+", "", finding.what))
        groups.setdefault(key, []).append(finding)
    return [
        replace(group[0], name=f"{group[0].name} and {len(group) - 1} more") if len(group) > 1 else group[0]
        for group in groups.values()
    ]


def _runtime(path: Path) -> str:
    """Name of the runtime whose format ``path`` is in.

    Raises:
        UserError: there is no such file, or none has such a one.
    """
    if not path.exists():
        raise UserError(f"there is no {path}: check the path")
    suffix = path.suffix
    if path.is_dir() and suffix != ".mlpackage":
        suffix = RUNTIMES["onnx"].suffix if any(path.glob("*.onnx")) else "nothing"
    if suffix not in _SUFFIXES or (not suffix and not path.is_dir()):
        kinds = ", ".join(sorted(filter(None, _SUFFIXES)))
        raise UserError(f"{path} cannot be looked into: give a bundle, {kinds}, or a folder of .onnx files")
    return _SUFFIXES[suffix]


def _named_target(path: Path) -> str | None:
    """What the manifest of the bundle around ``path`` says that it is for; None: there is none, or it does
    not say."""
    for folder in path.resolve().parents:
        if (folder / MANIFEST).is_file():
            try:
                files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
                named = {str(entry["path"]): str(entry["target"]) for entry in files}
            except (OSError, ValueError, KeyError, TypeError):  # of something else
                return None
            return named.get(path.resolve().relative_to(folder).as_posix())
    return None


def _own_target(path: Path, runtime: str) -> str:
    """What a file is for by itself: a ``.pte`` by its delegates, any other its runtime's own."""
    if runtime != "executorch":
        return runtime
    known = {DELEGATES.get(delegate, runtime) for delegate in executorch.delegates_of(path)}
    return max(known, key=lambda target: target != runtime, default=runtime)
