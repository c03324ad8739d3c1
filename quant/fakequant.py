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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from elir_mobile.models.restorer import sample
from elir_mobile.precision import FP16, FP32, W4, W8A8, Recipe
from export.executorch import MIN_SCALE
from export.programs import PROGRAM_NAMES, Programs, Samples

BLOCK = 32  # input channels that share a scale in w4
QMIN, QMAX = -128, 127

Ranges = dict[str, dict[str, tuple[float, float]]]  # program → tensor → lowest and highest value
AT_ONCE = 12  # pictures that a program restores together
Observer = Callable[..., Any]  # a class like those of export/observers.py
BATCH = 8  # calibration samples that run through the observers at once

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_ADDITIONS = (operator.add, torch.add)
_ROUNDING = "rounding_"  # and the tensor's name: a module that rounds it
_RELUS = (torch.relu, nn.functional.relu)


class ActivationFakeQuant(nn.Module):
    """Affine int8 rounding of a whole tensor to the range [low, high].

    Args:
        low, high: the range before it is widened to contain zero.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=False)
        self.register_buffer("zero", torch.zeros((), dtype=torch.int32), persistent=False)
        self.set_range(low, high)

    def set_range(self, low: float, high: float) -> None:
        """Round to this range from now on."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / (QMAX - QMIN), MIN_SCALE)
        zero = round(QMIN - low / scale)
        self.scale.fill_(scale)
        self.zero.fill_(min(max(zero, QMIN), QMAX))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, QMIN, QMAX)


class HalfRound(nn.Module):
    """Rounding to float16 and back."""

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(x, x.half().float())


class WeightFakeQuant(nn.Module):
    """Rounding of a layer's weight; a parametrization, so that training sees it at every call.

    Args:
        precision: of the recipe; ``w8`` and ``w8a8`` round alike.
        transposed: the weight is (in, out, h, w) instead of (out, in, …).
        block: input channels that share a scale in ``w4``.
        start: a weight whose grid is kept for whatever comes later. Its largest values stay on the
            grid's ends, so that whoever takes a scale from the rounded weight anew finds the same grid.
    """

    grid: tuple[Tensor, int, Tensor, Tensor] | None  # scale, largest level, levels that are kept, where

    def __init__(
        self, precision: str, *, transposed: bool = False, block: int = BLOCK, start: Tensor | None = None
    ) -> None:
        super().__init__()
        self.precision = precision
        self.transposed = transposed
        self.block = block
        self.grid = None
        if start is not None and precision != FP16:
            scale, top = weight_scale(start, precision, transposed=transposed, block=block)
            levels = (start / scale).round()
            self.grid = scale, top, levels, levels.abs() == top

    def forward(self, weight: Tensor) -> Tensor:
        if self.precision == FP16:
            return straight_through(weight, weight.half().float())
        if self.grid is None:
            scale, top = weight_scale(weight, self.precision, transposed=self.transposed, block=self.block)
            return straight_through(weight, (weight / scale).round().clamp(-top, top) * scale)
        scale, top, kept, where = self.grid
        levels = (weight / scale).round().clamp(-top, top)
        return straight_through(weight, torch.where(where, kept, levels) * scale)


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` in value, ``x`` in gradient."""
    return x + (rounded - x).detach()


@torch.no_grad()
def weight_scale(
    weight: Tensor, precision: str, *, transposed: bool = False, block: int = BLOCK
) -> tuple[Tensor, int]:
    """Min-max scale of a weight, of its shape or broadcasting to it, and the largest level.

    ``w8``: one scale for each output channel, 127. ``w4``: one for each output channel and block
    of input channels, 7; a layer whose input channels are no multiple of the block gets ``w8``,
    since that is what block-wise kernels do not take.
    """
    channels = weight.transpose(0, 1) if transposed else weight  # (out, in, …)
    out, n_in = channels.shape[:2]
    if precision == W4 and n_in % block == 0:
        top = 7
        blocks = channels.reshape(out, n_in // block, -1)
        scale = blocks.abs().amax(2).repeat_interleave(block, 1) / top
    else:
        top = 127
        scale = (channels.reshape(out, -1).abs().amax(1) / top)[:, None]
    scale = scale.clamp(min=MIN_SCALE).reshape(*scale.shape, *[1] * (channels.ndim - 2))
    return (scale.transpose(0, 1) if transposed else scale), top


@dataclass(frozen=True)
class Layer:
    """A quantizable operator of a traced program.

    Attributes:
        name: as a recipe calls it.
        node: the operator.
        inputs: the tensors it reads.
        output: the tensor it makes: its own, or that of the ReLU that is fused into it.
    """

    name: str
    node: fx.Node
    inputs: tuple[fx.Node, ...]
    output: fx.Node


def trace(module: nn.Module) -> fx.GraphModule:
    """A copy of ``module`` as a graph; layers keep their names, tensors get the same at every call."""
    return fx.symbolic_trace(copy.deepcopy(module))


def find_layers(graph: fx.GraphModule) -> Iterator[Layer]:
    """Convolutions, linear layers and additions of two tensors, in the order they run."""
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        tensors = tuple(arg for arg in node.args if isinstance(arg, fx.Node))
        if node.op == "call_module" and isinstance(modules[node.target], _LAYERS):
            name = node.target
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
        yield Layer(name, node, tensors, users[0] if fused else node)


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


def _insert(graph: fx.GraphModule, after: fx.Node, module: nn.Module, readers: list[fx.Node]) -> None:
    """Send ``after``'s value to ``readers`` by way of ``module``."""
    name = _ROUNDING + after.name
    graph.add_submodule(name, module)
    with graph.graph.inserting_after(after):
        inserted = graph.graph.call_module(name, (after,))
    for reader in readers:
        reader.replace_input_with(after, inserted)


@torch.no_grad()
def calibrate(programs: Programs, samples: Samples, observer: Observer | None = None) -> Ranges:
    """Activation range of every tensor that some recipe could round.

    Args:
        programs: float programs.
        samples: their inputs on real trajectories (``export.samples.collect_samples``).
        observer: class that chooses the range; default: ExecuTorch's own.
    """
    if observer is None:  # needs torchao, which the rest does without
        from torchao.quantization.pt2e.observer import HistogramObserver

        observer = HistogramObserver
    ranges: Ranges = {}
    for name in PROGRAM_NAMES:
        graph = trace(programs.modules[name])
        tensors = {t: None for layer in find_layers(graph) for t in (*layer.inputs, layer.output)}
        observers = {}
        for tensor in tensors:
            observers[tensor.name] = observer(
                dtype=torch.int8,
                qscheme=torch.per_tensor_affine,
                quant_min=QMIN,
                quant_max=QMAX,
                eps=MIN_SCALE,
            )
            _insert(graph, tensor, observers[tensor.name], list(tensor.users))
        graph.recompile()
        calls = samples[name]
        for start in range(0, len(calls), BATCH):
            graph(*(torch.cat(inputs) for inputs in zip(*calls[start : start + BATCH], strict=True)))
        ranges[name] = {}
        for tensor_name, observed in observers.items():
            scale, zero = (value.item() for value in observed.calculate_qparams())
            ranges[name][tensor_name] = ((QMIN - zero) * scale, (QMAX - zero) * scale)
    return ranges


def simulate(
    programs: Programs,
    recipe: Recipe,
    ranges: Ranges | None = None,
    *,
    block: int = BLOCK,
    trainable: bool = False,
) -> Programs:
    """``programs`` with the rounding of ``recipe``; the given ones stay as they are.

    Args:
        programs: float programs.
        recipe: which layer gets which precision.
        ranges: activation ranges (:func:`calibrate`), where the recipe has w8a8.
        block: input channels that share a scale in w4.
        trainable: weights stay float parameters with gradients, rounded anew at every call, those of
            convolutions to the grid that they start with.

    Raises:
        ValueError: the recipe needs ranges and there are none.
    """
    if recipe.needs_calibration and not ranges:
        raise ValueError(f"recipe '{recipe.name}' needs activation ranges")
    modules = {
        name: simulate_program(
            module,
            recipe,
            (ranges or {}).get(name, {}),
            block=block,
            trainable=trainable,
        )
        for name, module in programs.modules.items()
    }
    return replace(programs, modules=modules)


def simulate_program(
    module: nn.Module,
    recipe: Recipe,
    ranges: dict[str, tuple[float, float]],
    *,
    block: int = BLOCK,
    trainable: bool = False,
) -> nn.Module:
    """One program of :func:`simulate`."""
    graph = trace(module)
    _round_weights(graph, recipe, block, trainable)
    _round_activations(graph, recipe, ranges)
    graph.recompile()
    return graph


def _round_weights(graph: fx.GraphModule, recipe: Recipe, block: int, trainable: bool) -> None:
    for layer in list(find_layers(graph)):
        if layer.node.op != "call_module":
            continue
        module = graph.get_submodule(str(layer.node.target))
        assert isinstance(module, _LAYERS)
        module.requires_grad_(trainable)
        precision = recipe.precision_of(layer.name)
        if precision == FP32:
            continue
        transposed = isinstance(module, nn.ConvTranspose2d)
        if trainable:
            # A transposed convolution's weight is a sum of trained ones: its grid moves with them.
            start = None if transposed else module.weight.detach().clone()
            rounding = WeightFakeQuant(precision, transposed=transposed, block=block, start=start)
            parametrize.register_parametrization(module, "weight", rounding)
        else:
            rounding = WeightFakeQuant(precision, transposed=transposed, block=block)
            module.weight.data = rounding(module.weight.data)


def _round_activations(graph: fx.GraphModule, recipe: Recipe, ranges: dict[str, tuple[float, float]]) -> None:
    made: dict[fx.Node, nn.Module] = {}  # tensors that come rounded, whoever reads them
    read: dict[fx.Node, list[fx.Node]] = {}  # tensors that some layers want rounded
    for layer in find_layers(graph):
        precision = recipe.precision_of(layer.name)
        if precision == FP16:
            made[layer.output] = HalfRound()
        elif precision == W8A8:
            made[layer.output] = ActivationFakeQuant(*ranges[layer.output.name])
            for tensor in layer.inputs:
                read.setdefault(tensor, []).append(layer.node)
    for tensor, readers in read.items():
        if not isinstance(made.get(tensor), ActivationFakeQuant):
            _insert(
                graph,
                tensor,
                ActivationFakeQuant(*ranges[tensor.name]),
                list(dict.fromkeys(readers)),
            )
            made.pop(tensor, None)  # int8 is coarser than float16
    for tensor, module in made.items():
        _insert(graph, tensor, module, list(tensor.users))


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
        See :func:`elir_mobile.models.restorer.sample`.
    """
    return sample(
        lambda x: in_parts(programs.modules["encode"], x),
        lambda z, k: in_parts(programs.modules["step"], z, programs.row(k)),
        lambda z: in_parts(programs.modules["decode"], z),
        images,
        noise,
        steps=programs.steps,
        sigma_s=programs.sigma_s,
    )
