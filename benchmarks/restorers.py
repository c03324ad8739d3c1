"""What the trained demo restorers do on held-out pictures: ``python -m benchmarks.restorers RUN_DIR``.

``RUN_DIR`` is a folder of :mod:`elir_mobile.training.demo`, while it trains or afterwards, or one that
``export`` wrote. For each task: the degraded picture (for bsr the bicubic enlargement), for denoising BM3D
where PyPI's ``bm3d`` is installed, the coarse estimate, the flow replaced by the identity, K steps, and of
the task's own K the latent half way to the coarse one (``--fidelity 0.5``) and the input's colours; PSNR,
SSIM, LPIPS (AlexNet, which no loss has seen) and Fréchet distance (not the FID), on the held-out identities
or on two squares of each held-out photograph. Denoising is measured at the fixed spread of ``SIGMA`` and on
clean photographs. Beside them, how far the flow moves a latent, as a share of the way to the teacher's.
Writes ``RUN_DIR/measured-TASK.json``.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from elir_mobile import metrics
from elir_mobile.colors import keep_colors
from elir_mobile.core.errors import exits_with_2
from elir_mobile.degradations import gaussian_noise
from elir_mobile.images import to_image
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.tasks import Degradation, get_task
from elir_mobile.training.demo import (
    EVERY_TASK,
    RECIPES,
    Pictures,
    assemble,
    assemble_autoencoder,
    degraded,
    in_batches,
    save_rows,
    stacked,
)

SIGMA = 25.0  # spread of the noise that denoising is measured at
SAMPLING_STEPS = (1, 2, 3, 5)
SEED = 0

Rows = dict[str, dict[str, float]]


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
def measure(run_dir: Path, task: str, pictures: Pictures) -> dict:
    """Every figure of a task, by the name of its row."""
    recipe, restorer = RECIPES[task], assemble(run_dir, task)
    teacher = assemble_autoencoder(run_dir).encoder
    squares = pictures.heldout(recipe.domain)
    x_hq = squares.float() / 255
    degrade: Degradation = recipe.degrade
    if task == "denoising":
        degrade = lambda image, rng: gaussian_noise(image, SIGMA, rng)  # noqa: E731
    x_lq = degraded(squares, degrade, SEED).float() / 255
    z_mmse, z_hq = in_batches(restorer.encode, x_lq), in_batches(teacher, x_hq)
    decode = partial(in_batches, restorer.decode)

    def sampled(coarse: Tensor, steps: int) -> Tensor:
        noise = seeded_noise(tuple(coarse.shape), SEED)
        return restorer.trajectory(coarse, noise, steps=steps, sigma_s=recipe.sigma_s)[-1]

    rows: Rows = {"degraded": quality(x_lq, x_hq)}
    if task == "denoising":
        z_clean = in_batches(restorer.encode, x_hq)
        rows["clean photograph, restored"] = quality(decode(sampled(z_clean, recipe.steps)), x_hq)
        rows["clean photograph, coarse"] = quality(decode(z_clean), x_hq)
        if importlib.util.find_spec("bm3d"):
            rows["BM3D"] = quality(bm3d(x_lq), x_hq)
    rows["autoencoder"] = quality(decode(z_hq), x_hq)
    shown = [x_lq, decode(z_mmse)]
    rows["coarse"] = quality(shown[-1], x_hq)
    start = sampled(z_mmse, 0)
    rows["step = identity"] = quality(decode(start), x_hq)
    for steps in SAMPLING_STEPS:
        z = sampled(z_mmse, steps)
        shown.append(decode(z))
        rows[f"K = {steps}"] = quality(shown[-1], x_hq)
        if steps == recipe.steps:
            restored = z
            rows["fidelity 0.5"] = quality(decode(0.5 * (z + z_mmse)), x_hq)
            if get_task(task).keeps_colors:
                rows["colours kept"] = quality(with_colors(shown[-1], x_lq), x_hq)
    flow = {
        "coarse_mse": float((z_mmse - z_hq).square().mean()),
        "restored_mse": float((restored - z_hq).square().mean()),
        "update_rms": float((restored - start).square().mean().sqrt()),
        "wanted_rms": float((z_hq - start).square().mean().sqrt()),
    }
    save_rows([*shown, x_hq], run_dir / f"measured-{task}.png")
    return {"task": task, "pictures": len(squares), "seed": SEED, "rows": rows, "latents": flow}


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, or of what it exported.")],
    tasks: Annotated[str, typer.Option(help="Comma-separated.")] = EVERY_TASK,
    threads: Annotated[int, typer.Option(help="Threads; 0: all.")] = 0,
) -> None:
    """Measure the restorers of a run."""
    if threads:
        torch.set_num_threads(threads)
    console, pictures = Console(), Pictures()
    for task in tasks.split(","):
        facts = measure(run_dir, task, pictures)
        (run_dir / f"measured-{task}.json").write_text(json.dumps(facts, indent=2) + "\n")
        table = Table(
            "", "PSNR, dB", "SSIM", "LPIPS", "Fréchet", title=f"{task}, {facts['pictures']} pictures"
        )
        for name, row in facts["rows"].items():
            table.add_row(name, *(f"{row[key]:.{2 if key == 'psnr_db' else 4}f}" for key in row))
        console.print(table)
        console.print(facts["latents"])


if __name__ == "__main__":
    app()
