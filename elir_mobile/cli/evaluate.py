"""Measure restorations against ground truth: ``elir-mobile evaluate CLEAN --task bfr``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json

app = options.command_app()
MODEL = (
    "weights",
    "steps",
    "tile",
    "bundle",
    "target",
    "precision",
    "threads",
    "fidelity",
)  # what restores


@app.command()
@exits_with_2
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
    weights: options.Weights = "demo",
    steps: options.Steps = None,
    tile: options.Tile = None,
    bundle: options.Bundle = None,
    target: options.Target = "executorch",
    precision: options.Precision = "w8a8",
    threads: options.Threads = None,
    fidelity: options.Fidelity = 0.0,
    no_keep_colors: options.NoKeepColors = False,
    size: options.Size = None,
    seed: options.Seed = 0,
    resamples: Annotated[int, typer.Option(metavar="N", min=100, help="Of the bootstrap.")] = 1000,
    out: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where the report goes.")] = Path(
        "out/evaluation.json"
    ),
    engine: options.Engine = "local",
    workers: options.Workers = None,
) -> None:
    """Measure images against the ground truth in the folder CLEAN."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if images is None and task is None:
        raise UserError("nothing to measure: name --images FOLDER, or --task to degrade and restore CLEAN")
    if task is None:
        why = "restores nothing without --task: add that, or leave this out"
        options.refuse(context, why, *MODEL, "no_keep_colors")
    if images is not None:
        options.refuse(context, "is of the squares that are degraded where --images is not given", "size")
    options.check_model(context, bundle, engine)
    console = Console()
    with console.status("loading"):
        from elir_mobile.engine import Engine, run
        from elir_mobile.evaluate import examples, measurer, summarize, terminal_table, to_json
        from elir_mobile.restore import model_loader
        from elir_mobile.tasks import get_task
    restorer = None
    if task:
        chosen = get_task(task)
        given = locals()
        load = model_loader(chosen, keep_colors=not no_keep_colors, **{name: given[name] for name in MODEL})
        restorer = load, chosen
    jobs = examples(clean, images)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("images", total=len(jobs))
        measured = run(
            partial(measurer, restorer, size, seed),
            jobs,
            engine=Engine(engine),
            workers=workers,
            advance=lambda: progress.advance(bar),
        )
        progress.add_task("confidence intervals", total=None)
        table, missing = summarize(measured, resamples, seed)
    facts: dict[str, object] = {"task": task, "seed": seed, "resamples": resamples}
    if task:
        facts["model"] = f"{bundle.name} {target} {precision}" if bundle else weights
        facts |= {"fidelity": fidelity, "keep_colors": chosen.keeps_colors and not no_keep_colors}
        facts["steps"] = steps  # null: the model's own
    report = to_json(measured, table, missing, facts)
    write_json(out, report)
    console.print(terminal_table(table))
    for key, why in missing.items():
        console.print(f"{key}: {why}", style="yellow", markup=False)
    console.print(f"{len(jobs)} images; report: {out}")
