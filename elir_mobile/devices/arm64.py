"""arm64 without a phone: the aarch64 runtimes of LiteRT and ExecuTorch under qemu's user emulation.

What it shows is that a file loads and computes the same with the NEON kernels of a phone's processor; not
how fast. No latency is reported. ``make arm64`` (``python -m elir_mobile.devices.arm64``) unpacks a Debian
root folder and the wheels into the cache; nothing in them is installed, and no root rights are needed:
qemu finds arm64 libraries below its ``-L`` folder.

ExecuTorch 1.1.0 is the last release whose arm64 wheel runs with a torch built for processors alone (2.10.0);
it loads what 1.4.1 exported. Of its wheel only the runtime is unpacked: its exporter would be imported too,
which takes minutes here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import cache_dir, written
from elir_mobile.core.jobs import DeviceFacts, Job, Result, read_result, write_json
from elir_mobile.core.manifest import read_manifest
from elir_mobile.devices.protocol import Progress
from elir_mobile.devices.remote import (
    EMULATED,
    WORKER,
    WorkerDied,
    call,
    copy_worker,
    how_it_ended,
    last_line,
    run_surviving,
    told_by,
)
from elir_mobile.runtimes.table import RUNTIMES, runtimes_on
from elir_mobile.terminal import Terminal

SUITE = "bookworm"  # its Python is 3.11, which the wheels are for
DEBIAN_PACKAGES = (
    "python3-minimal",
    "libpython3.11-stdlib",
    "libstdc++6",
    "libgomp1",
    "libatomic1",
    "zlib1g",
)
WHEELS = Path(__file__).with_name("arm64.lock")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64")
# Of these wheels only the paths that begin so are unpacked, or none that begin so.
ONLY = {
    "executorch": (
        "executorch/extension/pybindings/",
        "executorch/runtime/",
        "executorch/exir/_warnings.py",
        "executorch-",
    )
}
LEAVE_OUT = ("torch/bin/test_", "torch/bin/protoc", "torch/include/", "torch/test/")
TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-aarch64-static": "qemu-user-static"}  # command → Debian package
CPU = "cortex-a76"  # has the int8 dot products (dotprod) of phones since 2018
# qemu before 8 shows the host's own /proc/cpuinfo, on which the runtimes' processor detection crashes.
# Values of a Cortex-A76: Arm's MIDR_EL1 (implementer 0x41, part 0xd0b).
CPUINFO = f"""processor\t: 0
model name\t: Cortex-A76, {EMULATED} by qemu
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0b
CPU revision\t: 1

"""
SILENCE_LIMIT_S = 3600.0  # an emulated worker that finishes no file for so long is ended
POLL_S = 0.5


def home() -> Path:
    """Folder of the unpacked device: ``root/`` and ``site/``."""
    return cache_dir() / "arm64"


def recipe_sha256() -> str:
    """Digest of all that decides what ``make arm64`` unpacks."""
    parts = [SUITE, *DEBIAN_PACKAGES, *PLATFORMS, CPUINFO, *LEAVE_OUT, repr(ONLY), WHEELS.read_text()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_ready(folder: Path) -> bool:
    """Whether ``folder`` holds the device as this version sets it up."""
    stamp = folder / "recipe.sha256"
    return stamp.is_file() and stamp.read_text() == recipe_sha256()


def missing_tools(tools: dict[str, str]) -> list[str]:
    """Debian packages of the commands in ``tools`` that are not on the path."""
    return [package for command, package in tools.items() if shutil.which(command) is None]


def python_command(folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs the device's Python, and its whole environment."""
    root = folder / "root"
    command = ["qemu-aarch64-static", "-cpu", CPU, "-L", str(root), str(root / "usr/bin/python3.11")]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": str(folder / "site"),
        "LC_ALL": "C.UTF-8",
    }
    return [*command, *arguments], environment


class Arm64:
    """See the module; a :class:`~elir_mobile.devices.protocol.Device`."""

    name = f"arm64 ({EMULATED})"
    kind = "arm64"
    runtimes = runtimes_on("arm64")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, bundle: Path, job: Job, folder: Path, progress: Progress) -> Result:
        """Run ``job``; see :meth:`elir_mobile.devices.protocol.Device.run`. Nothing is timed."""
        manifest = read_manifest(bundle, job.files)
        here = replace(job, bundle=str(bundle.resolve()), warmup=0, runs=0)
        unknown = DeviceFacts(self.name, self.kind, "Linux", "aarch64", CPU, True, {})
        with tempfile.TemporaryDirectory() as temporary:
            scratch = Path(temporary)
            copy_worker(scratch)
            result = run_surviving(
                here, manifest, unknown, lambda part: self._run(part, scratch, folder, progress)
            )
        result = told_by(self.name, self.kind, result, emulated=True)
        write_json(folder / "result.json", result)
        return result

    def _run(self, job: Job, scratch: Path, folder: Path, progress: Progress) -> Result:
        """One worker process: its result.

        Raises:
            UserError: the worker refuses the job.
            WorkerDied: it ended in another way.
        """
        path, out = scratch / "job.json", folder / "result.json"
        write_json(path, job)
        arguments = (str(path), str(out), str(os.getpid()))
        command, environment = python_command(self.folder, "-m", WORKER, *arguments)
        environment["PYTHONPATH"] = os.pathsep.join([str(scratch), environment["PYTHONPATH"]])
        out.unlink(missing_ok=True)
        before = _files_done(folder)
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            done, heard, silent = 0, time.monotonic(), False
            try:
                while process.poll() is None and not silent:
                    if (now := _files_done(folder) - before) > done:
                        done, heard = now, time.monotonic()
                    progress(min(done, len(job.files)), len(job.files), "under emulation")
                    silent = time.monotonic() - heard > SILENCE_LIMIT_S
                    time.sleep(POLL_S)
            finally:
                process.kill()
                process.wait()
            log.seek(0)
            said = log.read().decode(errors="replace")
        if silent:
            raise WorkerDied(f"no file was done within {SILENCE_LIMIT_S:g} s")
        if process.returncode == 0:
            progress(len(job.files), len(job.files), "under emulation")
            return read_result(out)
        if process.returncode == 2:
            raise UserError(last_line(said).removeprefix("error: "))
        raise WorkerDied(how_it_ended(process.returncode, said))


def _files_done(folder: Path) -> int:
    """Artifacts whose last golden output lies in ``folder``."""
    return len(list(folder.glob("*-image.f32")))


def connect(spec: str = "arm64") -> Arm64:
    """The emulated device.

    Raises:
        UserError: it is not set up here.
    """
    missing = missing_tools({name: TOOLS[name] for name in ("qemu-aarch64-static",)})
    if missing:
        raise UserError(f"the device '{spec}' needs qemu: apt-get install {missing[0]}, then make arm64")
    folder = home()
    if not is_ready(folder):
        state = "of another version" if folder.exists() else "not set up"
        raise UserError(f"the device '{spec}' is {state}: run make arm64 (at most ten minutes)")
    return Arm64(folder)


def unpack_debian(root: Path, suite: str, packages: tuple[str, ...]) -> None:
    """Unpack arm64 ``packages`` and what they depend on into ``root``; nothing in them is run.

    Raises:
        UserError: mmdebstrap fails, most often for want of a network.
    """
    command = ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract", "--skip=check/qemu"]
    command += [f"--include={','.join(packages)}", suite, str(root)]
    call(command, f"check the network: mmdebstrap could not unpack Debian {suite} for arm64")


def download_wheels(folder: Path) -> None:
    """Download the wheels of ``arm64.lock`` into ``folder``, each checked against its sha256.

    Raises:
        UserError: pip fails.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", "3.11"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    command += ["--dest", str(folder), "--requirement", str(WHEELS)]
    call(command, "pip could not download the arm64 wheels")


def unpack_wheel(path: Path, site: Path) -> None:
    """Unpack what of a wheel is needed to run."""
    only = ONLY.get(path.name.partition("-")[0], ("",))
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if name.startswith(only) and not name.startswith(LEAVE_OUT):
                wheel.extract(name, site)


def set_up(target: Path, console: Console) -> None:
    """Unpack the device into ``target``, whole or not at all.

    Raises:
        UserError: a tool is missing, a download fails, or the device does not run.
    """
    missing = missing_tools(TOOLS)
    if missing:
        raise UserError(f"make arm64 needs {' and '.join(missing)}: apt-get install {' '.join(missing)}")
    with tempfile.TemporaryDirectory() as temporary, written(target, synced=False) as staging:
        wheels = Path(temporary)
        staging.mkdir()
        console.print(f"Debian {SUITE}: {', '.join(DEBIAN_PACKAGES)}")
        with console.status("Debian root folder"):
            unpack_debian(staging / "root", SUITE, DEBIAN_PACKAGES)
            (staging / "root/proc").mkdir(exist_ok=True)
            (staging / "root/proc/cpuinfo").write_text(CPUINFO)
        pins = [line.split()[0] for line in WHEELS.read_text().splitlines() if not line.startswith("#")]
        console.print(f"wheels: {', '.join(pins)}")
        with console.status("wheels"):
            download_wheels(wheels)
            for path in sorted(wheels.glob("*.whl")):
                unpack_wheel(path, staging / "site")
        with console.status("first import under emulation"):
            self_test(staging)
        (staging / "recipe.sha256").write_text(recipe_sha256())


def self_test(folder: Path) -> None:
    """Import every runtime once, which also compiles their Python files for the runs to come.

    Raises:
        UserError: it fails.
    """
    imports = [module for name in Arm64.runtimes for module in RUNTIMES[name].imports]
    command, environment = python_command(folder, "-c", f"import {', '.join(('numpy', *imports))}")
    call(command, "the arm64 runtimes do not start under qemu", env=environment)


@exits_with_2
def main(
    again: Annotated[bool, typer.Option("--again", help="Set it up anew even where it is ready.")] = False,
) -> None:
    """Set up the emulated arm64 device in the cache, at most ten minutes and 1.2 GB while it works."""
    console = Terminal()
    if is_ready(home()) and not again:
        console.print(f"ready: {home()}")
        return
    set_up(home(), console)
    console.print(f"ready: {home()}")


if __name__ == "__main__":
    typer.run(main)
