"""Which layers int8 hurts: ``elir-mobile sensitivity --task bfr``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json


@exits_with_2
def main(
    context: typer.Context,
    task: options.Task,
    weights: options.Weights = "demo",
    images: options.Images = None,
    precision: options.Precision = "w8a8",
    recipe: options.RecipeFile = None,
    count: Annotated[int, options.count("How many pairs to judge on.")] = 8,
    out: options.Out = Path("out"),
    seed: options.Seed = 0,
) -> None:
    """Rank the layers by what rounding each alone does.

    To the picture, and what rounding all but it does. A run that was stopped goes on where it was.
    """
    from elir_mobile.terminal import Terminal

    chosen = options.one_recipe(context, precision, recipe)
    console = Terminal()
    with console.status("calibrating"):
        import matplotlib  # noqa: F401 - if it is missing, say so before all is measured

        from elir_mobile.checkpoints import load_weights
        from elir_mobile.metrics import LPIPS_INSTALL, lpips_available
        from elir_mobile.precision import FP32, check_rules
        from elir_mobile.tasks import get_task
        from export.observers import activation_bits
        from quant.sensitivity import HOW, layer_table, make_judge, measure_all, plot, to_json

        if chosen.precisions <= {FP32}:
            raise UserError(f"recipe '{chosen.name}' rounds no layer: choose another")
        restorer, info = load_weights(weights, get_task(task))
        if not lpips_available():
            console.print(f"LPIPS is left out, its weights are not installed: {LPIPS_INSTALL}")
        judge = make_judge(restorer, info, task, images, count, seed, activation_bits(chosen) or 8)
        check_rules(chosen, judge.programs.roles)
    facts = {
        "task": task,
        "weights": info.sha256,
        "recipe": chosen.to_json(),
        "pairs": [pair.name for pair in judge.pairs],
        "images": str(images or "bundled pictures"),
        "seed": seed,
        "protocol": HOW,
    }
    out.mkdir(parents=True, exist_ok=True)
    stem = f"sensitivity-{task}-{info.name}-{chosen.name}"
    partial = out / f".{stem}.jsonl"
    rows = measure_all(judge, chosen.on(judge.programs.roles), partial, facts, console)
    with console.status("rounding all layers"):
        whole = to_json(judge.judge(chosen))
    shown = images.name if images else "bundled pictures"
    result = {"kind": "sensitivity", **facts, "images": shown, "whole": whole, "rows": rows}
    plot(rows, f"{task}, {info.name} weights, {chosen.name}, {count} pairs, simulated", out / f"{stem}.png")
    write_json(out / f"{stem}.json", result)
    partial.unlink()
    console.print(layer_table(rows))
    console.print(f"{HOW}\n{out / stem}.json\n{out / stem}.png")
