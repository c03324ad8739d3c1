"""What the demo models do on held-out pictures: ``python -m benchmarks.demo_model [RUN_DIR]``.

Of the bundled weights, or of ``RUN_DIR``, a folder of :mod:`elir_mobile.training.demo`, also while it trains,
or one that ``export`` wrote. For each task: the degraded picture (for bsr the bicubic enlargement), for
denoising BM3D where PyPI's ``bm3d`` is installed, the coarse estimate (``--fidelity 1``), the flow replaced
by the identity, some numbers of steps, and of the task's own K the latent half way to the coarse one
(``--fidelity 0.5``) and the input's colours; PSNR, SSIM, LPIPS (AlexNet, which no loss has seen) and Fréchet
distance (not the FID), on the held-out identities or on two squares of each held-out photograph. Denoising
is measured at the fixed spread of ``SIGMA``, and on clean photographs. Beside them, how far the flow moves a
latent, as a share of the way to the teacher's.

The figures of the bundled weights go into ``benchmarks/results/demo-model-TASK.json`` (numbers only: the face
photographs stay in the cache), the pictures of bundled photographs into ``docs/images``; those of a run stay
in its folder. Exported files are measured by :mod:`benchmarks.quantization`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from torch import Tensor

from benchmarks.released import RESULTS
from elir_mobile import metrics
from elir_mobile.bundle import building
from elir_mobile.checkpoints import (
    DEMO_AUTOENCODER,
    DEMO_WEIGHTS,
    ModelInfo,
    build_autoencoder,
    load_weights,
    read_state_dict,
)
from elir_mobile.colors import keep_colors
from elir_mobile.core.errors import exits_with_2
from elir_mobile.core.files import cache_dir, write_json
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.data.pairs import load_pair_sets
from elir_mobile.degradations import gaussian_noise
from elir_mobile.images import image_rows, to_image
from elir_mobile.models.autoencoder import Encoder
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.tasks import ALIGNED_FACE, Degradation, Task, get_task
from elir_mobile.training.demo import (
    RECIPES,
    Pictures,
    assemble,
    assemble_autoencoder,
    degraded,
    heldout_photos,
    in_batches,
    stacked,
)

SEED = 0
SIGMA = 25.0  # spread of the noise that denoising is measured at
SAMPLING_STEPS = (1, 2, 3, 5)
SHOWN = 4  # rows of a picture
PICTURES = RESULTS.parents[1] / "docs" / "images"

Rows = dict[str, dict[str, float]]


def heldout_folder(info: ModelInfo) -> Path:
    """Cached folder of the held-out pictures of a network's domain and size.

    The two squares of photograph ``i`` are ``i`` and ``i`` + n in the order of names, with n even: whoever
    takes every other file parts whole photographs.
    """
    folder = cache_dir() / f"heldout-{info.domain}-{info.size}"
    if not folder.is_dir():
        if info.domain == ALIGNED_FACE:
            squares = load_faces(face_split()[1], info.size)
        else:
            squares = heldout_photos()
            squares = torch.cat([squares[0::2], squares[1::2]])
        with building(folder) as staging:
            for number, square in enumerate(squares):
                to_image(square.float() / 255).save(staging / f"{number:03}.png")
    return folder


def quality(out: Tensor, clean: Tensor) -> dict[str, float]:
    """Means over pictures (N, 3, H, W) in [0, 1], and the distance between the two sets."""
    features = [in_batches(metrics.efficientnet_features, images) for images in (out, clean)]
    pairs = list(zip(out.split(16), clean.split(16), strict=True))

    def mean(metric: Callable[[Tensor, Tensor], Tensor]) -> float:
        return float(torch.cat([metric(a, b) for a, b in pairs]).mean())

    return {
        "psnr_db": mean(metrics.psnr),
        "ssim": mean(metrics.ssim),
        "lpips": mean(metrics.lpips),
        "frechet": metrics.frechet_distance(*features),
    }


def with_colors(out: Tensor, x_lq: Tensor) -> Tensor:
    """What ``restore`` writes for restored pictures (N, 3, H, W) of degraded ones."""
    kept = [keep_colors(to_image(a), to_image(b)) for a, b in zip(out, x_lq, strict=True)]
    return stacked([np.asarray(image) for image in kept]).float() / 255


def bm3d(x: Tensor) -> Tensor:
    """BM3D (Dabov et al. 2007) told the true spread, on pictures (N, 3, H, W) in [0, 1]."""
    denoise = importlib.import_module("bm3d").bm3d_rgb
    pictures = [denoise(image.permute(1, 2, 0).double().numpy(), SIGMA / 255) for image in x]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().clamp(0, 1)


@torch.no_grad()
def measure(task: Task, restorer: Restorer, info: ModelInfo, teacher: Encoder, squares: Tensor) -> dict:
    """Every figure of a network on clean squares (N, 3, size, size) uint8, by the name of its row.

    Args:
        teacher: the encoder whose latents the network was trained to reach.
    """
    x_hq = squares.float() / 255
    degrade: Degradation = task.degrade
    if task.name == "denoising":
        degrade = lambda image, rng: gaussian_noise(image, SIGMA, rng)  # noqa: E731
    x_lq = degraded(squares, degrade, SEED).float() / 255
    z_mmse, z_hq = in_batches(restorer.encode, x_lq), in_batches(teacher, x_hq)
    decode = partial(in_batches, restorer.decode)

    def sampled(coarse: Tensor, steps: int) -> Tensor:
        noise = seeded_noise(tuple(coarse.shape), SEED)
        return restorer.trajectory(coarse, noise, steps=steps, sigma_s=info.sigma_s)[-1]

    rows: Rows = {"degraded": quality(x_lq, x_hq)}
    if task.name == "denoising":
        z_clean = in_batches(restorer.encode, x_hq)
        rows["clean photograph, restored"] = quality(decode(sampled(z_clean, info.steps)), x_hq)
        rows["clean photograph, coarse"] = quality(decode(z_clean), x_hq)
        if importlib.util.find_spec("bm3d"):
            rows["BM3D"] = quality(bm3d(x_lq), x_hq)
    rows["coarse (fidelity 1)"] = quality(decode(z_mmse), x_hq)
    start = sampled(z_mmse, 0)
    rows["step = identity"] = quality(decode(start), x_hq)
    if task.keeps_colors:
        rows["step = identity, colours kept"] = quality(with_colors(decode(start), x_lq), x_hq)
    for steps in sorted({*SAMPLING_STEPS, info.steps}):
        z = sampled(z_mmse, steps)
        out = decode(z)
        rows[f"K = {steps}"] = quality(out, x_hq)
        if steps == info.steps:
            restored = z
            rows[f"K = {steps}, fidelity 0.5"] = quality(decode(0.5 * (z + z_mmse)), x_hq)
            if task.keeps_colors:
                rows[f"K = {steps}, colours kept"] = quality(with_colors(out, x_lq), x_hq)
    rows["the truth through the autoencoder"] = quality(decode(z_hq), x_hq)
    flow = {
        "coarse_mse": float((z_mmse - z_hq).square().mean()),
        "restored_mse": float((restored - z_hq).square().mean()),
        "update_rms": float((restored - start).square().mean().sqrt()),
        "wanted_rms": float((z_hq - start).square().mean().sqrt()),
    }
    return {"pictures": len(squares), "seed": SEED, "model": asdict(info), "table": rows, "latents": flow}


@torch.no_grad()
def strip(task: Task, restorer: Restorer, info: ModelInfo) -> Image.Image:
    """Rows of bundled pictures: degraded, coarse estimate, the flow's K = 1, 2, 5, ground truth."""
    data = load_pair_sets(None, task, info.size, SEED, domain=info.domain)
    rows = []
    for pair in data.evaluation[:SHOWN]:
        z = restorer.encode(pair.degraded)
        noise = seeded_noise(tuple(z.shape), SEED)
        ends = [restorer.trajectory(z, noise, steps=steps, sigma_s=info.sigma_s)[-1] for steps in (1, 2, 5)]
        pictures = [pair.degraded, *(restorer.decode(end) for end in (z, *ends)), pair.clean]
        rows.append([picture[0] for picture in pictures])
    return image_rows(list(zip(*rows, strict=True)))


def print_table(name: str, facts: dict, console: Console) -> None:
    console.print(f"[bold]{name}[/bold], {facts['pictures']} pictures")
    for row, values in facts["table"].items():
        console.print(f"{row:34}", *(f"{key} {value:8.4f}" for key, value in values.items()))
    console.print(facts["latents"])


@exits_with_2
def main(
    run_dir: Annotated[
        Path | None,
        typer.Argument(help="Folder of a run, or of what it exported. Default: the bundled weights."),
    ] = None,
    tasks: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(RECIPES),
    threads: Annotated[int, typer.Option(help="Threads; 0: all.")] = 0,
) -> None:
    """Measure the demo models on held-out pictures."""
    if threads:
        torch.set_num_threads(threads)
    console, pictures = Console(), Pictures()
    for name in tasks.split(","):
        task = get_task(name)
        if run_dir is None:
            restorer, info = load_weights("demo", task)
            teacher, _ = build_autoencoder(read_state_dict(DEMO_WEIGHTS / DEMO_AUTOENCODER)[0])
            results, image = RESULTS / f"demo-model-{name}.json", PICTURES / f"demo-model-{name}.webp"
        else:
            recipe = RECIPES[name]
            restorer, teacher = assemble(run_dir, name), assemble_autoencoder(run_dir).encoder
            info = ModelInfo(
                name=name,
                source=run_dir.name,
                sha256="",
                trained=True,
                size=recipe.use_side,
                steps=recipe.use_steps,
                sigma_s=recipe.sigma_s,
                domain=recipe.domain,
            )
            results, image = run_dir / f"measured-{name}.json", run_dir / f"measured-{name}.webp"
        facts = measure(task, restorer, info, teacher.eval(), pictures.heldout(info.domain))
        write_json(results, facts)
        strip(task, restorer, info).save(image, quality=90)
        print_table(name, facts, console)


if __name__ == "__main__":
    typer.run(main)
