"""Jobs in this process and on Ray: order, errors, and a worker that is killed on the way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from elir_mobile.checkpoints import save_weights
from elir_mobile.cli.options import alone
from elir_mobile.cli.restore import main
from elir_mobile.core.errors import UserError
from elir_mobile.core.files import written
from elir_mobile.engine import RAY_INSTALL, _ray_cluster, run
from elir_mobile.images import list_images
from elir_mobile.models.restorer import Restorer
from elir_mobile.restore import Job, file_restorer, model_loader
from elir_mobile.tasks import get_task
from export.programs import Programs
from tests.conftest import SIGMA_S, SIZE, STEPS
from tests.test_evaluate import evaluate
from tests.test_restore import exported

app = alone(main)


FILES = 8


@pytest.fixture(scope="module")
def cluster():
    """Two worker cores on this machine, started once."""
    ray = pytest.importorskip("ray", reason=RAY_INSTALL)
    pytest.importorskip("ray.data", reason=RAY_INSTALL)
    # Ray's workers do not see this folder: send what is defined here along instead of its name.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with _ray_cluster(2):
        yield


def doubler(fail_at: int | None = None):
    def double(job: int) -> tuple[int, int]:
        if job == fail_at:
            raise UserError(f"job {job} cannot be done")
        return 2 * job, os.getpid()

    return double


def unloadable():
    raise UserError("the model cannot be loaded")


def test_local_jobs_run_here_in_order() -> None:
    done = []
    results = run(doubler, range(5), engine="local", advance=lambda: done.append(1))
    assert results == [(2 * job, os.getpid()) for job in range(5)]
    assert len(done) == 5
    with pytest.raises(UserError, match="job 3 cannot"):
        run(partial(doubler, 3), range(5), engine="local")


def test_ray_that_cannot_be_started_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*unused: object, **also: object) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen because")

    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "init", late)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        UserError, match=r"^Ray cannot be started \(The current node .* startup\.\): try again"
    ):
        run(lambda: str, [1], engine="ray")


def test_ray_jobs_run_elsewhere_and_come_back_in_order(cluster) -> None:
    done = []
    results = run(doubler, range(12), engine="ray", workers=2, advance=lambda: done.append(1))
    assert [value for value, _ in results] == [2 * job for job in range(12)]
    assert os.getpid() not in {process for _, process in results}
    assert len(done) == 12


def test_user_errors_come_back_from_ray_as_they_are(cluster) -> None:
    with pytest.raises(UserError, match="^job 3 cannot be done$"):
        run(partial(doubler, 3), range(5), engine="ray", workers=1)
    with pytest.raises(UserError, match="^the model cannot be loaded$"):
        run(unloadable, range(5), engine="ray", workers=1)


def held_up(make_worker, folder: Path):
    """The worker, which stops in the middle of writing its third file and leaves its process id.

    The first process to get there waits to be killed; whoever gets the job after it goes on.
    """
    worker, name = make_worker(), "2.png"

    def work(job: Job) -> None:
        mark = folder / "waiting"
        if job.out.name == name and not mark.exists():
            with written(job.out) as staged:
                staged.write_bytes(b"half a file")
                mark.with_suffix(".new").write_text(str(os.getpid()))
                mark.with_suffix(".new").rename(mark)
                time.sleep(300)
        worker(job)

    return work


def test_no_file_is_lost_when_a_worker_is_killed(
    cluster, restorer: Restorer, tmp_path: Path, picture_folder: Path
) -> None:
    """Two workers restore a folder; one is killed with a file half written."""
    weights, out, expected = tmp_path / "tiny.safetensors", tmp_path / "out", tmp_path / "expected"
    save_weights(restorer, weights, task="bfr", size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    rng = np.random.default_rng(0)
    for index in range(FILES):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(picture_folder / f"{index}.png")
    task = get_task("bfr")
    load = model_loader(task, weights=str(weights), tile=64)
    make = partial(file_restorer, load, task, 0)
    killed: list[int] = []

    def kill() -> None:
        mark = tmp_path / "waiting"
        while not mark.exists():
            time.sleep(0.05)
        killed.append(int(mark.read_text()))
        assert len(list(out.glob(f".2.png.{killed[0]}-*.part/2.png"))) == 1
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    jobs = [Job(path, out / path.name) for path in list_images(picture_folder)]
    run(partial(held_up, make, tmp_path), jobs, engine="ray", workers=2)
    assert len(killed) == 1
    assert [path.name for path in list_images(out)] == [f"{index}.png" for index in range(FILES)]
    assert not list(out.glob(".*.part"))
    run(make, [replace(job, out=expected / job.out.name) for job in jobs], engine="local")
    for path in list_images(expected):
        ours, theirs = (np.asarray(Image.open(folder / path.name), float) for folder in (out, expected))
        assert np.abs(ours - theirs).max() <= 1  # threads may differ


def test_the_restore_command_runs_on_ray(
    cluster, restorer: Restorer, tmp_path: Path, picture_folder: Path
) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_weights(restorer, weights, task="bfr", size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    arguments = [picture_folder, tmp_path / "out", "--task", "bfr", "--weights", weights, "--engine", "ray"]
    result = CliRunner().invoke(app, [str(a) for a in (*arguments, "--workers", 2)])
    assert result.exit_code == 0, result.output
    assert [path.name for path in list_images(tmp_path / "out")] == ["0.png", "1.png", "2.png"]


@pytest.mark.lowering
def test_an_exported_file_is_evaluated_on_ray_as_here(
    cluster, tmp_path: Path, programs: Programs, degraded: list[torch.Tensor], picture_folder: Path
) -> None:
    folder = exported(programs, degraded[0], tmp_path / "bfr-tiny")
    arguments = (picture_folder, "--task", "bfr", "--bundle", folder, "--precision", "fp32")
    here = evaluate(tmp_path, *arguments)
    there = evaluate(tmp_path, *arguments, "--engine", "ray", "--workers", 1)
    assert here["model"] == "bfr-tiny executorch fp32"
    assert [row["name"] for row in there["images"]] == [row["name"] for row in here["images"]]
    for ours, theirs in zip(there["images"], here["images"], strict=True):
        assert ours["restored"] == pytest.approx(theirs["restored"], rel=1e-3)


def test_without_ray_its_engine_names_the_command(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="needs Ray Data: pip install"):
        run(doubler, [1], engine="ray")
