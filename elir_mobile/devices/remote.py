"""What the devices that run the Python worker share: the worker's files, and a job that survives a crash.

The worker (``elir_mobile/devices/worker.py``) needs NumPy and one runtime. It is given to a device as
source files and runs all files of a job in one process, since importing a runtime can take longer than
running it. A file that takes the process down with it costs the others nothing: they are run again, each
by itself.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import elir_mobile
from elir_mobile.core.errors import UserError
from elir_mobile.core.jobs import DeviceFacts, Job, Result, Row
from elir_mobile.devices.worker import failed_row

WORKER = "elir_mobile.devices.worker"
TOOL_LIMIT_S = 3600.0  # of a tool that fetches what a device needs
EMULATED = "emulated"  # in a processor's name: what it runs is no measure of it


def copy_worker(folder: Path) -> None:
    """Copy to ``folder/elir_mobile`` what of this package the worker imports: ``core``, ``runtimes`` and
    the worker's own file."""
    package = Path(elir_mobile.__file__).parent
    needed = [*package.glob("core/*.py"), *package.glob("runtimes/*.py"), package / "devices" / "worker.py"]
    for source in (package / "__init__.py", package / "devices" / "__init__.py", *needed):
        target = folder / "elir_mobile" / source.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


class WorkerDied(Exception):
    """The worker's process ended before it wrote a result; the message says how."""


def run_surviving(job: Job, manifest: dict, facts: DeviceFacts, run: Callable[[Job], Result]) -> Result:
    """``run(job)``; where its process dies, every file in a process of its own.

    Args:
        manifest: of the bundle, for the rows of files that do not run.
        facts: of the device, in case no process lives to tell them.
        run: runs a job on the device, or raises :class:`WorkerDied`.
    """
    try:
        return run(job)
    except WorkerDied as died:
        if len(job.files) == 1:
            return Result(facts, (failed_row(manifest, job.files[0], job.threads, str(died)),))
    results = [run_surviving(replace(job, files=(path,)), manifest, facts, run) for path in job.files]
    runtimes = {name: version for result in results for name, version in result.device.runtimes.items()}
    rows = tuple(row for result in results for row in result.rows)
    return Result(replace(results[0].device, runtimes=runtimes), rows)


def only_finite(row: Row, folder: Path) -> Row:
    """``row``, failed where an output in ``folder`` has values that are not finite.

    A browser's JSON turns their decibels into null, which would read as equal to the last bit.
    """
    for name, file in row.outputs.items():
        if (folder / file).is_file() and not np.isfinite(np.fromfile(folder / file, "<f4")).all():
            error = f"{name} gives values that are not finite"
            return Row(row.path, row.sha256, row.target, row.precision, row.threads, error=error)
    return row


def told_by(name: str, kind: str, result: Result, *, emulated: bool) -> Result:
    """``result`` as of the device ``name``; of an emulated one, whose latency says nothing, without any."""
    emulated = emulated or result.device.emulated
    rows = result.rows
    if emulated:
        untimed = partial(replace, load_ms=None, first_ms=None, programs={}, total=None, peak_bytes=None)
        rows = tuple(map(untimed, rows))
    return Result(replace(result.device, name=name, kind=kind, emulated=emulated), rows)


def call(command: list[str], failure: str, **options: Any) -> None:
    """Run a tool of this machine.

    Raises:
        UserError: it fails, or takes too long: ``failure``, and the last line of what it said.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TOOL_LIMIT_S, **options
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{failure}: it did not end within {TOOL_LIMIT_S:g} s") from error
    if done.returncode != 0:
        raise UserError(f"{failure}: {last_line(done.stderr) or done.returncode}")


def last_line(text: str) -> str:
    """The last line of what a process said, or nothing."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def how_it_ended(code: int, said: str) -> str:
    """One clause for a worker that ended with ``code`` (negative: by a signal) and said ``said``."""
    how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
    line = last_line(said)
    return f"the worker ended with {how}" + (f": {line}" if line else "")
