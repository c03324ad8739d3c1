"""How processes end: a command that is told to, and helpers whose parent is gone.

A command turns SIGINT (Ctrl-C) and SIGTERM into an exit, so that every ``with`` and ``finally`` on the way
out is run: nothing is left half-written and helpers are ended. SIGKILL cannot be turned into anything; from
it a helper learns by itself that its parent is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

STOPS = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
STDERR = 2
# multiprocessing clears what killed helpers leave, a lock of tqdm's for one, and would warn that it does.
UNTOLD = "ignore::UserWarning:multiprocessing.resource_tracker"
T = TypeVar("T")
WATCH_S = 1.0  # between two looks for the parent, where the system does not tell of its end


@contextmanager
def stoppable() -> Iterator[None]:
    """End the block with ``SystemExit`` of 128 + its number on SIGINT or SIGTERM, as shells count.

    The second signal ends the process at once: whoever sends it does not want to wait for the first.
    In a thread other than the main one, where signals do not arrive, no handler is changed. Helpers that are
    killed end without a word of Python's about what they left.
    """
    if UNTOLD not in sys.warnoptions:  # which the processes that Python starts are given
        sys.warnoptions.append(UNTOLD)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    told: list[int] = []

    def stop(number: int, frame: Any) -> None:
        told.append(number)
        for one in heard:
            signal.signal(one, lambda number, frame: os._exit(128 + number))
        raise SystemExit(128 + number)

    # One that is ignored is not for this process: a shell's script starts what it does not wait for so. None:
    # somebody else's handler, not of Python.
    heard = [number for number in STOPS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    except Exception as error:
        if told:  # native code may have made another exception of the one that the signal raised in it
            raise SystemExit(128 + told[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with(parent: int) -> None:
    """End this process as soon as its parent is gone, whatever it computes; call it once, at the beginning.

    On Linux the kernel kills it (``PR_SET_PDEATHSIG``, prctl(2)), in native code too; elsewhere a thread
    looks for the parent. Ctrl-C on a terminal reaches a helper as well: the parent decides what becomes of
    it.

    Args:
        parent: the process that started this one, by its number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # see submit()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


def end_with_parent() -> None:
    """:func:`end_with` of a process that ``multiprocessing`` started."""
    parent = parent_process()
    assert parent and parent.pid
    end_with(parent.pid)


def submit(pool: ProcessPoolExecutor, log: Path, function: Callable[..., T], *arguments: object) -> Future[T]:
    """``pool.submit(function, *arguments)``, of a pool whose initializer calls :func:`end_with_parent`.

    A signal waits until the process for it is started: one that is half started would print a traceback of
    its own. It is born with signals held back, and hears them from :func:`end_with` on.

    Args:
        log: gets what a process started for it writes on stderr from its first moment on: one that cannot
            even import what it needs, for want of memory, says so before any of our code is run.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        with log.open("ab") as notes, _as_stderr(notes.fileno()):
            return pool.submit(function, *arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _as_stderr(descriptor: int) -> Iterator[None]:
    """An open file in the place of stderr, for processes that are started in the block."""
    kept = os.dup(STDERR)
    os.dup2(descriptor, STDERR)
    try:
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


def end_pool(pool: ProcessPoolExecutor) -> None:
    """Kill the pool's processes, whatever they compute, and see them gone; its other jobs are never done."""
    processes = [*(pool._processes or {}).values()]  # kill_workers() since Python 3.14
    for process in processes:
        process.kill()
    for process in processes:
        wait([process.sentinel], timeout=WATCH_S)
    pool.shutdown(wait=False, cancel_futures=True)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)
