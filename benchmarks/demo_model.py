"""What the bundled demo model does: ``python -m benchmarks.demo_model``.

First the run of ``make demo`` on the bundled portraits. Then the held-out faces: downloads the face
set into the cache, restores every held-out identity in float and tabulates degraded input, coarse
estimate and restoration; quantizes and compares on the same faces, half for calibration and half for
evaluation. Writes ``demo-bfr.json``, ``demo-model-bfr.json`` and ``demo-heldout-bfr.json`` into
``benchmarks/results`` (numbers only: the photographs stay in the cache) and the pictures of the
portraits into ``docs/images``.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.released import RESULTS
from elir_mobile.checkpoints import ModelInfo, load_weights
from elir_mobile.data.faces import cache_dir, face_split, load_faces
from elir_mobile.data.pairs import Pair, load_pair_sets, make_pairs
from elir_mobile.errors import exits_with_2
from elir_mobile.harness.compare import quality
from elir_mobile.harness.report import number, terminal_table
from elir_mobile.images import hstack_images, list_images, to_image, vstack_images
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.tasks import get_task
from quant.ptq import Job, run, select_artifacts

SEED = 0
PICTURES = RESULTS.parents[1] / "docs" / "images"


def heldout_folder(size: int) -> Path:
    """Cached folder of the held-out faces, cropped and resized to ``size``."""
    folder = cache_dir() / f"heldout-{size}"
    names = face_split()[1]
    folder.mkdir(parents=True, exist_ok=True)
    for name, face in zip(names, load_faces(names, size), strict=True):
        to_image(face.float() / 255).save(folder / f"{Path(name).stem}.png")
    return folder


@dataclass(frozen=True)
class Restored:
    """Pairs, and what the float model makes of them."""

    pairs: list[Pair]
    coarse: list[Tensor]
    restored: list[Tensor]


@torch.no_grad()
def restore(restorer: Restorer, info: ModelInfo, pairs: list[Pair], console: Console) -> Restored:
    """Coarse estimate and restoration of every pair, image ``i`` with the noise of ``SEED + i``."""
    coarse, restored = [], []
    for index, pair in enumerate(track(pairs, "restoring in float", console=console)):
        z = restorer.encode(pair.degraded)
        coarse.append(restorer.decode(z))
        noise = seeded_noise(tuple(z.shape), SEED + index)
        restored.append(restorer(pair.degraded, noise, steps=info.steps, sigma_s=info.sigma_s))
    return Restored(pairs, coarse, restored)


def strip(shown: Restored) -> Image.Image:
    """Rows of degraded, coarse, restored, ground truth."""
    rows = zip(shown.pairs, shown.coarse, shown.restored, strict=True)
    return vstack_images(
        [
            hstack_images([to_image(x[0]) for x in (pair.degraded, coarse, restored, pair.clean)])
            for pair, coarse, restored in rows
        ]
    )


def quantized(job: Job, name: str, console: Console) -> Image.Image:
    """Run the whole command, keep its report as ``NAME.json``, return its strip."""
    folder, report = run(job, console)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(terminal_table(report["rows"]))
    with Image.open(folder / "report" / "strip.png") as picture:
        return picture.copy()


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main() -> None:
    """Measure the demo model on portraits and on held-out faces, in float and quantized."""
    console = Console()
    RESULTS.mkdir(exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    task = get_task("bfr")
    restorer, info = load_weights("demo", task)
    artifacts = select_artifacts("executorch", "fp32,w8a8", console)

    faces = heldout_folder(info.size)
    paths = list_images(faces)
    shown = restore(restorer, info, make_pairs(paths, task, info.size, len(paths), SEED), console)
    table = {
        "degraded input": quality([pair.degraded for pair in shown.pairs], shown.pairs),
        "coarse estimate": quality(shown.coarse, shown.pairs),
        "restored": quality(shown.restored, shown.pairs),
    }
    facts = {"faces": len(paths), "seed": SEED, "model": asdict(info), "table": table}
    (RESULTS / "demo-model-bfr.json").write_text(json.dumps(facts, indent=2) + "\n")
    for name, values in table.items():
        console.print(f"{name:16}", *(f"{key} {number(value, 4)}" for key, value in values.items()))
    portraits = load_pair_sets(None, task, info.size, SEED).evaluation[:6]
    strip(restore(restorer, info, portraits, console)).save(PICTURES / "demo-model.png")

    with tempfile.TemporaryDirectory() as out:
        job = Job(task, restorer, info, info.size, artifacts, None, Path(out), SEED)
        quantized(job, "demo-bfr", console).save(PICTURES / "strip.png")
        quantized(replace(job, images=faces), "demo-heldout-bfr", console)


if __name__ == "__main__":
    app()
