"""Size and speed of the released network: ``python -m benchmarks.released --task bfr``.

The published architecture at its published size with random weights: eager, fp32 and w8a8 files
interleaved in one run. Writes ``benchmarks/results/released-TASK.json`` in the report's row format.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from elir_mobile.checkpoints import random_weights
from elir_mobile.core.errors import exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.core.machine import peak_bytes, peak_bytes_of_children
from elir_mobile.harness.report import terminal_table
from elir_mobile.tasks import get_task
from export.targets import TARGETS
from quant.job import Job, select_artifacts
from quant.ptq import run

RESULTS = Path(__file__).with_name("results")


@exits_with_2
def main(
    task: Annotated[str, typer.Option(help="Restoration task.")] = "bfr",
    targets: Annotated[str, typer.Option(help="Comma-separated targets.")] = ",".join(TARGETS),
    precision: Annotated[str, typer.Option(help="Comma-separated precisions.")] = "fp32,w8a8",
    seed: Annotated[int, typer.Option(help="Seed of weights, noise and degradations.")] = 0,
    results: Annotated[Path, typer.Option(help="Folder of the JSON results.")] = RESULTS,
) -> None:
    """Export the released network with random weights and time every file."""
    console = Console()
    start = time.monotonic()
    chosen = get_task(task)
    restorer, info = random_weights(chosen, seed)
    artifacts = select_artifacts(targets, precision, console)
    with tempfile.TemporaryDirectory() as out:
        job = Job(chosen, restorer, info, info.size, artifacts, None, Path(out), seed)
        _, report = run(job, console)
    report["seconds"] = time.monotonic() - start
    report["peak_export_process_bytes"] = peak_bytes_of_children()
    path = results / f"released-{task}.json"
    write_json(path, report)
    console.print(terminal_table(report["rows"]))
    console.print(
        f"{report['seconds']:.0f} s, of them {report['export_seconds']:.0f} s for the exports; peak memory "
        f"{peak_bytes() / 2**30:.1f} GiB, of the largest export process "
        f"{report['peak_export_process_bytes'] / 2**30:.1f} GiB; written to {path}"
    )


if __name__ == "__main__":
    typer.run(main)
