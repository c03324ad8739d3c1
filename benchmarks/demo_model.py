"""What the bundled demo models do: ``python -m benchmarks.demo_model``.

For every task with bundled weights: downloads the face set into the cache, restores every held-out
identity in float and tabulates degraded input, coarse estimate and restoration. For bfr, then, the run
of ``make demo`` on held-out faces, half for calibration and half for evaluation, and on the bundled
portraits for its picture. Writes ``demo-model-TASK.json`` and ``demo-heldout-bfr.json`` into
``benchmarks/results`` (numbers only: the photographs stay in the cache) and the pictures of the
portraits into ``docs/images``.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.released import RESULTS
from elir_mobile.bundle import building
from elir_mobile.checkpoints import DEMO_WEIGHTS, ModelInfo, load_weights
from elir_mobile.core.errors import exits_with_2
from elir_mobile.core.files import cache_dir, write_json
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.data.pairs import Pair, load_pair_sets, make_pairs
from elir_mobile.harness.compare import quality
from elir_mobile.harness.report import number, terminal_table
from elir_mobile.images import hstack_images, list_images, to_image, to_tensor, vstack_images
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.tasks import TASKS, Task, get_task
from quant.job import Job, select_artifacts
from quant.ptq import run

SEED = 0
PICTURES = RESULTS.parents[1] / "docs" / "images"


def heldout_folder(size: int) -> Path:
    """Cached folder of the held-out faces, cropped and resized to ``size``."""
    folder = cache_dir() / f"heldout-{size}"
    if not folder.is_dir():
        names = face_split()[1]
        with building(folder) as staging:
            for name, face in zip(names, load_faces(names, size), strict=True):
                to_image(face.float() / 255).save(staging / f"{Path(name).stem}.png")
    return folder


@torch.no_grad()
def restore(
    restorer: Restorer, info: ModelInfo, pairs: list[Pair], console: Console
) -> tuple[list[Tensor], list[Tensor]]:
    """Coarse estimate and restoration of every pair, image ``i`` with the noise of ``SEED + i``."""
    coarse, restored = [], []
    for index, pair in enumerate(track(pairs, "restoring in float", console=console)):
        z = restorer.encode(pair.degraded)
        coarse.append(restorer.decode(z))
        noise = seeded_noise(tuple(z.shape), SEED + index)
        restored.append(restorer(pair.degraded, noise, steps=info.steps, sigma_s=info.sigma_s))
    return coarse, restored


def strip(pairs: list[Pair], coarse: list[Tensor], restored: list[Tensor]) -> Image.Image:
    """Rows of degraded, coarse, restored, ground truth."""
    rows = ((p.degraded, c, r, p.clean) for p, c, r in zip(pairs, coarse, restored, strict=True))
    return vstack_images([hstack_images([to_image(x[0]) for x in row]) for row in rows])


def bicubic(pair: Pair, factor: int) -> Tensor:
    """The small image that ``pair``'s degraded one was enlarged from, enlarged by bicubic interpolation."""
    small = to_image(pair.degraded[0, :, ::factor, ::factor])
    side = pair.clean.shape[-1]
    return to_tensor(small.resize((side, side), Image.Resampling.BICUBIC))[None]


def measure_float(task: Task, console: Console) -> None:
    """Tabulate the float model of ``task`` on the held-out faces, and draw it on the bundled pictures."""
    restorer, info = load_weights("demo", task)
    paths = list_images(heldout_folder(info.size))
    pairs = make_pairs(paths, task, info.size, len(paths), SEED)
    coarse, restored = restore(restorer, info, pairs, console)
    table = {"degraded input": quality([pair.degraded for pair in pairs], pairs)}
    if task.enlarge == Image.Resampling.NEAREST and task.upscale > 1:
        table["bicubic enlargement"] = quality([bicubic(pair, task.upscale) for pair in pairs], pairs)
    table |= {"coarse estimate": quality(coarse, pairs), "restored": quality(restored, pairs)}
    facts = {"faces": len(paths), "seed": SEED, "model": asdict(info), "table": table}
    write_json(RESULTS / f"demo-model-{task.name}.json", facts)
    console.print(f"[bold]{task.name}[/bold]")
    for name, values in table.items():
        console.print(f"{name:20}", *(f"{key} {number(value, 4)}" for key, value in values.items()))
    count = 6 if task.name == "bfr" else 2
    bundled = load_pair_sets(None, task, info.size, SEED, domain=info.domain).evaluation[:count]
    name = "demo-model" if task.name == "bfr" else f"demo-model-{task.name}"
    strip(bundled, *restore(restorer, info, bundled, console)).save(PICTURES / f"{name}.png")


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    tasks: Annotated[str | None, typer.Option(help="Comma-separated. Default: all with weights.")] = None,
) -> None:
    """Measure the demo models on held-out faces, and the one for bfr quantized too."""
    console = Console()
    PICTURES.mkdir(exist_ok=True)
    bundled = [name for name in TASKS if (DEMO_WEIGHTS / f"demo-{name}.safetensors").is_file()]
    chosen = [get_task(name) for name in (tasks.split(",") if tasks else bundled)]
    for task in chosen:
        measure_float(task, console)
        if task.name == "bfr":
            restorer, info = load_weights("demo", task)
            artifacts = select_artifacts("executorch", "fp32,w8a8", console)
            with tempfile.TemporaryDirectory() as out:
                job = Job(task, restorer, info, info.size, artifacts, None, Path(out), SEED)
                folder, _ = run(job, console)
                shutil.copyfile(folder / "report" / "strip.png", PICTURES / "strip.png")
                _, report = run(replace(job, images=heldout_folder(info.size)), console)
            write_json(RESULTS / "demo-heldout-bfr.json", report)
            console.print(terminal_table(report["rows"]))


if __name__ == "__main__":
    app()
