"""Which layers int8 hurts; the command is :mod:`elir_mobile.cli.sensitivity`.

Every layer that the recipe rounds is rounded alone, and everything but it; each time the whole
restoration is simulated (``export/simulate.py``) and held against float. Writes a ranked table as
JSON and a plot. A run that was stopped goes on from the layers it has done.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import, so that Ctrl-C is no traceback
    from elir_mobile.cli.options import alone
    from elir_mobile.cli.sensitivity import main

    alone(main)()

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from elir_mobile.checkpoints import ModelInfo
from elir_mobile.core.files import write_text
from elir_mobile.core.statistics import unless_equal
from elir_mobile.data.pairs import PairCounts, load_pair_sets
from elir_mobile.models.restorer import Restorer
from elir_mobile.precision import FP32, Recipe, Rule
from elir_mobile.tasks import get_task
from export.calibrate import calibrate
from export.programs import PROGRAM_NAMES, build_programs
from export.samples import collect_samples
from quant.judge import Judge, Verdict

SHOWN = 20  # layers in the terminal's table and in the plot
HOW = "fake quantization in eager PyTorch (export/simulate.py), no exported file was run"


def make_judge(
    restorer: Restorer, info: ModelInfo, task: str, images: Path | None, count: int, seed: int, bits: int
) -> Judge:
    """Float programs calibrated on some pairs for ``bits`` of activations, to be judged on ``count`` others.

    Raises:
        UserError: the images cannot be used.
    """
    counts = PairCounts(min_evaluation=count, max_evaluation=count)
    data = load_pair_sets(images, get_task(task), info.size, seed, counts, info.domain)
    programs = build_programs(restorer, size=info.size, steps=info.steps, sigma_s=info.sigma_s)
    samples = collect_samples(programs, [pair.degraded for pair in data.calibration], seed)
    return Judge(programs, calibrate(programs, samples, bits=bits), data.evaluation, seed)


def measure_layer(judge: Judge, recipe: Recipe, layer: str, program: str) -> dict:
    """The row of ``recipe`` on ``layer`` alone and on all other layers."""
    precision = recipe.precision_of(layer)
    alone = Recipe("alone", (Rule(layer, precision),))
    others = Recipe("others", (Rule(layer, FP32), *recipe.rules))
    facts = {"layer": layer, "program": program, "precision": precision.name}
    return {**facts, "alone": to_json(judge.judge(alone)), "others": to_json(judge.judge(others))}


def rounded_layers(judge: Judge, recipe: Recipe) -> list[tuple[str, str]]:
    """(program, layer) of every layer that ``recipe`` rounds, in the order they run."""
    return [
        (program, layer)
        for program in PROGRAM_NAMES
        for layer in judge.layers[program]
        if recipe.precision_of(layer) != FP32
    ]


def to_json(verdict: Verdict) -> dict:
    """As JSON: infinite decibels, where nothing differs, become null.

    Raises:
        UserError: what was rounded gives values that are not finite.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return unless_equal(value) if isinstance(value, float) else value

    return {key: plain(value) for key, value in asdict(verdict).items()}


def ranked(rows: list[dict]) -> list[dict]:
    """The layer first whose rounding alone takes the restored image furthest from float."""

    def image_db(row: dict) -> float:
        value = row["alone"]["image_db"]
        return math.inf if value is None else value

    return sorted(rows, key=image_db)


def measure_all(judge: Judge, recipe: Recipe, partial: Path, facts: dict, console: Console) -> list[dict]:
    """Rows of every rounded layer, ranked; ``partial`` keeps them line by line until all are there.

    Args:
        facts: what the rows depend on; a ``partial`` of other facts is started anew.
    """
    header = json.dumps(facts, sort_keys=True)
    lines = partial.read_text().splitlines() if partial.is_file() else []
    if not lines or lines[0] != header:
        lines = [header]
    rows = []
    for line in lines[1:]:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # the line that was being written
            break
    write_text(partial, "\n".join([header, *(json.dumps(row) for row in rows)]) + "\n")
    done = {(row["program"], row["layer"]) for row in rows}
    todo = [pair for pair in rounded_layers(judge, recipe) if pair not in done]
    if done:
        console.print(f"{len(done)} layers were measured before")
    with partial.open("a") as file:
        for program, layer in track(todo, "rounding layer by layer", console=console):
            rows.append(measure_layer(judge, recipe, layer, program))
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    return ranked(rows)


def db(value: float | None) -> str:
    """Decibels for people."""
    return "exact" if value is None else f"{value:.1f}"


def layer_table(rows: list[dict]) -> Table:
    """The most sensitive layers."""
    table = Table(
        title=f"the {min(SHOWN, len(rows))} most sensitive of {len(rows)} layers, each rounded alone",
        caption="SQNR (dB) of program, last latent, image; PSNR drop, LPIPS rise; PSNR drop of all but it",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("layer", overflow="fold")
    for name in ("program", "latent", "image", "PSNR", "LPIPS", "but it"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:SHOWN]:
        alone, others = row["alone"], row["others"]
        table.add_row(
            row["layer"],
            db(alone["program_db"][row["program"]]),
            db(alone["trajectory_db"][-1]),
            db(alone["image_db"]),
            f"{alone['psnr_drop_db']:.3f}",
            "–" if alone["lpips_rise"] is None else f"{alone['lpips_rise']:.4f}",
            f"{others['psnr_drop_db']:.3f}",
        )
    return table


def plot(rows: list[dict], title: str, path: Path) -> None:
    """Error of the image for each of the most sensitive layers, alone and with it left in float."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shown = rows[:SHOWN][::-1]
    figure = Figure(figsize=(8, 0.28 * len(shown) + 1.4), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(PROGRAM_NAMES, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    values = [row["alone"]["image_db"] or math.nan for row in shown]
    axes.barh([row["layer"] for row in shown], values, color=[colours[row["program"]] for row in shown])
    axes.set_xlabel("SQNR of the restored image with this layer alone in int8, dB (short: sensitive)")
    axes.set_title(title, fontsize="medium")
    axes.tick_params(axis="y", labelsize="small")
    handles = [Rectangle((0, 0), 1, 1, color=colours[name]) for name in PROGRAM_NAMES]
    figure.legend(handles, PROGRAM_NAMES, loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=110)
