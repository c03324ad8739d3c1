"""``python -m tests.faults [COMMAND ...] [--fault NAME] [--most N] [--out FILE]``: 1 for a finding."""

from __future__ import annotations

import argparse
import json
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
from tests.faults.harness import EXTRAS, FAULTS, MOUNTED, Starter, inject, may_mount, undisturbed

AT_ONCE = 2
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
    "restore": 2,
    "restore --bundle": 1,
    "restore from an address": 1,
    "evaluate": 1,
    "push": 2,
    "train": 1,
}
PLAN = {
    "SIGKILL": KILLS,
    "SIGTERM": STOPS,
    "Ctrl-C": STOPS,
    "disk full": {**SHORT, "quantize": 1},
    "read-only": SHORT,
    "little memory": SHORT,
    "a package missing": dict.fromkeys(EXTRAS, 1),
    "two at once": SHORT,
}


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    (work / "given").mkdir()
    inputs(work / "given")
    bundle_of(work / "given")
    starter = Starter()
    with (
        slow_server(work / "given" / "denoising.safetensors") as address,
        ThreadPoolExecutor(given.at_once) as pool,
    ):
        asked = [one for one in commands(work / "given", address) if one.name in given.commands]
        wholes = {one.name: pool.submit(undisturbed, one, work / one.name, starter) for one in asked}
        todo = [
            (name, fault)
            for fault, counts in PLAN.items()
            for name, count in counts.items()
            for _ in range(min(count, given.most))
            if name in wholes and fault in (given.fault or FAULTS)
        ]
        if not may_mount(work):
            print("the disk is not filled: this user may not mount a file system")
            todo = [(name, fault) for name, fault in todo if fault not in MOUNTED]
        for name, whole in wholes.items():
            print(f"{name}: {whole.result().seconds:.1f} s", flush=True)
        futures = [
            pool.submit(inject, wholes[name].result(), fault, work / f"{name}-{index}", given.seed + index)
            for index, (name, fault) in enumerate(todo)
        ]
        found = []
        for future in as_completed(futures):
            found.append(done := future.result())
            if done.wrong:
                print(f"{done.command}, {done.fault}: {done.wrong}", flush=True)
            if given.out:  # what is known is kept, should this be stopped
                given.out.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    wrong = [one for one in found if one.wrong]
    print(f"{len(found)} faults, {len(wrong)} of them found something; see {work}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
