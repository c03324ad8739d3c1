"""What a training run keeps beside its checkpoints; the command is :mod:`elir_mobile.cli.train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from elir_mobile.checkpoints import save_weights
from elir_mobile.core.errors import UserError
from elir_mobile.core.files import write_json
from elir_mobile.models.restorer import Restorer
from elir_mobile.tasks import Task
from elir_mobile.training.folder import finished


def check(condition: bool, message: str) -> None:
    """Raise a :class:`UserError` unless ``condition``."""
    if not condition:
        raise UserError(message)


@rank_zero_only
def keep_options(run_dir: Path, options: dict[str, Any]) -> None:
    """Write the options that a run's result depends on, or see that they are what it began with.

    Raises:
        UserError: the folder is of a run with other options.
    """
    path = run_dir / "options.json"
    if path.exists():
        began = json.loads(path.read_text())
        for name, value in options.items():
            check(
                began.get(name) == value,
                f"{run_dir} is of a run with {name} = {began.get(name)}, not {value}: "
                "give the same options to resume it, or another --out",
            )
        return
    write_json(path, options)


@rank_zero_only
def write_weights(student: Restorer, path: Path, task: Task, size: int, sigma_s: float) -> None:
    """The collapsed network in float16."""
    save_weights(finished(student), path, task=task.name, size=size, steps=task.steps, sigma_s=sigma_s)
    typer.echo(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB")
