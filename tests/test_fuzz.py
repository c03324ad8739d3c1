"""Every parser holds for seconds of fuzzing, from the corpus on, and the fuzzer finds what breaks one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris is for Linux on x86-64")

ROOT = Path(__file__).parents[1]
BROKEN = """
import ctypes, sys
from tests.fuzz import __main__ as fuzz
from tests.fuzz.targets import Target

def loop():
    while True:
        pass

def target(breaks):
    def once(data):
        if data.startswith(b"b"):
            breaks()
    return Target(lambda folder: once)

fuzz.TARGETS.update(raises=target(lambda: {}["lost"]), hangs=target(loop))
fuzz.TARGETS.update(ends=target(lambda: ctypes.string_at(0)))
fuzz.HANG_S = 2
sys.argv[1:] = ["raises", "hangs", "ends", "--seconds", "60"]
fuzz.main()
"""


def fuzzed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)


def test_every_parser_accepts_or_refuses_what_it_is_given(tmp_path: Path) -> None:
    """The properties of hypothesis are tests of their own."""
    names = ("manifest", "checkpoint", "picture", "job", "recipe")
    done = fuzzed(tmp_path, "-m", "tests.fuzz", *names, "--seconds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(names)
    assert ": 0 accepted" not in done.stdout


def test_what_breaks_a_parser_is_found_and_kept(tmp_path: Path) -> None:
    done = fuzzed(tmp_path, "-c", BROKEN)
    assert done.returncode == 1, done.stdout + done.stderr
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert "FOUND KeyError: 'lost'" in found["raises"]
    assert "FOUND ERROR: libFuzzer: timeout" in found["hangs"]
    assert "FOUND ERROR: libFuzzer: deadly signal" in found["ends"]
    kept = [path for path in (tmp_path / "out" / "fuzz").iterdir() if path.suffix != ".log"]
    assert {path.name.partition("-")[0] for path in kept} == {"ends", "hangs", "raises"}
    assert all(path.read_bytes().startswith(b"b") for path in kept)
