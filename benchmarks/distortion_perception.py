"""The distortion-perception curve of the demo model: ``python -m benchmarks.distortion_perception``.

A restorer cannot have the least error and the most natural pictures at once (Blau and Michaeli 2018).
ELIR moves along that line with the spread of the noise, sigma_s, and the number of Euler steps, K. The
held-out faces that ``benchmarks.demo_model`` evaluates on are restored with each pair of the two; PSNR
(distortion) and LPIPS (perception) go into ``benchmarks/results/distortion-perception.json`` with
bootstrapped confidence intervals, the curve into ``docs/images``. Needs ``pip install matplotlib``.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.demo_model import PICTURES, SEED, heldout_folder
from benchmarks.released import RESULTS
from elir_mobile import metrics
from elir_mobile.checkpoints import load_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.data.pairs import load_pair_sets
from elir_mobile.evaluate import mean_estimate
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.tasks import get_task

STEPS = (1, 2, 3, 5, 8)
SIGMAS = (0.0, 0.05, 0.1, 0.2, 0.4)
BATCH = 11
RESAMPLES = 1000


def quality(images: Tensor, clean: Tensor) -> dict[str, dict]:
    """PSNR and LPIPS of a set with their confidence intervals."""
    values = {"psnr_db": metrics.psnr(images, clean), "lpips": metrics.lpips(images, clean)}
    return {key: asdict(mean_estimate(value.numpy(), RESAMPLES, SEED)) for key, value in values.items()}


@torch.no_grad()
def measure(console: Console) -> dict:
    """The table of the JSON: degraded, coarse estimate, and a row for each K and sigma_s."""
    task = get_task("bfr")
    restorer, info = load_weights("demo", task)
    pairs = load_pair_sets(heldout_folder(info.size), task, info.size, SEED).evaluation
    degraded, clean = (torch.cat([getattr(pair, name) for pair in pairs]) for name in ("degraded", "clean"))
    latents = torch.cat([restorer.encode(x) for x in degraded.split(BATCH)])
    # Image i has the noise of SEED + i at every point, as in the other tables.
    noise = torch.cat([seeded_noise((1, *latents.shape[1:]), SEED + i) for i in range(len(latents))])

    def decode(z: Tensor) -> Tensor:
        return torch.cat([restorer.decode(part) for part in z.split(BATCH)])

    def sample(steps: int, sigma_s: float) -> Tensor:
        z = latents + sigma_s * noise
        for k in range(steps):
            t = torch.full((BATCH,), k / steps)
            z = torch.cat([part + restorer.velocity(part, t[: len(part)]) / steps for part in z.split(BATCH)])
        return decode(z)

    grid = [(steps, sigma_s) for steps in STEPS for sigma_s in SIGMAS]
    return {
        "faces": len(pairs),
        "seed": SEED,
        "resamples": RESAMPLES,
        "model": asdict(info),
        "degraded": quality(degraded, clean),
        "coarse": quality(decode(latents), clean),
        "points": [
            {"steps": steps, "sigma_s": sigma_s, **quality(sample(steps, sigma_s), clean)}
            for steps, sigma_s in track(grid, "restoring", console=console)
        ],
    }


def plot(result: dict) -> None:
    """PSNR against LPIPS: a line for each K, from one sigma_s to the next."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("the curve needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(7.5, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for shade, steps in zip(np.linspace(0.85, 0.1, len(STEPS)), STEPS, strict=True):
        row = [point for point in result["points"] if point["steps"] == steps]
        x, y = ([point[key]["value"] for point in row] for key in ("psnr_db", "lpips"))
        axes.plot(x, y, color=str(shade), zorder=1, label=f"K = {steps}")
        dots = axes.scatter(x, y, c=range(len(row)), cmap="viridis", s=40, zorder=2)
    legend = axes.legend(loc="upper right", title="Euler steps")
    axes.add_artist(legend)
    handles, _ = dots.legend_elements(num=list(range(len(SIGMAS))))
    axes.legend(handles, [f"{s:g}" for s in SIGMAS], loc="lower left", title="sigma_s")
    coarse = result["coarse"]
    axes.plot(coarse["psnr_db"]["value"], coarse["lpips"]["value"], "x", color="crimson", markersize=9)
    axes.annotate(
        "coarse estimate (K = 0, sigma_s = 0)",
        (coarse["psnr_db"]["value"], coarse["lpips"]["value"]),
        textcoords="offset points",
        xytext=(-8, 6),
        ha="right",
        color="crimson",
    )
    axes.set_xlabel("PSNR, dB (less distortion →)")
    axes.set_ylabel("LPIPS (better perception ↓)")
    axes.set_title(f"demo model, {result['faces']} held-out faces of {result['model']['size']} pixels")
    axes.grid(alpha=0.3)
    figure.savefig(PICTURES / "distortion-perception.png")


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(redraw: bool = typer.Option(False, "--redraw", help="Draw the JSON that is there again.")) -> None:
    """Measure and draw the distortion-perception curve of the demo model."""
    console = Console()
    path = RESULTS / "distortion-perception.json"
    if not redraw:
        write_json(path, measure(console))
    result = json.loads(path.read_text())
    PICTURES.mkdir(exist_ok=True)
    plot(result)
    for point in result["points"]:
        console.print(
            f"K {point['steps']}  sigma_s {point['sigma_s']:<4g}  "
            f"PSNR {point['psnr_db']['value']:.2f}  LPIPS {point['lpips']['value']:.4f}"
        )


if __name__ == "__main__":
    app()
