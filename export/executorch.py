"""ExecuTorch: the three programs as methods of one ``.pte``, each in one XNNPACK delegate.

The PT2E path of ``torchao`` with ExecuTorch's own ``XNNPACKQuantizer``, which here annotates only
the layers that the recipe names (https://docs.pytorch.org/executorch, "XNNPACK backend").
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from elir_mobile.precision import Recipe
from export.observers import MIN_SCALE
from export.programs import Delegation, Programs, Samples, check_samples

_QUANTIZED_OPS = (
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.linear.default,
    torch.ops.aten.add.Tensor,
)
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
    observer: Any = None,
) -> nn.Module:
    """PT2E static quantization of the layers that compute in integers by ``recipe``.

    Args:
        module: a float program.
        example: inputs of the exported shapes.
        recipe: rules by layer names alone (``Recipe.on``).
        samples: calibration inputs, run through the observers in order.
        observer: class that chooses activation ranges (export/observers.py); default: ExecuTorch's own.

    Returns:
        The converted graph module, with quantize and dequantize operators.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    def wanted(node: fx.Node) -> bool:
        # The quantizer also asks about weights and activations of a pattern: the layer decides.
        if node.op != "call_function" or node.target not in _QUANTIZED_OPS:
            return True
        return recipe.precision_of(layer_name(node)).integer

    quantizer = XNNPACKQuantizer().set_filter_function(wanted)
    config = get_symmetric_quantization_config(is_per_channel=True)
    if observer is not None:
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
    """Quantize or halve by ``recipe``, partition to XNNPACK and write one ``.pte``.

    Args:
        programs: rewritten programs.
        recipe: which layer gets which precision; float16 for all of them or for none.
        samples: calibration inputs of each program; may be empty where no activation is to be integer.
        path: the file to write.

    Returns:
        The delegation of each method.

    Raises:
        ValueError: the recipe needs calibration and there are no samples.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    check_samples(recipe, samples)
    recipe = recipe.on(programs.roles)
    exported = {}
    for name, module in programs.modules.items():
        example = programs.example_inputs[name]
        if recipe.needs_calibration:
            module = quantize(module, example, recipe, samples[name])
        elif recipe.half:
            module = Half(module)
        exported[name] = torch.export.export(module, example)
    return write(exported, lambda: [XnnpackPartitioner()], path)


def write(exported: dict[str, Any], partitioners: Callable[[], list], path: Path) -> dict[str, Delegation]:
    """Give exported programs to delegates and write one ``.pte``.

    Args:
        exported: by method name.
        partitioners: makes those of one method, the first choice first; what none takes runs on
            ExecuTorch's portable kernels.
        path: the file to write.

    Returns:
        The delegation of each method.
    """
    from executorch.exir import to_edge_transform_and_lower

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edge = to_edge_transform_and_lower(exported, partitioner={name: partitioners() for name in exported})
        program = edge.to_executorch()
    delegation = {name: _delegation(program.exported_program(name).graph) for name in exported}
    path.write_bytes(program.buffer)
    return delegation


def _delegation(graph: fx.Graph) -> Delegation:
    calls = [node for node in graph.nodes if node.op == "call_function"]
    delegates = [node for node in calls if "executorch_call_delegate" in str(node.target)]
    outside = [
        str(node.target)
        for node in calls
        if node not in delegates and getattr(node.target, "__name__", "") not in _PLUMBING
    ]
    return Delegation(len(delegates), tuple(outside))
