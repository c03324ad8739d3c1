"""Hostile files, faults and load, counted: ``python -m benchmarks.reliability`` (``make reliability``).

Runs the fuzzers (``tests/fuzz``), two at a time, the fault harness (``tests/faults``) and the load test
(``tests/load.py``), and writes ``results/reliability.json``, from which the table of docs/reliability.md is
made. The faults come last and have the time that is left of ``--minutes``. Exit code 1 where anything was
found, and where the time did not suffice for all that was planned.
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
from typing import Any

from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.core.machine import cpu_facts

OUT = Path(__file__).with_name("results") / "reliability.json"
INPUTS = 10_500  # for each parser
MINUTES = 20.0
LAST_S = 20.0  # to spare: a fault may take longer than is expected
# Two halves that take equally long.
FUZZED = (("checkpoint", "recipe", "tiler"), ("manifest", "picture", "job", "budget", "result"))


def part(module: str, *options: str) -> Any:
    """What ``python -m module`` writes.

    Raises:
        UserError: it wrote nothing, and said why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "part.json"
        subprocess.run([sys.executable, "-m", module, *options, "--out", str(out)])
        if not out.is_file():
            raise UserError(f"python -m {module} did not come to its end")
        return json.loads(out.read_text())


@exits_with_2
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="for each parser")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of everything")
    given = parser.parse_args()
    start = time.monotonic()
    with ThreadPoolExecutor() as pool:
        limits = ("--seconds", "0", "--inputs", str(given.inputs))
        halves = [pool.submit(part, "tests.fuzz", *half, *limits) for half in FUZZED]
        fuzzed = [row for half in halves for row in half.result()]
    load = part("tests.load")
    left = start + 60 * given.minutes - LAST_S - time.monotonic()
    faults = part("tests.faults", "--seconds", f"{left:.0f}")
    result = {
        "kind": "reliability",
        "machine": cpu_facts(),
        "seconds": round(time.monotonic() - start),
        "fuzz": fuzzed,
        "faults": faults["injected"],
        "not_injected": faults["not_injected"],
        "load": load,
    }
    write_json(OUT, result)
    print(f"{OUT}, after {result['seconds']} s; python -m benchmarks.tables writes it into the docs")
    wrong = any(row["finding"] for row in fuzzed) or any(one["wrong"] for one in result["faults"])
    sys.exit(bool(wrong or result["not_injected"] or not load["holds"]))


if __name__ == "__main__":
    main()
