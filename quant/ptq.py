"""Post-training quantization, end to end; the command is :mod:`elir_mobile.cli.quantize`.

Loads a float restorer, calibrates along its own trajectories, exports one file for each target and
precision (``export/artifacts.py``), and measures the bundle as the harness does
(``elir_mobile/harness``). With a budget (``--max-psnr-drop``, ``--max-lpips-rise``, ``--max-bytes``) it first
searches for the fastest recipe that holds it (``quant/budget.py``), and ends with whether the executed file
does. A run that was stopped finds the files it had already exported beside the bundle and goes on from them.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import, so that Ctrl-C is no traceback
    from elir_mobile.cli.options import alone
    from elir_mobile.cli.quantize import main

    alone(main)()

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from elir_mobile.bundle import building, write_bundle, write_golden
from elir_mobile.checkpoints import save_weights
from elir_mobile.core.manifest import read_golden
from elir_mobile.data.pairs import load_pair_sets
from elir_mobile.harness.measure import Evaluation, measure_written
from elir_mobile.harness.report import write_report
from elir_mobile.precision import RECIPES
from elir_mobile.runtimes.eager import eager_runner
from elir_mobile.runtimes.table import can_run, not_executed
from elir_mobile.terminal import Stages
from export.artifacts import export, waiting_room
from export.job import Job
from export.programs import Samples
from export.reached import reached_db
from export.samples import collect_samples, digest
from export.targets import TARGETS, realizes


def run(job: Job, console: Console) -> tuple[Path, dict]:
    """Do the whole job; returns the bundle's folder and the report.

    Raises:
        UserError: images or output folder cannot be used, or a file does not run.
    """
    torch.set_num_threads(job.protocol.threads)
    folder = job.out / job.name
    with Stages(console) as shown, waiting_room(folder) as exports:
        with shown.stage("loading and degrading images"):
            programs = job.programs()
            data = load_pair_sets(job.images, job.task, job.size, job.seed, job.counts, job.info.domain)
        with building(folder) as staging:
            started = time.monotonic()
            picture = data.evaluation[0].degraded
            float_network = eager_runner(job.restorer, programs.steps)
            golden = write_golden(staging, float_network, picture, programs.steps, programs.sigma_s)
            samples: Samples = {}
            calibration: dict[str, Any] = {}
            if any(recipe.needs_calibration or job.adjusts(recipe) for _, recipe in job.artifacts):
                images = [pair.degraded for pair in data.calibration]
                watched = shown.track(images, description="recording float trajectories")
                samples = collect_samples(programs, watched, job.seed)
                calibration = {
                    "sha256": digest(samples),
                    "images": [pair.name for pair in data.calibration],
                    "calls": {name: len(inputs) for name, inputs in samples.items()},
                }
            files = export(job, samples, calibration.get("sha256", ""), exports, staging, shown)
            seconds = time.monotonic() - started
            with shown.stage("simulating every precision"):
                vectors = read_golden(staging, golden)
                reached = {
                    recipe: reached_db(programs, recipe, vectors, golden["seed"])
                    for recipe in dict.fromkeys(recipe for _, recipe in job.artifacts)
                }
            bundle = write_bundle(
                staging,
                job.task,
                job.restorer,
                job.info,
                size=job.size,
                table=programs.table,
                golden=golden,
                files=files,
                calibration=calibration,
                budget=job.budget,
            )
            with shown.stage("running every file"), tempfile.TemporaryDirectory() as scratch:
                weights = Path(scratch) / "float.safetensors"
                save_weights(
                    job.restorer,
                    weights,
                    task=job.task.name,
                    size=job.size,
                    steps=programs.steps,
                    sigma_s=programs.sigma_s,
                    domain=job.info.domain,
                    dtype=torch.float32,
                )
                judged = Evaluation(data.evaluation, data.source, job.seed)
                by_path = {
                    entry["path"]: reached[recipe]
                    for entry, (_, recipe) in zip(files, job.artifacts, strict=True)
                }
                report, pictures = measure_written(
                    bundle, str(weights), judged, job.protocol, shown.tell, by_path
                )
            report["export_seconds"] = seconds
            write_report(staging / "report", report, pictures)
    return folder, report


def recipes_table() -> Table:
    """Every recipe, what it is made of, and which target realizes it."""
    table = Table(title="recipes and the targets that realize them")
    table.add_column("recipe")
    table.add_column("rules, the first match wins", max_width=44)
    table.add_column("targets")
    for recipe in RECIPES.values():
        rules = "; ".join(f"{rule.pattern} {rule.precision.name}" for rule in recipe.rules) or "all float32"
        table.add_row(
            recipe.name,
            rules,
            ", ".join(name for name, target in TARGETS.items() if realizes(target, recipe)),
        )
    left = [target.to_json() for target in TARGETS.values() if not can_run("host", target.to_json())]
    table.caption = "\n".join(f"{entry['target']}: {not_executed(entry)}" for entry in left)
    return table
