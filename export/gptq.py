"""Weights and biases that make rounding cost less, each a function from float programs to float programs.

They change float weights and biases before export, so every target profits and none has to know.
What each is worth on this network is measured in docs/quantization.md.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from elir_mobile.precision import FP32, Grid, Recipe
from export.calibrate import calibrate
from export.observers import activation_bits
from export.programs import Programs, Samples
from export.simulate import Ranges, simulate_program, weight_scale

RECONSTRUCTION_CALLS = 6  # calls of each program that reconstruction sees
BIAS_CALLS = 24  # and that bias correction sees, all in one batch
PATCHES = 4  # input patches for each tap of a kernel, to estimate the moments of its inputs
AT_ONCE = 2**22  # values of patches that are held at once


def _copied(programs: Programs) -> Programs:
    return replace(programs, modules={name: copy.deepcopy(m) for name, m in programs.modules.items()})


def _batched(inputs: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*inputs, strict=True))


Adjusted = dict[str, dict[str, Tensor]]  # program → name → weight or bias


def adjusted_weights(
    programs: Programs, recipe: Recipe, samples: Samples, *, biases: bool = True
) -> Adjusted:
    """The weights and biases that :func:`reconstruct` and then :func:`correct_biases` change for ``recipe``.

    Names are those of the layers, so that :func:`with_weights` can put them into another target's form of
    the same programs.

    Args:
        biases: whether a recipe that rounds weights alone has its biases corrected, for which layers without
            one get one. Where activations are rounded too it gains nothing (docs/decisions.md).
    """
    bits = activation_bits(recipe)
    ranges = calibrate(programs, samples, bits=bits) if bits is not None else {}
    adjusted = reconstruct(programs, recipe, ranges, _few(samples, RECONSTRUCTION_CALLS))
    if biases and bits is None:
        adjusted = correct_biases(adjusted, recipe, ranges, _few(samples, BIAS_CALLS), reference=programs)
    found: Adjusted = {}
    for name, module in adjusted.modules.items():
        before = programs.modules[name].state_dict()
        found[name] = {
            key: value
            for key, value in module.state_dict().items()
            if key not in before or not torch.equal(value, before[key])
        }
    return found


def _few(samples: Samples, count: int) -> Samples:
    """About ``count`` calls of each program, evenly spaced."""
    return {name: calls[:: max(1, len(calls) // count)] for name, calls in samples.items()}


def with_weights(programs: Programs, adjusted: Adjusted) -> Programs:
    """``programs`` with other weights and biases; the given ones stay as they are."""
    modules = {
        name: module_with_weights(module, adjusted.get(name, {})) for name, module in programs.modules.items()
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
def correct_biases(
    programs: Programs, recipe: Recipe, ranges: Ranges, samples: Samples, *, reference: Programs
) -> Programs:
    """Shift every rounded layer's bias so that its mean output is the float layer's again.

    Rounding errors of weights and clipped activations have a mean that every later layer sees
    (Nagel et al. 2019, empirical bias correction). One pass in the order of the layers: each is
    corrected for the output that the corrected layers before it give, against the float network's on the same
    pictures. Against the float layer on the corrected layer's own inputs it comes to the same
    (docs/decisions.md). A layer without a bias gets one.

    Args:
        programs: their weights may be reconstructed, that is, lie on their grids already.
        reference: the float programs, whose mean outputs are wanted.
    """
    out = _copied(programs)
    for name, module in out.modules.items():
        simulated, layers = simulate_program(module, recipe, ranges.get(name, {}), programs.roles)
        means: dict[str, Tensor] = {}
        handles = []
        for layer in layers:
            if layer.module is None or layer.precision == FP32:
                continue
            source = module.get_submodule(layer.name)
            if source.bias is None:
                channels = source.weight.shape[isinstance(source, nn.ConvTranspose2d)]
                source.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
            wanted = reference.modules[name].get_submodule(layer.name)
            handles.append(wanted.register_forward_hook(partial(_remember, means, layer.name)))
            hook = partial(_correct, means, layer.name, source.get_parameter("bias"))
            layer.module.register_forward_hook(hook)
        batch = _batched(samples[name])
        reference.modules[name](*batch)
        for handle in handles:
            handle.remove()
        simulated(*batch)
    return out


def _remember(
    means: dict[str, Tensor], name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    means[name] = output.mean((0, 2, 3))


def _correct(
    means: dict[str, Tensor], name: str, bias: Tensor, layer: nn.Module, inputs: tuple, output: Tensor
) -> Tensor:
    shift = means[name] - output.mean((0, 2, 3))
    bias.add_(shift)
    return output + shift[:, None, None]


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
        simulated, layers = simulate_program(module, recipe, ranges.get(name, {}), programs.roles)
        for layer in layers:
            if layer.grid is None or not isinstance(layer.module, nn.Conv2d):
                continue
            weight = module.get_submodule(layer.name).get_parameter("weight")
            layer.module.register_forward_hook(partial(_reconstruct, weight, layer.grid, damping))
        simulated(*_batched(samples[name]))
    return out


def _reconstruct(
    weight: nn.Parameter, grid: Grid, damping: float, conv: nn.Conv2d, inputs: tuple, output: Tensor
) -> Tensor:
    conv.weight.data = weight.data  # to be rounded anew, not as it was to the nearest
    weight.data = _rounded_by_moments(conv, grid, inputs[0], damping)
    conv.weight.data = weight.data.clone()
    return conv.forward(inputs[0])


def input_moments(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Second moments (taps, taps) of the inputs (N, C, H, W) that a kernel of ``conv`` sees, in float64.

    Of random positions, ``PATCHES`` for each tap, drawn before any patch is copied: a fixed stride would
    fall into step with the rows, and all patches of a large picture are gigabytes.
    """
    (height, width), (down, right) = conv.kernel_size, conv.stride
    up, left = (int(size) for size in conv.padding)  # a mode in words would be no number
    padded = nn.functional.pad(x, (left, left, up, up))
    windows = padded.unfold(2, height, down).unfold(3, width, right)  # a view: (N, C, rows, columns, h, w)
    images, _, rows, columns = windows.shape[:4]
    taps = conv.weight[0].numel()
    count = images * rows * columns
    chosen = torch.arange(count)
    if count > PATCHES * taps:
        chosen = torch.randint(count, (PATCHES * taps,), generator=torch.Generator().manual_seed(0))
    moments = torch.zeros(taps, taps, dtype=torch.float64)
    for part in chosen.split(max(1, AT_ONCE // taps)):
        image, place = part // (rows * columns), part % (rows * columns)
        patches = windows[image, :, place // columns, place % columns].flatten(1)
        moments += patches.T @ patches
    return moments


def _rounded_by_moments(conv: nn.Conv2d, grid: Grid, x: Tensor, damping: float) -> Tensor:
    """The weight of ``conv`` on its ``grid``, for inputs like ``x`` (N, C, H, W)."""
    top = grid.top
    scale = weight_scale(conv.weight, grid).expand_as(conv.weight).flatten(1)
    moments = input_moments(conv, x)
    taps = len(moments)
    moments.diagonal().add_(damping * moments.diagonal().mean().clamp(min=1e-12))
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
