"""Many pictures, one in ten of them none, in one process and on Ray: ``python -m tests.load [--out FILE]``.

The same bytes, every bad file named and skipped, and no memory that grows with the number of pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from elir_mobile.checkpoints import load_weights, save_weights
from elir_mobile.tasks import PHOTO, get_task
from tests.conftest import SIGMA_S, STEPS, write_pictures
from tests.faults.commands import TINY_WEIGHTS

WORKERS = 4
BAD = 10  # one in so many
WARM_UP = 0.5  # of the pictures: the share after which memory may not grow
SLOPE_MB = 1.0  # for each hundred pictures


def descendants(pid: int) -> dict[int, str]:
    """A process and all that it and they started, with their command lines."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = {pid}, {pid}
    while new := {child for child, parent in parents.items() if parent in new} - found:
        found |= new
    said = {}
    for one in found:
        with suppress(OSError):
            said[one] = Path(f"/proc/{one}/cmdline").read_text()
    return said


def own_mb(pid: int) -> float:
    """Memory of a process that is not a file's, which the system may drop, MB."""
    with suppress(OSError, IndexError):  # it has ended
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) / 1024
    return 0.0


def restored(pictures: Path, weights: Path, out: Path, *options: str) -> dict[str, Any]:
    """Restore all of ``pictures`` into ``out``, with a look at memory every moment."""
    command = [sys.executable, "-m", "elir_mobile.restore", "--task", "denoising", "--weights", str(weights)]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        run = subprocess.Popen(
            [*command, *options, str(pictures), str(out)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        seen: list[tuple[int, float]] = []
        while run.poll() is None:
            # Of Ray's processes those that restore, and the one that asks.
            ours = [
                pid for pid, line in descendants(run.pid).items() if pid == run.pid or "MapWorker" in line
            ]
            done = len(list(out.glob("*.png"))) if out.is_dir() else 0
            seen.append((done, sum(map(own_mb, ours))))
            time.sleep(0.5)
        log.seek(0)
        said = log.read()
    bad = [path.name for path in pictures.iterdir() if path.name.startswith("bad")]
    total = len(list(pictures.iterdir()))
    warm = [(done, mb) for done, mb in seen if WARM_UP * total <= done < total - len(bad)]
    slope = float(np.polyfit(*zip(*warm, strict=True), 1)[0]) if len(warm) > 2 else None
    return {
        "engine": "ray" if "ray" in options else "local",
        "pictures": total,
        "exit_code": run.returncode,
        "restored": len(list(out.glob("*.png"))),
        "bad": len(bad),
        "bad_named": sum(name in said for name in bad),
        "tracebacks": said.count("Traceback"),
        "mb_per_100": None if slope is None else round(100 * slope, 3),
        "mb": round(max(mb for _, mb in seen), 1),
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        weights = work / "denoising.safetensors"
        network, _ = load_weights(str(TINY_WEIGHTS), get_task("bfr"))
        facts = {"size": 32, "steps": STEPS, "sigma_s": SIGMA_S, "domain": PHOTO}
        save_weights(network, weights, task="denoising", **facts)
        pictures = write_pictures(work / "pictures", given.pictures)
        for index in range(0, given.pictures, BAD):
            (pictures / f"{index}.png").rename(pictures / f"bad-{index}.png")
            (pictures / f"bad-{index}.png").write_text("no picture")
        engines = {"local": ("--threads", "1"), "ray": ("--engine", "ray", "--workers", str(WORKERS))}
        rows, digests = [], []
        for name, options in engines.items():
            rows.append(restored(pictures, weights, work / name, *options))
            print(rows[-1], flush=True)
            made = sorted((work / name).glob("*.png"))
            digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made})
    holds = digests[0] == digests[1] and all(
        row["tracebacks"] == 0
        and row["exit_code"] == 2
        and row["bad_named"] == row["bad"]
        and row["restored"] == row["pictures"] - row["bad"]
        and row["mb_per_100"] is not None
        and row["mb_per_100"] <= SLOPE_MB
        for row in rows
    )
    if given.out:
        result = {"rows": rows, "bytes_equal": digests[0] == digests[1], "holds": holds}
        given.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(not holds)


if __name__ == "__main__":
    main()
