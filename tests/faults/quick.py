"""``elir-mobile``, started at once: a process that has imported what takes long, and forks for each command.

Reads requests from its input, a line of JSON each: arguments, environment, and the log. Answers with the
number of the process, of a session of its own, and later writes its exit code beside the log. What a command
starts itself (export processes, workers) is started as ever. A quantized file is timed twice and not for
minutes: how long is of no account here.

Without ``--serve`` it is the one command of its arguments, from the beginning.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from elir_mobile.cli.main import app
from elir_mobile.core.errors import exits_with_2

WARM = (  # what the commands import that takes long
    "elir_mobile.evaluate", "elir_mobile.photographs", "elir_mobile.training.distill",
    "elir_mobile.training.folder", "quant.budget", "quant.ptq", "quant.qat", "quant.student",
    "torch.utils.tensorboard",
)  # fmt: skip


@exits_with_2
def main() -> None:
    """The command line of this process. What takes long to import comes here, as in the commands: it may
    not be there, or not fit into memory."""
    import export.job
    import quant.budget
    from elir_mobile.data.pairs import PairCounts
    from elir_mobile.harness.protocol import Protocol

    export.job.SHORT = Protocol(threads=1, warmups=0, runs=2, cold_starts=1)
    few = PairCounts(calibration=2, min_evaluation=2)
    export.job.PairCounts = quant.budget.PairCounts = lambda: few  # type: ignore[assignment, misc]
    quant.budget.JUDGED_PAIRS = 4
    app(sys.argv[1:])


def become(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Make this process, just forked, one that was started so."""
    os.setsid()
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ.update(environment)
    sys.argv[1:] = arguments


def serve() -> None:
    """Fork for each request, until there will be no more."""
    for name in WARM:
        import_module(name)
    gc.freeze()  # the children's memory stays their parent's
    logs: dict[int, Path] = {}
    print("ready", flush=True)
    while True:
        if select.select([0], [], [], 0.02)[0]:
            line = sys.stdin.readline()  # the next comes after the answer to this
            if not line:
                for pid in logs:  # nobody waits for them any more
                    os.kill(pid, signal.SIGKILL)
                return
            request = json.loads(line)
            pid = os.fork()
            if not pid:
                become(**request)
                main()
                return
            logs[pid] = Path(request["log"])
            print(pid, flush=True)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                code = logs.pop(ended[0]).with_suffix(".code")
                code.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(ended[1])))
                code.with_suffix(".new").rename(code)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
