"""Train a restorer on a folder of clean pictures: ``elir-mobile train --task T --data FOLDER``.

The loss is LCFM (:mod:`elir_mobile.training.lcfm`), every constant and ablation of the paper an option;
the defaults are upstream's (``configs/elir_train_*.yaml``). Resumes where it was stopped. On several
devices: ``torchrun --nproc-per-node N -m elir_mobile.train …``, with the same result. The run's folder
gets ``last.ckpt``, sample strips, TensorBoard files, and at last the weights in float16.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import BLAS_BYTES, UserError, check_memory, exits_with_2, printable, say

LR = {"bfr": 1e-4}  # upstream's peak learning rates
OTHER_LR = 2e-4
DT = {"bsr": 0.2}
OTHER_DT = 0.05
STRIP_IMAGES = 4
UNKEPT = ("data", "out", "devices", "nodes", "workers", "cache_mb", "save_every", "segments")


@exits_with_2
def main(
    context: typer.Context,
    task: options.Task,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Clean images.")],
    out: options.RunFolder = Path("out/train"),
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="demo|FILE",
            help="Checkpoint whose encoder and decoder define the latent space: TAESD3's (give the option "
            "twice for two files), or an ELIR one's, though its encoder learned from degraded images. "
            "Default: the demo's, which knows small faces only.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE|URL", help="Weights to fine-tune, named as for --weights elsewhere."),
    ] = None,
    network: Annotated[
        Literal["released", "demo"], typer.Option(help="Widths of a new estimator and velocity field.")
    ] = "released",
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Side of the images.", min=16, max=options.MOST_PIXELS),
    ] = None,
    crops: Annotated[
        bool | None, typer.Option("--crops/--whole", help="Random crops (bsr's default), or the whole.")
    ] = None,
    objective: Annotated[
        Literal["consistency", "flow"], typer.Option(help="LCFM, or plain flow matching.")
    ] = "consistency",
    segments: Annotated[int, options.count("Of the consistency loss.", "K")] = 5,
    coarse: Annotated[bool, typer.Option(help="With or without the coarse estimator.")] = True,
    encoder: Annotated[
        bool, typer.Option("--train-encoder/--freeze-encoder", help="Fine-tune it or not.")
    ] = True,
    sigma_s: Annotated[
        float | None,
        typer.Option(metavar="X", help="Noise on the coarse latent. Default: the task's.", min=0),
    ] = None,
    sigma_min: Annotated[float, typer.Option(metavar="X", help="Noise left at the end.", min=0)] = 1e-5,
    alpha: Annotated[float, typer.Option(metavar="X", help="Weight of the velocity.", min=0)] = 0.001,
    beta: Annotated[float, typer.Option(metavar="X", help="Weight of the images.", min=0, max=1)] = 0.001,
    dt: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Between the two velocities. Default: 0.05; bsr 0.2.", min=1e-4, max=0.9
        ),
    ] = None,
    flow_repeats: Annotated[int, options.count("Noises for each image.")] = 1,
    decoded_images: Annotated[int | None, options.count("Decode so many of a batch. Default: all.")] = None,
    steps: Annotated[int, options.count("Optimizer steps.")] = 100_000,
    batch: Annotated[int, options.count("Images a step, over all devices.")] = 16,
    lr: Annotated[
        float | None, typer.Option(metavar="X", help="Peak learning rate. Default: 1e-4 for bfr, else 2e-4.")
    ] = None,
    ema_decay: Annotated[float, typer.Option(metavar="X", help="Of the weights.", min=0, max=1)] = 0.999,
    clip: Annotated[float, typer.Option(metavar="X", help="Largest norm of a gradient.", min=0)] = 1.0,
    precision: Annotated[
        Literal["32-true", "bf16-mixed", "16-mixed"], typer.Option(help="Of the arithmetic.")
    ] = "32-true",
    devices: Annotated[int, options.count("Of this machine, without torchrun.")] = 1,
    nodes: Annotated[int, options.count("Machines, without torchrun.")] = 1,
    workers: Annotated[int, options.count("That prepare images, a device.", least=0)] = 2,
    cache_mb: Annotated[int, options.count("For latents of the teacher.", "MB", least=0)] = 2048,
    save_every: Annotated[int, options.count("Steps between checkpoints.")] = 100,
    seed: options.Seed = 0,
) -> None:
    """Train a network on a folder of clean images.

    Writes OUT/TASK.safetensors. docs/ablations.md says what the options change.
    """
    check_memory(BLAS_BYTES)
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from elir_mobile.checkpoints import load_weights, save_weights
    from elir_mobile.core.files import locked
    from elir_mobile.images import list_images
    from elir_mobile.tasks import PHOTO, get_task
    from elir_mobile.training.demo import RECIPES
    from elir_mobile.training.folder import (
        Pictures,
        finished,
        keep_options,
        latent_channels,
        load_autoencoder,
        new_student,
        remove_coarse,
    )
    from elir_mobile.training.lcfm import LcfmConfig, LcfmTraining
    from elir_mobile.training.loop import Compute, fit

    chosen = get_task(task)
    compute = Compute(devices, nodes, precision, workers).under_torchrun()
    size = size or chosen.size
    crops = chosen.domain == PHOTO if crops is None else crops
    sigma_s = chosen.sigma_s if sigma_s is None else sigma_s
    lr = lr or LR.get(task, OTHER_LR)
    dt = dt or DT.get(task, OTHER_DT)
    if not options.given(context, "save_every"):
        save_every = min(save_every, steps)
    parts = compute.processes
    divided = f"a multiple of the {parts} processes"
    for rest, said in (
        (steps % save_every, f"make --steps {steps} a multiple of --save-every {save_every}"),
        (batch % parts, f"make --batch {batch} {divided} it is divided over"),
        ((decoded_images or 0) % parts, f"make --decoded-images {decoded_images} {divided}"),
    ):
        if rest:
            raise UserError(said)
    paths = list_images(data, say)

    teacher = teacher or ["demo"]
    teaching, decoder = load_autoencoder(teacher)
    if init is None:
        arch = RECIPES["bfr"].arch if network == "demo" else chosen.arch
        student = new_student(arch, teaching, decoder, seed)
    else:
        student, _ = load_weights(init, chosen)
        if student.arch.latent_channels != latent_channels(teaching):
            raise UserError(
                f"{init} and {' '.join(teacher)} have different numbers of latent channels: "
                "name the teacher that the weights were trained with"
            )
    student.arch.check_side(size, "--size")
    if not coarse:
        remove_coarse(student)
    given = {**context.params, "steps": segments, "sigma_s": sigma_s, "dt": dt}
    given["decoded_images"] = decoded_images and decoded_images // parts
    config = LcfmConfig(**{constant.name: given[constant.name] for constant in fields(LcfmConfig)})
    pictures = Pictures(paths, chosen, size, batch, crops)
    trained = (*(("enc",) if encoder else ()), *(("mmse",) if coarse else ()), "fmir")
    module = LcfmTraining(
        student,
        teaching,
        config,
        steps=steps,
        lr=lr,
        trained=trained,
        cache_bytes=0 if crops else cache_mb * 1_000_000,
    )
    # What the result depends on, under the loss's names.
    resolved = context.params | {"teacher": teacher, "size": size, "crops": crops, "sigma_s": sigma_s}
    resolved |= {"lr": lr, "dt": dt, "steps": segments, "training_steps": steps}
    kept = {name: value for name, value in resolved.items() if name not in UNKEPT}
    if rank_zero_only.rank == 0:
        busy = f"another run is in {out}: wait until it ends, or name another --out"
        context.with_resource(locked(out, busy))
    keep_options(out, kept | {"images": len(paths)})
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
    if rank_zero_only.rank == 0:
        path = out / f"{task}.safetensors"
        save_weights(
            finished(student),
            path,
            task=task,
            size=size,
            steps=chosen.steps,
            sigma_s=sigma_s,
            domain=pictures.domain,
        )
        typer.echo(printable(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB"))
