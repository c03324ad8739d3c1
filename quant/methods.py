"""Methods that make int8 cost less, each a function from float programs to float programs.

They change float weights and biases before export, so every target profits and none has to know.
What each is worth on this network is measured in docs/quantization.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from elir_mobile.precision import FP32, W4, W8, W8A8, Recipe
from export.programs import Programs, Samples
from quant.fakequant import Ranges, calibrate, find_layers, simulate_program, trace, weight_scale

RECONSTRUCTION_CALLS = 6  # calls of each program that reconstruction sees
PATCHES = 4  # input patches for each tap of a kernel, to estimate the moments of its inputs

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


def _copied(programs: Programs) -> Programs:
    return replace(programs, modules={name: copy.deepcopy(m) for name, m in programs.modules.items()})


def _batched(inputs: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*inputs, strict=True))


Moved = dict[str, dict[str, Tensor]]  # program → name → weight or bias


def improved_weights(programs: Programs, recipe: Recipe, samples: Samples) -> Moved:
    """The weights and biases that :func:`reconstruct` and then :func:`correct_biases` move for ``recipe``.

    Names are those of the layers, so that :func:`with_weights` can put them into another target's form of
    the same programs.
    """
    ranges = calibrate(programs, samples) if recipe.needs_calibration else {}
    few = {name: calls[:: max(1, len(calls) // RECONSTRUCTION_CALLS)] for name, calls in samples.items()}
    moved = correct_biases(reconstruct(programs, recipe, ranges, few), recipe, ranges, samples)
    found: Moved = {}
    for name, module in moved.modules.items():
        before = programs.modules[name].state_dict()
        found[name] = {
            key: value
            for key, value in module.state_dict().items()
            if key not in before or not torch.equal(value, before[key])
        }
    return found


def with_weights(programs: Programs, moved: Moved) -> Programs:
    """``programs`` with other weights and biases; the given ones stay as they are."""
    modules = {
        name: module_with_weights(module, moved.get(name, {})) for name, module in programs.modules.items()
    }
    return replace(programs, modules=modules)


def module_with_weights(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """One program of :func:`with_weights`."""
    out = copy.deepcopy(module)
    for key, value in tensors.items():
        owner, _, attribute = key.rpartition(".")
        setattr(out.get_submodule(owner), attribute, nn.Parameter(value.clone(), requires_grad=False))
    return out


@torch.no_grad()
def correct_biases(programs: Programs, recipe: Recipe, ranges: Ranges, samples: Samples) -> Programs:
    """Shift every rounded layer's bias so that its mean output is the float layer's again.

    Rounding errors of weights and clipped activations have a mean that every later layer sees
    (Nagel et al. 2019, empirical bias correction). One pass in the order of the layers: each is
    corrected for the output that the corrected layers before it give. A layer without a bias gets one.
    """
    out = _copied(programs)
    for name, module in out.modules.items():
        rounded = [
            layer.name
            for layer in find_layers(trace(module))
            if layer.node.op == "call_module" and recipe.precision_of(layer.name) != FP32
        ]
        for layer_name in rounded:
            layer = module.get_submodule(layer_name)
            if layer.bias is None:
                transposed = isinstance(layer, nn.ConvTranspose2d)
                channels = layer.weight.shape[1 if transposed else 0]
                layer.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
        means: dict[str, Tensor] = {}

        def remember(layer_name: str, means: dict[str, Tensor] = means) -> Hook:
            def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                means[layer_name] = output.mean((0, 2, 3))

            return hook

        def correct(layer_name: str, means: dict[str, Tensor] = means, module: nn.Module = module) -> Hook:
            def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                shift = means[layer_name] - output.mean((0, 2, 3))
                module.get_submodule(layer_name).bias += shift  # type: ignore[operator]
                return output + shift[:, None, None]

            return hook

        batch = _batched(samples[name])
        handles = [
            module.get_submodule(layer_name).register_forward_hook(remember(layer_name))
            for layer_name in rounded
        ]
        module(*batch)
        for handle in handles:
            handle.remove()
        simulated = simulate_program(module, recipe, ranges.get(name, {}))
        for layer_name in rounded:
            simulated.get_submodule(layer_name).register_forward_hook(correct(layer_name))
        simulated(*batch)
    return out


@torch.no_grad()
def reconstruct(
    programs: Programs, recipe: Recipe, ranges: Ranges, samples: Samples, damping: float = 0.01
) -> Programs:
    """Move the weights of rounded convolutions to the grid points that keep their outputs best.

    Rounding to the nearest treats weights one by one. Here each weight's error is made good by those
    that are still to be rounded, by the second moments of the layer's own inputs on real trajectories
    (optimal brain compression, Frantar and Alistarh 2022; GPTQ). No labels, no iterations. Layers come
    in the order they run, each on the inputs that the rounded layers before it give. Scales stay the
    min-max ones, so an exporter's own rounding finds the weights on its grid. Transposed convolutions
    are left alone: their outputs overlap.

    Args:
        damping: added to the diagonal of the moments, relative to its mean.
    """
    out = _copied(programs)
    for name, module in out.modules.items():
        simulated = simulate_program(module, recipe, ranges.get(name, {}))
        for layer in find_layers(trace(module)):
            precision = recipe.precision_of(layer.name)
            if precision not in (W8, W8A8, W4) or layer.node.op != "call_module":
                continue
            source = module.get_submodule(layer.name)
            if not isinstance(source, nn.Conv2d):
                continue

            def rounded(
                conv: nn.Module,
                inputs: tuple[Tensor, ...],
                output: Tensor,
                source: nn.Conv2d = source,
                precision: str = precision,
            ) -> Tensor:
                assert isinstance(conv, nn.Conv2d)
                weight = _rounded_by_moments(source, precision, inputs[0], damping)
                source.weight.data, conv.weight.data = weight, weight.clone()
                return conv.forward(inputs[0])

            simulated.get_submodule(layer.name).register_forward_hook(rounded)
        simulated(*_batched(samples[name]))
    return out


def _rounded_by_moments(conv: nn.Conv2d, precision: str, x: Tensor, damping: float) -> Tensor:
    """The weight of ``conv`` on the grid of ``precision``, for inputs like ``x`` (N, C, H, W)."""
    scales, top = weight_scale(conv.weight, precision)
    scale = scales.expand_as(conv.weight).flatten(1)
    patches = nn.functional.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)  # type: ignore[arg-type]
    columns = patches.transpose(0, 1).flatten(1)
    taps = columns.shape[0]
    if columns.shape[1] > PATCHES * taps:  # enough for the moments, whatever the image's size
        columns = columns[:, :: columns.shape[1] // (PATCHES * taps)]
    moments = (columns @ columns.T).double()
    moments += damping * moments.diagonal().mean().clamp(min=1e-12) * torch.eye(taps)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    left = conv.weight.flatten(1).clone()
    levels = (left / scale).round()
    fixed = levels.abs() == top  # the exporter's scale comes from the largest: it stays
    for tap in range(taps):
        moved = (left[:, tap] / scale[:, tap]).round().clamp(-top, top)
        levels[:, tap] = torch.where(fixed[:, tap], levels[:, tap], moved)
        error = (left[:, tap] - levels[:, tap] * scale[:, tap]) / factor[tap, tap]
        left[:, tap:] -= error[:, None] * factor[tap, tap:]
    return (levels * scale).reshape(conv.weight.shape)
