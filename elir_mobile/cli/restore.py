"""Restore photographs of any size: ``elir-mobile restore IN OUT --task bfr``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2, say


@exits_with_2
@options.with_model
def main(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN", hidden=True)],
    out: Annotated[Path, typer.Argument(metavar="OUT", hidden=True)],
    task: options.Task,
    model: options.Model,
    pictures: options.Pictures,
    frames: Annotated[
        Literal["first", "all"], typer.Option(metavar="first|all", help="Of files with several pictures.")
    ] = "first",
    seed: options.Seed = 0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write NAME-compare.png: before and after.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="What OUT already has, whoever wrote it.")
    ] = False,
    engine: options.Engine = "local",
    workers: options.Workers = None,
) -> None:
    """Restore IN, a photograph of any size or a folder, into OUT.

    A folder that was stopped goes on. A damaged image does not hold up the others.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from elir_mobile.terminal import Described, Terminal

    options.check_model(context, model, engine)
    console = Terminal()
    with console.status("loading"):
        from elir_mobile.engine import run
        from elir_mobile.images import Reading, few
        from elir_mobile.restore import file_restorer, model_loader, plan
        from elir_mobile.tasks import get_task
    chosen = get_task(task)
    jobs = plan(source, out, compare, say)
    columns = (Described(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        images = progress.add_task("images", total=len(jobs), visible=len(jobs) > 1)
        make = partial(
            file_restorer,
            model_loader(chosen, **vars(model)),
            chosen,
            seed,
            reading=Reading(**pictures.reading),
            every_frame=frames == "all",
            overwrite=overwrite,
        )
        if engine == "local":
            tiles = progress.add_task("loading the model", total=None)
            make = partial(
                make,
                advance=lambda name, done, total: progress.update(
                    tiles, description=f"{name}, tiles", completed=done, total=total
                ),
            )
        outcomes = run(make, jobs, engine=engine, workers=workers, advance=lambda: progress.advance(images))
    done = sum(outcome.became == "done" for outcome in outcomes)
    if done:
        console.print(f"{done} of {len(jobs)} are already in {out}")
    noted: dict[str, list[str]] = {}
    for outcome in outcomes:
        for note in outcome.notes:
            noted.setdefault(note, []).append(outcome.name)
    for note, names in noted.items():
        say(f"{few(names)}: {note}")
    failed = [outcome.reason for outcome in outcomes if outcome.became == "failed"]
    for reason in failed[:-1]:
        say(f"error: {reason}")
    if failed:
        raise UserError(failed[-1])
