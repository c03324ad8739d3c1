"""Post-training quantization, end to end: ``elir-mobile quantize --task bfr``, or ``search``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2

SEARCH = "Find the fastest recipe within a budget, and quantize by it."

BUDGET = ("max_psnr_drop", "max_lpips_rise", "max_bytes", "min_update_sqnr")


def _is_count(text: str, most: int) -> bool:
    return text.isdecimal() and len(text) <= len(str(most)) and 0 < int(text) <= most


def _list_and_exit(asked: bool) -> None:
    if asked:
        from elir_mobile.precision import PRECISIONS
        from elir_mobile.terminal import Terminal
        from quant.ptq import recipes_table

        console = Terminal()
        console.print(recipes_table())
        console.print(
            f"a recipe of your own is a TOML file for --recipe; its rules may name {', '.join(PRECISIONS)}"
        )
        raise typer.Exit


@exits_with_2
def main(
    context: typer.Context,
    task: options.Task,
    weights: options.Weights = "demo",
    images: options.Images = None,
    size: options.Size = None,
    steps: Annotated[
        str | None,
        typer.Option(metavar="K|auto", help="Euler steps; auto: the fewest within the budget."),
    ] = None,
    targets: options.Targets = "executorch",
    precision: options.Precisions = "fp32,w8a8",
    recipe: Annotated[
        list[Path] | None,
        typer.Option("--recipe", metavar="FILE", help="A TOML recipe, exported too; several times."),
    ] = None,
    out: options.Out = Path("out"),
    seed: options.Seed = 0,
    threads: options.Threads = None,
    random: Annotated[
        bool, typer.Option("--random-weights", help="Untrained, for size and speed only.")
    ] = False,
    max_psnr_drop: Annotated[
        float | None, typer.Option(metavar="DB", min=0, help="PSNR that a searched recipe may lose.")
    ] = None,
    max_lpips_rise: Annotated[
        float | None, typer.Option(metavar="X", min=0, help="LPIPS that a searched recipe may gain.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Size of a searched file, at most.")
    ] = None,
    min_update_sqnr: Annotated[
        float | None,
        typer.Option("--min-update", metavar="DB", help="SQNR that the flow's update must keep."),
    ] = None,
    few: Annotated[
        bool, typer.Option("--few", hidden=True, help="Search on fewer than 10 photographs.")
    ] = False,
    gptq: Annotated[
        bool, typer.Option("--gptq", help="Adjust weights to their rounding: some minutes.")
    ] = False,
    reconstruct: Annotated[bool, typer.Option("--reconstruct", hidden=True)] = False,
    listing: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=_list_and_exit,
            is_eager=True,
            help="Recipes, and the targets that have them.",
        ),
    ] = False,
) -> None:
    """Quantize, export, run every file and compare it with float: OUT/TASK-MODEL."""
    from elir_mobile.terminal import Terminal

    console = Terminal()
    if reconstruct:
        console.print("--reconstruct is called --gptq now; the old name goes with the next release")
    budgeted = max_psnr_drop is not None or max_lpips_rise is not None
    if context.info_name == "search" and not budgeted:
        raise UserError("a search needs a budget: give --max-psnr-drop or --max-lpips-rise")
    for option, value in (("--max-bytes", max_bytes), ("--min-update", min_update_sqnr)):
        if value is not None and not budgeted:
            raise UserError(
                f"{option} alone asks nothing of the pictures: add --max-psnr-drop or --max-lpips-rise"
            )
    if steps == "auto" and not budgeted:
        raise UserError("--steps auto needs a budget: give --max-psnr-drop or --max-lpips-rise")
    if steps not in (None, "auto") and not _is_count(steps, options.MOST_STEPS):
        raise UserError(
            f"--steps {steps[:20]} is no number of steps: give 1 to {options.MOST_STEPS}, or auto"
        )
    if random:
        options.refuse(context, "means nothing with --random-weights: leave one out", *BUDGET, "weights")
    with console.status("loading"):
        from elir_mobile.checkpoints import load_weights, random_weights
        from elir_mobile.harness.report import recommendation_table, terminal_table
        from elir_mobile.metrics import LPIPS_INSTALL, lpips_available
        from elir_mobile.models.roles import layer_roles
        from elir_mobile.precision import check_rules, read_recipe
        from elir_mobile.tasks import get_task
        from export.job import SHORT, Job, select_artifacts
        from quant.budget import fewest_steps, find_recipe, rank_layers, verdicts
        from quant.ptq import run
        from quant.search import FASTEST, Budget

        chosen = get_task(task)
        recipes = [read_recipe(path) for path in recipe or ()]
        artifacts = select_artifacts(targets, precision, console, recipes)
        if budgeted and any(own.name == FASTEST.name for own in recipes):
            raise UserError(f"a search names its recipe '{FASTEST.name}': give yours another name")
        restorer, info = random_weights(chosen, seed) if random else load_weights(weights, chosen)
        if steps not in (None, "auto"):
            info = replace(info, steps=int(steps))
        side = restorer.arch.check_side(info.size if size is None else size, "--size")
        protocol = replace(SHORT, threads=threads or SHORT.threads)
        budget = Budget(max_psnr_drop, max_lpips_rise, max_bytes, min_update_sqnr)
        adjusts = gptq or reconstruct
        asked = budget.of_pictures
        job = Job(chosen, restorer, info, side, artifacts, images, out, seed, protocol, adjusts, asked)
        roles = layer_roles(restorer)
        for _, rounding in artifacts:
            check_rules(rounding, roles)
        if max_lpips_rise is not None and not lpips_available():
            raise UserError(f"--max-lpips-rise needs the weights of LPIPS: {LPIPS_INSTALL}")
    if random:
        console.print("random weights: sizes and speeds mean something, pictures do not")
    elif weights == "demo":
        console.print(
            f"using the bundled demo weights ({info.size} pixels, see docs/demo-model.md); "
            "pass --weights for your own"
        )
    if info.trained and not lpips_available():
        console.print(f"LPIPS is left out, its weights are not installed: {LPIPS_INSTALL}")
    if budgeted:
        if steps == "auto":
            job = replace(job, info=replace(info, steps=fewest_steps(job, budget, few, console)))
        found = find_recipe(job, rank_layers(job, console, few), budget, console)
        artifacts = select_artifacts(targets, precision, console, [*recipes, found.recipe])
        job = replace(job, artifacts=artifacts)
    folder, report = run(job, console)
    console.print(terminal_table(report["rows"]))
    console.print(recommendation_table(report["recommendation"]))
    held = True
    if budgeted:
        found_of = verdicts(report["rows"], FASTEST.name, budget)
        for target, holds, figures in found_of:
            if holds is None:
                console.print(f"{target} {FASTEST.name}, {figures}: nobody knows whether the budget holds")
                continue
            what = "holds" if holds else "does NOT hold"
            console.print(f"{target} {FASTEST.name}, executed: {figures}: the budget {what}")
        known = [holds for _, holds, _ in found_of if holds is not None]
        held = bool(known) and all(known)
    console.print(f"bundle: {folder}\nreport: {folder / 'report' / 'report.html'}")
    if not held:
        raise typer.Exit(1)
