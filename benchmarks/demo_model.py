"""What the bundled demo model does on held-out faces: ``python -m benchmarks.demo_model``.

Downloads the face set into the cache, restores every held-out identity in float and tabulates
degraded input, coarse estimate and restoration; then quantizes and compares on the same faces,
half for calibration and half for evaluation. Writes ``benchmarks/results/demo-model-bfr.json`` and
``demo-heldout-bfr.json`` (numbers only: the photographs stay in the cache).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.released import RESULTS
from elir_mobile.checkpoints import load_weights
from elir_mobile.data.faces import cache_dir, face_split, load_faces
from elir_mobile.data.pairs import make_pairs
from elir_mobile.errors import exits_with_2
from elir_mobile.harness.compare import quality
from elir_mobile.harness.report import terminal_table
from elir_mobile.images import list_images, to_image
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.precision import RECIPES
from elir_mobile.tasks import get_task
from quant.ptq import Job, run

SEED = 0


def heldout_folder(size: int) -> Path:
    """Cached folder of the held-out faces, cropped and resized to ``size``."""
    folder = cache_dir() / f"heldout-{size}"
    names = face_split()[1]
    folder.mkdir(parents=True, exist_ok=True)
    for name, face in zip(names, load_faces(names, size), strict=True):
        to_image(face.float() / 255).save(folder / f"{Path(name).stem}.png")
    return folder


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
@torch.no_grad()
def main() -> None:
    """Measure the demo model on held-out faces, in float and quantized."""
    console = Console()
    task = get_task("bfr")
    restorer, info = load_weights("demo", task)
    folder = heldout_folder(info.size)
    paths = list_images(folder)
    pairs = make_pairs(paths, task, info.size, len(paths), SEED)
    coarse, restored = [], []
    for index, pair in enumerate(track(pairs, "restoring held-out faces", console=console)):
        z = restorer.encode(pair.degraded)
        coarse.append(restorer.decode(z))
        noise = seeded_noise(tuple(z.shape), SEED + index)
        restored.append(restorer(pair.degraded, noise, steps=info.steps, sigma_s=info.sigma_s))
    table = {
        "degraded input": quality([pair.degraded for pair in pairs], pairs),
        "coarse estimate": quality(coarse, pairs),
        "restored": quality(restored, pairs),
    }
    facts = {
        "faces": len(pairs),
        "size": info.size,
        "steps": info.steps,
        "sigma_s": info.sigma_s,
        "seed": SEED,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "demo-model-bfr.json").write_text(json.dumps({**facts, "table": table}, indent=2) + "\n")
    for name, values in table.items():
        console.print(
            f"{name:16}", {key: round(value, 4) for key, value in values.items() if value is not None}
        )
    with tempfile.TemporaryDirectory() as out:
        job = Job(task, restorer, info, info.size, tuple(RECIPES.values()), folder, Path(out), SEED)
        _, report = run(job, console)
    (RESULTS / "demo-heldout-bfr.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(terminal_table(report["rows"]))


if __name__ == "__main__":
    app()
