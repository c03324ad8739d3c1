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

from elir_mobile.models.autoencoder import Block
from elir_mobile.precision import FP32, Recipe
from export.programs import Programs, Samples
from quant.fakequant import Ranges, find_layers, simulate_program, trace

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


def _copied(programs: Programs) -> Programs:
    return replace(programs, modules={name: copy.deepcopy(m) for name, m in programs.modules.items()})


def _batched(inputs: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*inputs, strict=True))


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
                channels = layer.weight.shape[1 if transposed else 0]  # type: ignore[union-attr]
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
def equalize(programs: Programs, samples: Samples, alpha: float = 0.5) -> Programs:
    """Even out the channels between convolutions that only a ReLU separates; the function stays.

    Channel ``i`` of the first convolution is divided by ``s_i`` and that of the second multiplied:
    ``s_i = a_i^alpha / w_i^(1-alpha)``, ``a_i`` the largest activation seen and ``w_i`` the largest
    weight that reads it (SmoothQuant, Xiao et al. 2022). Only the autoencoder's blocks have such
    pairs: SiLU and group norms, all over the rest, do not commute with a scale.
    """
    out = _copied(programs)
    for name in ("encode", "decode"):
        module = out.modules[name]
        blocks = [m for m in module.modules() if isinstance(m, Block)]
        largest: dict[nn.Module, Tensor] = {}

        def see(relu: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, seen: dict = largest) -> None:
            seen[relu] = output.amax((0, 2, 3))

        handles = [block.conv[i].register_forward_hook(see) for block in blocks for i in (1, 3)]
        module(*_batched(samples[name]))
        for handle in handles:
            handle.remove()
        for block in blocks:
            for i in (0, 2):
                first, second = block.conv[i], block.conv[i + 2]
                assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
                read = second.weight.abs().amax((0, 2, 3))
                scale = largest[block.conv[i + 1]] ** alpha / read ** (1 - alpha)
                scale = scale.clamp(min=1e-5)
                scale[(largest[block.conv[i + 1]] == 0) | (read == 0)] = 1
                first.weight /= scale[:, None, None, None]
                first.bias /= scale  # type: ignore[operator]  # it has one
                second.weight *= scale[None, :, None, None]
    return out
