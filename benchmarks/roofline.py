"""What this machine's runtimes can do at best: ``python -m benchmarks.roofline``.

Plain 3×3 convolutions with ReLU, one alone and chains of eight, swept over the widths and sides that the
networks have, through the same export and the same runtimes as the real programs. The best throughput of
each target and arithmetic is the roof that the harness holds every program against; int8's over fp32's is
the most that quantization can gain on this processor. Kept for this machine in the cache folder, and
written to ``benchmarks/results/roofline.json``.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

from benchmarks.released import RESULTS
from elir_mobile.core.errors import exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.core.timing import Milliseconds, take_turns
from elir_mobile.devices.host import PAUSE_S
from elir_mobile.harness.protocol import Protocol, latency_facts, machine_facts
from elir_mobile.harness.roofline import cache_path, read_roof
from elir_mobile.precision import FP32, RECIPES, W8A8
from elir_mobile.runtimes.programs import Program, open_programs
from export.programs import Programs, Samples
from export.targets import TARGETS

DEPTHS = (1, 8)
# Channels and side of the convolutions that the demo and the released networks spend their time in.
SHAPES = (
    (32, 128), (32, 64), (32, 32), (64, 256), (64, 128), (64, 64), (64, 16), (128, 64), (128, 32),
    (256, 32), (256, 16),
)  # fmt: skip
CPU_TARGETS = tuple(target.name for target in TARGETS.values() if target.delegate == "xnnpack")


class Chain(nn.Module):
    """``depth`` convolutions of ``channels`` to ``channels``, each with ReLU.

    Layers are called after the chain, so that two chains in one file do not share a recipe's name.
    """

    def __init__(self, name: str, channels: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for index in range(depth):
            self.layers.add_module(f"{name}_{index}", nn.Conv2d(channels, channels, 3, padding=1))
            self.layers.add_module(f"relu_{index}", nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def chains(shapes: tuple[tuple[int, int], ...]) -> dict[str, dict]:
    """Name → ``channels``, ``side``, ``depth`` and ``gmacs`` of each program of the sweep."""
    return {
        f"c{channels}x{side}d{depth}": {
            "channels": channels,
            "side": side,
            "depth": depth,
            "gmacs": depth * channels * channels * 9 * side * side / 1e9,
        }
        for channels, side in shapes
        for depth in DEPTHS
    }


def chain_programs(wanted: dict[str, dict]) -> Programs:
    """The programs of :func:`chains` with random weights."""
    torch.manual_seed(0)
    modules: dict[str, nn.Module] = {
        name: Chain(name, facts["channels"], facts["depth"]).eval().requires_grad_(False)
        for name, facts in wanted.items()
    }
    inputs = {name: (torch.rand(1, f["channels"], f["side"], f["side"]),) for name, f in wanted.items()}
    return Programs(modules, dict(inputs), torch.zeros(1, 1), 1, 0.0)


@torch.no_grad()
def sweep(shapes: tuple[tuple[int, int], ...], protocol: Protocol, console: Console) -> list[dict]:
    """A row for each program, target and arithmetic: its facts with ``median_ms`` and ``gmacs_per_s``."""
    wanted = chains(shapes)
    programs = chain_programs(wanted)
    samples: Samples = {name: [inputs] for name, inputs in programs.example_inputs.items()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    files = [(target, precision) for target in CPU_TARGETS for precision in (FP32.name, W8A8.name)]
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console) as progress:
        task = progress.add_task("exporting", total=len(files))
        running: list[tuple[dict, partial[Milliseconds]]] = []
        for target, precision in files:
            path = Path(folder) / f"{precision}{TARGETS[target].suffix}"
            TARGETS[target].lower(programs, RECIPES[precision], samples, path)
            loaded = open_programs(target, path, protocol.threads, tuple(wanted))
            for name, facts in wanted.items():
                row = {"target": target, "precision": precision, **facts}
                running.append((row, partial(_timed, loaded[name], programs.example_inputs[name][0].numpy())))
            progress.advance(task)
        turns = (protocol.warmups + protocol.runs) * len(running)
        task = progress.add_task("timing, in turn", total=turns)
        times = take_turns(
            [run for _, run in running],
            warmup=protocol.warmups,
            count=protocol.runs,
            advance=lambda: progress.advance(task),
        )
    for (row, _), runs in zip(running, times, strict=True):
        row["median_ms"] = latency_facts([run["total"] for run in runs])["median"]
        row["gmacs_per_s"] = row["gmacs"] / (row["median_ms"] / 1e3)
    return [row for row, _ in running]


def _timed(program: Program, x: np.ndarray) -> Milliseconds:
    """One call after a pause and an untimed one, as the harness has it."""
    time.sleep(PAUSE_S)
    program(x)
    start = time.perf_counter()
    program(x)
    return {"total": 1e3 * (time.perf_counter() - start)}


@exits_with_2
def main(
    threads: Annotated[int, typer.Option(min=1, help="Threads of each runtime.")] = os.cpu_count() or 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed calls of each program.")] = 20,
    results: Annotated[Path, typer.Option(help="Folder of the JSON results.")] = RESULTS,
) -> None:
    """Measure convolution throughput, all programs in turn."""
    console = Console()
    protocol = Protocol(runs=runs, threads=threads)
    order = {"order": "programs alternate, one call each after an untimed one", "statistic": "median"}
    report = {
        "kind": "roofline",
        "rows": sweep(SHAPES, protocol, console),
        "protocol": protocol.to_json() | order,
        "machine": machine_facts(),
    }
    for path in (cache_path(threads), results / "roofline.json"):
        write_json(path, report)
    table = Table("target", "precision", "best GMAC/s")
    for (target, precision), best in read_roof(cache_path(threads)).items():
        table.add_row(target, precision, f"{best:.1f}")
    console.print(table)
    console.print(f"written to {path} and {cache_path(threads)}")


if __name__ == "__main__":
    typer.run(main)
