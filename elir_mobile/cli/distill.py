"""Distill a checkpoint into a lighter one: ``elir-mobile distill --task bfr --weights F --data PHOTOS``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import BLAS_BYTES, check_memory, exits_with_2
from elir_mobile.core.files import locked


@exits_with_2
def main(
    task: options.Task,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Pictures; no labels are needed.")],
    weights: options.Weights = "demo",
    autoencoder: Annotated[
        Literal["half", "taesd"], typer.Option(help="Form of the student's autoencoder.")
    ] = "half",
    steps: Annotated[
        int, typer.Option(metavar="K", min=1, max=options.MOST_STEPS, help="The student's steps.")
    ] = 2,
    size: options.Size = None,
    minutes: Annotated[
        float, typer.Option(metavar="N", min=0.01, help="Of processor time, for all stages.")
    ] = 60,
    out: options.RunFolder = Path("out/distill"),
    seed: options.Seed = 0,
    threads: options.Threads = None,
) -> None:
    """Train a lighter network to do what a checkpoint does.

    Writes OUT/distilled.safetensors, an ordinary checkpoint, and strips to look at on the way. A run that
    was stopped goes on.
    """
    import torch

    from elir_mobile.terminal import Terminal

    console = Terminal()
    with console.status("loading"):
        from elir_mobile.checkpoints import load_weights
        from elir_mobile.tasks import get_task

        check_memory(BLAS_BYTES)
        from elir_mobile.training.distill import Distillation, Distiller, student_of

        if threads:
            torch.set_num_threads(threads)
        chosen = get_task(task)
        teacher, info = load_weights(weights, chosen)
        side = teacher.arch.check_side(info.size if size is None else size, "--size")
        torch.manual_seed(seed)
        asked = Distillation(chosen, info, steps, side, minutes, seed)
        distiller = Distiller(teacher, student_of(teacher, autoencoder), asked, data)
    with locked(out, f"another run is in {out}: wait until it ends, or name another --out"):
        path = distiller.run(out)
    console.print(f"weights: {path}; quantize them: elir-mobile quantize --task {task} --weights {path}")
