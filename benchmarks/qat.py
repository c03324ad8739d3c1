"""What quantization-aware training regains: ``python -m benchmarks.qat RUN_DIR``.

Trains the demo model on the training faces for int8, for int4 in the velocity field and for int4 in
every layer, two seeds each, and measures it on the held-out identities against the float model before
training: simulated for every recipe, and run from exported files for w8a8 and w4. Goes on where
it was stopped, and measures what ``python -m quant.qat --out RUN_DIR …`` trained before. Writes
``benchmarks/results/qat.json``.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.demo_model import SEED, heldout_folder
from benchmarks.quantization import W4_EVERYWHERE, Whole, programs_for
from benchmarks.released import RESULTS
from elir_mobile.checkpoints import ModelInfo, load_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.data.pairs import PairSets, load_pair_sets
from elir_mobile.models.restorer import Restorer
from elir_mobile.precision import RECIPES, Recipe
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.tasks import get_task
from export.job import select_artifacts
from export.programs import Samples, build_programs
from export.samples import collect_samples
from export.targets import Target
from quant.qat import Made, QatConfig, make_row, show_rows, simulated, trained, training_images

# Learning rates: the more post-training quantization leaves, the further there is to go.
CONFIGS = [
    QatConfig(recipe, steps=200, batch=4, lr=lr, seed=seed)
    for recipe, lr in ((RECIPES["w8a8"], 1e-5), (RECIPES["w4"], 3e-5), (W4_EVERYWHERE, 1e-4))
    for seed in (0, 1)
]
NAMES = ",".join(dict.fromkeys(config.recipe.name for config in CONFIGS))
# Recipes whose files are run, and the targets.
EXECUTED = {"w8a8": "executorch,litert", "w4": "coreml"}


def lowered(network: Restorer, info: ModelInfo, recipe: Recipe, target: Target, data: PairSets) -> Made:
    """What the file that ``target`` makes of ``network`` does to the evaluation pairs.

    Not by ``quant.ptq``, whose report would hold it against its own network in float: the trained one.
    """
    loop: dict[str, Any] = {"steps": info.steps, "sigma_s": info.sigma_s}
    programs = build_programs(network, size=info.size, form=target.form, **loop)
    samples: Samples = {}
    if recipe.needs_calibration:
        seen = (pair.degraded for pair in data.calibration)
        samples = collect_samples(programs_for(network, info), seen, SEED)
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / f"file{target.suffix}"
        target.lower(programs, recipe, samples, path)
        runner = open_runner(target.name, path, programs.table)
        restored = [
            runner.restore(degraded, noise, **loop)
            for degraded, noise in Whole(network, info).inputs(data.evaluation)
        ]
    images, trajectories = zip(*restored, strict=True)
    trajectory = [torch.cat(latents) for latents in zip(*trajectories, strict=True)]
    return Made.of(torch.cat(images), trajectory, data.evaluation)


def kept_rows(info: ModelInfo, asked: list[str]) -> list[dict]:
    """Rows of these weights, of recipes that are not asked for."""
    path = RESULTS / "qat.json"
    report = json.loads(path.read_text()) if path.is_file() else {}
    if not report or report["model"]["sha256"] != info.sha256:
        return []
    return [row for row in report["rows"] if row["recipe"] not in ("fp32", *asked)]


@exits_with_2
def main(
    run_dir: Annotated[Path, typer.Argument(help="Folder of the runs; give it again to resume.")],
    precision: Annotated[str, typer.Option(help="Of them these alone; the others' rows stay.")] = NAMES,
    executed: Annotated[bool, typer.Option(help="Export and run the files too.")] = True,
) -> None:
    """Train, measure, tabulate."""
    console = Console()
    task = get_task("bfr")
    asked = precision.split(",")
    if unknown := [name for name in asked if name not in NAMES.split(",")]:
        raise UserError(f"'{unknown[0]}' is not trained: choose of {NAMES}")
    configs = [config for config in CONFIGS if config.recipe.name in asked]
    restorer, info = load_weights("demo", task)
    kept = kept_rows(info, asked)
    data = load_pair_sets(heldout_folder(info), task, info.size, SEED)
    images = training_images(None, info.size)
    networks: list[tuple[Recipe, str, Restorer, dict[str, object]]] = [
        (recipe, "ptq", restorer, {}) for recipe in dict.fromkeys(c.recipe for c in configs)
    ]
    for config in configs:
        network, minutes, _ = trained(restorer, info, task, config, images, run_dir)
        facts: dict[str, object] = {"seed": config.seed, "steps": config.steps, "minutes": minutes}
        networks.append((config.recipe, "qat", network, facts))

    reference = simulated(restorer, info, RECIPES["fp32"], data, SEED)
    rows = [make_row("fp32", "float", reference, reference, run_by="pytorch")]
    for recipe, method, network, said in track(networks, "measuring", console=console):
        ours = simulated(network, info, recipe, data, SEED)
        rows.append(make_row(recipe.name, method, ours, reference, run_by="simulation", **said))
    if executed:  # files of plain PTQ: benchmarks.quantization
        files = [
            (target, *trained_one)
            for trained_one in networks
            if trained_one[1] == "qat" and trained_one[0].name in EXECUTED
            for target, _ in select_artifacts(EXECUTED[trained_one[0].name], trained_one[0].name, console)
        ]
        for target, recipe, method, network, said in track(files, "running the files", console=console):
            ours = lowered(network, info, recipe, target, data)
            rows.append(make_row(recipe.name, method, ours, reference, run_by=target.name, **said))
    report = {
        "kind": "qat",
        "model": asdict(info),
        "pairs": len(data.evaluation),
        "batch": CONFIGS[0].batch,
        "learning_rates": {config.recipe.name: config.lr for config in CONFIGS},
        "rows": rows + kept,
    }
    write_json(RESULTS / "qat.json", report)
    console.print(show_rows(rows))


if __name__ == "__main__":
    typer.run(main)
