"""What a latency depends on: this machine's processor, and the memory that this process took."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

VECTOR = ("avx", "fma", "amx", "asimd", "i8mm", "sve")  # flags of vector extensions begin so


def cpu_name() -> str:
    """The processor's name as the system gives it; empty if it gives none."""
    return _cpuinfo("model name") or platform.processor()


def cpu_facts() -> dict[str, object]:
    """``system``, ``cpu``, ``cores`` and ``cpu_flags``, the processor's vector extensions."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "cpu_flags": sorted(flag for flag in flags if flag.startswith(VECTOR)),
    }


def _cpuinfo(key: str) -> str:
    """The first value of ``key`` in ``/proc/cpuinfo``; empty where there is none."""
    return _value(Path("/proc/cpuinfo"), key)


def peak_bytes() -> int:
    """Largest resident size of this process so far.

    On Linux not ``getrusage``'s: a child inherits its parent's peak there.
    """
    peak = _value(Path("/proc/self/status"), "VmHWM").split()
    return int(peak[0]) * 1024 if peak else _max_resident(resource.RUSAGE_SELF)


def peak_bytes_of_children() -> int:
    """Largest resident size of any child process that has ended."""
    return _max_resident(resource.RUSAGE_CHILDREN)


def _max_resident(who: int) -> int:
    peak = resource.getrusage(who).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _value(path: Path, key: str) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), "")
