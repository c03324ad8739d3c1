"""Export one file: ``python -m export --task bfr --target litert --precision w8 out.tflite``.

For a bundle of several files that are run, compared and reported on, use ``python -m quant.ptq``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from elir_mobile.checkpoints import load_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.manifest import bytes_of
from elir_mobile.data.pairs import PairCounts, load_pair_sets
from elir_mobile.precision import RECIPES, check_rules, get_recipe
from elir_mobile.tasks import get_task
from export.programs import Samples, build_programs
from export.samples import collect_samples
from export.targets import TARGETS, get_target

app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    task: Annotated[str, typer.Option(help="Restoration task.")],
    target: Annotated[str, typer.Option(help=f"One of {', '.join(TARGETS)}.")],
    precision: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")],
    weights: Annotated[
        str,
        typer.Option(
            help="'demo' (bundled), 'released', a .pth, .ckpt or .safetensors file, or its http(s) address."
        ),
    ] = "demo",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of clean images to calibrate w8a8 on. Default: bundled portraits."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Image side in pixels. Default: the model's own.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of noise and degradations in calibration.")] = 0,
) -> None:
    """Write one exported file, and beside it ``FILE.json``: size, steps, time table, delegation."""
    console = Console()
    chosen, recipe, kind = get_task(task), get_recipe(precision), get_target(target)
    if recipe.name not in kind.precisions:
        raise UserError(f"{target} has no {precision}: use {', '.join(kind.precisions)}")
    if out.suffix != kind.suffix:
        raise UserError(f"{out} is no name for a {target} file: end it in {kind.suffix}")
    restorer, info = load_weights(weights, chosen)
    side = restorer.arch.check_side(info.size if size is None else size, "--size")
    programs = build_programs(
        restorer,
        size=side,
        steps=info.steps,
        sigma_s=info.sigma_s,
        form=kind.form,
    )
    check_rules(recipe, programs.roles)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another place") from error
    with staging, Progress(*columns, console=console) as progress:
        samples: Samples = {}
        if recipe.needs_calibration:
            progress.add_task("calibrating", total=None)
            counts = PairCounts(max_evaluation=1, min_evaluation=1)
            pairs = load_pair_sets(images, chosen, side, seed, counts).calibration
            samples = collect_samples(programs, (pair.degraded for pair in pairs), seed)
        progress.add_task(f"exporting {target} {precision}", total=None)
        staged = Path(staging.name) / out.name
        delegation = kind.lower(programs, recipe, samples, staged)
        facts = {
            "task": task,
            "model": asdict(info),
            **kind.to_json(),
            "recipe": recipe.to_json(),
            "size": side,
            "steps": programs.steps,
            "sigma_s": programs.sigma_s,
            "table": programs.table.tolist(),
            "delegation": {name: asdict(d) for name, d in delegation.items()},
        }
        if out.is_dir():
            shutil.rmtree(out)
        staged.replace(out)
        beside = Path(staging.name) / "facts.json"
        beside.write_text(json.dumps(facts) + "\n")
        beside.replace(out.with_name(f"{out.name}.json"))
    console.print(f"wrote {out}, {bytes_of(out) / 1e6:.2f} MB, and {out.name}.json")


if __name__ == "__main__":
    app()
