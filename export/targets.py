"""The targets: one row each, so that the commands need not know them by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from elir_mobile.core.errors import UserError
from elir_mobile.precision import Recipe
from elir_mobile.runtimes.table import RUNTIMES, canonical, target_name
from export import contexts, coreai, coreml, delegates, executorch, litert, onnx
from export.forms import CPU, CPU_CHANNELS_LAST, GPU, Form
from export.observers import activation_bits
from export.programs import Delegation, Programs, Samples

# Writes a file, or folder, at the path. Programs come in the target's form, the recipe is one that the target
# realizes, and the calibration inputs of each program may be empty where no activation is to be integer.
# Gives the delegation of each program; of none, where only a device divides them. A ValueError: samples are
# missing, or the recipe has a precision that the target has not.
Lower = Callable[[Programs, Recipe, Samples, Path], dict[str, Delegation]]


@dataclass(frozen=True)
class Target:
    """What makes files for one delegate of one runtime.

    Attributes:
        runtime: name of the one that opens its files, a row of ``elir_mobile/runtimes/table.py``.
        delegate: what the operators go to; None where the device divides them itself.
        form: how the programs are written for it.
        precisions: the recipes it can realize.
        lower: writes one file from programs, recipe and calibration samples.
        unmixed: precisions that all layers have together or none.
        devices: kinds of device that have the delegate; None: all that have the runtime.
    """

    runtime: str
    delegate: str | None
    form: Form
    precisions: tuple[str, ...]
    lower: Lower
    unmixed: tuple[str, ...] = ()
    devices: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """``executorch`` for the runtime's own delegate, ``executorch/vulkan`` for another."""
        return target_name(self.runtime, self.delegate)

    @property
    def suffix(self) -> str:
        """Of its files."""
        return RUNTIMES[self.runtime].suffix

    def path(self, stem: str) -> str:
        """Where a bundle has the file called ``stem``, which names task and precision."""
        more = self.name.removeprefix(self.runtime).replace("/", "-")
        return f"{self.runtime}/{stem}{more}{self.suffix}"

    def to_json(self) -> dict:
        """What a manifest says of a file's target."""
        return {
            "target": self.name,
            "runtime": self.runtime,
            "delegate": self.delegate,
            "form": self.form.to_json(),
            "devices": list(self.devices or RUNTIMES[self.runtime].devices),
        }


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("executorch", "xnnpack", CPU, ("fp32", "fp16", "w8a8"), executorch.lower, unmixed=("fp16",)),
        Target(
            "executorch",
            "vulkan",
            GPU,
            ("fp32", "fp16", "w8a8"),
            delegates.lower_for_vulkan,
            unmixed=("fp16",),
            devices=("android",),
        ),
        Target(
            "executorch",
            "coreml",
            CPU,
            ("fp32", "fp16", "w8"),
            delegates.lower_for_coreml,
            unmixed=("fp16", "w8"),
            devices=("ios",),
        ),
        Target("litert", "xnnpack", CPU_CHANNELS_LAST, ("fp32", "fp16", "w8", "w8a8"), litert.lower),
        Target("litert/gpu", None, GPU, ("fp32", "fp16"), litert.lower_for_gpu),
        Target("litert/qnn", None, CPU_CHANNELS_LAST, ("fp16", "w8a8"), contexts.lower),
        Target("coreml", None, CPU, ("fp32", "fp16", "w8", "w4", "w4g32", "w8a8"), coreml.lower),
        Target("coreai", None, CPU, ("fp32", "fp16", "w8"), coreai.lower),
        Target("onnx", None, CPU, ("fp32", "fp16", "w8", "w8a8", "w8a16"), onnx.lower, unmixed=("fp16",)),
        Target("onnx/qnn", None, CPU, ("fp16", "w8a8", "w8a16"), onnx.lower, unmixed=("fp16",)),
    )
}


def realizes(target: Target, recipe: Recipe) -> bool:
    """Whether ``target`` has a recipe, or every precision that its rules mix.

    Raises:
        UserError: it mixes integers of two widths, which no target has.
    """
    activation_bits(recipe)
    mixed = {"fp32", *(precision.name for precision in recipe.precisions)}
    return recipe.name in target.precisions or mixed <= set(target.precisions) - set(target.unmixed)


def get_target(name: str) -> Target:
    """The target called ``name``; of a runtime's own delegate the name may be given in full.

    Raises:
        UserError: there is none.
    """
    if canonical(name) not in TARGETS:
        raise UserError(f"unknown target '{name}': choose from {', '.join(TARGETS)}")
    return TARGETS[canonical(name)]


def writer(target: Target) -> Target:
    """The first target whose files are those of ``target``: written by one function, in one form."""
    alike = (other for other in TARGETS.values() if (other.lower, other.form) == (target.lower, target.form))
    return next(alike, target)
