"""One worker over many jobs: in this process, or on Ray Data's workers on one or many machines.

A worker holds a model, which it loads once, and does one job at a time. On Ray a worker that dies
is started again and its job is given out again; since a job's file is written under a temporary
name and renamed, no file is lost, half written or written twice over. Ray is imported only if it is
asked for.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np

from elir_mobile.core.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

RAY_INSTALL = "pip install 'elir-mobile[ray]'"
MAX_BLOCKS = 1000  # jobs are given out in so many portions at most; of a few files, one at a time
OBJECT_STORE_BYTES = 100_000_000  # only paths and numbers pass through it; the pictures are files


def run(
    make_worker: Callable[[], Callable[[Job], Result]],
    jobs: Sequence[Job],
    *,
    engine: Literal["local", "ray"],
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Result]:
    """The worker's result for each job, in the order of ``jobs``.

    Args:
        make_worker: loads the model; called once in each worker. For Ray it and the jobs must be
            picklable and name files by absolute paths that every machine can see.
        jobs: what there is to do; a job may be done again if its worker dies.
        engine: this process, or Ray.
        workers: Ray's worker processes, one core each. Default: as many as there are cores.
        advance: called in this process after each job.

    Raises:
        UserError: Ray is not installed or cannot be started, or the first that a worker raised.
    """
    if engine == "ray":
        return _run_on_ray(make_worker, jobs, workers, advance)
    worker, results = make_worker(), []
    for job in jobs:
        results.append(worker(job))
        advance()
    return results


class _RayWorker:
    """A worker inside a Ray actor: takes numbers of jobs, returns pickled results.

    ``UserError`` travels as a value: Ray would wrap an exception, and start a worker again whose
    model cannot be loaded.
    """

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]], jobs: Sequence[Any]) -> None:
        self._jobs = jobs
        self._worker: Callable[[Any], Any] | UserError
        try:
            self._worker = make_worker()
        except UserError as error:
            self._worker = error

    def _do(self, index: int) -> object:
        if isinstance(self._worker, UserError):
            return self._worker
        try:
            return self._worker(self._jobs[index])
        except UserError as error:
            return error

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        done = [pickle.dumps(self._do(int(index))) for index in batch["job"]]
        return {"job": batch["job"], "result": np.array(done, dtype=object)}


@contextmanager
def _ray_cluster(workers: int | None) -> Iterator[int]:
    """A Ray cluster for the block, and how many workers it takes: the one that is connected already,
    the one that ``RAY_ADDRESS`` names, or a fresh one on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent anywhere
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"--engine ray needs Ray Data: {RAY_INSTALL}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    started = not ray.is_initialized()
    if started:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if "RAY_ADDRESS" in os.environ:
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            else:
                ray.init("local", num_cpus=workers, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        except Exception as error:  # of a machine that is too busy it raises Exception itself
            said = str(error).strip().partition("\n")[0]
            raise UserError(f"Ray cannot be started ({said}): try again, or take --engine local") from error
    try:
        yield workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
    finally:
        if started:
            ray.shutdown()


def _run_on_ray(
    make_worker: Callable[[], Callable[[Job], Result]],
    jobs: Sequence[Job],
    workers: int | None,
    advance: Callable[[], None],
) -> list[Result]:
    if not jobs:
        return []
    with _ray_cluster(workers) as count:
        import ray.data

        numbers = [{"job": index} for index in range(len(jobs))]
        table = ray.data.from_items(numbers, override_num_blocks=min(len(jobs), MAX_BLOCKS)).map_batches(
            _RayWorker,
            fn_constructor_args=(make_worker, list(jobs)),
            batch_size=1,
            concurrency=min(count, len(jobs)),
            num_cpus=1,
        )
        results: dict[int, Result] = {}
        for row in table.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, UserError):
                raise result
            results[int(row["job"])] = result
            advance()
    return [results[index] for index in range(len(jobs))]
