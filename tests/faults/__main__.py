"""``python -m tests.faults [COMMAND ...] [--fault NAME] [--most N] [--seconds N] [--out FILE]``.

Exit code 1 for a finding, and for a fault that was not injected: there was no time for it, or no right to.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.faults.commands import bundle_of, commands, inputs
from tests.faults.harness import FAULTS, MOUNTED, Injection, Starter, inject, may_mount, undisturbed

AT_ONCE = 2
AT_MOST = 3.0  # times as long as undisturbed takes a command that is disturbed and done again
# How often what is done to which command: 100 kills, the most to what ends soonest.
KILLS = {
    "quantize": 2, "search": 1, "qat": 1, "train": 6, "distill": 3, "restore": 26, "restore --bundle": 15,
    "restore from an address": 20, "evaluate": 5, "measure": 3, "push": 18,
}  # fmt: skip
STOPS = {
    "quantize": 1, "train": 1, "distill": 1, "restore": 3, "restore --bundle": 3,
    "restore from an address": 3, "evaluate": 1, "measure": 1, "push": 2,
}  # fmt: skip
SHORT = {
    "restore": 2, "restore --bundle": 1, "restore from an address": 2, "evaluate": 1, "push": 2, "train": 1,
    "quantize": 1,
}  # fmt: skip
PLAN = {
    "SIGKILL": KILLS,
    "SIGTERM": STOPS,
    "Ctrl-C": STOPS,
    "disk full": SHORT,
    "read-only": {**SHORT, "qat": 1, "distill": 1, "measure": 1},
    "little memory": {**dict.fromkeys(KILLS, 1), **SHORT},
    "missing: executorch": {"quantize": 1},
    "missing: onnxruntime": {"search": 1},
    "missing: torchao": {"quantize": 1},
    "missing: lightning": {"qat": 1, "train": 1, "distill": 1},
    "missing: tensorboard": {"train": 1},
    "missing: ai_edge_litert": {"restore --bundle": 1, "measure": 1},
    "missing: scipy": {"evaluate": 1},
    "two at once": SHORT,
    "one of two killed": {name: SHORT[name] for name in SHORT if name != "evaluate"},
}


def planned(most: int) -> list[tuple[str, str]]:
    """Command and fault of everything that is injected: each fault to each command once before any is
    repeated, so that want of time costs no kind of fault."""
    counted = [
        (repeat, command, fault)
        for fault, counts in PLAN.items()
        for command, count in counts.items()
        for repeat in range(min(count, most))
    ]
    return [(command, fault) for _, command, fault in sorted(counted, key=lambda one: one[0])]


@contextmanager
def slow_server(path: Path) -> Iterator[str]:
    """The address of the file at ``path``, of which some bytes come every moment."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for start in range(0, len(data), 8192):
                self.wfile.write(data[start : start + 8192])
                time.sleep(0.05)

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the command was killed
                self.close_connection = True

        def log_message(self, *unused: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{path.name}"
        server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("commands", nargs="*", default=[*KILLS])
    parser.add_argument("--fault", action="append", choices=[*FAULTS])
    parser.add_argument("--most", type=int, default=1000, help="of one fault to one command")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--seconds", type=float, default=math.inf, help="within which all must end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    deadline = time.monotonic() + given.seconds
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    (work / "given").mkdir()
    inputs(work / "given")
    bundle_of(work / "given")
    starter = Starter()
    todo = [
        (name, fault)
        for name, fault in planned(given.most)
        if name in given.commands and fault in (given.fault or FAULTS)
    ]
    mounts = may_mount(work)
    if not mounts:
        print("no disk is filled, and none is read-only: this user may not mount a file system")

    def in_time(name: str, fault: str, index: int) -> Injection | None:
        """What it found; None: it is too late, or not allowed."""
        whole = wholes[name].result()
        late = time.monotonic() + AT_MOST * whole.seconds > deadline
        if late or (fault in MOUNTED and not mounts):
            return None
        return inject(whole, fault, work / f"{name}-{index}", given.seed + index)

    found, left = [], []
    with (
        slow_server(work / "given" / "denoising.safetensors") as address,
        ThreadPoolExecutor(given.at_once) as pool,
    ):
        asked = [one for one in commands(work / "given", address) if one.name in given.commands]
        wholes = {one.name: pool.submit(undisturbed, one, work / one.name, starter) for one in asked}
        for name, whole in wholes.items():
            print(f"{name}: {whole.result().seconds:.1f} s", flush=True)
        futures = {pool.submit(in_time, *one, index): one for index, one in enumerate(todo)}
        for future in as_completed(futures):
            name, fault = futures[future]
            if done := future.result():
                found.append(done)
                said = f"FOUND {done.wrong}" if done.wrong else f"{done.seconds:.1f} s"
                print(f"{name}, {fault}: {said}", flush=True)
            else:
                left.append({"command": name, "fault": fault})
    wrong = [one for one in found if one.wrong]
    print(f"{len(found)} faults, {len(wrong)} of them found something, see {work}; {len(left)} not injected")
    if given.out:
        result = {"injected": [asdict(one) for one in found], "not_injected": left}
        given.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(bool(wrong or left))


if __name__ == "__main__":
    main()
