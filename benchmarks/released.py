"""Size and speed of the released network: ``python -m benchmarks.released --task bfr``.

The published architecture at its published size with random weights: eager, fp32 and w8a8 files
interleaved in one run. Writes ``benchmarks/results/released-TASK.json`` in the report's row format.

``--form taesd,half --steps 5,2`` sets networks beside each other: the first form with the first number of
steps, the second with the second. All their files take turns in one run, and each row says how many times as
fast as the first network's it is. Writes ``released-TASK-forms.json``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast, get_args

import numpy as np
import typer
from rich.console import Console

from elir_mobile.checkpoints import random_weights, save_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.core.machine import peak_bytes, peak_bytes_of_children
from elir_mobile.core.statistics import bootstrap
from elir_mobile.core.timing import Milliseconds, take_turns
from elir_mobile.devices.host import PAUSE_S, WorkerProcess, worker_process
from elir_mobile.harness.charts import executed
from elir_mobile.harness.measure import EAGER as FLOAT
from elir_mobile.harness.protocol import Protocol, latency_facts
from elir_mobile.harness.report import terminal_table
from elir_mobile.models.autoencoder import Form
from elir_mobile.runtimes.table import EAGER, get_runtime
from elir_mobile.tasks import Task, get_task
from export.job import ALL, SHORT, Job, select_artifacts
from quant.ptq import run

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Network:
    """One of those that are set beside each other, exported.

    Attributes:
        job: that wrote its bundle.
        folder: of the bundle.
        report: that was made of it; without times.
    """

    job: Job
    folder: Path
    report: dict


def variants(task: Task, forms: str | None, steps: str | None) -> list[Task]:
    """``task`` with each of the comma-separated forms of the autoencoder and numbers of steps.

    Raises:
        UserError: a form is unknown, a number is none, or there is not one for each form.
    """
    names = forms.split(",") if forms else [task.arch.autoencoder]
    counts = steps.split(",") if steps else [str(task.steps)] * len(names)
    if unknown := set(names) - set(get_args(Form)):
        raise UserError(f"unknown form '{min(unknown)}': choose from {', '.join(get_args(Form))}")
    if len(counts) != len(names) or not all(count.isdecimal() and int(count) for count in counts):
        raise UserError(f"--steps {steps} is not a number of 1 or more for each form: give {len(names)}")
    return [
        replace(task, arch=replace(task.arch, autoencoder=cast(Form, name)), steps=int(count))
        for name, count in zip(names, counts, strict=True)
    ]


def timed_together(networks: Sequence[Network], protocol: Protocol, console: Console) -> list[dict]:
    """The rows of all networks with the times of one run, in which every file of each takes turns.

    ``speedup_vs_first`` is how many times as fast as the first network's file of the same runtime and
    precision a file is, ``speedup_vs_first_eager`` as the first network in PyTorch, see :func:`ratio`.
    """
    workers: list[WorkerProcess] = []
    rows: list[tuple[int, dict]] = []  # with the index of the network
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for index, network in enumerate(networks):
            weights = scratch / f"{index}.safetensors"
            facts = {key: getattr(network.job.info, key) for key in ("size", "steps", "sigma_s")}
            save_weights(network.job.restorer, weights, task=network.job.task.name, **facts)
            for row in network.report["rows"]:
                stood_in = row["target"] != EAGER and get_runtime(row["target"]).stand_in
                if stood_in or not executed(row):
                    continue
                which = {"file": row["path"]} if row["path"] else {"file": "", "weights": str(weights)}
                worker = stack.enter_context(worker_process())
                worker.ask("open", bundle=str(network.folder.resolve()), threads=protocol.threads, **which)
                workers.append(worker)
                rows.append((index, row))

        def turn(worker: WorkerProcess) -> Milliseconds:
            time.sleep(PAUSE_S)
            worker.ask("run")  # the pause let cores fall asleep: not timed
            return worker.ask("run")

        with console.status("timing, each file in turn"):
            turns = [partial(turn, worker) for worker in workers]
            times = take_turns(turns, warmup=protocol.warmups, count=protocol.runs)
    totals = {
        (index, row["target"], row["precision"]): [spent["total"] for spent in runs]
        for (index, row), runs in zip(rows, times, strict=True)
    }
    timed = []
    for (index, row), runs in zip(rows, times, strict=True):
        total = totals[index, row["target"], row["precision"]]
        programs = {
            name: {**facts, "latency_ms": latency_facts([spent[name] for spent in runs])}
            for name, facts in row["programs"].items()
        }
        latency = "the first network's file of the same kind, taking turns; × eager: this network in PyTorch"
        timed.append(
            {
                **row,
                "latency_ms": latency_facts(total),
                "programs": programs,
                "speedup_vs_eager": ratio(totals[index, *FLOAT], total)["value"],
                "speedup_vs_first": ratio(totals[0, row["target"], row["precision"]], total),
                "speedup_vs_first_eager": ratio(totals[0, *FLOAT], total),
                "against": {**row["against"], "latency": latency},
            }
        )
    return timed


def ratio(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float | None]:
    """How many times as long the median of ``slower`` is, ``low`` to ``high`` with 95 % confidence; runs of
    one place were neighbours, and are drawn together."""
    a, b = np.array(slower), np.array(faster)
    found = bootstrap(lambda chosen: float(np.median(a[chosen]) / np.median(b[chosen])), len(a))
    low, high = found or (None, None)
    return {"value": float(np.median(a) / np.median(b)), "low": low, "high": high}


@exits_with_2
def main(
    task: Annotated[str, typer.Option(help="Restoration task.")] = "bfr",
    targets: Annotated[
        str, typer.Option(help="Comma-separated targets; all: those that are installed.")
    ] = ALL,
    precision: Annotated[str, typer.Option(help="Comma-separated precisions.")] = "fp32,w8a8",
    form: Annotated[
        str | None, typer.Option(help="Comma-separated forms of the autoencoder. Default: the task's.")
    ] = None,
    steps: Annotated[str | None, typer.Option(help="K of each form. Default: the task's.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the picture. Default: the task's.")] = None,
    runs: Annotated[int, typer.Option(help="Timed runs of each file.")] = SHORT.runs,
    threads: Annotated[int, typer.Option(help="Threads of each file.")] = SHORT.threads,
    seed: Annotated[int, typer.Option(help="Seed of weights, noise and degradations.")] = 0,
    results: Annotated[Path, typer.Option(help="Folder of the JSON results.")] = RESULTS,
) -> None:
    """Export the released network with random weights and time every file."""
    console = Console()
    start = time.monotonic()
    chosen = variants(get_task(task), form, steps)
    artifacts = select_artifacts(targets, precision, console)
    protocol = replace(SHORT, runs=runs, threads=threads)
    with tempfile.TemporaryDirectory() as out:
        networks = []
        together = form is not None or steps is not None
        for index, variant in enumerate(chosen):
            restorer, info = random_weights(variant, seed)
            side = restorer.arch.check_side(size or info.size, "--size")
            # Those that are set beside each other are timed together, afterwards.
            own = replace(protocol, runs=0, warmups=0) if together else protocol
            folder = Path(out) / str(index)
            job = Job(variant, restorer, info, side, artifacts, None, folder, seed, own)
            networks.append(Network(job, *run(job, console)))
        report = networks[0].report
        if together:
            report = {
                "kind": "forms",
                "rows": timed_together(networks, protocol, console),
                "model": [network.report["model"] for network in networks],
                **{key: report[key] for key in ("machine", "revision")},
                "protocol": protocol.to_json(),
                "export_seconds": sum(network.report["export_seconds"] for network in networks),
            }
    report["seconds"] = time.monotonic() - start
    report["peak_export_process_bytes"] = peak_bytes_of_children()
    path = results / f"released-{task}{'-forms' if together else ''}.json"
    write_json(path, report)
    console.print(terminal_table(report["rows"]))
    console.print(
        f"{report['seconds']:.0f} s, of them {report['export_seconds']:.0f} s for the exports; peak memory "
        f"{peak_bytes() / 2**30:.1f} GiB, of the largest export process "
        f"{report['peak_export_process_bytes'] / 2**30:.1f} GiB; written to {path}"
    )


if __name__ == "__main__":
    typer.run(main)
