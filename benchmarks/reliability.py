"""Hostile files, faults and load, counted: ``python -m benchmarks.reliability`` (``make reliability``).

Runs the fuzzers (``tests/fuzz``), two at a time, the fault harness (``tests/faults``) and the load test
(``tests/load.py``), and writes ``results/reliability.json``, from which the table of docs/reliability.md is
made. Exit code 1 where anything was found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from elir_mobile.core.files import write_json
from elir_mobile.core.machine import cpu_facts

OUT = Path(__file__).with_name("results") / "reliability.json"
INPUTS = 10_500  # for each parser
# Two halves that take equally long.
FUZZED = (("checkpoint", "recipe", "tiler"), ("manifest", "picture", "job", "budget", "result"))


def part(folder: Path, name: str, module: str, *options: str) -> None:
    """What ``python -m module`` writes, in ``folder``, with the seconds that it took; once."""
    place, start = folder / f"{name}.json", time.monotonic()
    if place.is_file():
        return
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "part.json"
        subprocess.run([sys.executable, "-m", module, *options, "--out", str(out)])
        made = json.loads(out.read_text())
    write_json(place, {"seconds": time.monotonic() - start, "made": made})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--parts", type=Path, help="folder; a run that is given it again goes on")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        parts = given.parts or Path(scratch)
        limits = ("--seconds", "0", "--inputs", str(given.inputs))
        part(parts, "faults", "tests.faults")
        with ThreadPoolExecutor() as pool:
            for number, half in enumerate(FUZZED):
                pool.submit(part, parts, f"fuzz-{number}", "tests.fuzz", *half, *limits)
        part(parts, "load", "tests.load")
        names = ("faults", "fuzz-0", "fuzz-1", "load")
        faults, *fuzzed, load = (json.loads((parts / f"{name}.json").read_text()) for name in names)
    seconds = faults["seconds"] + load["seconds"] + max(half["seconds"] for half in fuzzed)
    result = {
        "kind": "reliability",
        "machine": cpu_facts(),
        "seconds": round(seconds),
        "fuzz": [row for half in fuzzed for row in half["made"]],
        "faults": faults["made"],
        "load": load["made"],
    }
    write_json(OUT, result)
    print(f"{OUT}, after {seconds:.0f} s; python -m benchmarks.tables writes it into the docs")
    wrong = any(row["finding"] for row in result["fuzz"]) or any(one["wrong"] for one in result["faults"])
    sys.exit(wrong or not result["load"]["holds"])


if __name__ == "__main__":
    main()
