"""A real ``adbd`` to test against: Debian's, for arm64, under qemu in namespaces of its own.

``python -m tests.adbd`` unpacks it into the cache (``make devices-test`` does so). User, mount, network and
process namespaces keep it apart: its binfmt registration, its mounts and its port are seen by nothing
else, and it ends with the process that started it. The emulated arm64 device's Python and runtimes are
mounted into it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import cache_dir
from elir_mobile.devices import arm64

SUITE = "trixie"  # the first with adbd for arm64
# Beside adbd and a shell, the libraries of the mounted Python and its runtimes.
LIBRARIES = ("libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "zlib1g", "libstdc++6", "libgomp1")
PACKAGES = ("adbd", "dash", "coreutils", "libatomic1", *LIBRARIES)
TOOLS = {"adb": "adb", "qemu-aarch64-static": "qemu-user-static", "unshare": "util-linux", "ip": "iproute2"}
SERIAL = "127.0.0.1:5555"
# Without /sys the runtimes cannot tell the processor, and LiteRT chooses other kernels.
MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "opt/arm64")
PYTHON = """#!/bin/sh
export PYTHONHOME=/opt/arm64/root/usr PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}/opt/arm64/site"
exec /opt/arm64/root/usr/bin/python3.11 "$@"
"""
# ELF magic and mask of arm64 executables, as Debian's qemu-user registers them.
BINFMT = (
    r":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{qemu}:F"
)
START = """set -e
mount --make-rprivate /
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf '%s' "$BINFMT" > /proc/sys/fs/binfmt_misc/register
ip link set lo up
mount --bind "$ROOT" "$ROOT"
mount --rbind /dev "$ROOT/dev"
mount --rbind /sys "$ROOT/sys"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount -t proc proc "$ROOT/proc"
mount --bind "$ARM64/root/proc/cpuinfo" "$ROOT/proc/cpuinfo"
mount --bind "$ARM64" "$ROOT/opt/arm64"
exec chroot "$ROOT" /usr/bin/env -i PATH=/usr/bin:/usr/sbin QEMU_CPU="$CPU" LC_ALL=C.UTF-8 adbd
"""
NAMESPACES = ("--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child")
START_LIMIT_S = 60


def home() -> Path:
    """The unpacked root folder."""
    return cache_dir() / "adbd"


def recipe() -> str:
    """All that decides what is unpacked."""
    return "\n".join([SUITE, *PACKAGES, *MOUNT_POINTS, PYTHON])


def is_ready() -> bool:
    """Whether the cache holds it as this version unpacks it."""
    stamp = home() / "etc" / "elir-mobile-recipe"
    return stamp.is_file() and stamp.read_text() == recipe()


def why_not() -> str | None:
    """What this machine lacks to run it; None: nothing."""
    missing = arm64.missing_tools(TOOLS)
    if missing:
        return f"no {missing[0]} (apt-get install {missing[0]})"
    if not is_ready() or not arm64.is_ready(arm64.home()):
        return "adbd is not in the cache (make devices-test)"
    probe = ["unshare", *NAMESPACES, "mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "no rights to make namespaces with a binfmt_misc of their own (root, Linux 6.7)"
    return None


def set_up() -> None:
    """Unpack it, whole or not at all."""
    target = home()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adbd-", dir=target.parent) as temporary:
        root = Path(temporary) / "adbd"
        arm64.unpack_debian(root, SUITE, PACKAGES)
        for name in ("bin", "sbin", "lib"):  # the links of merged /usr, made by a script that did not run
            if not (root / name).exists():
                (root / name).symlink_to(f"usr/{name}")
        shell = root / "usr/bin/sh"
        if not shell.exists():
            shell.symlink_to("dash")
        python = root / "usr/bin/python3"
        python.write_text(PYTHON)
        python.chmod(0o755)
        for name in MOUNT_POINTS:
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "etc" / "elir-mobile-recipe").write_text(recipe())
        if target.exists():
            shutil.rmtree(target)
        root.rename(target)


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Run it while the block runs.

    Args:
        folder: an empty one.

    Yields:
        A folder for ``PATH``: its ``adb`` is the client, on the device's own network.
    """
    environment = {
        **os.environ,
        "ROOT": str(home()),
        "ARM64": str(arm64.home()),
        "CPU": arm64.CPU,
        "BINFMT": BINFMT.format(qemu=shutil.which("qemu-aarch64-static")),
    }
    log = folder / "adbd.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["unshare", *NAMESPACES, "sh", "-c", START], env=environment, stdout=out, stderr=out
        )
    client = folder / "bin" / "adb"
    try:
        _wait_for(log, process)
        child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        enter = f"nsenter --target {child} --user --net --preserve-credentials"
        client.parent.mkdir()
        real = shlex.quote(str(shutil.which("adb")))
        client.write_text(f'#!/bin/sh\nHOME={shlex.quote(str(folder))} exec {enter} {real} "$@"\n')
        client.chmod(0o755)
        subprocess.run([client, "connect", SERIAL], check=True, capture_output=True)
        yield client.parent
    finally:
        if client.exists():
            subprocess.run([client, "kill-server"], check=False, capture_output=True)
        process.kill()  # unshare heeds no other signal; its child ends with it
        process.wait()


def _wait_for(log: Path, process: subprocess.Popen) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while "adbd started" not in log.read_text():
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"adbd does not start: {log.read_text()}")
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        if not is_ready():
            set_up()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"ready: {home()}")
