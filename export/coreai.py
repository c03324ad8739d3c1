"""Core AI: the three programs as functions of one ``.aimodel``, their weights compressed by the recipe.

Apple's ``coreai-torch`` converts the exported graphs (https://github.com/apple/coreai-torch). A layer that
the recipe wants in int8 has its integers and scales in the file, behind the operator of Apple's own
compression tools.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from elir_mobile.precision import FP32, Recipe
from elir_mobile.runtimes.programs import INPUTS
from elir_mobile.runtimes.table import RUNTIMES
from export.coreml import AUTHOR, LICENCE, OUTPUTS, SUMMARY
from export.executorch import Half
from export.programs import Delegation, Programs, Samples
from export.simulate import find_layers, trace, weight_scale


class _Stored(nn.Module):
    """A weight as int8 and a scale for each output channel: a parametrization that exports as both."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, integers: Tensor) -> Tensor:
        weight: Tensor = torch.ops.coreai.constexpr_blockwise_shift_scale(integers, self.scale)
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return (weight / self.scale).round().to(torch.int8)


def compressed(module: nn.Module, recipe: Recipe) -> nn.Module:
    """A copy of ``module`` that stores weights as ``recipe`` says, which speaks of layer names alone.

    Raises:
        ValueError: a weight is to be anything but float or int8 with a scale for each output channel.
    """
    graph = trace(module)
    for layer in find_layers(graph, recipe):
        if layer.grid is None or layer.module is None or parametrize.is_parametrized(layer.module):
            continue
        if layer.precision.integer or layer.grid.bits != 8:
            raise ValueError(f"Core AI cannot give '{layer.name}' the precision {layer.precision.name} here")
        stored = _Stored(weight_scale(layer.module.get_parameter("weight"), layer.grid))
        parametrize.register_parametrization(layer.module, "weight", stored, unsafe=True)  # its type changes
    return graph


def convert(programs: Programs, recipe: Recipe) -> Any:
    """The programs as functions of one ``AIProgram``, with float32 inputs and outputs."""
    RUNTIMES["coreai"].load()
    from coreai_torch import TorchConverter, get_decomp_table

    recipe = recipe.on(programs.roles)
    # Its default mode writes where in our source files each operator came from.
    converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)
    for name, module in programs.modules.items():
        stored = compressed(module, recipe)
        written = stored if recipe.precisions <= {FP32} else Half(stored)
        exported = torch.export.export(written.eval(), programs.example_inputs[name])
        converter.add_exported_program(
            exported.run_decompositions(get_decomp_table()),
            entrypoint_name=name,
            input_names=INPUTS[name],
            output_names=[OUTPUTS[name]],
        )
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return converter.to_coreai()


def lower(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
    """Write the programs in the precisions of ``recipe``.

    Args:
        programs: rewritten programs.
        recipe: which layer gets which precision. A layer that it leaves in fp32 is computed in float16,
            unless all are.
        samples: not used: no activation is integer.
        path: of the ``.aimodel``, a folder.

    Returns:
        Nothing is known of delegation: only a device divides the program among its units.

    Raises:
        ValueError: a weight is to be anything but float or int8 with a scale for each output channel.
    """
    from coreai.runtime import AIModelAssetMetadata

    about = AIModelAssetMetadata()
    about.author, about.license, about.model_description = AUTHOR, LICENCE, SUMMARY
    for key, value in {"recipe": recipe.name, "steps": programs.steps, "sigma_s": programs.sigma_s}.items():
        about.set_custom(key, value)
    asset = convert(programs, recipe).save_asset(path, about)
    asset.update_metadata(_without_date)
    return {name: Delegation(0, ()) for name in programs.modules}


def _without_date(about: Any) -> None:
    """The same command twice gives the same bytes."""
    about.creation_date = None
