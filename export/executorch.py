"""ExecuTorch: the three programs as methods of one ``.pte``, each in one XNNPACK delegate.

The PT2E path of ``torchao`` with ExecuTorch's own ``XNNPACKQuantizer``, which here annotates only
the layers that the recipe names (https://docs.pytorch.org/executorch, "XNNPACK backend").
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.fx.traceback import NodeSource

from elir_mobile.precision import Recipe
from export.forms import GroupNormConv
from export.graphs import Graph, Operator, Value
from export.observers import MIN_SCALE, HistogramObserver, observer_of
from export.programs import Delegation, Programs, Samples, check_samples

_QUANTIZED_OPS = (
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.linear.default,
    torch.ops.aten.add.Tensor,
)
# Before a Core ML blob that names a package in the file, see ExecuTorch's coreml_preprocess.py.
_SHARED = b"CMJR"
# What is left in a lowered graph that is no operator: tuple access and memory planning.
_PLUMBING = ("getitem", "alloc")


def layer_name(node: fx.Node) -> str:
    """Recipe name of a node in an exported graph: its module path, plus ``.add`` for additions."""
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    if node.target == torch.ops.aten.add.Tensor:
        return f"{path}.add" if path else "add"
    return path


def quantize(
    module: nn.Module,
    example: tuple[Tensor, ...],
    recipe: Recipe,
    samples: list[tuple[Tensor, ...]],
    observer: type[HistogramObserver] = HistogramObserver,
) -> nn.Module:
    """PT2E static quantization of the layers that compute in integers by ``recipe``; norms stay in float.

    Args:
        module: a float program.
        example: inputs of the exported shapes.
        recipe: rules by layer names alone (``Recipe.on``).
        samples: calibration inputs, run through the observers in order.
        observer: class that chooses activation ranges (export/observers.py).

    Returns:
        The converted graph module, with quantize and dequantize operators.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    norms = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, GroupNormConv))

    def wanted(node: fx.Node) -> bool:
        # The quantizer also asks about weights and activations of a pattern: the layer decides.
        if node.op != "call_function" or node.target not in _QUANTIZED_OPS:
            return True
        layer = layer_name(node)
        return not layer.startswith(norms) and recipe.precision_of(layer).integer

    quantizer = XNNPACKQuantizer().set_filter_function(wanted)
    # The others look for batch norms in training, of which there are none, with twelve graphs that it exports
    # for each program: more than half of the whole export.
    quantizer.SUPPORTED_PATTERNS = [pattern for pattern in quantizer.SUPPORTED_PATTERNS if not pattern.is_qat]
    config = get_symmetric_quantization_config(is_per_channel=True)
    activations = replace(
        config.input_activation, observer_or_fake_quant_ctr=observer.with_args(eps=MIN_SCALE)
    )
    config = replace(config, input_activation=activations, output_activation=activations)
    for op in _QUANTIZED_OPS:
        quantizer.set_operator_type(op, config)
    prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
    with torch.no_grad():
        for inputs in samples:
            prepared(*inputs)
    return convert_pt2e(prepared)


class Half(nn.Module):
    """A program that computes in float16 between float32 inputs and outputs.

    SiLU, which the exporter takes apart in float32, would split the delegate, and is put in other
    words. Inputs, output and scalar constants are cast outside it. XNNPACK's file format keeps the
    weights in float32: float16 is for speed, not for size.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.program = copy.deepcopy(module).half()
        for child in list(self.program.modules()):
            for name, part in child.named_children():
                if isinstance(part, nn.SiLU):
                    setattr(child, name, _SiluByProduct())

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.program(*(x.half() for x in inputs)).float()


class _SiluByProduct(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


def lower(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
    """Quantize or halve by ``recipe``, partition to XNNPACK and write one ``.pte``: an
    :data:`export.targets.Lower`."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    modules = quantized(programs, recipe, samples)
    if recipe.half:
        modules = {name: Half(module) for name, module in modules.items()}
    return write(exported(programs, modules), lambda: [XnnpackPartitioner()], path)


def exported(programs: Programs, modules: dict[str, nn.Module]) -> dict[str, Any]:
    """The graphs of ``modules``, which stand for those of ``programs``, by name."""
    inputs = programs.example_inputs
    return {name: torch.export.export(module, inputs[name]) for name, module in modules.items()}


def quantized(programs: Programs, recipe: Recipe, samples: Samples) -> dict[str, nn.Module]:
    """The programs, quantized where ``recipe`` has integer activations; arguments as of :func:`lower`."""
    check_samples(recipe, samples)
    if not recipe.needs_calibration:
        return programs.modules
    recipe = recipe.on(programs.roles)
    return {
        name: quantize(module, programs.example_inputs[name], recipe, samples[name], observer_of(name))
        for name, module in programs.modules.items()
    }


def write(
    graphs: dict[str, Any],
    partitioners: Callable[[], list],
    path: Path,
    *,
    read_back: bool = False,
) -> dict[str, Delegation]:
    """Give exported programs to delegates and write one ``.pte``.

    Args:
        graphs: by method name.
        partitioners: makes those of one method, the first choice first; what none takes runs on
            ExecuTorch's portable kernels.
        path: the file to write.
        read_back: count the operators inside the delegates, in the written file (:func:`read_graphs`).

    Returns:
        The delegation of each method.
    """
    from executorch.exir import to_edge_transform_and_lower

    with warnings.catch_warnings(), _shared_provenance():
        warnings.simplefilter("ignore")
        edge = to_edge_transform_and_lower(graphs, partitioner={name: partitioners() for name in graphs})
        program = edge.to_executorch()
    delegation = {name: _delegation(program.exported_program(name).graph) for name in graphs}
    path.write_bytes(program.buffer)
    for graph in read_graphs(path) if read_back else ():
        inside = Counter(operator.kind for operator in graph.operators if not operator.outside)
        delegation[graph.program] = replace(delegation[graph.program], ops_inside=dict(inside.most_common()))
    return delegation


@contextmanager
def _shared_provenance() -> Iterator[None]:
    """Do not copy where nodes come from.

    ``torch/fx/traceback.py`` copies the whole history of a node for each one that a pass makes of it, and a
    lowering is some hundred passes: a fifth of its time. A history is never changed once it is made.
    """
    with mock.patch.object(NodeSource, "__deepcopy__", lambda self, memo: self, create=True):
        yield


def _delegation(graph: fx.Graph) -> Delegation:
    calls = [node for node in graph.nodes if node.op == "call_function"]
    delegates = [node for node in calls if "executorch_call_delegate" in str(node.target)]
    outside = [
        str(node.target)
        for node in calls
        if node not in delegates and getattr(node.target, "__name__", "") not in _PLUMBING
    ]
    return Delegation(len(delegates), tuple(outside))


def read_graphs(path: Path) -> list[Graph]:
    """The methods of a ``.pte``: what runs outside its delegates, and what is inside those of Vulkan and
    Core ML. What XNNPACK was given is for processors, and stays closed.

    Raises:
        Exception: of whatever kind executorch raises on bytes that are no such file.
    """
    from executorch.exir import schema
    from executorch.exir._serialize._program import deserialize_pte_binary

    file = deserialize_pte_binary(path.read_bytes())
    kept = file.named_data
    named = {key: kept.buffers[entry.buffer_index] for key, entry in kept.pte_data.items()} if kept else {}
    found = []
    for plan in file.program.execution_plan:
        values = [_value(number, held.val) for number, held in enumerate(plan.values)]
        operators: list[Operator] = []
        for called in (one.instr_args for chain in plan.chains for one in chain.instructions):
            if isinstance(called, schema.KernelCall):
                operator = plan.operators[called.op_index]
                tensors = [value for i in called.args if (value := values[i]) is not None]
                kind = f"{operator.name}.{operator.overload}".rstrip(".")
                operators.append(Operator(kind, kind, tuple(tensors[:-1]), tuple(tensors[-1:]), outside=True))
            elif isinstance(called, schema.DelegateCall):
                delegate = plan.delegates[called.delegate_index]
                blob = bytes(file.program.backend_delegate_data[delegate.processed.index].data)
                operators += _inside(delegate.id, blob, named)
        inputs, outputs = (
            tuple(value for i in places if (value := values[i]) is not None)
            for places in (plan.inputs, plan.outputs)
        )
        found.append(Graph(plan.name, tuple(operators), inputs, outputs))
    return found


def delegates_of(path: Path) -> set[str]:
    """Names of the delegates that the methods of a ``.pte`` call."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    plans = deserialize_pte_binary(path.read_bytes()).program.execution_plan
    return {delegate.id for plan in plans for delegate in plan.delegates}


def _value(number: int, held: Any) -> Value | None:
    """A tensor of a method; None of what is none."""
    from executorch.exir.schema import Tensor as Stored
    from executorch.exir.schema import TensorShapeDynamism

    if not isinstance(held, Stored):
        return None
    fixed = held.shape_dynamism == TensorShapeDynamism.STATIC
    shape = tuple(held.sizes) if fixed else (None,) * len(held.sizes)
    kind = held.scalar_type.name
    dtype = {"HALF": "float16", "FLOAT": "float32", "CHAR": "int8", "BYTE": "uint8"}.get(kind, kind.lower())
    return Value(str(number), shape, dtype, held.data_buffer_idx > 0 and held.allocation_info is None)


def _inside(delegate: str, blob: bytes, named: dict[str, bytes]) -> tuple[Operator, ...]:
    """Operators of a delegate's blob; those of delegates for processors are not looked at."""
    if delegate == "VulkanBackend":
        return _vulkan_operators(blob)
    if delegate == "CoreMLBackend":
        return _coreml_operators(blob, named)
    return ()


def _vulkan_operators(blob: bytes) -> tuple[Operator, ...]:
    from executorch.backends.vulkan.serialization import vulkan_graph_schema as vulkan
    from executorch.backends.vulkan.serialization import vulkan_graph_serialize as serialized

    graph = serialized.flatbuffer_to_vk_graph(serialized.extract_vk_flatbuffer(blob))

    def read(number: int) -> list[Value]:
        held = graph.values[number].value
        if isinstance(held, vulkan.ValueList):
            return [value for item in held.items for value in read(item)]
        if isinstance(held, vulkan.Int | vulkan.Double):
            scalar = float(held.int_val if isinstance(held, vulkan.Int) else held.double_val)
            return [Value(str(number), (), "float32", True, scalar)]
        if not isinstance(held, vulkan.VkTensor):
            return []
        dtype = vulkan.VkDataType(held.datatype).name.lower()
        return [Value(str(number), tuple(held.dims), dtype, held.constant_id >= 0)]

    operators = []
    for call in graph.chain:
        tensors = [value for number in call.args[:-1] for value in read(number)]
        operators.append(Operator(call.name, call.name, tuple(tensors), tuple(read(call.args[-1]))))
    return tuple(operators)


def _coreml_operators(blob: bytes, named: dict[str, bytes]) -> tuple[Operator, ...]:
    """Of the package in the blob, or of the function that it names in one that several methods share."""
    from export import coreml

    function = None
    if blob.startswith(_SHARED):
        reference = json.loads(blob.removeprefix(_SHARED))
        blob, function = named[reference["key"]], reference["functionName"]
    with tempfile.TemporaryDirectory() as folder:
        graphs = coreml.read_graphs(coreml_package(blob, Path(folder)))
    chosen = [graph for graph in graphs if function in (None, graph.program)]
    return tuple(operator for graph in chosen for operator in graph.operators)


def coreml_package(blob: bytes, folder: Path) -> Path:
    """Unpack the Core ML package in a delegate's blob into ``folder``."""
    from executorch.backends.apple.coreml import executorchcoreml

    executorchcoreml.unflatten_directory_contents(blob, str(folder))
    return next(folder.rglob("model.mlpackage"))  # in a folder that ExecuTorch names
