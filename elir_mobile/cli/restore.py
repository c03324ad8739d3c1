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
    aligned: Annotated[
        bool, typer.Option("--aligned", help="IN is an upright face that fills a square, of any size.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Restore a photograph as a whole with weights for faces.")
    ] = False,
    all_faces: Annotated[
        bool, typer.Option("--all-faces", help="Of a photograph, those that are sharp already, too.")
    ] = False,
    only_largest: Annotated[
        bool, typer.Option("--only-largest", help="Leave all but the largest face alone.")
    ] = False,
    margin: Annotated[
        float,
        typer.Option(metavar="0..1", min=0.0, max=1.0, help="0: the face alone; 1: hair and ears, too."),
    ] = 1.0,
    background: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="Restores the rest: a bundle, weights, or denoising or bsr."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON: each face, and what was done with it.")
    ] = None,
    engine: options.Engine = "local",
    workers: options.Workers = None,
) -> None:
    """Restore IN, a photograph of any size or a folder, into OUT.

    Weights for aligned faces restore the faces of a photograph where they are and leave the rest alone. A
    folder that was stopped goes on. A damaged image does not hold up the others.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from elir_mobile.terminal import Described, Terminal

    options.check_model(context, model, engine)
    of_faces = ("all_faces", "only_largest", "margin", "background")
    if aligned or anyway:
        given = "--aligned" if aligned else "--anyway"
        options.refuse(context, f"is of faces in photographs, and {given} looks for none", *of_faces)
    console = Terminal()
    with console.status("loading"):
        from elir_mobile.core.files import write_json
        from elir_mobile.engine import run
        from elir_mobile.faces.inplace import Wanted
        from elir_mobile.images import Reading, few
        from elir_mobile.photographs import Handling, Restorer, background_of
        from elir_mobile.restore import file_restorer, model_loader, plan
        from elir_mobile.tasks import get_task
    chosen = get_task(task)
    if not chosen.finds_faces:
        options.refuse(context, f"is of faces in photographs, and {task} does not look for them", *of_faces)
    handling = Handling(
        aligned,
        anyway,
        Wanted(all_faces, only_largest, margin),
        background_of(background, model.threads) if background else None,
        model.threads,
    )
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
            maker=partial(Restorer, handling=handling),
        )
        if engine == "local":
            tiles = progress.add_task("loading the model", total=None)
            make = partial(
                make,
                advance=lambda name, done, total: progress.update(
                    tiles, description=name, completed=done, total=total
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
    if report:
        write_json(report, {"task": task, "margin": margin, "files": [vars(outcome) for outcome in outcomes]})
    failed = [outcome.reason for outcome in outcomes if outcome.became == "failed"]
    for reason in failed[:-1]:
        say(f"error: {reason}")
    if failed:
        raise UserError(failed[-1])
