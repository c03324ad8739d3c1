"""ExecuTorch's delegates for a phone's own chips: Vulkan (GPUs of Android phones) and Core ML (Apple's).

Both lower on any machine, and ExecuTorch's wheel for Linux can run the files of neither. What they hold is
read back from them: a method's delegate has a program of its own, whose operators the manifest counts
(https://docs.pytorch.org/executorch, "Vulkan Backend" and "Core ML Backend").
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elir_mobile.precision import FP32, Grid, Recipe
from elir_mobile.runtimes.coreml import coremltools
from export.executorch import exported, quantized, write
from export.programs import Delegation, Programs, Samples
from export.simulate import simulate_program, weight_scale


def lower_for_vulkan(
    programs: Programs, recipe: Recipe, samples: Samples, path: Path
) -> dict[str, Delegation]:
    """Write one ``.pte`` whose methods Vulkan computes; inputs and outputs are float32.

    For integers the graph is quantized as for XNNPACK, by the same quantizer with the same ranges. A
    convolution of a dequantized tensor whose output is quantized becomes one int8 operator (``q8ta``).
    A :data:`export.targets.Lower`.
    """
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    _build_patterns_once()
    options = {"force_fp16": True} if recipe.half else {}
    graphs = exported(programs, quantized(programs, recipe, samples))
    return write(graphs, lambda: [VulkanPartitioner(options)], path, read_back=True)


@cache
def _build_patterns_once() -> None:
    """Keep the graphs that Vulkan's partitioner looks for.

    ExecuTorch 1.4.1 caches them, but registers the functions as they are without the cache: it exports its
    patterns of rotary embeddings anew, twice for each program, which is two thirds of a lowering.
    """
    from executorch.backends.vulkan.patterns import fusable_patterns

    for pattern in fusable_patterns.values():
        if pattern.get_graphs_fn is not None:
            pattern.get_graphs_fn = cache(pattern.get_graphs_fn)


class IntegerWeight(nn.Module):
    """A convolution whose weight is stored as int8, with a scale for each output channel.

    Args:
        layer: an ``nn.Conv2d`` or ``nn.ConvTranspose2d``.
        grid: of its weight.
    """

    def __init__(self, layer: nn.Module, grid: Grid) -> None:
        super().__init__()
        weight = layer.get_parameter("weight")
        scale = weight_scale(weight, grid)
        self.axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        self.layer = layer
        self.register_buffer("integers", (weight / scale).round().to(torch.int8))
        self.register_buffer("scales", scale.flatten())
        self.register_buffer("zeros", torch.zeros(scale.numel(), dtype=torch.int64))
        del layer.weight

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.integers, self.scales, self.zeros, self.axis, -128, 127, torch.int8
        )
        layer: Any = self.layer
        if self.axis:
            return F.conv_transpose2d(x, weight, layer.bias, layer.stride, layer.padding)
        return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, groups=layer.groups)


def with_integer_weights(module: nn.Module, recipe: Recipe) -> nn.Module:
    """``module`` with the weights that ``recipe``, which speaks of layer names alone, rounds stored as int8.

    Raises:
        ValueError: a grid that is not one int8 scale for each output channel.
    """
    graph, layers = simulate_program(module, recipe, {})
    for layer in layers:
        if layer.grid is None or layer.module is None:
            continue
        axis = 1 if isinstance(layer.module, nn.ConvTranspose2d) else 0
        if layer.grid.bits != 8 or any(n != 1 for place, n in enumerate(layer.grid.scales) if place != axis):
            raise ValueError(
                f"a Core ML delegate has int8 weights alone: '{layer.name}' is {layer.precision.name}"
            )
        graph.set_submodule(layer.name, IntegerWeight(layer.module, layer.grid))
    return graph


def lower_for_coreml(
    programs: Programs, recipe: Recipe, samples: Samples, path: Path
) -> dict[str, Delegation]:
    """Write one ``.pte`` whose methods Core ML computes, in a package of one function each, for iOS 17.

    Integer weights, int8 with a scale for each output channel, are put into the graph before it is converted;
    a program that is not float32 throughout computes in float16. A :data:`export.targets.Lower`.
    """
    with coremltools() as ct:
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.compiler.coreml_preprocess import (
            MULTIMETHOD_WEIGHT_SHARING_STRATEGY as SHARING,
        )
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner

        specs = CoreMLBackend.generate_compile_specs(
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32 if recipe.precisions <= {FP32} else ct.precision.FLOAT16,
        )
        # The programs have no weight in common, and a package that several methods share needs iOS 18.
        specs.append(
            CoreMLBackend.generate_multimethod_weight_sharing_strategy_compile_spec(SHARING.DISABLED)
        )
        named = recipe.on(programs.roles)
        modules = {name: with_integer_weights(module, named) for name, module in programs.modules.items()}
        graphs = exported(programs, modules)
        return write(graphs, lambda: [CoreMLPartitioner(compile_specs=specs)], path, read_back=True)
