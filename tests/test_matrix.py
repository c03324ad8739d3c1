"""Every task on every target in every precision: each file is written, run, and held against float.

One task goes through the whole command with the tiny network, with the K and sigma that other tests lower it
for. For all of them the network is a handful of layers with the shapes of the real programs. Tasks differ by
their images, their noise and their steps: one file serves them all, its activation ranges from all of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from elir_mobile.bundle import GOLDEN, bytes_of, read_bundle
from elir_mobile.checkpoints import ModelInfo
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.data.pairs import PairCounts, PairSets, load_pair_sets
from elir_mobile.harness.protocol import Protocol
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.precision import RECIPES, Recipe
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.runtimes.table import NOBODY, RUNTIMES, can_run
from elir_mobile.tasks import get_task
from export.job import Job, select_artifacts
from export.programs import PROGRAM_NAMES, Programs, Samples
from export.samples import collect_samples
from export.targets import TARGETS, realizes
from quant.ptq import run
from tests.conftest import SIGMA_S, SIZE, STEPS, eager_of, micro_programs, write_pictures

pytestmark = pytest.mark.lowering

TASKS = ("bfr", "sr", "denoising", "inpainting", "bsr")
MOST_STEPS = max(get_task(name).steps for name in TASKS)
# Of the latent at the end of the trajectory; with random weights, so they say that a file computes the
# right function in its precision, and nothing of pictures.
LEAST_DB = {"fp32": 90, "fp16": 45, "w8": 25, "w4": 12, "w4g32": 12, "w8a8": 15, "w8a16": 25, "mixed": 15}
LEAST_MICRO_DB = LEAST_DB | {
    "fp16": 55,
    "w8": 35,
    "w4": 15,
    "w4g32": 15,
    "w8a8": 30,
    "w8a16": 35,
    "mixed": 30,
}
# A file that rounds less than it says would pass for any precision.
MOST_MICRO_DB = {"fp16": 90, "w8": 70, "w4": 45, "w4g32": 45, "w8a8": 60, "w8a16": 70, "mixed": 65}
MAX_GOLDEN_BYTES = 3_000_000  # what an app can ship
INSTALLED = [name for name, target in TARGETS.items() if not RUNTIMES[target.runtime].lacking]
EXECUTED = [name for name in INSTALLED if can_run("host", TARGETS[name].to_json())]
ROWS = [
    pytest.param(target, recipe, id=f"{target}-{recipe.name}")
    for target in EXECUTED
    for recipe in RECIPES.values()
    if realizes(TARGETS[target], recipe)
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PairSets]:
    """Pictures of every task."""
    folder = write_pictures(tmp_path_factory.mktemp("matrix") / "pictures", 3)
    counts = PairCounts(calibration=2, min_evaluation=4)
    return {name: load_pair_sets(folder, get_task(name), SIZE, 0, counts) for name in TASKS}


@lru_cache(maxsize=1)  # so that a target's recipes share its conversion
def programs_of(target: str) -> Programs:
    return micro_programs(TARGETS[target].form.clip, MOST_STEPS)


@pytest.mark.parametrize(("target", "recipe"), ROWS)
def test_the_file_runs_for_every_task_and_agrees_with_float(
    target: str, recipe: Recipe, pairs: dict[str, PairSets], tmp_path: Path
) -> None:
    programs = programs_of(target)
    path = tmp_path / f"file{TARGETS[target].suffix}"
    loops = {name: {"steps": get_task(name).steps, "sigma_s": get_task(name).sigma_s} for name in TASKS}
    samples: Samples = {name: [] for name in PROGRAM_NAMES}
    for name, loop in loops.items():
        images = [pair.degraded for pair in pairs[name].calibration]
        for program, calls in collect_samples(replace(programs, **loop), images, 0).items():
            samples[program] += calls
    TARGETS[target].lower(programs, recipe, samples, path)
    runner = open_runner(target, path, programs.table)
    noise = seeded_noise(programs.latent_shape, 0)
    for name, loop in loops.items():
        ends = []
        for pair in pairs[name].evaluation:
            paths = [r.restore(pair.degraded, noise, **loop)[1] for r in (eager_of(programs), runner)]
            assert [len(path) for path in paths] == [loop["steps"] + 1] * 2
            ends.append([path[-1] for path in paths])
        end = sqnr_db(*(torch.cat(latents) for latents in zip(*ends, strict=True)))
        assert end > LEAST_MICRO_DB[recipe.name], (name, end)
        if recipe.name != "fp32":
            assert end < MOST_MICRO_DB[recipe.name], (name, end)


def test_one_command_writes_every_file_of_a_task(
    restorer: Restorer,
    degraded: list[torch.Tensor],
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It calibrates on the pictures of the other tests, so that their files are its own."""

    def same_pictures(*given: Any) -> PairSets:
        found = load_pair_sets(*given)
        return replace(found, calibration=[replace(found.calibration[0], degraded=x) for x in degraded])

    monkeypatch.setattr("quant.ptq.load_pair_sets", same_pictures)
    task = get_task("sr")
    info = ModelInfo("tiny", "tiny", "0", False, SIZE, STEPS, SIGMA_S, task.domain)
    # What nothing here runs says the same in every precision, and what stands in for a chip takes minutes.
    whole = {name for name in EXECUTED if not RUNTIMES[TARGETS[name].runtime].stand_in}
    artifacts = tuple(
        (target, recipe)
        for target, recipe in select_artifacts("all", ",".join(RECIPES), Console(quiet=True))
        if target.name in whole or recipe.name == "fp16"
    )
    expected = {
        (t.name, r.name)
        for t in map(TARGETS.get, INSTALLED)
        for r in RECIPES.values()
        if realizes(t, r) and (t.name in whole or r.name == "fp16")
    }
    untimed = Protocol(threads=1, warmups=0, runs=0, cold_starts=1)
    job = Job(task, restorer, info, SIZE, artifacts, picture_folder, tmp_path, 0, untimed)
    folder, report = run(job, Console(quiet=True))
    rows = {(row["target"], row["precision"]): row for row in report["rows"][1:]}
    assert rows.keys() == expected
    for (target, precision), row in rows.items():
        if target not in EXECUTED:
            assert_nobody_ran(row)
            continue
        end = row["trajectory_sqnr_db"][-1]
        assert len(row["trajectory_sqnr_db"]) == STEPS
        assert end is None or end > LEAST_DB[precision], (target, precision, end)
        assert precision == "fp32" or (end is not None and end < 90), (target, precision, end)
    bundle = read_bundle(folder)
    parities = {(f["target"], f["precision"]): f["parity"] for f in bundle.manifest["files"]}
    for name in ("executorch/vulkan", "executorch/coreml"):  # what a phone is to reach was reached elsewhere
        assert parities[name, "fp16"].keys() == parities["executorch", "fp16"].keys()
        assert all(budget.keys() == {"budget_db"} for budget in parities[name, "fp16"].values())
    assert {(f["target"], f["precision"]) for f in bundle.manifest["files"]} == expected
    assert bytes_of(folder / GOLDEN) < MAX_GOLDEN_BYTES


def assert_nobody_ran(row: dict) -> None:
    """A row of a file that was written and not run: it is described, and claims no figure of a run."""
    assert row["device"] == row["executed_by"] == NOBODY
    assert row["against"]["run"].startswith("not executed here: it runs on ")
    assert row["error"] is None
    assert row["bytes"] > 0
    assert [row[key] for key in ("load_ms", "first_ms", "threads", "speedup_vs_eager")] == [None] * 4
    assert row["golden"] == {} and row["trajectory_sqnr_db"] == [] and row["update_sqnr_db"] is None
    assert set(row["image"].values()) == {None}
    for latency in (row["latency_ms"], *(program["latency_ms"] for program in row["programs"].values())):
        assert latency["median"] is None and latency["runs"] == []
    for program in row["programs"].values():
        assert program["delegates"] == 1 and program["ops_inside"] and not program["ops_outside"]
