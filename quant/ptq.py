"""Post-training quantization, end to end: ``python -m quant.ptq --task bfr``.

Loads a float restorer, calibrates along its own trajectories, exports one file for each target and
precision (``quant/bundling.py``, ``quant/exporting.py``), and measures the bundle as the harness does
(``elir_mobile/harness``). With a budget (``--max-psnr-drop``, ``--max-lpips-rise``, ``--max-bytes``) it first
searches for the fastest recipe that holds it (``quant/budget.py``), and ends with whether the executed file
does. A run that was stopped finds the files it had already exported beside the bundle and goes on from them.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from elir_mobile.bundle import Bundle, building, write_manifest
from elir_mobile.checkpoints import load_weights, random_weights, save_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.data.pairs import PairSets
from elir_mobile.devices.host import Host
from elir_mobile.harness.charts import label
from elir_mobile.harness.measure import Evaluation, running
from elir_mobile.harness.report import Shown, terminal_table, write_report
from elir_mobile.metrics import LPIPS_INSTALL, lpips_available
from elir_mobile.precision import PRECISIONS, RECIPES, check_rules, read_recipe
from elir_mobile.tasks import get_task
from export.targets import TARGETS, realizes
from quant.budget import find_recipe, rank_layers, verdicts
from quant.bundling import write_bundle
from quant.exporting import waiting_room
from quant.fakequant import layer_names
from quant.job import Job, Stages, select_artifacts, stages
from quant.search import FASTEST, Budget


def run(job: Job, console: Console) -> tuple[Path, dict]:
    """Do the whole job; returns the bundle's folder and the report.

    Raises:
        UserError: images or output folder cannot be used, or a file does not run.
    """
    torch.set_num_threads(job.protocol.threads)
    folder = job.out / job.name
    with stages(console) as shown:
        with shown.stage("loading and degrading images"):
            data = job.pairs()
        with waiting_room(folder) as exports, building(folder) as staging:
            started = time.monotonic()
            bundle = write_bundle(job, data, exports, staging, shown)
            seconds = time.monotonic() - started
            report, pictures = _measure(job, data, bundle, shown)
            report["export_seconds"] = seconds
            write_report(staging / "report", report, pictures)
    return folder, report


def _measure(job: Job, data: PairSets, bundle: Bundle, shown: Stages) -> tuple[dict, Shown | None]:
    """Run every file of ``bundle`` beside the float network; the parity budgets go into its manifest."""
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "float.safetensors"
        save_weights(
            job.restorer,
            weights,
            task=job.task.name,
            size=job.size,
            steps=job.info.steps,
            sigma_s=job.info.sigma_s,
            dtype=torch.float32,
        )
        judged = Evaluation(data.evaluation, data.source, job.seed)
        files = bundle.manifest["files"]
        with (
            shown.stage("running every file"),
            running(
                bundle, files, [Host()], job.protocol, shown.tell, weights=str(weights), judged=judged
            ) as ran,
        ):
            budgets = ran.parity_budgets()
            for entry in files:
                entry["parity"] = budgets[entry["path"]]
            write_manifest(bundle.folder, bundle.manifest)
            report, pictures = ran.report()
    for row in report["rows"]:
        if row["error"]:
            raise UserError(f"{label(row)} was exported but does not run: {row['error']}")
    return report, pictures


def recipes_table() -> Table:
    """Every recipe, what it is made of, and which target realizes it."""
    table = Table(title="recipes and the targets that realize them")
    table.add_column("recipe")
    table.add_column("rules, the first match wins", max_width=48)
    for name in TARGETS:
        table.add_column(name, justify="center")
    for recipe in RECIPES.values():
        rules = "; ".join(f"{rule.pattern} {rule.precision}" for rule in recipe.rules) or "all float32"
        marks = ("yes" if realizes(target, recipe) else "–" for target in TARGETS.values())
        table.add_row(recipe.name, rules, *marks)
    return table


def _list_and_exit(asked: bool) -> None:
    if asked:
        console = Console()
        console.print(recipes_table())
        console.print(
            f"a recipe of your own is a TOML file for --recipe; its rules may name {', '.join(PRECISIONS)}"
        )
        raise typer.Exit


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    task: Annotated[str, typer.Option(help="Restoration task.")],
    weights: Annotated[
        str,
        typer.Option(help="'demo' (bundled), a .pth, .ckpt or .safetensors file, or its http(s) address."),
    ] = "demo",
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of clean images; every other one is kept for evaluation. Default: bundled portraits."
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Image side in pixels. Default: the model's own.")] = None,
    targets: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(TARGETS)}.")] = "executorch",
    precision: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated: {', '.join(RECIPES)}. One that a target does not have is left out for it."
        ),
    ] = "fp32,w8a8",
    recipe: Annotated[
        list[Path] | None, typer.Option(help="A recipe of your own, a TOML file; may be given several times.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the bundle folder is written.")] = Path("out"),
    seed: Annotated[int, typer.Option(help="Seed of noise and degradations.")] = 0,
    random: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="The released architecture untrained: for size and speed only."
        ),
    ] = False,
    max_psnr_drop: Annotated[
        float | None, typer.Option(help="Search a recipe: PSNR may drop by so many dB against float.", min=0)
    ] = None,
    max_lpips_rise: Annotated[
        float | None, typer.Option(help="Search a recipe: LPIPS may rise by so much against float.", min=0)
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(help="Search a recipe: estimated size of its file, at most.", min=1)
    ] = None,
    gptq: Annotated[
        bool,
        typer.Option(
            "--gptq",
            help="Round weights together by what their layers see, and correct biases: some minutes for "
            "smaller errors (docs/quantization.md). Not for weights that were trained quantized.",
        ),
    ] = False,
    reconstruct: Annotated[bool, typer.Option("--reconstruct", hidden=True)] = False,
    listing: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=_list_and_exit,
            is_eager=True,
            help="Show recipes, targets, and which target realizes what.",
        ),
    ] = False,
) -> None:
    """Quantize, export, run every file and compare it with float."""
    console = Console()
    if reconstruct:
        console.print("--reconstruct is called --gptq now; the old name goes with the next release")
    chosen = get_task(task)
    recipes = [read_recipe(path) for path in recipe or ()]
    artifacts = select_artifacts(targets, precision, console, recipes)
    budget = Budget(max_psnr_drop, max_lpips_rise, max_bytes)
    searching = budget.psnr_drop_db is not None or budget.lpips_rise is not None
    if searching and any(own.name == FASTEST.name for own in recipes):
        raise UserError(f"a search names its recipe '{FASTEST.name}': give yours another name")
    if budget.max_bytes and not searching:
        raise UserError(
            "--max-bytes alone asks nothing of the pictures: add --max-psnr-drop or --max-lpips-rise"
        )
    if searching and random:
        raise UserError("a budget for the pictures means nothing with --random-weights: leave one out")
    if random:
        restorer, info = random_weights(chosen, seed)
        console.print("random weights: sizes and speeds mean something, pictures do not")
    else:
        restorer, info = load_weights(weights, chosen)
        if weights == "demo":
            console.print(
                f"using the bundled demo weights ({info.size} pixels, see docs/demo-model.md); "
                "pass --weights for your own"
            )
    side = restorer.arch.check_side(info.size if size is None else size, "--size")
    if info.trained and not lpips_available():
        console.print(f"LPIPS is left out, its weights are not installed: {LPIPS_INSTALL}")
    job = Job(chosen, restorer, info, side, artifacts, images, out, seed, gptq=gptq or reconstruct)
    if recipes:
        known = [name for names in layer_names(job.programs()).values() for name in names]
        for own in recipes:
            check_rules(own, known)
    if searching:
        if budget.lpips_rise is not None and not lpips_available():
            raise UserError(f"--max-lpips-rise needs the weights of LPIPS: {LPIPS_INSTALL}")
        found = find_recipe(job, rank_layers(job, console), budget, console)
        artifacts = select_artifacts(targets, precision, console, [*recipes, found.recipe])
        job = replace(job, artifacts=artifacts)
    folder, report = run(job, console)
    console.print(terminal_table(report["rows"]))
    held = True
    if searching:
        for target, holds, figures in verdicts(report["rows"], FASTEST.name, budget):
            what = "holds" if holds else "does NOT hold"
            console.print(f"{target} {FASTEST.name}, executed: {figures}: the budget {what}")
            held = held and holds
    console.print(f"bundle: {folder}\nreport: {folder / 'report' / 'report.html'}")
    if not held:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
