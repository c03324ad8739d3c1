"""The targets: one row each, so that the commands need not know them by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from elir_mobile.core.errors import UserError
from elir_mobile.precision import Recipe
from export import coreml, executorch, litert
from export.forms import GroupNorm4d, GroupNormConv
from export.programs import Delegation, Programs, Samples, clip_by_minimum, clip_by_relus

Lower = Callable[[Programs, Recipe, Samples, Path], dict[str, Delegation]]


@dataclass(frozen=True)
class Target:
    """What makes the files of one runtime.

    Attributes:
        name: also the folder of its files in a bundle.
        suffix: of its files.
        precisions: the recipes it can realize.
        lower: writes one file from programs, recipe and calibration samples.
        unmixed: precisions that all layers have together or none.
        group_norm: the exact form of GroupNorm that it takes best.
        clip: the form of the clip to [0, 1] that is exact on it.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    lower: Lower
    unmixed: tuple[str, ...] = ()
    group_norm: Callable[[nn.GroupNorm], nn.Module] = GroupNorm4d
    clip: Callable[[Tensor], Tensor] = clip_by_relus


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("executorch", ".pte", ("fp32", "fp16", "w8a8"), executorch.lower, unmixed=("fp16",)),
        Target(
            "litert",
            ".tflite",
            ("fp32", "fp16", "w8", "w8a8"),
            litert.lower,
            group_norm=GroupNormConv,
            clip=clip_by_minimum,
        ),
        Target("coreml", ".mlpackage", ("fp32", "fp16", "w8", "w4", "w8a8"), coreml.lower),
    )
}


def realizes(target: Target, recipe: Recipe) -> bool:
    """Whether ``target`` has a recipe, or every precision that its rules mix."""
    mixed = {"fp32", *(precision.name for precision in recipe.precisions)}
    return recipe.name in target.precisions or mixed <= set(target.precisions) - set(target.unmixed)


def get_target(name: str) -> Target:
    """The target called ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in TARGETS:
        raise UserError(f"unknown target '{name}': choose from {', '.join(TARGETS)}")
    return TARGETS[name]
