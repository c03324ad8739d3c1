"""Every task on every target in every precision: each file is written, run, and held against float.

The network is three small layers with the shapes of the real programs, so that all the files take a minute;
the real layers are exported and run target by target in the other tests. Tasks differ by their images, their
noise and their steps, so that a file without activation ranges serves them all.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from elir_mobile.data.pairs import load_pair_sets
from elir_mobile.harness.compare import compare
from elir_mobile.precision import RECIPES, Recipe
from elir_mobile.runtime.registry import open_runner
from elir_mobile.tasks import get_task
from export.programs import Programs
from export.samples import collect_samples
from export.targets import TARGETS, realizes
from tests.conftest import SIZE, eager_of, micro_programs

TASKS = ("bfr", "sr", "denoising", "inpainting", "bsr")
MOST_STEPS = max(get_task(name).steps for name in TASKS)
# Of the latent at the end of the trajectory; with random weights, so they say that a file computes the
# right function in its precision, and nothing of pictures.
LEAST_DB = {"fp32": 90, "fp16": 55, "w8": 35, "w4": 15, "w8a8": 30, "mixed": 30}
ROWS = [
    pytest.param(target, recipe, id=f"{target}-{recipe.name}")
    for target in TARGETS
    for recipe in RECIPES.values()
    if realizes(TARGETS[target], recipe)
]


@lru_cache(maxsize=1)  # so that a target's recipes share its conversion
def programs_of(target: str) -> Programs:
    return micro_programs(TARGETS[target].clip, MOST_STEPS)


@pytest.mark.parametrize(("target", "recipe"), ROWS)
def test_the_file_runs_for_every_task_and_agrees_with_float(
    target: str, recipe: Recipe, picture_folder: Path, tmp_path: Path
) -> None:
    programs = programs_of(target)
    path = tmp_path / f"file{TARGETS[target].suffix}"
    for name in TASKS:
        task = get_task(name)
        loop = {"steps": task.steps, "sigma_s": task.sigma_s}
        pairs = load_pair_sets(picture_folder, task, SIZE, 0)
        if recipe.needs_calibration or not path.exists():
            samples = collect_samples(
                replace(programs, **loop), [pair.degraded for pair in pairs.calibration[:2]], 0
            )
            TARGETS[target].lower(programs, recipe, samples, path)
        runner = open_runner(target, path, recipe.name, programs.table)
        parity = compare(eager_of(programs), [runner], pairs.evaluation, **loop, seed=0)[1][0]
        decibels = [energy.db for energy in parity.trajectory]
        assert len(decibels) == task.steps
        end = decibels[-1]
        assert end is None or end > LEAST_DB[recipe.name], (name, end)
        # A file that rounds nothing would pass for any precision.
        assert recipe.name == "fp32" or (end is not None and end < 90), (name, end)
