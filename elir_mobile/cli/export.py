"""Export one file: ``elir-mobile export --task bfr --target litert --precision w8 out.tflite``.

For a bundle of several files that are run, compared and reported on, use ``elir-mobile quantize``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import read_bytes, write_text, written

_FACTS = ("task", "model", "recipe", "table", "delegation")  # that the file beside an exported one has


def check_place(out: Path) -> None:
    """Refuse to replace a folder, or what lies where the facts of the exported file go, if it is not this
    command's own.

    Raises:
        UserError: it is not.
    """
    from elir_mobile.core.manifest import artifact_sha256

    beside = out.with_name(f"{out.name}.json")
    try:
        facts = json.loads(read_bytes(beside)) if beside.exists() else {}
        if facts and not all(name in facts for name in _FACTS):
            raise UserError(f"{beside} is not what export wrote there: choose another name, or move it away")
        ours = not out.is_dir() or facts.get("sha256") == artifact_sha256(out)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{beside} is not what export wrote there: choose another name") from error
    if not ours:
        raise UserError(f"{out} is not what export wrote there: choose another name, or move it away")


@exits_with_2
def main(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    task: options.Task,
    target: options.Target,
    precision: options.Precision = "w8a8",
    recipe: options.RecipeFile = None,
    weights: options.Weights = "demo",
    images: options.Images = None,
    size: options.Size = None,
    seed: options.Seed = 0,
) -> None:
    """Write one exported file, without running it.

    Beside FILE comes FILE.json: size, steps, time table, delegation. Calibrates as quantize
    does, on every other image, and so writes what quantize writes.
    """
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    from elir_mobile.terminal import Described, Terminal

    rounding = options.one_recipe(context, precision, recipe)
    console = Terminal()
    with console.status("loading"):
        from elir_mobile.checkpoints import load_weights
        from elir_mobile.core.manifest import artifact_sha256, bytes_of
        from elir_mobile.data.pairs import PairCounts, load_pair_sets
        from elir_mobile.precision import check_rules
        from elir_mobile.runtimes.table import can_run, not_executed
        from elir_mobile.tasks import get_task
        from export.programs import Samples, build_programs
        from export.samples import collect_samples
        from export.targets import get_target, realizes

        chosen, kind = get_task(task), get_target(target)
        if not realizes(kind, rounding):
            raise UserError(f"{target} has no {rounding.name}: use {', '.join(kind.precisions)}")
        check_place(out)
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
        check_rules(rounding, programs.roles)
        pairs = []
        if rounding.needs_calibration:
            none = PairCounts(max_evaluation=0)
            pairs = load_pair_sets(images, chosen, side, seed, none, info.domain).calibration
    columns = (SpinnerColumn(), Described(), TimeElapsedColumn())
    with written(out) as staged, Progress(*columns, console=console) as progress:
        samples: Samples = {}
        if pairs:
            calibrating = progress.add_task("calibrating", total=1)
            samples = collect_samples(programs, (pair.degraded for pair in pairs), seed)
            progress.advance(calibrating)
        progress.add_task(f"exporting {target} {rounding.name}", total=None)
        delegation = kind.lower(programs, rounding, samples, staged)
        facts = {
            "sha256": artifact_sha256(staged),
            "task": task,
            "model": asdict(info),
            **kind.to_json(),
            "recipe": rounding.to_json(),
            "size": side,
            "steps": programs.steps,
            "sigma_s": programs.sigma_s,
            "table": programs.table.tolist(),
            "delegation": {name: asdict(found) for name, found in delegation.items()},
        }
    write_text(out.with_name(f"{out.name}.json"), json.dumps(facts) + "\n")
    console.print(f"wrote {out}, {bytes_of(out) / 1e6:.2f} MB, and {out.name}.json")
    if not can_run("host", facts):
        console.print(f"{target} is {not_executed(facts)}")
