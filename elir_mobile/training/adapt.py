"""Adapt the bundled demo model to another task: ``python -m elir_mobile.training.adapt RUN_DIR --task sr``.

The bundled model is the one for bfr, and its decoder stays: all demo models share it. Encoder, coarse
estimator and velocity field are trained with the task's degradation through the sampling loop against
pixels, as in the last stage of :mod:`elir_mobile.training.demo`. Resumes where it was stopped. The result
is ``RUN_DIR/TASK/demo-TASK.safetensors``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from elir_mobile.checkpoints import load_weights, save_weights
from elir_mobile.core.errors import exits_with_2
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.tasks import ALIGNED_FACE, get_task
from elir_mobile.training.demo import EMA_DECAY, SIZE, STRIP_FACES
from elir_mobile.training.drawing import degrade, draw_batch
from elir_mobile.training.loop import fit
from elir_mobile.training.pixels import SampledTraining

BATCH, LR = 4, 5e-4

app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    run_dir: Annotated[
        Path, typer.Argument(help="Folder of checkpoints and strips; give it again to resume.")
    ],
    task: Annotated[str, typer.Option(help="Task to adapt to.")],
    steps: Annotated[int, typer.Option(help="Optimizer steps, a multiple of 100.")] = 300,
    start: Annotated[
        Path | None,
        typer.Option(help="Weights of the task to go on from. Default: the bundled ones for bfr."),
    ] = None,
) -> None:
    """Train the demo model of a task."""
    chosen = get_task(task)
    student, _ = load_weights(str(start), chosen) if start else load_weights("demo", get_task("bfr"))
    train_names, heldout_names = face_split()
    images, samples = load_faces(train_names, SIZE), load_faces(heldout_names[:STRIP_FACES], SIZE)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
        drawn = draw_batch(images, chosen, BATCH, generator)
        return drawn.degraded, drawn.clean, drawn.seed

    rng = np.random.default_rng(0)
    strip = torch.stack([degrade(image, chosen, rng) for image in samples]), samples.float() / 255
    torch.manual_seed(0)
    module = SampledTraining(
        student,
        trained=("enc", "mmse", "fmir"),
        coarse_images=1,
        sampling_steps=chosen.steps,
        sigma_s=chosen.sigma_s,
        steps=steps,
        lr=LR,
    )
    folder = run_dir / task
    fit(module, batch, partial(module.draw, *strip), folder, steps=steps, seed=8, ema_decay=EMA_DECAY)
    path = folder / f"demo-{task}.safetensors"
    save_weights(
        student.eval(),
        path,
        task=task,
        size=SIZE,
        steps=chosen.steps,
        sigma_s=chosen.sigma_s,
        domain=ALIGNED_FACE,
    )
    typer.echo(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB: copy it to elir_mobile/weights/")


if __name__ == "__main__":
    app()
