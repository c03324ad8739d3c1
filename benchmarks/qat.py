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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.demo_model import SEED, heldout_folder
from benchmarks.quantization import W4_EVERYWHERE, heldout_job
from benchmarks.released import RESULTS
from elir_mobile.bundle import read_bundle
from elir_mobile.checkpoints import ModelInfo, load_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.data.pairs import Pair, load_pair_sets
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.precision import RECIPES, Recipe
from elir_mobile.runtimes.runner import Runner, open_runner
from elir_mobile.tasks import get_task
from export.job import select_artifacts
from quant.ptq import run
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


def executed_by(runner: Runner, pairs: list[Pair], info: ModelInfo) -> Made:
    """What a file makes of ``pairs``. A bundle's report holds it against its own network in float, which
    is the trained one."""
    shape = runner.encode(pairs[0].degraded).shape
    noises = [seeded_noise(tuple(shape), SEED + i) for i in range(len(pairs))]
    restored = [
        runner.restore(pair.degraded, noise, steps=info.steps, sigma_s=info.sigma_s)
        for pair, noise in zip(pairs, noises, strict=True)
    ]
    images, trajectories = zip(*restored, strict=True)
    return Made.of(torch.cat(images), [torch.cat(at) for at in zip(*trajectories, strict=True)], pairs)


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
    networks: list[tuple[Recipe, str, Restorer, ModelInfo, dict[str, object]]] = [
        (recipe, "ptq", restorer, info, {}) for recipe in dict.fromkeys(c.recipe for c in configs)
    ]
    for config in configs:
        network, minutes, path = trained(restorer, info, task, config, images, run_dir)
        facts: dict[str, object] = {"seed": config.seed, "steps": config.steps, "minutes": minutes}
        networks.append((config.recipe, "qat", network, load_weights(str(path), task)[1], facts))

    reference = simulated(restorer, info, RECIPES["fp32"], data, SEED)
    rows = [make_row("fp32", "float", reference, reference, run_by="pytorch")]
    for recipe, method, network, _, said in track(networks, "measuring", console=console):
        ours = simulated(network, info, recipe, data, SEED)
        rows.append(make_row(recipe.name, method, ours, reference, run_by="simulation", **said))
    if executed:
        for recipe, method, network, its_info, said in networks:
            if method == "ptq" or recipe.name not in EXECUTED:
                continue  # files of plain PTQ: benchmarks.quantization
            with tempfile.TemporaryDirectory() as out:
                artifacts = select_artifacts(EXECUTED[recipe.name], recipe.name, console)
                job = replace(heldout_job(task.name, out, network, its_info), artifacts=artifacts)
                bundle = read_bundle(run(job, console)[0])
                for target, _ in artifacts:
                    path = bundle.file(target.name, recipe.name)
                    ours = executed_by(open_runner(target.name, path, bundle.table), data.evaluation, info)
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
