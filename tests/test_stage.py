"""The flat training loop: what a stopped stage does, and what is on the disk when it is killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elir_mobile.core.errors import UserError
from elir_mobile.training import stage
from elir_mobile.training.checkpoint import previous, read_checkpoint, write_checkpoint
from elir_mobile.training.pool import Pool
from elir_mobile.training.stage import (
    LAST,
    Plan,
    averaged,
    learning_rate,
    read_state,
    train,
    write_state,
)


@pytest.fixture
def clock(monkeypatch) -> None:
    """Every look at the clock takes half a minute: a step takes half a minute."""
    times = iter(range(10**6))
    monkeypatch.setattr(stage, "busy_seconds", lambda: 30 * next(times))


def fit(folder: Path, minutes: float, start: Path | None = None) -> tuple[nn.Linear, list[float]]:
    """A line through (x, 2x + 1), and the progress that each step saw."""
    torch.manual_seed(0)
    net, seen = nn.Linear(1, 1), []

    def loss(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
        seen.append(progress)
        x = torch.from_numpy(rng.standard_normal((64, 1))).float()
        return {"loss": (net(x) - 2 * x - 1).square().mean()}

    def show(path: Path) -> str:
        return f"weight {net.weight.item():.3f}"

    plan = Plan(minutes, 0.5, seed=1, ema=0.9, warmup=1, save_minutes=1, show_minutes=10)
    train(net, loss, show, folder, plan, start=start, say=lambda line: None)
    return net, seen


def test_the_clock_is_the_processors_and_not_the_walls(monkeypatch) -> None:
    """So that other work on the machine takes nothing away; all threads compute at once."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setattr("time.process_time", lambda: 8.0)
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    assert stage.busy_seconds() == 4


def test_a_stage_trains_for_its_minutes_and_leaves_the_average(clock, tmp_path: Path) -> None:
    net, seen = fit(tmp_path, 50)
    assert len(seen) == 100
    assert net.weight.item() == pytest.approx(2, abs=0.1)
    _, checkpoint = read_checkpoint(tmp_path / LAST)
    assert checkpoint is not None
    assert torch.equal(checkpoint["average"]["weight"], net.weight)
    assert not torch.equal(checkpoint["net"]["weight"], net.weight)
    assert (tmp_path / "figures.txt").read_text().count("weight") == 5


def test_a_finished_stage_gives_its_result_again(clock, tmp_path: Path) -> None:
    net, _ = fit(tmp_path, 5)
    again, seen = fit(tmp_path, 5)
    assert seen == []
    assert torch.equal(again.weight, net.weight)


def test_a_longer_budget_goes_on_where_its_schedule_is(clock, tmp_path: Path) -> None:
    fit(tmp_path, 5)
    _, seen = fit(tmp_path, 10)
    assert seen[0] == pytest.approx(0.5)
    assert len(seen) == 10


def test_a_stage_goes_on_from_exported_weights(clock, tmp_path: Path) -> None:
    net, _ = fit(tmp_path / "first", 5)
    found = averaged(tmp_path / "first")
    assert found is not None
    write_state(*found, tmp_path / "line.safetensors")
    state, minutes = read_state(tmp_path / "line.safetensors")
    assert minutes == 5
    assert state["weight"].item() == pytest.approx(net.weight.item(), abs=1e-3)
    same, seen = fit(tmp_path / "second", 5, tmp_path / "line.safetensors")
    assert seen == []
    assert same.weight.item() == pytest.approx(net.weight.item(), abs=1e-3)
    kept = averaged(tmp_path / "second")  # or a bundle of that run would lack the stage
    assert kept is not None
    assert torch.equal(kept[0]["weight"], same.weight)
    assert kept[1] == 5


def test_the_checkpoint_before_the_last_is_kept_and_stands_for_a_damaged_one(tmp_path: Path) -> None:
    last, told = tmp_path / LAST, []
    for step in range(3):
        write_checkpoint({"step": step}, last)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LAST, previous(last).name]
    assert read_checkpoint(last, told.append) == (last, {"step": 2})
    last.write_bytes(last.read_bytes()[:100])
    assert read_checkpoint(last, told.append) == (previous(last), {"step": 1})
    assert told == [f"{last} is damaged: going on from previous.pt, the one before it"]
    last.unlink()  # killed between the two renames
    assert read_checkpoint(last, told.append) == (previous(last), {"step": 1})
    previous(last).write_text("")
    with pytest.raises(UserError, match="last.pt is damaged, and no earlier one is whole: remove it"):
        read_checkpoint(last, told.append)
    previous(last).unlink()
    assert read_checkpoint(last) is None


def test_the_learning_rate_rises_and_falls() -> None:
    plan = Plan(1, 2.0, seed=0, warmup=10)
    assert learning_rate(plan, 0, 0.0) == pytest.approx(0.2)
    assert learning_rate(plan, 10, 0.0) == pytest.approx(2)
    assert learning_rate(plan, 10, 1.0) == pytest.approx(0.04)


def test_a_pool_grows_and_then_replaces_its_oldest_examples() -> None:
    made = iter(range(10**6))

    def make(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        numbers = torch.tensor([next(made) for _ in range(count)])
        return numbers, 2 * numbers

    pool, rng = Pool(make, 32, 48, 0), np.random.default_rng(0)
    assert next(made) == 0  # nothing was made yet
    made = iter(range(10**6))
    first, second = pool.draw(rng, 200)
    assert torch.equal(second, 2 * first)
    assert set(first.tolist()) == set(range(32))
    pool.add(rng, 8)
    assert set(pool.draw(rng, 400)[0].tolist()) == set(range(40))
    pool.add(rng, 20)
    assert sorted(pool.examples[0].tolist()) == list(range(12, 60))
