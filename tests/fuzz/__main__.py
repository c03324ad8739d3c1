"""``python -m tests.fuzz [TARGET ...] [--seconds N] [--inputs N] [--out FILE]``: 1 for a finding."""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["elir_mobile"]):
    from elir_mobile.core.errors import UserError
    from tests.fuzz.targets import TARGETS, with_another_value

CORPUS = Path(__file__).with_name("corpus")
FOUND = Path("out") / "fuzz"  # what libFuzzer says, and the inputs that it found
HANG_S, MEMORY_MB = 20, 3000  # of one input; of the process, to which PyTorch comes with 500


def fuzz(name: str, inputs: int, seconds: int) -> dict[str, Any]:
    """Fuzz one target until it had so many inputs or so much time (0: no end), or until a finding.

    Returns:
        ``accepted`` and ``refused`` inputs, ``seconds``, and the line that names a ``finding``.
    """
    log, start = FOUND / f"{name}.log", time.monotonic()
    counts = mmap.mmap(-1, 16)
    with tempfile.TemporaryDirectory() as scratch:
        corpus, seeds = Path(scratch) / "corpus", Path(scratch) / "seeds"
        corpus.mkdir()
        seeds.mkdir()
        for index, seed in enumerate(TARGETS[name].seeds()):
            (seeds / str(index)).write_bytes(seed)
        limits = {"runs": inputs or -1, "max_total_time": seconds, "timeout": HANG_S, "seed": 1}
        limits |= {"rss_limit_mb": MEMORY_MB, "max_len": TARGETS[name].longest, "len_control": 0}
        options = [f"-{key}={value}" for key, value in limits.items()]
        options += [f"-artifact_prefix={FOUND}/{name}-", str(corpus), str(seeds)]
        options += [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
        child = os.fork()  # libFuzzer ends its process
        if not child:
            with log.open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            run(name, Path(scratch), memoryview(counts).cast("Q"), options)
        status = os.waitpid(child, 0)[1]
    accepted, refused = memoryview(counts).cast("Q")
    finding = None
    if status:
        # Python's own words; where it said nothing, libFuzzer's.
        lines = log.read_text(errors="replace")
        raised = re.findall(r"^\s*(\w*(?:Error|Exception)\b.*)", lines, re.M)
        raised = raised or re.findall(r"^==\d+== *(ERROR: .*)", lines, re.M)
        finding = raised[-1][:200] if raised else f"status {status}"
    seconds_spent = round(time.monotonic() - start, 1)
    row = {"target": name, "accepted": accepted, "refused": refused}
    return {**row, "seconds": seconds_spent, "finding": finding}


def keep(name: str, data: bytes) -> None:
    """Keep an input that raised; those that end or hang the process libFuzzer keeps itself."""
    (FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)


def run(name: str, folder: Path, counts: memoryview, options: list[str]) -> None:
    """Fuzz until libFuzzer ends this process; ``counts`` of accepted and refused inputs are shared."""
    read, at = TARGETS[name].prepare(folder), TARGETS[name].json_at

    def once(data: bytes) -> None:
        try:
            read(data)
            counts[0] += 1
        except UserError as error:
            counts[1] += 1
            if "\n" in str(error):
                keep(name, data)
                raise
        except Exception:
            keep(name, data)
            raise

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        if at is not None and seed % 2:
            try:
                return (data[:at] + with_another_value(data[at:], seed))[:most]
            except (ValueError, RecursionError):  # no JSON any more
                pass
        return atheris.Mutate(data, most)

    atheris.Setup([sys.argv[0], *options], once, custom_mutator=mutated)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=[*TARGETS])
    parser.add_argument("--seconds", type=int, default=300, help="for each; 0: no end")
    parser.add_argument("--inputs", type=int, default=0, help="for each; 0: no end")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in given.targets:
        rows.append(row := fuzz(name, given.inputs, given.seconds))
        print(
            f"{name}: {row['accepted']} accepted, {row['refused']} refused in {row['seconds']:.0f} s"
            + (f"; FOUND {row['finding']}: see {FOUND}/{name}.log" if row["finding"] else ""),
            flush=True,
        )
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(any(row["finding"] for row in rows))


if __name__ == "__main__":
    main()
