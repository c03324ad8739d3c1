"""The processor and the memory, as the system says them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elir_mobile.core import machine


def test_the_processors_name_and_flags_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = {
        "x86": "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 amx_int8 avx512_vnni\n\n",
        "arm": "processor\t: 0\nmodel name\t: Cortex-A76\nFeatures\t: fp asimddp i8mm\n\n",
    }
    read = Path.read_text
    for name, text in texts.items():
        (tmp_path / name).write_text(text)

        def fake(path: Path, *args: object, name: str = name, **kwargs: object) -> str:
            return read(tmp_path / name if path == Path("/proc/cpuinfo") else path, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", fake)
        facts = machine.cpu_facts()
        assert facts["cpu"] == machine.cpu_name() == {"x86": "Xeon", "arm": "Cortex-A76"}[name]
        expected = {"x86": ["amx_int8", "avx2", "avx512_vnni"], "arm": ["asimddp", "i8mm"]}
        assert facts["cpu_flags"] == expected[name]


def test_the_peak_is_this_processs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ballast = np.ones(64 << 20, np.uint8)
    here = machine.peak_bytes()
    assert here > ballast.nbytes
    code = "from elir_mobile.core.machine import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < here
    assert machine.peak_bytes_of_children() > 0
    monkeypatch.setattr(machine, "_value", lambda path, key: "")  # a system without /proc
    assert machine.peak_bytes() > ballast.nbytes
