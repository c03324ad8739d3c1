"""What this machine's runtime can do at best: ``python -m benchmarks.conv_roof``.

Chains of plain 3×3 convolutions with ReLU, nothing else, through the same export and runtime as the
real programs. Their int8 to fp32 ratio is the most that quantization can gain on this processor;
compare it with the ratio in ``released-bfr.json``. Writes ``benchmarks/results/conv-roof.json``.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from benchmarks.released import RESULTS
from elir_mobile.errors import exits_with_2
from elir_mobile.harness.protocol import Protocol, latency_stats, machine_facts, set_threads
from elir_mobile.precision import RECIPES
from export.executorch import lower
from export.programs import Programs
from export.targets import TARGETS

DEPTH = 8
# Channels and side of the convolutions that the 512-pixel network spends its time in.
SHAPES = ((64, 512), (64, 256), (64, 128), (128, 64), (256, 32))


def chain(channels: int) -> nn.Module:
    """``DEPTH`` convolutions of ``channels`` to ``channels``, each with ReLU."""
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval().requires_grad_(False)


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
@torch.no_grad()
def main() -> None:
    """Measure convolution throughput, eager, fp32 and w8a8 interleaved."""
    from executorch.runtime import Runtime

    protocol = Protocol()
    set_threads(protocol)
    results = []
    for channels, side in track(SHAPES, "measuring"):
        torch.manual_seed(0)
        module, x = chain(channels), torch.rand(1, channels, side, side)
        programs = Programs({"chain": module}, {"chain": (x,)}, torch.zeros(1, 1), 1, 0.0)
        with tempfile.TemporaryDirectory() as folder:
            methods = {}
            for name in TARGETS["executorch"].precisions:
                path = Path(folder) / f"{name}.pte"
                lower(programs, RECIPES[name], {"chain": [(x,)]}, path)
                methods[name] = Runtime.get().load_program(path).load_method("chain")
        seconds: dict[str, list[float]] = {"eager": [], **{name: [] for name in methods}}
        for run in range(protocol.warmups + protocol.runs):
            for name, times in seconds.items():
                start = time.perf_counter()
                _call(module if name == "eager" else methods[name], x)
                if run >= protocol.warmups:
                    times.append(time.perf_counter() - start)
        gmacs = DEPTH * channels * channels * 9 * side * side / 1e9
        row = {"channels": channels, "side": side, "gmacs": gmacs}
        for name, times in seconds.items():
            row[f"{name}_gmacs_per_s"] = gmacs / (latency_stats(times)["median"] / 1e3)
        results.append(row)
    RESULTS.mkdir(exist_ok=True)
    report = {"rows": results, "protocol": protocol.to_json(), "machine": machine_facts()}
    (RESULTS / "conv-roof.json").write_text(json.dumps(report, indent=2) + "\n")
    table = Table("channels", "side", "eager GMAC/s", "fp32", "w8a8", "w8a8 / fp32", "w8a8 / eager")
    for row in results:
        eager, fp32, w8a8 = (row[f"{name}_gmacs_per_s"] for name in ("eager", "fp32", "w8a8"))
        figures = (eager, fp32, w8a8, w8a8 / fp32, w8a8 / eager)
        table.add_row(str(row["channels"]), str(row["side"]), *(f"{figure:.1f}" for figure in figures))
    Console().print(table)


def _call(program: object, x: Tensor) -> None:
    if isinstance(program, nn.Module):
        program(x)
    else:
        program.execute([x])  # type: ignore[attr-defined]  # an ExecuTorch method


if __name__ == "__main__":
    app()
