"""A process that runs artifacts, and the pipe to it.

A native runtime trusts its file: one flipped bit can end its process or keep it busy for ever. So a command
opens no file of a bundle itself. It starts a worker (``worker.py --serve``), asks it over a pipe, waits for
each answer no longer than a limit, and says what became of it. The worker ends with the command. It has the
user's rights: what a file that was made to do harm may do is bounded by the runtime alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Timer
from typing import IO, Any, TypeVar

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.core.pipes import receive, send
from elir_mobile.core.processes import end_pool, end_with_parent, submit
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.devices.remote import how_it_ended
from elir_mobile.runtimes.programs import Program
from elir_mobile.runtimes.table import get_runtime

# A request that measures restores many pictures, and what stands in for a chip is slow: the emulator of an
# NPU takes minutes for one program of the released network.
REPLY_LIMIT_S = 900.0
# Of one program of one tile in a runtime of this machine, or of loading a file: they take seconds at most.
PROGRAM_LIMIT_S = 120.0

T = TypeVar("T")


class WorkerError(Exception):
    """What a worker process could not do, in one sentence."""


class ArtifactError(UserError):
    """An artifact does not run, whatever it is given."""


class WorkerProcess:
    """One worker process and the pipe to it; it is ended with :meth:`close`, or when nobody refers to it."""

    def __init__(self) -> None:
        root = Path(__file__).parents[2]  # where the package is, so that a worker finds it from anywhere
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "elir_mobile.devices.worker", "--serve", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.ended: str | None = None  # how, once it is known
        self.close = weakref.finalize(self, _end, self.process, self._log)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The reply to a request; raises as :meth:`exchange`."""
        return self.exchange(do, **arguments)[0]

    def exchange(
        self, do: str, *arrays: np.ndarray, limit_s: float = REPLY_LIMIT_S, **arguments: object
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The reply to one request, and the arrays of it.

        Args:
            arrays: of the request, float32.
            limit_s: seconds after which a worker that has not answered is ended.

        Raises:
            WorkerError: the worker says so, ended, or did not answer in time.
        """
        if self.ended is not None:
            raise WorkerError(self.ended)
        assert self.process.stdin and self.process.stdout
        late, process = Event(), self.process  # a watch that is still waking up does not keep the worker

        def end() -> None:
            late.set()
            process.kill()

        watch = Timer(limit_s, end)
        watch.daemon = True
        watch.start()
        try:
            send(self.process.stdin, {"do": do, **arguments}, *arrays)
            answer = receive(self.process.stdout)
        except BrokenPipeError:
            answer = None
        finally:
            watch.cancel()
        if answer is None:
            said = self._last_words()
            self.ended = f"the worker did not answer within {limit_s:g} s" if late.is_set() else said
            raise WorkerError(self.ended)
        if "error" in answer[0]:
            raise WorkerError(answer[0]["error"])
        return answer

    def _last_words(self) -> str:
        code = self.process.wait()
        self._log.seek(0)
        # Of what a native runtime noted before a fault of memory nothing is of that fault.
        said = "" if code == -signal.SIGSEGV else self._log.read().decode(errors="replace")
        return how_it_ended(code, said)


def _end(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    assert process.stdin and process.stdout
    process.kill()  # it holds nothing that must be saved
    process.wait()
    process.stdout.close()
    with suppress(BrokenPipeError):  # of a request that nobody read
        process.stdin.close()
    log.close()


@contextmanager
def worker_process() -> Iterator[WorkerProcess]:
    """A worker that ends with the block."""
    worker = WorkerProcess()
    try:
        yield worker
    finally:
        worker.close()


def open_programs(
    target: str, path: Path, shapes: Mapping[str, tuple[int, ...]], threads: int | None = None
) -> Mapping[str, Program]:
    """The programs of the artifact at ``path``, each call of them in a worker.

    The worker lives as long as one of the programs.

    Args:
        shapes: of what each program gives.
        threads: that the runtime may use; None: one for each core.

    Raises:
        ArtifactError: no such target, its runtime is not installed, or the file cannot be loaded. A program
            raises it too: what it did not survive, it does not do again.
    """
    worker = WorkerProcess()
    limit_s = REPLY_LIMIT_S if get_runtime(target).stand_in else PROGRAM_LIMIT_S

    def ask(do: str, *arrays: np.ndarray, **arguments: object) -> list[np.ndarray]:
        try:
            return worker.exchange(do, *arrays, limit_s=limit_s, **arguments)[1]
        except WorkerError as error:
            said = str(error)
            if worker.ended is not None:
                said = f"{path} is damaged, or needs more memory or time than there is: {said}"
            elif str(path) not in said:
                said = f"{path} does not run: {said}"
            raise ArtifactError(said) from error

    def call(name: str, *inputs: np.ndarray) -> np.ndarray:
        (output,) = ask("call", *inputs, program=name)
        if output.shape != shapes[name]:
            found, wanted = ("×".join(map(str, shape)) for shape in (output.shape, shapes[name]))
            raise ArtifactError(f"{path} gives {found} values for {name}, not {wanted}: export it again")
        return output

    ask("load", target=target, path=str(path), threads=threads)
    return {name: partial(call, name) for name in PROGRAMS}


class Apart:
    """A process of its own for functions that trust a file: compilers, and what looks into one.

    It does one call after the other; after one that it did not survive there is another. Leave it with
    ``with``.

    Args:
        limit_s: seconds after which a call is given up.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *unused: object) -> None:
        self._end()

    def __call__(self, function: Callable[..., T], path: Path, *arguments: object) -> T:
        """``function(path, *arguments)``.

        Raises:
            ArtifactError: the process ended, or did not return in time.
            UserError: what ``function`` raises.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), end_with_parent)
        try:
            return submit(self._pool, Path(os.devnull), function, path, *arguments).result(self.limit_s)
        except BrokenProcessPool as error:
            self._end()
            raise ArtifactError(
                f"{path} ended the process that looked into it: it is damaged, or there is not enough memory"
            ) from error
        except TimeoutError as error:
            self._end()
            raise ArtifactError(
                f"{path} is damaged, or needs more time than there is: no result within {self.limit_s:g} s"
            ) from error

    def _end(self) -> None:
        if self._pool is not None:
            end_pool(self._pool)
            self._pool = None
