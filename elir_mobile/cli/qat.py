"""Quantization-aware training: ``elir-mobile qat --task bfr --precision w4``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import BLAS_BYTES, UserError, check_memory, exits_with_2
from elir_mobile.core.files import write_json


@exits_with_2
def main(
    context: typer.Context,
    task: options.Task,
    precision: options.Precision = "w8a8",
    recipe: options.RecipeFile = None,
    weights: options.Weights = "demo",
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Clean images. Default: the face set.")
    ] = None,
    evaluate: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="To measure on. Default: the bundled pictures.")
    ] = None,
    out: options.Out = Path("out"),
    steps: Annotated[int, options.count("Of training, a multiple of 50.", least=None)] = 200,
    batch: Annotated[int, options.count("Images a step.")] = 4,
    lr: Annotated[float, typer.Option(metavar="X", help="At its peak; w4 everywhere: 1e-4.")] = 1e-5,
    seed: options.Seed = 0,
) -> None:
    """Train a network quantized, and compare it with float and PTQ.

    The comparison is simulated. A run that was stopped goes on where it was.
    """
    from elir_mobile.terminal import Terminal

    rounding = options.one_recipe(context, precision, recipe)
    console = Terminal()
    with console.status("loading"):
        check_memory(BLAS_BYTES)
        import lightning  # noqa: F401 - if it is missing, say so before pictures are fetched
        from rich.progress import track

        from elir_mobile.checkpoints import load_weights
        from elir_mobile.data.pairs import load_pair_sets
        from elir_mobile.precision import RECIPES
        from elir_mobile.tasks import get_task
        from quant.qat import (
            SAVE_EVERY,
            QatConfig,
            make_row,
            show_rows,
            simulated,
            trained,
            training_images,
        )

        chosen = get_task(task)
        if steps <= 0 or steps % SAVE_EVERY:
            raise UserError(f"--steps {steps} is not a positive multiple of {SAVE_EVERY}")
        restorer, info = load_weights(weights, chosen)
    pictures = training_images(images, info.size)
    config = QatConfig(rounding, steps, batch, lr, seed)
    network, minutes, path = trained(restorer, info, chosen, config, pictures, out)
    data = load_pair_sets(evaluate, chosen, info.size, 0, domain=info.domain)
    float_recipe = RECIPES["fp32"]
    jobs = [("float", restorer, float_recipe), ("ptq", restorer, rounding), ("qat", network, rounding)]
    made = [simulated(one, info, how, data, 0) for _, one, how in track(jobs, "measuring", console=console)]
    rows = [
        make_row(how.name, method, ours, made[0], run_by="simulation")
        for (method, _, how), ours in zip(jobs, made, strict=True)
    ]
    rows[-1] |= {"seed": seed, "steps": steps, "minutes": minutes}
    write_json(path.with_name("report.json"), {"data": data.source, "rows": rows})
    console.print(show_rows(rows))
    console.print(
        f"wrote {path}; export it by: elir-mobile quantize --task {task} --weights {path} "
        + (f"--recipe {recipe}" if recipe else f"--precision {precision}")
    )
