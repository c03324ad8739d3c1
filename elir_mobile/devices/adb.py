"""A device at the other end of ``adb``: files are pushed, a job is run, results are pulled.

Two kinds of device are known. A phone with the demo app: its headless entry point runs the job
(``am instrument``, ``android_demo/``), in the folder that app and shell share. And anything with an ``adbd``
and a Python that has NumPy and a runtime (a Linux board, a phone's Termux): the Python worker is pushed and
run. Both read the same job file and write the same result file.

The protocol is the ``adb`` client's (Debian package ``adb``, at least 1.0.36: earlier ones lose exit codes).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from elir_mobile.core.errors import UserError
from elir_mobile.core.jobs import DeviceFacts, Job, Result, read_result, write_json
from elir_mobile.core.manifest import copy_files, read_manifest
from elir_mobile.devices.protocol import Progress
from elir_mobile.devices.remote import (
    EMULATED,
    WORKER,
    WorkerDied,
    copy_worker,
    how_it_ended,
    last_line,
    only_finite,
    run_surviving,
    told_by,
)
from elir_mobile.runtimes.table import RUNTIMES, runtimes_on

APP = "org.elir.mobile.demo"
INSTRUMENTATION = f"{APP}/.JobInstrumentation"
APP_FOLDER = f"/sdcard/Android/data/{APP}/files"  # an app's own folder that the shell may write, too
# Android's place for a shell's files; other systems have none.
MAKE_FOLDER = "d=/data/local/tmp; [ -d $d ] || d=/tmp; mktemp -d $d/elir-mobile.XXXXXX"
MAKE_APP_FOLDER = f"rm -rf {APP_FOLDER}/harness && mkdir -p {APP_FOLDER}/harness && echo {APP_FOLDER}/harness"
STEPS = 3  # pushing, running, pulling
# Seconds for an answer of adb; for copying a bundle; and for a job, each of whose files may take minutes.
ANSWER_LIMIT_S, COPY_LIMIT_S, JOB_LIMIT_S = 60.0, 1800.0, 3600.0
Said = subprocess.CompletedProcess[str]


class Silent(UserError):
    """The device did not answer in time."""


class Adb:
    """The ``adb`` client, talking to one device: ``serial``'s, or the only one that is connected.

    Every method raises :class:`UserError` where there is no client here, or the device is silent too long.
    """

    def __init__(self, serial: str | None = None) -> None:
        self.serial = serial or "the phone"
        self._command = ["adb", *(["-s", serial] if serial else [])]

    def _call(self, *arguments: str, limit_s: float = ANSWER_LIMIT_S) -> Said:
        command = [*self._command, *arguments]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, timeout=limit_s
            )
        except FileNotFoundError as error:
            raise UserError("the device 'adb' needs the adb client: apt-get install adb") from error
        except subprocess.TimeoutExpired as error:
            raise Silent(
                f"{self.serial} did not answer 'adb {arguments[0]}' within {limit_s:g} s: connect it again"
            ) from error

    def state(self) -> str:
        """``device`` where it answers; else what adb says instead."""
        said = self._call("get-state")
        return said.stdout.strip() if said.returncode == 0 else last_line(said.stderr).removeprefix("error: ")

    def shell(self, command: str, limit_s: float = ANSWER_LIMIT_S) -> Said:
        """Run a shell command line on the device.

        Raises:
            UserError: the device does not answer, or not within ``limit_s``.
        """
        said = self._call("shell", command, limit_s=limit_s)
        if said.returncode != 0 and (state := self.state()) != "device":
            raise UserError(f"{self.serial} no longer answers ({state}): connect it again")
        return said

    def do(self, command: str) -> None:
        """:meth:`shell`, of a command line that must succeed.

        Raises:
            UserError: it does not, or the device does not answer.
        """
        if (said := self.shell(command)).returncode != 0:
            raise UserError(f"{self.serial} refuses '{command}': {last_line(said.stderr or said.stdout)}")

    def property(self, name: str) -> str:
        """A system property; empty where there is none, or no Android."""
        said = self.shell(f"getprop {name}")
        return said.stdout.strip() if said.returncode == 0 else ""

    def push(self, source: Path, target: str) -> None:
        """Copy a folder's content into a folder of the device.

        Raises:
            UserError: adb cannot.
        """
        self._copy("push", f"{source}/.", target)

    def pull(self, source: str, target: Path) -> None:
        """Copy a file of the device here.

        Raises:
            UserError: adb cannot.
        """
        self._copy("pull", source, str(target))

    def _copy(self, verb: str, source: str, target: str) -> None:
        said = self._call(verb, source, target, limit_s=COPY_LIMIT_S)
        if said.returncode != 0:
            reason = last_line(said.stderr or said.stdout).removeprefix("adb: ").removeprefix("error: ")
            raise UserError(f"adb {verb} with {self.serial} failed: {reason}")

    @contextmanager
    def folder(self, make: str) -> Iterator[str]:
        """A folder on the device, printed by the command line ``make``, that vanishes with the block.

        Raises:
            UserError: it cannot be made.
        """
        said = self.shell(make)
        path = said.stdout.strip()
        if said.returncode != 0 or not path.startswith("/"):
            raise UserError(
                f"no folder can be made on {self.serial}: {last_line(said.stderr or said.stdout)}"
            )
        try:
            yield path
        finally:
            with suppress(Silent):  # what is wrong with it has been said
                self._call("shell", f"rm -rf {shlex.quote(path)}")


@dataclass(frozen=True)
class AdbDevice:
    """Something that runs jobs at the other end; a :class:`~elir_mobile.devices.protocol.Device`.

    Attributes:
        adb: the way to it.
        name, kind, runtimes: see the protocol.
        emulated: what it runs is no measure of it.
        make_folder: command line that makes the folder for a job and prints its path.
        needs_worker: whether the Python worker is pushed, too.
        execute: runs ``job.json`` of a folder, so that ``result.json`` is there afterwards; raises
            :class:`UserError` where the job is refused, and :class:`WorkerDied` where what ran it ended
            in another way.
    """

    adb: Adb
    name: str
    kind: str
    runtimes: tuple[str, ...]
    emulated: bool
    make_folder: str
    needs_worker: bool
    execute: Callable[[Adb, str], None]

    def run(self, bundle: Path, job: Job, folder: Path, progress: Progress) -> Result:
        """Run ``job``; see :meth:`elir_mobile.devices.protocol.Device.run`."""
        manifest = read_manifest(bundle, job.files)
        job = replace(job, bundle="bundle")
        if self.emulated:
            job = replace(job, warmup=0, runs=0)
        unknown = DeviceFacts(self.name, self.kind, "", "", "", self.emulated, {})
        with self.adb.folder(self.make_folder) as remote, tempfile.TemporaryDirectory() as temporary:
            staging = Path(temporary)
            kept = [entry for entry in manifest["files"] if entry["path"] in job.files]
            copy_files(bundle, manifest, kept, staging / "bundle")
            if self.needs_worker:
                copy_worker(staging)
            progress(0, STEPS, "pushing")
            self.adb.push(staging, remote)
            result = run_surviving(job, manifest, unknown, partial(self._once, remote, folder, progress))
        result = told_by(self.name, self.kind, result, emulated=self.emulated)
        write_json(folder / "result.json", result)
        progress(STEPS, STEPS, "done")
        return result

    def _once(self, remote: str, folder: Path, progress: Progress, job: Job) -> Result:
        """Push ``job``, run it, and pull its result and outputs into ``folder``."""
        with tempfile.TemporaryDirectory() as temporary:
            write_json(Path(temporary) / "job.json", job)
            self.adb.push(Path(temporary), remote)
        progress(1, STEPS, "running")
        self.execute(self.adb, remote)
        progress(2, STEPS, "pulling")
        pulled = folder / "result.json"
        self.adb.pull(f"{remote}/result.json", pulled)
        result = read_result(pulled)
        for row in result.rows:
            for name in row.outputs.values():
                self.adb.pull(f"{remote}/{name}", folder / name)
        return replace(result, rows=tuple(only_finite(row, folder) for row in result.rows))


def _shell_for_a_job(adb: Adb, command: str) -> Said:
    try:
        return adb.shell(command, JOB_LIMIT_S)
    except Silent as error:
        raise WorkerDied(f"it did not end within {JOB_LIMIT_S:g} s") from error


def run_worker(adb: Adb, remote: str) -> None:
    """``AdbDevice.execute`` with the device's ``python3``."""
    path = shlex.quote(remote)
    run = f'PYTHONPATH={path}"${{PYTHONPATH:+:$PYTHONPATH}}" python3 -m {WORKER}'
    said = _shell_for_a_job(adb, f"cd {path} && rm -f result.json && {run} job.json result.json")
    if said.returncode == 2:
        raise UserError(last_line(said.stderr).removeprefix("error: "))
    if said.returncode != 0:
        raise WorkerDied(how_it_ended(said.returncode, said.stderr))


def run_app(adb: Adb, remote: str) -> None:
    """``AdbDevice.execute`` with the app's instrumentation, whose code ``am`` prints but does not return."""
    arguments = f"-e job {remote}/job.json -e result {remote}/result.json"
    run = f"am instrument -w {arguments} {INSTRUMENTATION}"
    said = _shell_for_a_job(adb, f"rm -f {remote}/result.json; {run}")
    if re.search(r"^INSTRUMENTATION_CODE: -1\s*$", said.stdout, re.MULTILINE):
        return
    refused = re.search(r"^INSTRUMENTATION_RESULT: error=(.+)$", said.stdout, re.MULTILINE)
    if refused:
        raise UserError(f"the demo app on {adb.serial} refuses the job: {refused[1].strip()}")
    crashed = re.search(r"^INSTRUMENTATION_(?:RESULT: \w+Msg|FAILED)[=:] *(.+)$", said.stdout, re.MULTILINE)
    raise WorkerDied(f"the demo app ended early: {crashed[1].strip() if crashed else 'it says nothing'}")


def connect(spec: str) -> AdbDevice:
    """The device ``adb:SERIAL``.

    Raises:
        UserError: no adb here, no such device, or nothing on it that can run a file.
    """
    serial = spec.partition(":")[2]
    adb = Adb(serial)
    if (state := adb.state()) != "device":
        raise UserError(f"{serial} does not answer adb ({state}): see 'adb devices'")
    model = adb.property("ro.product.model") or serial
    emulator = "1" in (adb.property("ro.boot.qemu"), adb.property("ro.kernel.qemu"))
    name = f"{model} (adb)"
    # Without a package manager the shell answers 127, without the app the manager 1.
    if adb.shell(f"pm path {APP}").returncode == 0:
        runtimes = runtimes_on("android")
        return AdbDevice(adb, name, "android", runtimes, emulator, MAKE_APP_FOLDER, False, run_app)
    runtimes = python_runtimes(adb)
    emulated = emulator or EMULATED in adb.shell("cat /proc/cpuinfo").stdout
    return AdbDevice(adb, name, "adb", runtimes, emulated, MAKE_FOLDER, True, run_worker)


def python_runtimes(adb: Adb) -> tuple[str, ...]:
    """Names of the runtimes that the device's ``python3`` has.

    Raises:
        UserError: there is none.
    """
    known = runtimes_on("adb")
    needed = {name: RUNTIMES[name].top_modules for name in known}
    probe = (
        "import numpy; from importlib.util import find_spec; "
        f"print(*(name for name, modules in {needed!r}.items() if all(map(find_spec, modules))))"
    )
    said = adb.shell(f"python3 -c {shlex.quote(probe)}")
    found = said.stdout.split()
    if said.returncode != 0 or not found:
        raise UserError(
            f"{adb.serial} has neither the demo app {APP} nor a python3 with NumPy and "
            f"{' or '.join(RUNTIMES[name].title for name in known)}: install the app (android_demo)"
        )
    return tuple(name for name in known if name in found)
