"""What ``quant.ptq`` is asked for: one network, and the files to make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from elir_mobile.checkpoints import ModelInfo
from elir_mobile.core.errors import UserError
from elir_mobile.data.pairs import PairCounts
from elir_mobile.harness.protocol import Protocol
from elir_mobile.models.restorer import Restorer
from elir_mobile.precision import Recipe, get_recipe
from elir_mobile.recommendation import BUDGET
from elir_mobile.runtimes.table import RUNTIMES
from elir_mobile.tasks import Task
from export.programs import Programs, build_programs
from export.targets import TARGETS, Target, get_target, realizes

ALL = "all"  # in place of the names of targets
# One fresh process of each file: the harness has the longer protocol.
SHORT = Protocol(runs=20, cold_starts=1)
# Untrained weights are for size and speed: one pair shows that the files run and agree.
UNTRAINED_COUNTS = PairCounts(calibration=2, min_evaluation=1, max_evaluation=1)


@dataclass(frozen=True)
class Job:
    """One run of the command, inputs already validated and loaded."""

    task: Task
    restorer: Restorer
    info: ModelInfo
    size: int
    artifacts: tuple[tuple[Target, Recipe], ...]  # what to export, in the order of the report
    images: Path | None
    out: Path
    seed: int
    protocol: Protocol = SHORT
    gptq: bool = False  # adjust float weights so that rounding hurts least
    budget: Mapping[str, float] = field(default_factory=BUDGET.copy)  # of the pictures, as a manifest has it

    @property
    def name(self) -> str:
        """Of the bundle's folder."""
        return f"{self.task.name}-{self.info.name}"

    @property
    def counts(self) -> PairCounts:
        """How many pairs calibrate, and how many are judged."""
        return PairCounts() if self.info.trained else UNTRAINED_COUNTS

    def programs(self, target: Target = TARGETS["executorch"]) -> Programs:
        """The float programs as ``target`` takes them."""
        return build_programs(
            self.restorer,
            size=self.size,
            steps=self.info.steps,
            sigma_s=self.info.sigma_s,
            form=target.form,
        )

    def adjusts(self, recipe: Recipe) -> bool:
        """Whether the weights of ``recipe`` are adjusted before they are rounded."""
        return self.gptq and recipe.rounds_weights


def select_artifacts(
    targets: str, precisions: str, console: Console, recipes: Sequence[Recipe] = ()
) -> tuple[tuple[Target, Recipe], ...]:
    """The files that comma-separated target and precision names ask for.

    Args:
        targets: names, or ``all`` for those whose files can be made and run here.
        recipes: of the user's own, to be exported too.

    Raises:
        UserError: an unknown name, two recipes of one name, a target that has none of the precisions, or one
            whose files could not be run here, for want of a package or a driver.
    """
    wanted = [get_recipe(name.strip()) for name in precisions.split(",")] + list(recipes)
    for index, recipe in enumerate(wanted):
        if any(recipe.name == other.name and recipe != other for other in wanted[:index]):
            raise UserError(f"two recipes are called '{recipe.name}': give one of them another name")
    wanted = list(dict.fromkeys(wanted))
    chosen = []
    if targets == ALL:
        asked = [target for target in TARGETS.values() if not RUNTIMES[target.runtime].lacking]
    else:
        asked = list(dict.fromkeys(get_target(name.strip()) for name in targets.split(",")))
    for target in asked:
        RUNTIMES[target.runtime].check_complete()
        realized = [recipe for recipe in wanted if realizes(target, recipe)]
        if not realized and targets != ALL:
            names = ", ".join(recipe.name for recipe in wanted)
            raise UserError(f"{target.name} has none of {names}: use {', '.join(target.precisions)}")
        absent = [recipe.name for recipe in wanted if recipe not in realized]
        if absent:
            console.print(f"{target.name} has no {', '.join(absent)}: left out")
        chosen += [(target, recipe) for recipe in realized]
    return tuple(chosen)
