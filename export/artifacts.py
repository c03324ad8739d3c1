"""Lower every artifact of a job, each in a process of its own: lowering is single-threaded Python.

Each file waits in a folder beside the bundle under a key of all that shapes it, so that a run that was
stopped goes on from what it had exported.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import torch

from elir_mobile.bundle import file_entry
from elir_mobile.core.errors import UserError
from elir_mobile.core.files import locked, write_json, written
from elir_mobile.core.processes import end_pool, end_with_parent, submit
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.precision import Recipe
from elir_mobile.runtimes.table import package_versions
from elir_mobile.terminal import Stages
from export.gptq import Adjusted, adjusted_weights, with_weights
from export.job import Job
from export.programs import Programs, Samples
from export.targets import Target, get_target, writer


@contextmanager
def waiting_room(folder: Path) -> Iterator[Path]:
    """Where exported files wait until the bundle at ``folder`` is whole, for this run alone; one that is
    stopped or fails leaves them to the next.

    Raises:
        UserError: another run is writing the bundle.
    """
    exports = folder.with_name(f".{folder.name}-exports")
    busy = f"another run is writing {folder}: wait until it ends, or choose another --out"
    with locked(exports, busy):
        yield exports
        shutil.rmtree(exports, ignore_errors=True)


def export(
    job: Job, samples: Samples, calibration: str, exports: Path, bundle: Path, stages: Stages
) -> list[dict]:
    """Lower what ``exports`` does not have yet and copy all of it into ``bundle``.

    Targets that write a recipe's file alike have it from one lowering.

    Args:
        samples: calibration inputs; empty where no recipe needs them.
        calibration: their digest.
        exports: where files wait that were exported before.

    Returns:
        The manifest's entries of the files, in the order of ``job.artifacts``.

    Raises:
        UserError: a process died.
    """
    places = [
        exports / _key(job, target, recipe, calibration) / f"file{target.suffix}"
        for target, recipe in job.artifacts
    ]
    wanted = dict(zip(places, job.artifacts, strict=True))
    with stages.stage("exporting", len(wanted)):
        missing = []
        for place, (target, recipe) in wanted.items():
            if place.parent.is_dir():
                stages.tick()
            else:
                missing.append((target, recipe, place))
        if len(missing) < len(wanted):
            stages.console.print(f"{len(wanted) - len(missing)} of {len(wanted)} files were exported before")
        if missing:
            _lower_all(job, samples, missing, exports / "log.txt", stages)
    entries = []
    for (target, recipe), place in zip(job.artifacts, places, strict=True):
        path = bundle / target.path(f"{job.task.name}-{recipe.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if place.is_dir() else shutil.copyfile)(place, path)
        entries.append(
            file_entry(
                bundle,
                path,
                **target.to_json(),
                precision=recipe.name,
                programs=list(PROGRAMS),
                recipe=recipe.to_json(),
                gptq=job.adjusts(recipe),
                delegation=json.loads(place.with_name("delegation.json").read_text()),
            )
        )
    return entries


def _key(job: Job, target: Target, recipe: Recipe, calibration: str) -> str:
    """Names everything that shapes a file: of its target what writes it, not what runs it."""
    facts = {
        "weights": job.info.sha256,
        "size": job.size,
        "steps": job.info.steps,
        "sigma_s": job.info.sigma_s,
        **writer(target).to_json(),
        "recipe": recipe.to_json(),
        "precisions": {precision.name: asdict(precision) for precision in recipe.precisions},
        "gptq": job.adjusts(recipe),
        "calibration": calibration if recipe.needs_calibration or job.adjusts(recipe) else "",
        "versions": package_versions(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _lower_all(
    job: Job, samples: Samples, missing: list[tuple[Target, Recipe, Path]], log: Path, stages: Stages
) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    built = {target.name: job.programs(target) for target, _, _ in missing}
    adjusted: dict[Recipe, Adjusted] = {}
    for _, recipe, _ in missing:
        if job.adjusts(recipe) and recipe not in adjusted:
            adjusted[recipe] = adjusted_weights(job.programs(), recipe, samples)
            stages.console.print(f"adjusted weights for {recipe.name}")
    work = log.with_name("work.pickle")
    with work.open("wb") as file:
        pickle.dump((built, samples, adjusted), file)
    workers = max(1, min(len(missing), job.protocol.threads))
    with ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        # Of a file: through the pipe it would take until the process has imported all that it needs, and one
        # whose parent is killed meanwhile prints a traceback.
        initargs=(max(1, job.protocol.threads // workers), work),
    ) as pool:
        try:
            futures = {
                submit(pool, log, _lower, target.name, recipe, place): f"{target.name} {recipe.name}"
                for target, recipe, place in missing
            }
            for future in as_completed(futures):
                future.result()
                stages.tick()
                stages.console.print(f"exported {futures[future]}")
        except BrokenProcessPool as error:
            raise UserError(f"an export process died, perhaps for lack of memory: see {log}") from error
        except BaseException:  # the others would go on for minutes
            end_pool(pool)
            raise


# Of an export worker: programs by target, samples, and adjusted weights by recipe.
_work: tuple[dict[str, Programs], Samples, dict[Recipe, Adjusted]]


def _start_worker(threads: int, work: Path) -> None:
    """Set an export worker up."""
    global _work
    end_with_parent()
    torch.set_num_threads(threads)
    with work.open("rb") as file:
        _work = pickle.load(file)


def _lower(target_name: str, recipe: Recipe, place: Path) -> None:
    """Lower one artifact to ``place``, whose folder appears when it is whole."""
    built, samples, adjusted = _work
    programs = built[target_name]
    if recipe in adjusted:
        programs = with_weights(programs, adjusted[recipe])
    with written(place.parent) as staged:
        staged.mkdir()
        delegation = get_target(target_name).lower(programs, recipe, samples, staged / place.name)
        write_json(staged / "delegation.json", {name: asdict(d) for name, d in delegation.items()})
