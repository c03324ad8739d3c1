"""Quantization simulated in plain PyTorch: the float programs with rounding where a recipe puts it.

A program is traced (``torch.fx``), so that rounding stands exactly where ExecuTorch's XNNPACK
quantizer puts its quantize and dequantize pairs: on the input and the output of every quantized
layer, behind a ReLU that the runtime fuses, once for each tensor however many layers read it. What
the simulation leaves out is the integer kernels' own rounding (docs/quantization.md has the
measured difference). It takes batches, which exported programs do not, and gradients pass straight
through the rounding (Bengio et al. 2013), so that the same modules serve sensitivity, search and
quantization-aware training.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from elir_mobile.precision import RECIPES, Grid, Precision, Recipe, integer_grid
from export.observers import MIN_SCALE, activation_bits, activation_levels, min_scale
from export.programs import PROGRAM_NAMES, Programs

Ranges = dict[str, dict[str, tuple[float, float]]]  # program → tensor → lowest and highest value
AT_ONCE = 12  # pictures that a program restores together

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_ADDITIONS = (operator.add, torch.add)
_ROUNDING = "rounding_"  # and the tensor's name: a module that rounds it
_RELUS = (torch.relu, nn.functional.relu)


class ActivationFakeQuant(nn.Module):
    """Affine integer rounding of a whole tensor to the range [low, high].

    Args:
        low, high: the range before it is widened to contain zero.
        bits: of the integers.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, low: float, high: float, bits: int) -> None:
        super().__init__()
        self.least, self.most = activation_levels(bits)
        self.min_scale = min_scale(bits)
        self.register_buffer("scale", torch.ones(()), persistent=False)
        self.register_buffer("zero", torch.zeros((), dtype=torch.int32), persistent=False)
        self.set_range(low, high)

    def set_range(self, low: float, high: float) -> None:
        """Round to this range from now on."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / (self.most - self.least), self.min_scale)
        zero = round(self.least - low / scale)
        self.scale.fill_(scale)
        self.zero.fill_(min(max(zero, self.least), self.most))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, self.least, self.most)


class HalfRound(nn.Module):
    """Rounding to float16 and back."""

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(x, x.half().float())


class WeightFakeQuant(nn.Module):
    """Rounding of a layer's weight to its grid; a parametrization, so that training sees it at every call.

    Args:
        grid: of the weight.
        start: a weight whose scales are kept for whatever comes later. Its largest values stay on the
            grid's ends, so that whoever takes a scale from the rounded weight anew finds the same grid.
    """

    kept: tuple[Tensor, Tensor, Tensor] | None  # scale, levels that are kept, where

    def __init__(self, grid: Grid, *, start: Tensor | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.kept = None
        if start is not None:
            scale = weight_scale(start, grid)
            levels = (start / scale).round()
            self.kept = scale, levels, levels.abs() == grid.top

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight_scale(weight, self.grid) if self.kept is None else self.kept[0]
        levels = (weight / scale).round().clamp(-self.grid.top, self.grid.top)
        if self.kept is not None:
            levels = torch.where(self.kept[2], self.kept[1], levels)
        return straight_through(weight, levels * scale)


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` in value, ``x`` in gradient."""
    return x + (rounded - x).detach()


@torch.no_grad()
def weight_scale(weight: Tensor, grid: Grid) -> Tensor:
    """Min-max scale of each value of ``weight``, of its shape or broadcasting to it."""
    sizes = [n // groups for n, groups in zip(weight.shape, grid.scales, strict=True)]
    split = [n for pair in zip(grid.scales, sizes, strict=True) for n in pair]
    largest = weight.abs().reshape(split).amax(tuple(range(1, len(split), 2)))
    scale = (largest / grid.top).clamp(min=MIN_SCALE)
    for axis, (groups, size) in enumerate(zip(grid.scales, sizes, strict=True)):
        if groups > 1 < size:
            scale = scale.repeat_interleave(size, axis)
    return scale


@dataclass(frozen=True)
class Layer:
    """A quantizable operator of a traced program.

    Attributes:
        name: as a recipe calls it.
        node: the operator.
        inputs: the tensors it reads.
        output: the tensor it makes: its own, or that of the ReLU that is fused into it.
        module: that has its weight; None for an addition.
        precision: that a recipe gives it.
        grid: of its weight; None where that stays in float, or there is none.
    """

    name: str
    node: fx.Node
    inputs: tuple[fx.Node, ...]
    output: fx.Node
    module: nn.Module | None
    precision: Precision
    grid: Grid | None


def trace(module: nn.Module) -> fx.GraphModule:
    """A copy of ``module`` as a graph; layers keep their names, tensors get the same at every call."""
    return fx.symbolic_trace(copy.deepcopy(module))


def find_layers(
    graph: fx.GraphModule, recipe: Recipe = RECIPES["fp32"], roles: Mapping[str, str] | None = None
) -> Iterator[Layer]:
    """Convolutions, linear layers and additions of two tensors, in the order they run.

    Args:
        recipe: which layer gets which precision; by layer names alone where ``roles`` are not given.
        roles: of every layer (``Programs.roles``).
    """
    if roles is not None:
        recipe = recipe.on(roles)
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        tensors = tuple(arg for arg in node.args if isinstance(arg, fx.Node))
        module = None
        if node.op == "call_module" and isinstance(modules[node.target], _LAYERS):
            name, module = node.target, modules[node.target]
        elif node.op == "call_function" and node.target in _ADDITIONS and len(tensors) == 2:
            path = next(reversed(node.meta.get("nn_module_stack") or {}), "")
            name = f"{path}.add" if path else "add"
        else:
            continue
        users = list(node.users)
        fused = len(users) == 1 and (
            (users[0].op == "call_module" and isinstance(modules[users[0].target], nn.ReLU))
            or (users[0].op == "call_function" and users[0].target in _RELUS)
        )
        precision = recipe.precision_of(name)
        grid = None
        if module is not None:
            shape = tuple(module.get_parameter("weight").shape)
            grid = integer_grid(precision, shape, transposed=isinstance(module, nn.ConvTranspose2d))
        yield Layer(name, node, tensors, users[0] if fused else node, module, precision, grid)


def layer_names(programs: Programs) -> dict[str, list[str]]:
    """Names of the quantizable layers of each program, in the order they run, each once."""
    return {
        name: list(dict.fromkeys(layer.name for layer in find_layers(trace(programs.modules[name]))))
        for name in PROGRAM_NAMES
    }


def set_ranges(module: nn.Module, ranges: dict[str, tuple[float, float]]) -> None:
    """Give a simulated program other activation ranges."""
    for name, rounding in module.named_children():
        if isinstance(rounding, ActivationFakeQuant):
            rounding.set_range(*ranges[name.removeprefix(_ROUNDING)])


def insert(graph: fx.GraphModule, after: fx.Node, module: nn.Module, readers: list[fx.Node]) -> None:
    """Send ``after``'s value to ``readers`` by way of ``module``."""
    name = _ROUNDING + after.name
    graph.add_submodule(name, module)
    with graph.graph.inserting_after(after):
        inserted = graph.graph.call_module(name, (after,))
    for reader in readers:
        reader.replace_input_with(after, inserted)


def simulate(
    programs: Programs,
    recipe: Recipe,
    ranges: Ranges | None = None,
    *,
    trainable: bool = False,
) -> Programs:
    """``programs`` with the rounding of ``recipe``; the given ones stay as they are.

    Args:
        programs: float programs.
        recipe: which layer gets which precision.
        ranges: activation ranges (:func:`calibrate`), where the recipe has integer ones.
        trainable: weights stay float parameters with gradients, rounded anew at every call, those of
            convolutions to the grid that they start with.

    Raises:
        UserError: the recipe mixes integers of two widths.
        ValueError: it needs ranges and there are none.
    """
    if activation_bits(recipe) and not ranges:
        raise ValueError(f"recipe '{recipe.name}' needs activation ranges")
    modules: dict[str, nn.Module] = {}
    for name, module in programs.modules.items():
        known = (ranges or {}).get(name, {})
        modules[name], _ = simulate_program(module, recipe, known, programs.roles, trainable=trainable)
    return replace(programs, modules=modules)


def simulate_program(
    module: nn.Module,
    recipe: Recipe,
    ranges: dict[str, tuple[float, float]],
    roles: Mapping[str, str] | None = None,
    *,
    trainable: bool = False,
) -> tuple[fx.GraphModule, list[Layer]]:
    """One program of :func:`simulate`, and all its layers, whose modules are those that compute.

    ``recipe`` and ``roles`` are those of :func:`find_layers`.
    """
    graph = trace(module)
    layers = list(find_layers(graph, recipe, roles))
    _round_weights(layers, trainable)
    _round_activations(graph, layers, ranges, activation_bits(recipe) or 8)
    graph.recompile()
    return graph, layers


def _round_weights(layers: list[Layer], trainable: bool) -> None:
    for layer in layers:
        module = layer.module
        if module is None:
            continue
        module.requires_grad_(trainable)
        weight = module.get_parameter("weight")
        if layer.grid is not None:
            # A transposed convolution's weight is a sum of trained ones: its grid moves with them.
            keep = trainable and not isinstance(module, nn.ConvTranspose2d)
            start = weight.detach().clone() if keep else None
            rounding: nn.Module = WeightFakeQuant(layer.grid, start=start)
        elif layer.precision.half:
            rounding = HalfRound()
        else:
            continue
        if trainable:
            parametrize.register_parametrization(module, "weight", rounding)
        else:
            weight.data = rounding(weight.data)


def _round_activations(
    graph: fx.GraphModule, layers: list[Layer], ranges: dict[str, tuple[float, float]], bits: int
) -> None:
    made: dict[fx.Node, bool] = {}  # tensors that come rounded, whoever reads them: whether to integers
    read: dict[fx.Node, list[fx.Node]] = {}  # tensors that some layers want as integers
    for layer in layers:
        if layer.precision.integer:
            made[layer.output] = True
            for tensor in layer.inputs:
                read.setdefault(tensor, []).append(layer.node)
        elif layer.precision.half:
            made.setdefault(layer.output, False)

    def rounding(tensor: fx.Node) -> ActivationFakeQuant:
        return ActivationFakeQuant(*ranges[tensor.name], bits)

    for tensor, readers in read.items():
        if not made.get(tensor):
            insert(graph, tensor, rounding(tensor), list(dict.fromkeys(readers)))
            made.pop(tensor, None)  # integers are coarser than float16
    for tensor, integer in made.items():
        insert(graph, tensor, rounding(tensor) if integer else HalfRound(), list(tensor.users))


def in_parts(module: nn.Module, batch: Tensor, *shared: Tensor) -> Tensor:
    """The module's output for a batch of any length: large activations are there for a few pictures only."""
    return torch.cat([module(part, *shared) for part in batch.split(AT_ONCE)])


@torch.no_grad()
def restore_batch(programs: Programs, images: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Restored images and trajectory of a batch.

    Args:
        programs: float or simulated ones.
        images: degraded images (N, 3, H, W) in [0, 1].
        noise: unit Gaussian, (N, C, H/8, W/8).

    Returns:
        See :func:`elir_mobile.core.sampling.sample`.
    """
    return programs.restore(lambda name, *inputs: in_parts(programs.modules[name], *inputs), images, noise)
