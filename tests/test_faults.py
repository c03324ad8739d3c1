"""The fault harness sees what is wrong, and no command uses the network that was not told to."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import harness
from tests.faults.commands import Command, commands, inputs
from tests.faults.harness import Injection, Run, Starter, inject, undisturbed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

# A command: it writes a file whole, in half a second, and is told to end.
GOOD = """
import os, signal, sys, time
from pathlib import Path
out = Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *unused: os._exit(143))
out.mkdir(exist_ok=True)
staged = out / ".x.part"
staged.write_text("half")
time.sleep(0.5)
staged.write_text("whole")
staged.rename(out / "x")
"""
# Of two that write into one folder: names of their own, and what a dead one left is cleared.
SHARED = GOOD.replace('".x.part"', 'f".{os.getpid()}.part"').replace(
    "staged = ",
    """for left in out.glob(".*.part"):
    if not Path("/proc", left.name.split(".")[1]).exists():
        left.unlink(missing_ok=True)
staged = """,
    1,
)
BROKEN = {
    "half-written": GOOD.replace('".x.part"', '"x"'),
    "litter": GOOD.replace('".x.part"', 'f".{os.getpid()}.part"'),
    "orphan": GOOD + "import subprocess\nsubprocess.Popen(['sleep', '60'])\n",
    "traceback": GOOD.replace("os._exit(143)", "1 / 0"),
    "exit code": GOOD.replace("143", "0 if out.exists() else 9").replace("0 if", "1 if"),
    "lost": GOOD.replace("staged.write_text", "assert not staged.exists()\nstaged.write_text", 1),
}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "script.py"
    monkeypatch.setattr(harness, "COMMAND", (sys.executable, str(path)))
    monkeypatch.setattr(harness, "ORPHAN_S", 0.5)
    return path


COMMAND = Command("script", lambda out: [out])


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGTERM", "two at once", "one of two killed"])
def test_a_command_that_is_right_passes(script: Path, tmp_path: Path, fault: str) -> None:
    script.write_text(GOOD)
    whole = undisturbed(COMMAND, tmp_path / "whole", None)
    if "two" in fault:
        script.write_text(SHARED)
    assert inject(whole, fault, tmp_path / "fault", 1).wrong == {}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_command_is_seen(script: Path, tmp_path: Path, kind: str) -> None:
    script.write_text(GOOD)
    whole = undisturbed(COMMAND, tmp_path / "whole", None)
    script.write_text(BROKEN[kind])
    fault = "SIGTERM" if kind in ("traceback", "exit code") else "SIGKILL"
    found = {}
    for seed in range(5):  # at some moments there is nothing to see
        found |= inject(whole, fault, tmp_path / f"fault-{seed}", seed).wrong
    assert kind in found


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    server = Starter()
    yield server
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize(
    "name", ["restore", "restore --bundle", "restore from an address", "evaluate", "measure", "push", "train"]
)
def test_no_command_uses_the_network_unasked(
    name: str, starter: Starter, micro_bundle: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    inputs(tmp_path)
    shutil.copytree(micro_bundle, tmp_path / "bfr-micro")
    shutil.copy(tiny_weights, tmp_path)  # what the bundle was made from
    asked = "http://somewhere.example/x.safetensors"
    (command,) = (one for one in commands(tmp_path, asked) if one.name == name)
    run, injection = Run(command, tmp_path / "out", starter), Injection(name, "none")
    code = run.end(injection)
    if name == "restore from an address":
        assert code == 2
        assert "somewhere.example" in injection.wrong.pop("network")
    else:
        assert code == 0, run.said()
    assert injection.wrong == {}
