"""Time and memory of a 24-megapixel photograph: ``python -m benchmarks.large_photo``.

Runs the real command, ``python -m elir_mobile.restore``, in a process of its own on a picture of 6000×4000
pixels made of the bundled portraits, and takes that process's peak resident memory from the system.
Writes ``benchmarks/results/large-photo.json``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console

from benchmarks.released import RESULTS
from elir_mobile.checkpoints import load_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.core.machine import peak_bytes_of_children
from elir_mobile.harness.protocol import machine_facts
from elir_mobile.images import list_images
from elir_mobile.restore import TILE, tile_windows
from elir_mobile.tasks import get_task

WIDTH, HEIGHT = 6000, 4000
BUDGET_BYTES = 3 * 2**30
PORTRAITS = Path(__file__).parents[1] / "elir_mobile" / "data" / "evaluation_set" / "faces"


def large_photo() -> Image.Image:
    """The bundled portraits, repeated and enlarged to 1000 pixels each."""
    paths = [
        path for folder in sorted(PORTRAITS.iterdir()) if folder.is_dir() for path in list_images(folder)
    ]
    side = 1000
    photo = Image.new("RGB", (WIDTH, HEIGHT))
    for index in range(WIDTH // side * (HEIGHT // side)):
        with Image.open(paths[index % len(paths)]) as portrait:
            enlarged = portrait.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        photo.paste(enlarged, (index % (WIDTH // side) * side, index // (WIDTH // side) * side))
    return photo


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    task: Annotated[str, typer.Option(help="Restoration task.")] = "bfr",
    weights: Annotated[str, typer.Option(help="As of the command.")] = "demo",
    steps: Annotated[int | None, typer.Option(min=1, help="K. Default: the model's own.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of PyTorch.")] = os.cpu_count() or 1,
    results: Annotated[Path, typer.Option(help="Folder of the JSON results.")] = RESULTS,
) -> None:
    """Restore 24 megapixels with the command and measure it."""
    console = Console()
    steps = steps or load_weights(weights, get_task(task))[1].steps
    tiles = len(tile_windows(WIDTH, TILE)) * len(tile_windows(HEIGHT, TILE))
    with tempfile.TemporaryDirectory() as tmp:
        source, target = Path(tmp) / "photo.jpg", Path(tmp) / "restored.jpg"
        large_photo().save(source, quality=95)
        command = [sys.executable, "-m", "elir_mobile.restore", str(source), str(target)]
        command += ["--task", task, "--weights", weights, "--steps", str(steps)]
        start = time.monotonic()
        code = subprocess.run(
            command, check=False, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
        ).returncode
        seconds = time.monotonic() - start
        if code:
            raise UserError(f"the command ended with code {code}: see what it says above")
        with Image.open(target) as restored:
            if restored.size != (WIDTH, HEIGHT):
                raise UserError(f"the command wrote {restored.size} pixels: mend elir_mobile/restore.py")
    peak = peak_bytes_of_children()  # its only child
    report = {
        "task": task,
        "weights": weights,
        "steps": steps,
        "width": WIDTH,
        "height": HEIGHT,
        "tile": TILE,
        "tiles": tiles,
        "threads": threads,
        "seconds": seconds,
        "peak_rss_bytes": peak,
        "budget_bytes": BUDGET_BYTES,
        "load_average": os.getloadavg()[0],
        "machine": machine_facts(),
    }
    path = results / "large-photo.json"
    write_json(path, report)
    console.print(f"{tiles} tiles in {seconds:.0f} s, peak memory {peak / 2**30:.2f} GiB; written to {path}")
    if peak > BUDGET_BYTES:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
