"""Restore photographs of any size: ``elir-mobile restore IN OUT --task bfr``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2


@exits_with_2
@options.with_model
def main(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN", hidden=True)],
    out: Annotated[Path, typer.Argument(metavar="OUT", hidden=True)],
    task: options.Task,
    model: options.Model,
    seed: options.Seed = 0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write NAME-compare.png: before and after.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="What OUT already has of a folder, too.")
    ] = False,
    engine: options.Engine = "local",
    workers: options.Workers = None,
) -> None:
    """Restore IN, a photograph of any size or a folder, into OUT.

    A folder that was stopped goes on. A damaged image does not hold up the others.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    options.check_model(context, model, engine)
    console = Console()
    with console.status("loading"):
        from elir_mobile.engine import run
        from elir_mobile.restore import file_restorer, model_loader, plan
        from elir_mobile.tasks import get_task
    chosen = get_task(task)
    jobs = plan(source, out)
    if source.is_dir() and not overwrite:
        everything = len(jobs)
        jobs = [(path, place) for path, place in jobs if not place.exists()]
        if len(jobs) < everything:
            console.print(f"{everything - len(jobs)} of {everything} are already in {out}")
    jobs = [(path.resolve(), place.resolve()) for path, place in jobs]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        images = progress.add_task("images", total=len(jobs), visible=len(jobs) > 1)
        make = partial(file_restorer, model_loader(chosen, **vars(model)), chosen, seed, compare)
        if engine == "local":
            tiles = progress.add_task("loading the model", total=None)
            make = partial(
                make,
                advance=lambda name, done, total: progress.update(
                    tiles, description=f"{name}, tiles", completed=done, total=total
                ),
            )
        said = run(make, jobs, engine=engine, workers=workers, advance=lambda: progress.advance(images))
    unreadable = [message for message in said if message]
    if unreadable:
        others = f" (and {len(unreadable) - 1} more like it)" if len(unreadable) > 1 else ""
        raise UserError(f"{unreadable[0]}{others}")
