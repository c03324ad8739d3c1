"""Core AI: the three programs as functions of one ``.aimodel``, their weights compressed by the recipe.

Apple's ``coreai-torch`` converts the exported graphs (https://github.com/apple/coreai-torch). A layer that
the recipe wants in int8 has its integers and scales in the file, behind the operator of Apple's own
compression tools.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from elir_mobile.precision import FP32, Grid, Recipe
from elir_mobile.runtimes.programs import INPUTS
from elir_mobile.runtimes.table import RUNTIMES
from export.coreml import AUTHOR, LICENCE, OUTPUTS, SUMMARY
from export.executorch import Half
from export.programs import Delegation, Programs, Samples
from export.simulate import find_layers, trace, weight_scale


class _Stored(nn.Module):
    """A weight as integers and their scales: a parametrization, which has no need of the float weight."""

    def __init__(self, weight: Tensor, grid: Grid) -> None:
        super().__init__()
        scale = weight_scale(weight, grid).half().float()  # as the file has it: its integers are the nearest
        self.register_buffer("scale", scale)
        self.register_buffer("integers", (weight / scale).round().to(torch.int8))

    def forward(self, _: Tensor) -> Tensor:
        weight: Tensor = torch.ops.coreai.constexpr_blockwise_shift_scale(self.integers, self.scale)
        return weight


def compressed(module: nn.Module, recipe: Recipe) -> nn.Module:
    """A copy of ``module`` that stores weights as ``recipe`` says, which speaks of layer names alone.

    Raises:
        ValueError: a weight is to be anything but float or int8 with a scale for each output channel.
    """
    copied = copy.deepcopy(module)
    for layer in find_layers(trace(module), recipe):
        if layer.grid is None:
            continue
        if layer.precision.integer or layer.grid.bits != 8:
            raise ValueError(f"Core AI cannot give '{layer.name}' the precision {layer.precision.name} here")
        found = copied.get_submodule(layer.name)
        stored = _Stored(found.get_parameter("weight"), layer.grid)
        parametrize.register_parametrization(found, "weight", stored, unsafe=True)
    return copied


def convert(programs: Programs, recipe: Recipe) -> Any:
    """The programs as functions of one ``AIProgram``, with float32 inputs and outputs."""
    RUNTIMES["coreai"].load()
    recipe = recipe.on(programs.roles)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of a build of PyTorch that its package does not know by name
        import coreai_torch._compression.custom_layers  # noqa: F401  # has the operator of _Stored; private
        from coreai_torch import TorchConverter, get_decomp_table

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
        return converter.to_coreai()


def lower(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
    """Write an ``.aimodel``, a folder, in the precisions of ``recipe``: a :data:`export.targets.Lower`.

    A layer that stays in fp32 is computed in float16, unless all are; integer weights are int8 with a scale
    for each output channel.
    """
    from coreai.runtime import AIModelAssetMetadata

    about = AIModelAssetMetadata()
    about.author, about.license, about.model_description = AUTHOR, LICENCE, SUMMARY
    facts: dict[str, Any] = {"recipe": recipe.name, "steps": programs.steps, "sigma_s": programs.sigma_s}
    for key, value in facts.items():
        about.set_custom(key, value)
    convert(programs, recipe).save_asset(path, about)
    # It has the date and its keys in any order: the same command twice is to give the same bytes.
    metadata = path / "metadata.json"
    kept = {key: value for key, value in json.loads(metadata.read_text()).items() if key != "creationDate"}
    metadata.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return {name: Delegation(0, ()) for name in programs.modules}
