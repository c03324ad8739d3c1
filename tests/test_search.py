"""The search raises as few layers as the budget needs, and says so when it cannot be held."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from elir_mobile.models.roles import NORM
from elir_mobile.precision import FP32, W8A8
from quant.budget import verdicts
from quant.judge import Verdict
from quant.search import FASTEST, Attempt, Budget, Cost, fallback_order, layer_costs, search

LAYERS = [f"layer{i}" for i in range(20)]
COST = Cost(macs=1e6, weight=(1, 100))
COSTS = dict.fromkeys(LAYERS, COST)


class FakeJudge:
    """Every layer in int8 costs ``0.01 × (its number + 1)`` dB."""

    programs = SimpleNamespace(roles=dict.fromkeys(LAYERS, "block"))

    def judge(self, recipe, *, programs: bool) -> Verdict:
        assert not programs  # a search needs the picture only
        recipe = recipe.on(self.programs.roles)
        drop = sum(0.01 * (i + 1) for i, name in enumerate(LAYERS) if recipe.precision_of(name) == W8A8)
        return Verdict({}, [], 20.0, 30.0, drop - 0.005, drop / 10 - 0.001, drop, drop / 10)


def found(budget: Budget) -> tuple[Attempt, list[Attempt]]:
    tried: list[Attempt] = []
    order = fallback_order({name: float(i + 1) for i, name in enumerate(LAYERS)}, COSTS)
    best = search(FakeJudge(), order, COSTS, budget, tried.append)
    return best, tried


@pytest.mark.parametrize(("drop", "raised"), [(3.0, 0), (2.1, 0), (1.95, 1), (1.0, 7), (0.05, 18), (0.0, 20)])
def test_the_fewest_layers_are_raised(drop: float, raised: int) -> None:
    best, _ = found(Budget(psnr_drop_db=drop))
    assert best.holds
    assert best.fallbacks == raised
    assert best.verdict.psnr_drop_db_high <= drop
    recipe = best.recipe.on(FakeJudge.programs.roles)
    floats = {name for name in LAYERS if recipe.precision_of(name) == FP32}
    assert floats == set(LAYERS[20 - raised :])  # the worst ones


def test_both_figures_must_hold() -> None:
    assert found(Budget(psnr_drop_db=1.0, lpips_rise=0.005))[0].verdict.lpips_rise_high <= 0.005


def test_few_recipes_are_tried_and_each_is_told() -> None:
    best, tried = found(Budget(psnr_drop_db=0.05))
    assert best in tried
    assert len(tried) <= 12
    assert tried[0].fallbacks == 0


def test_bytes_that_do_not_suffice_give_the_best_reachable() -> None:
    limit = 15 * COST.bytes(W8A8) + 5 * COST.bytes(FP32)
    best, tried = found(Budget(psnr_drop_db=0.05, max_bytes=limit))
    assert not best.holds
    assert best.fallbacks == 5
    assert best.bytes == limit
    assert all(attempt.bytes <= limit for attempt in tried)


def test_a_layer_that_saves_more_time_is_raised_later() -> None:
    costs = COSTS | {"layer1": Cost(macs=20e6, weight=(1, 100))}
    assert fallback_order({"layer0": 1.0, "layer1": 2.0}, costs) == ["layer0", "layer1"]


def test_costs_count_every_weight_and_every_step(programs, restorer) -> None:
    costs = layer_costs(programs)
    weights = sum(
        m.weight.numel()
        for p in programs.modules.values()
        for m in p.modules()
        if getattr(m, "kernel_size", 0)
    )
    assert sum(c.bytes(FP32) for c in costs.values()) == pytest.approx(4 * weights, rel=0.02)
    first = costs["enc.layers.0"]
    size = programs.example_inputs["encode"][0].shape[-1]
    assert first.milliseconds(FP32) == pytest.approx(8 * 3 * 9 * size * size / 33e6)
    up = next(c for name, c in costs.items() if ".convtr" in name)
    latent = programs.latent_shape[-1] // 2
    assert up.milliseconds(FP32) == pytest.approx(programs.steps * 64 * 32 * 16 * latent * latent / 33e6)
    assert set(costs) >= {"add", "enc.layers.1.add"}


def test_it_starts_with_int8_everywhere_but_inside_norms(programs) -> None:
    recipe = FASTEST.on(programs.roles)
    floats = {layer for layer in programs.roles if recipe.precision_of(layer) == FP32}
    assert floats == {layer for layer, role in programs.roles.items() if role == NORM}
    assert "fmir.mid_blocks.0.block1.block.0.add" in floats
    assert recipe.precision_of("fmir.add") == W8A8


@pytest.mark.parametrize("update", [None, float("nan"), 14.9])
def test_an_update_that_is_unknown_or_no_number_does_not_hold(update: float | None) -> None:
    budget = Budget(0.1, None, min_update_db=15.0)
    image = {"psnr_drop_db": 0.0, "psnr_drop_db_high": 0.05, "lpips_rise": None, "lpips_rise_high": None}
    row = {"target": "litert", "precision": "fastest", "device": "host", "bytes": 1, "image": image}
    row["update_sqnr_db"] = update
    ((_, holds, _),) = verdicts([row], "fastest", budget)
    assert not holds
    ((_, holds, _),) = verdicts([row | {"update_sqnr_db": 15.0}], "fastest", budget)
    assert holds
    broken = image | {"psnr_drop_db_high": float("nan")}
    ((_, holds, _),) = verdicts([row | {"update_sqnr_db": 15.0, "image": broken}], "fastest", budget)
    assert not holds


def test_an_unknown_lpips_does_not_hold_a_budget_for_it() -> None:
    assert not Budget(lpips_rise=0.1).held_by(0.0, None, 99.0)
    assert Budget(psnr_drop_db=0.1).held_by(0.0, None, 0.0)
    assert not Budget(min_update_db=15.0).held_by(0.0, 0.0, 14.9)
    assert Budget(min_update_db=15.0).held_by(9.0, 9.0, 15.0)
