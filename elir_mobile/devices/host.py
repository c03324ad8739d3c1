"""This machine as a device: every artifact in a process of its own, the processes taking turns.

A worker process (``process.py``) holds one artifact. The workers restore the golden input in turn,
told over a pipe, so that a slow spell of the machine hits all of them and each one's memory is its own.
All of them are started several times (``cold_starts``), each time with a share of the runs: loading is timed
in fresh processes, and what differs from process to process (where memory and threads happen to lie) is in
the times. What an interpreter runs (Core ML anywhere but on a Mac) is compared but not timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from elir_mobile.core.jobs import Job, Result, Row, write_json
from elir_mobile.core.manifest import read_manifest
from elir_mobile.core.timing import Milliseconds, shares, take_turns
from elir_mobile.devices.process import REPLY_LIMIT_S, WorkerError, WorkerProcess, worker_process
from elir_mobile.devices.protocol import Progress
from elir_mobile.devices.worker import failed_row, host_facts, result_row
from elir_mobile.runtimes.table import EAGER, RUNTIMES, file_stem, runtime_name, runtimes_on

# Threads of a runtime's pool go on spinning for some milliseconds after a call: not in the next one's. In
# the pause cores fall asleep and caches are another file's, so that each turn begins with an untimed run.
PAUSE_S = 0.05
OPEN_LIMIT_S = 300.0  # for loading a file and one restoration in a runtime of this machine
FLOAT = "float"  # the float network's place among the files


@dataclass
class _Measured:
    """One artifact while it is measured."""

    file: str
    opened: list[dict] = field(default_factory=list)  # replies of fresh processes
    runs: list[Milliseconds] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # fields of the row
    error: str | None = None

    @property
    def timed(self) -> bool:
        return self.error is None and bool(self.opened) and bool(self.opened[0]["timed"])


class Host:
    """See the module; a :class:`~elir_mobile.devices.protocol.Device`."""

    name = "host"
    kind = "host"
    runtimes = runtimes_on("host")

    def run(
        self,
        bundle: Path,
        job: Job,
        folder: Path,
        progress: Progress,
        *,
        weights: str | None = None,
        pictures: Path | None = None,
        steps: Sequence[int] = (),
        cold_starts: int = 1,
    ) -> Result:
        """Run ``job``; see :meth:`elir_mobile.devices.protocol.Device.run`.

        Args:
            weights: of the float network, which is then measured too; its row comes first.
            pictures: a file with ``x`` and ``noise``; what each artifact makes of them is written to
                ``folder``, see :func:`pictures_of`.
            steps: further K, with which the float network restores the pictures too.
            cold_starts: fresh processes of each file, one after the other, that share the runs.
        """
        manifest = read_manifest(bundle)
        measured = [_Measured(file) for file in ([FLOAT] if weights else []) + list(job.files)]
        # What decodes the latents at the flow's beginning: one in float is enough.
        in_float = [FLOAT] if weights else [e["path"] for e in manifest["files"] if e["precision"] == "fp32"]
        exact = next((file for file in in_float if file == FLOAT or file in job.files), None)
        known = {entry["path"]: RUNTIMES.get(runtime_name(entry["target"])) for entry in manifest["files"]}
        stood_in = {path for path, runtime in known.items() if runtime and runtime.stand_in}
        # Of an artifact that is timed, after it was opened first.
        later = cold_starts * (1 + job.warmup) + job.runs
        done, total = 0, len(measured) * (1 + later)

        def tick(text: str) -> None:
            nonlocal done
            done += 1
            progress(min(done, total), total, text)

        def opening(worker: WorkerProcess, item: _Measured) -> None:
            which = {"file": "", "weights": weights} if item.file == FLOAT else {"file": item.file}
            try:
                slow = item.file in stood_in
                facts = worker.ask(
                    "open",
                    bundle=str(bundle.resolve()),
                    threads=job.threads,
                    limit_s=REPLY_LIMIT_S if slow else OPEN_LIMIT_S,
                    **which,
                )
                item.opened.append(facts)
            except WorkerError as error:
                item.error = str(error)
            tick(f"opening {item.file}")

        def compute(worker: WorkerProcess, item: _Measured) -> None:
            try:
                item.facts |= worker.ask("memory")
                if job.parity:
                    item.facts |= worker.ask("golden", folder=str(folder.resolve()))
                if pictures:
                    target, precision = (item.opened[0][key] for key in ("target", "precision"))
                    for k in (None, *(steps if item.file == FLOAT else ())):
                        worker.ask(
                            "restore",
                            inputs=str(pictures.resolve()),
                            outputs=str(pictures_of(folder.resolve(), target, precision, k)),
                            steps=k,
                            starts=k is None and item.file == exact,
                        )
            except WorkerError as error:
                item.error = str(error)
            tick(f"restoring with {item.file}")

        def turn(worker: WorkerProcess, item: _Measured) -> Milliseconds:
            time.sleep(PAUSE_S)
            tick("timing, each artifact in turn")
            if item.error is None:
                try:
                    worker.ask("run")
                    return worker.ask("run")
                except WorkerError as error:
                    item.error = str(error)
            return {}

        waiting = measured
        for start, share in enumerate(shares(job.runs, cold_starts)):
            with ExitStack() as stack:
                alive: list[tuple[WorkerProcess, _Measured]] = []
                for item in waiting:
                    with ExitStack() as own:
                        worker = own.enter_context(worker_process())
                        opening(worker, item)
                        if item.timed and job.runs:
                            alive.append((worker, item))
                            stack.push(own.pop_all())
                        elif item.error is None:
                            compute(worker, item)
                if start == 0:
                    total = done + len(alive) * later  # which of them are timed is known now
                turns = [partial(turn, worker, item) for worker, item in alive]
                times = take_turns(turns, warmup=job.warmup, count=share)
                for (_, item), runs in zip(alive, times, strict=True):
                    item.runs += runs
                waiting = [item for _, item in alive if item.error is None]
                if start == cold_starts - 1:
                    for worker, item in alive:
                        if item.error is None:
                            compute(worker, item)
        rows = tuple(_row(item, manifest, job.threads) for item in measured)
        result = Result(host_facts({row.target for row in rows}), rows)
        write_json(folder / "result.json", result)
        return result


def _row(item: _Measured, manifest: dict, threads: int) -> Row:
    if item.error is not None:
        row = failed_row(manifest, item.file, threads, item.error)
        return replace(row, target=EAGER, precision="fp32", path="") if item.file == FLOAT else row
    load_ms, first_ms = (
        statistics.median(reply[key] for reply in item.opened) for key in ("load_ms", "first_ms")
    )
    return result_row(item.opened[0], threads, item.runs, load_ms, first_ms, **item.facts)


def pictures_of(folder: Path, target: str, precision: str, steps: int | None = None) -> Path:
    """Where :meth:`Host.run` put an artifact's pictures: ``image`` (N, 3, H, W) and ``trajectory``
    (N, K+1, C, h, w), of one in float also ``coarse`` and ``identity``; of another K = ``steps``, too."""
    other = "" if steps is None else f"-k{steps}"
    return folder / f"{file_stem(target, precision)}{other}-pictures.npz"


def connect(spec: str) -> Host:
    """This machine, always there."""
    return Host()
