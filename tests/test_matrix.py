"""Every task on every target in every precision: each file is written, run, and held against float."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from elir_mobile.bundle import GOLDEN, bytes_of, read_bundle
from elir_mobile.checkpoints import ModelInfo
from elir_mobile.harness.protocol import Protocol
from elir_mobile.models.restorer import Restorer
from elir_mobile.precision import RECIPES
from elir_mobile.tasks import get_task
from export.targets import TARGETS, realizes
from quant.ptq import Job, run, select_artifacts
from tests.conftest import SIZE

# Of the latent at the end of the trajectory; with random weights, so they say that a file computes the
# right function in its precision, and nothing of pictures.
LEAST_DB = {"fp32": 90, "fp16": 45, "w8": 25, "w4": 12, "w8a8": 15, "mixed": 15}
MAX_GOLDEN_BYTES = 3_000_000  # what an app can ship


@pytest.fixture(scope="module")
def quick() -> Protocol:
    """Latencies are not looked at."""
    return Protocol(warmups=0, runs=1)


@pytest.mark.parametrize("name", ["bfr", "sr", "denoising", "inpainting", "bsr"])
def test_every_file_of_a_task_runs_and_agrees_with_float(
    name: str, restorer: Restorer, picture_folder: Path, tmp_path: Path, quick: Protocol
) -> None:
    task = get_task(name)
    info = ModelInfo("tiny", "tiny", "0", False, SIZE, task.steps, task.sigma_s)
    artifacts = select_artifacts(",".join(TARGETS), ",".join(RECIPES), Console(quiet=True))
    expected = {(t.name, r.name) for t in TARGETS.values() for r in RECIPES.values() if realizes(t, r)}
    job = Job(task, restorer, info, SIZE, artifacts, picture_folder, tmp_path, 0, quick)
    folder, report = run(job, Console(quiet=True))
    rows = {(row["target"], row["precision"]): row for row in report["rows"][1:]}
    assert rows.keys() == expected
    for (target, precision), row in rows.items():
        end = row["trajectory_sqnr_db"][-1]
        assert len(row["trajectory_sqnr_db"]) == task.steps
        assert end is None or end > LEAST_DB[precision], (target, precision, end)
        assert precision == "fp32" or (end is not None and end < 90), (target, precision, end)
    bundle = read_bundle(folder)
    assert {(f["target"], f["precision"]) for f in bundle.manifest["files"]} == expected
    assert bytes_of(folder / GOLDEN) < MAX_GOLDEN_BYTES
