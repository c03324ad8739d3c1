"""What is done to a command, and what must be so afterwards."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from tests.faults.commands import Command

COMMAND = (sys.executable, "-m", "tests.faults.quick")
_numbers = itertools.count()
HANG_S = 240.0  # that a command may take: the longest takes half a minute on a machine that is not busy
ORPHAN_S = 5.0
CUT_OFF = Path(__file__).with_name("cut_off")
# Two commands are disturbed at once on two cores, and kernels add up in another order on more threads.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
STOPS = {signal.SIGTERM: 143, signal.SIGINT: 130}
Files = dict[str, str]  # path in the folder → SHA-256


@dataclass
class Injection:
    """One fault and everything that was wrong afterwards, in words by kind."""

    command: str
    fault: str
    seconds: float = 0.0
    wrong: dict[str, str] = field(default_factory=dict)

    def must(self, holds: bool, kind: str, words: object) -> None:
        """Note ``words`` unless it holds."""
        if not holds:
            self.wrong.setdefault(kind, str(words)[:500])


@dataclass(frozen=True)
class Whole:
    """An undisturbed run of a command."""

    command: Command
    starter: Starter | None
    seconds: float
    files: Files
    bytes: int


class Starter:
    """Starts commands at once, see ``quick.py``."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        path = os.pathsep.join([str(CUT_OFF), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [*COMMAND, "--serve"],
            stdin=pipe,
            stdout=pipe,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
        )
        self.lock = threading.Lock()
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def start(self, arguments: list[str], environment: dict[str, str], log: Path) -> int:
        """The number of the new process."""
        assert self.process.stdin and self.process.stdout
        request = {"arguments": arguments, "environment": environment, "log": str(log)}
        with self.lock:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return int(self.process.stdout.readline())


class Run:
    """One process of a command, in a session of its own.

    Args:
        starter: None: a process from the beginning.
        paths: more of them for ``PYTHONPATH``.
        memory: bytes of address space that it may have.
    """

    def __init__(
        self,
        command: Command,
        out: Path,
        starter: Starter | None,
        *,
        paths: tuple[Path, ...] = (),
        memory: int | None = None,
    ) -> None:
        beside = out.parent.parent if out.parent.is_mount() else out.parent  # not on the disk that is full
        number = next(_numbers)
        self.log, self.asked, self.code = (
            beside / f"{out.name}-{number}.{end}" for end in ("log", "network", "code")
        )
        python_path = [*map(str, (*paths, CUT_OFF)), os.environ.get("PYTHONPATH", "")]
        environment = {
            "PYTHONPATH": os.pathsep.join(python_path),
            "CUT_OFF_LOG": str(self.asked),
        }
        if command.name == "restore from an address":  # what it downloads is looked at, too
            environment["ELIR_MOBILE_CACHE"] = str(out / "cache")
        arguments = [str(argument) for argument in command.arguments(out)]
        self.process: subprocess.Popen[bytes] | None = None
        if starter:
            self.pid = starter.start(arguments, environment, self.log)
            return
        limit = ["prlimit", f"--as={memory}"] if memory else []
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*limit, *COMMAND, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **ONE_THREAD, **environment},
            )
        self.pid = self.process.pid

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        if self.process:
            return self.process.poll()
        return int(self.code.read_text()) if self.code.exists() else None

    def send(self, number: int) -> None:
        """A signal; Ctrl-C goes to all processes of a terminal."""
        with suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGINT else os.kill)(self.pid, number)

    def hears(self) -> bool:
        """Whether it has ended, or has its handler of signals: before, they are Python's own."""
        with suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            if caught >> (signal.SIGTERM - 1) & 1:
                return True
        return self.poll() is not None

    def end(self, injection: Injection) -> int | None:
        """The exit code; notes a hang, a traceback and orphans."""
        deadline = time.monotonic() + HANG_S
        while (code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        injection.must(code is not None, "hang", f"no end within {HANG_S:.0f} s")
        deadline = time.monotonic() + ORPHAN_S
        while (left := alive(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        injection.must(not left, "orphan", left)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        injection.must("Traceback" not in self.said(), "traceback", self.said()[-500:])
        asked = self.asked.read_text() if self.asked.exists() else ""
        injection.must(not asked, "network", asked)
        return code

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def alive(session: int) -> dict[int, str]:
    """Processes of a session that have not ended, and their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found


def files_in(folder: Path) -> Files:
    """Every file's digest."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def varies(command: Command, name: str) -> bool:
    return any(fnmatch(name, pattern) or fnmatch(name, f"*/{pattern}") for pattern in command.varies)


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".safetensors": load_file,
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".png": lambda path: Image.open(path).load(),
}


def undisturbed(command: Command, folder: Path, starter: Starter | None) -> Whole:
    """A run that nothing happens to."""
    folder.mkdir()
    out, start = folder / "whole", time.monotonic()
    run, injection = Run(command, out, starter), Injection(command.name, "none")
    code = run.end(injection)
    if code or injection.wrong:
        raise SystemExit(f"{command.name} does not work: {injection.wrong} {run.said()[-2000:]}")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Whole(command, starter, time.monotonic() - start, files_in(out), size)


def after_fault(whole: Whole, out: Path, injection: Injection) -> None:
    """Nothing under a final name is half-written."""
    for name, digest in files_in(out).items() if out.exists() else ():
        path = out / name
        if any(part.startswith(".") for part in Path(name).parts) or path.stem == "staged":
            continue  # no final name
        if not varies(whole.command, name):
            injection.must(whole.files.get(name) == digest, "half-written", f"{name} is another file")
        elif path.suffix in READERS:
            try:
                READERS[path.suffix](path)
            except Exception as error:
                injection.must(False, "half-written", f"{name}: {error}")


def after_again(whole: Whole, out: Path, injection: Injection) -> None:
    """The same command ends well, with the same bytes, and clears what was left. Where the fault left
    nothing there is nothing to see: it would be the undisturbed run once more."""
    if not files_in(out) and not staged_beside(out):
        return
    run = Run(whole.command, out, whole.starter)
    code = run.end(injection)
    injection.must(code == 0, "lost", f"again: exit code {code}: {run.said()[-500:]}")
    found = files_in(out)
    for name, digest in whole.files.items():
        if not varies(whole.command, name):
            injection.must(found.get(name) == digest, "lost", f"again: {name} differs or is missing")
    more = {name for name in found.keys() - whole.files.keys() if not varies(whole.command, name)}
    more |= {name for name in found if name.endswith((".part", ".lock")) or "-exports/" in name}
    more |= staged_beside(out)
    injection.must(not more, "litter", sorted(more))


def staged_beside(out: Path) -> set[str]:
    """What waits beside a folder to become it."""
    return {path.name for path in out.parent.iterdir() if path.name.startswith(".")}


@contextmanager
def small_disk(place: Path) -> Iterator[Callable[[str], None]]:
    """A file system in memory at ``place``; gives a function that mounts it with other options."""

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)

    place.mkdir()
    mount("size=1g")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def may_mount(folder: Path) -> bool:
    """Whether this user may mount a file system."""
    try:
        with small_disk(folder / "probe"):
            return True
    except (subprocess.CalledProcessError, OSError):
        return False


def at_some_moment(whole: Whole, folder: Path, rng: random.Random, *, heard: bool = False) -> Run:
    """A run that has gone on for a while and has not ended; with ``heard`` it takes signals by now."""
    share = rng.uniform(0.05, 0.95)
    while True:
        run = Run(whole.command, folder / "out", whole.starter)
        time.sleep(share * whole.seconds)
        while heard and not run.hears():
            time.sleep(0.01)
        if run.poll() is None:
            return run
        shutil.rmtree(folder / "out")  # it was faster this time
        share /= 2


def killed(whole: Whole, folder: Path, rng: random.Random, injection: Injection) -> None:
    run = at_some_moment(whole, folder, rng)
    run.send(signal.SIGKILL)
    run.end(injection)


def stopped(number: signal.Signals) -> Callable[..., None]:
    def stop(whole: Whole, folder: Path, rng: random.Random, injection: Injection) -> None:
        run = at_some_moment(whole, folder, rng, heard=True)
        run.send(number)
        code = run.end(injection)
        injection.must(code in (STOPS[number], 0), "exit code", f"{code} {run.said()[-300:]}")

    return stop


def refused(run: Run, injection: Injection, *, may_die: bool = False) -> None:
    """It ends with code 2 and one sentence, or did not need what was taken from it.

    Args:
        may_die: whether native code may end the process, too.
    """
    code = run.end(injection)
    if code and not (may_die and code < 0):
        said = run.said().strip().splitlines()
        injection.must(code == 2 and "error: " in said[-1], "exit code", f"{code} {said[-3:]}")


def full_disk(whole: Whole, folder: Path, rng: random.Random, injection: Injection) -> None:
    with small_disk(folder / "disk") as remount:
        remount(f"size={max(4096, int(rng.uniform(0.05, 0.9) * whole.bytes))}")
        refused(Run(whole.command, folder / "disk" / "out", whole.starter), injection)
        after_fault(whole, folder / "disk" / "out", injection)
        remount("size=1g")
        after_again(whole, folder / "disk" / "out", injection)


def read_only(whole: Whole, folder: Path, rng: random.Random, injection: Injection) -> None:
    with small_disk(folder / "disk") as remount:
        remount("ro")
        refused(Run(whole.command, folder / "disk" / "out", whole.starter), injection)
        remount("rw")
        after_again(whole, folder / "disk" / "out", injection)


def little_memory(whole: Whole, folder: Path, rng: random.Random, injection: Injection) -> None:
    memory = int(rng.uniform(0.3, 1.2) * 2**30)  # PyTorch alone takes half of it
    refused(Run(whole.command, folder / "out", None, memory=memory), injection, may_die=True)


def lacking(name: str) -> Callable[..., None]:
    def lack(whole: Whole, folder: Path, rng: random.Random, injection: Injection) -> None:
        (folder / "lacks" / name).mkdir(parents=True)
        missing = f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')\n"
        (folder / "lacks" / name / "__init__.py").write_text(missing)
        refused(Run(whole.command, folder / "out", None, paths=(folder / "lacks",)), injection)

    return lack


def two_at_once(whole: Whole, folder: Path, rng: random.Random, injection: Injection) -> None:
    """Both write whole files, or the second is told that the first is there."""
    first = Run(whole.command, folder / "out", whole.starter)
    time.sleep(rng.uniform(0, 0.5) * whole.seconds)
    second = Run(whole.command, folder / "out", whole.starter)
    for run in (first, second):
        refused(run, injection)
    codes = first.poll(), second.poll()
    injection.must(0 in codes, "exit code", f"of two at once none ended well: {codes}")


def one_of_two_killed(whole: Whole, folder: Path, rng: random.Random, injection: Injection) -> None:
    """The other one ends as ever: what the killed one wrote is not its own, and its own is not cleared."""
    runs = [Run(whole.command, folder / "out", whole.starter) for _ in range(2)]
    time.sleep(rng.uniform(0.05, 0.9) * whole.seconds)
    gone = rng.randrange(2)
    runs[gone].send(signal.SIGKILL)
    runs[gone].end(injection)
    refused(runs[1 - gone], injection)


MISSING = "missing: "
PACKAGES = ("ai_edge_litert", "executorch", "lightning", "onnxruntime", "scipy", "tensorboard", "torchao")
FAULTS: dict[str, Callable[..., None]] = {
    "SIGKILL": killed,
    "SIGTERM": stopped(signal.SIGTERM),
    "Ctrl-C": stopped(signal.SIGINT),
    "disk full": full_disk,
    "read-only": read_only,
    "little memory": little_memory,
    **{f"{MISSING}{name}": lacking(name) for name in PACKAGES},
    "two at once": two_at_once,
    "one of two killed": one_of_two_killed,
}
MOUNTED = ("disk full", "read-only")


def inject(whole: Whole, fault: str, folder: Path, seed: int) -> Injection:
    """Do ``fault`` to the command in the fresh ``folder``, look, do the command again, look again."""
    folder.mkdir(parents=True)
    injection, start = Injection(whole.command.name, fault), time.monotonic()
    FAULTS[fault](whole, folder, random.Random(seed), injection)
    if fault not in MOUNTED:
        after_fault(whole, folder / "out", injection)
        after_again(whole, folder / "out", injection)
    injection.seconds = round(time.monotonic() - start, 1)
    if not injection.wrong:
        shutil.rmtree(folder)
    return injection
