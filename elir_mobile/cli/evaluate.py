"""Measure restorations against ground truth: ``elir-mobile evaluate CLEAN --task bfr``."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2, say
from elir_mobile.core.files import write_json


@exits_with_2
@options.with_model
def main(
    context: typer.Context,
    clean: Annotated[Path, typer.Argument(metavar="CLEAN", hidden=True)],
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Named as CLEAN's. Default: those, degraded."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="Restore them first, for this task.")
    ] = None,
    *,
    model: options.Model,
    pictures: options.Pictures,
    size: options.Size = None,
    seed: options.Seed = 0,
    resamples: Annotated[int, options.count("Of the bootstrap.", least=100)] = 1000,
    out: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where the report goes.")] = Path(
        "out/evaluation.json"
    ),
    engine: options.Engine = "local",
    workers: options.Workers = None,
) -> None:
    """Measure images against the ground truth in the folder CLEAN."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from elir_mobile.terminal import Described, Terminal

    if images is None and task is None:
        raise UserError("nothing to measure: name --images FOLDER, or --task to degrade and restore CLEAN")
    if task is None:
        why = "restores nothing without --task: add that, or leave this out"
        options.refuse(context, why, *(field.name for field in fields(options.Model)))
    if images is not None:
        options.refuse(context, "is of the squares that are degraded where --images is not given", "size")
    options.check_model(context, model, engine)
    console = Terminal()
    with console.status("loading"):
        from elir_mobile.bundle import read_bundle
        from elir_mobile.engine import run
        from elir_mobile.evaluate import Measured, examples, measurer, summarize, terminal_table, to_json
        from elir_mobile.images import Reading
        from elir_mobile.restore import model_loader
        from elir_mobile.tasks import get_task
    restorer = None
    if task:
        chosen = get_task(task)
        restorer = model_loader(chosen, **vars(model)), chosen
    jobs, wrong = examples(clean, images, say)
    columns = (Described(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("images", total=len(jobs))
        made = run(
            partial(measurer, restorer, size, seed, Reading(**pictures.reading)),
            jobs,
            engine=engine,
            workers=workers,
            advance=lambda: progress.advance(bar),
        )
        wrong += [said for said in made if isinstance(said, str)]
        measured = [one for one in made if isinstance(one, Measured)]
        if not measured:
            raise UserError(wrong[0])
        progress.add_task("confidence intervals", total=None)
        table, missing = summarize(measured, resamples, seed)
    facts: dict[str, object] = {"task": task, "seed": seed, "resamples": resamples}
    if task:
        facts["model"] = model.weights
        if model.bundle:
            file = read_bundle(model.bundle).entry(model.target, model.precision)
            facts["model"] = f"{model.bundle.name} {file['target']} {file['precision']}"
        facts |= {"fidelity": model.fidelity, "keep_colors": chosen.keeps_colors and not model.no_keep_colors}
        facts |= {"steps": model.steps, "sigma_s": model.sigma_s}  # null: the model's own
    report = to_json(measured, table, missing, facts)
    write_json(out, report)
    console.print(terminal_table(table))
    for key, why in missing.items():
        console.print(f"{key}: {why}", style="yellow")
    console.print(f"{len(measured)} images; report: {out}")
    for one in measured:
        for note in dict.fromkeys(one.notes):
            say(f"{one.name}: {note}")
    for said in wrong[:-1]:
        say(f"error: {said}")
    if wrong:
        raise UserError(wrong[-1])
