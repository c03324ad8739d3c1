"""Train a restorer on a folder of clean pictures: ``python -m elir_mobile.train --task T --data DIR``.

The loss is LCFM (:mod:`elir_mobile.training.lcfm`), every constant and ablation of the paper an option;
the defaults are upstream's (``configs/elir_train_*.yaml``). Resumes where it was stopped. On several
devices: ``torchrun --nproc-per-node N -m elir_mobile.train …``, with the same result. The run's folder
gets ``last.ckpt``, sample strips, TensorBoard files, and at last the weights in float16.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from elir_mobile.checkpoints import load_weights, save_weights
from elir_mobile.errors import UserError, exits_with_2
from elir_mobile.images import list_images
from elir_mobile.models.restorer import Restorer
from elir_mobile.tasks import Task, get_task
from elir_mobile.training.demo import RECIPES
from elir_mobile.training.folder import (
    Pictures,
    TaughtTraining,
    finished,
    latent_channels,
    load_autoencoder,
    new_student,
    remove_coarse,
)
from elir_mobile.training.lcfm import LcfmConfig
from elir_mobile.training.loop import Compute, fit

LR = {"bfr": 1e-4}  # upstream's peak learning rates
OTHER_LR = 2e-4
DT = {"bsr": 0.2}
OTHER_DT = 0.05
STRIP_IMAGES = 4
OUT = Path("out") / "train"

app = typer.Typer(add_completion=False)


def check(condition: bool, message: str) -> None:
    """Raise a :class:`UserError` unless ``condition``."""
    if not condition:
        raise UserError(message)


@rank_zero_only
def keep_options(run_dir: Path, options: dict[str, Any]) -> None:
    """Write the options that a run's result depends on, or see that they are what it began with.

    Raises:
        UserError: the folder is of a run with other options.
    """
    path = run_dir / "options.json"
    if path.exists():
        began = json.loads(path.read_text())
        for name, value in options.items():
            check(
                began.get(name) == value,
                f"{run_dir} is of a run with {name} = {began.get(name)}, not {value}: "
                "give the same options to resume it, or another --out",
            )
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".tmp")
    staged.write_text(json.dumps(options, indent=2) + "\n")
    staged.replace(path)


@rank_zero_only
def write_weights(student: Restorer, path: Path, task: Task, size: int, sigma_s: float) -> None:
    """The collapsed network in float16."""
    save_weights(finished(student), path, task=task.name, size=size, steps=task.steps, sigma_s=sigma_s)
    typer.echo(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB")


@app.command()
@exits_with_2
def main(
    task: Annotated[str, typer.Option(help="Restoration task; says how images are degraded.")],
    data: Annotated[Path, typer.Option(help="Folder of clean images.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; give it again to resume.")] = Path(
        "out/train"
    ),
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint whose encoder and decoder define the latent space: TAESD3's (give the option "
            "twice for two files), or an ELIR one's, though its encoder learned from degraded images. "
            "Default: the demo's, which knows small faces only."
        ),
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Weights to fine-tune, collapsed; otherwise a new network.")
    ] = None,
    network: Annotated[
        Literal["released", "demo"],
        typer.Option(help="Widths and depths of a new coarse estimator and velocity field."),
    ] = "released",
    size: Annotated[int | None, typer.Option(help="Side of the training images, pixels.", min=16)] = None,
    crops: Annotated[
        bool | None,
        typer.Option(
            "--crops/--whole", help="Random crops, or central squares resized. Default: crops for bsr."
        ),
    ] = None,
    objective: Annotated[
        Literal["consistency", "flow"], typer.Option(help="Consistency (LCFM), or plain flow matching.")
    ] = "consistency",
    segments: Annotated[
        int, typer.Option(help="K segments of the consistency loss; 1: without segments.", min=1)
    ] = 5,
    coarse: Annotated[bool, typer.Option(help="With or without the coarse estimator.")] = True,
    encoder: Annotated[
        bool, typer.Option("--train-encoder/--freeze-encoder", help="Fine-tune the encoder or not.")
    ] = True,
    sigma_s: Annotated[
        float | None, typer.Option(help="Noise on the coarse latent. Default: the task's.", min=0)
    ] = None,
    sigma_min: Annotated[float, typer.Option(help="Noise left at the path's end.", min=0)] = 1e-5,
    alpha: Annotated[float, typer.Option(help="Weight of the velocity term.", min=0)] = 0.001,
    beta: Annotated[float, typer.Option(help="Weight of the decoded images.", min=0, max=1)] = 0.001,
    dt: Annotated[
        float | None,
        typer.Option(help="Time between the two velocities. Default: 0.05; bsr 0.2.", min=1e-4, max=0.9),
    ] = None,
    flow_repeats: Annotated[int, typer.Option(help="Times and noises for each image.", min=1)] = 1,
    decoded_images: Annotated[
        int | None, typer.Option(help="Decode only so many of a batch. Default: all.", min=1)
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps.", min=1)] = 100_000,
    batch: Annotated[int, typer.Option(help="Images a step, over all devices.", min=1)] = 16,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: 1e-4 for bfr, else 2e-4.")
    ] = None,
    ema_decay: Annotated[float, typer.Option(help="Of the average of the weights.", min=0, max=1)] = 0.999,
    clip: Annotated[float, typer.Option(help="Largest norm of a gradient.", min=0)] = 1.0,
    precision: Annotated[
        Literal["32-true", "bf16-mixed", "16-mixed"], typer.Option(help="Mixed precision or not.")
    ] = "32-true",
    devices: Annotated[int, typer.Option(help="Devices of this machine; torchrun overrules.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines; torchrun overrules.", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="Processes that prepare images, a device.", min=0)] = 2,
    cache_mb: Annotated[int, typer.Option(help="Memory for latents of the teacher, MB.", min=0)] = 2048,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints and strips.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of weights, batches and noise.", min=0)] = 0,
) -> None:
    """Train, and write OUT/TASK.safetensors."""
    chosen = get_task(task)
    compute = Compute.from_environment(devices, nodes, precision, workers)
    size = size or chosen.size
    crops = chosen.name == "bsr" if crops is None else crops
    sigma_s = chosen.sigma_s if sigma_s is None else sigma_s
    lr = lr or LR.get(task, OTHER_LR)
    dt = dt or DT.get(task, OTHER_DT)
    check(not steps % save_every, f"make --steps {steps} a multiple of --save-every {save_every}")
    parts = compute.processes
    check(not batch % parts, f"make --batch {batch} a multiple of the {parts} processes it is divided over")
    if decoded_images is not None:
        check(
            not decoded_images % parts,
            f"make --decoded-images {decoded_images} a multiple of the {parts} processes",
        )
    paths = list_images(data)

    teacher = teacher or ["demo"]
    teaching, decoder = load_autoencoder(teacher)
    if init is None:
        arch = RECIPES["bfr"].arch if network == "demo" else chosen.arch
        student = new_student(arch, teaching, decoder, seed)
    else:
        student, _ = load_weights(init, chosen)
        check(
            student.arch.latent_channels == latent_channels(teaching),
            f"{init} and {' '.join(teacher)} have different numbers of latent channels: "
            "name the teacher that the weights were trained with",
        )
    student.arch.check_side(size, "--size")
    if not coarse:
        remove_coarse(student)
    config = LcfmConfig(
        objective=objective,
        steps=segments,
        sigma_s=sigma_s,
        sigma_min=sigma_min,
        dt=dt,
        alpha=alpha,
        beta=beta,
        flow_repeats=flow_repeats,
        decoded_images=decoded_images and decoded_images // parts,
    )
    pictures = Pictures(paths, chosen, size, batch, crops)
    trained = (*(("enc",) if encoder else ()), *(("mmse",) if coarse else ()), "fmir")
    module = TaughtTraining(
        student,
        teaching,
        config,
        steps=steps,
        lr=lr,
        trained=trained,
        cache_bytes=0 if crops else cache_mb * 1_000_000,
    )
    options = {
        "task": task,
        "images": len(paths),
        "teacher": teacher,
        "init": init,
        "network": network,
        "size": size,
        "crops": crops,
        "coarse": coarse,
        "encoder": encoder,
        **asdict(replace(config, decoded_images=decoded_images)),
        "training_steps": steps,
        "batch": batch,
        "lr": lr,
        "ema_decay": ema_decay,
        "clip": clip,
        "precision": precision,
        "seed": seed,
    }
    keep_options(out, options)
    strip = pictures.strip(STRIP_IMAGES)
    fit(
        module,
        pictures.draw,
        lambda: module.draw(*strip),
        out,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        save_every=save_every,
        clip=clip,
        prepare=pictures.prepare,
        compute=compute,
    )
    write_weights(student, out / f"{task}.safetensors", chosen, size, sigma_s)


if __name__ == "__main__":
    app()
