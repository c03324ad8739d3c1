"""A verdict is what restoring under the recipe gives; what did not change is not computed again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from elir_mobile import metrics
from elir_mobile.bundle import write_golden
from elir_mobile.core.errors import UserError
from elir_mobile.core.manifest import read_golden
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.data.pairs import Pair
from elir_mobile.harness.compare import (
    ROUNDING_PSNR_DB,
    check_reached,
    damage,
    psnr_between,
    reference_facts,
)
from elir_mobile.precision import FP32, RECIPES, W8A8, Recipe, Rule
from elir_mobile.runtimes.eager import eager_runner
from export.calibrate import calibrate
from export.gptq import with_weights
from export.observers import MinMaxObserver
from export.reached import reached_db
from export.samples import collect_samples
from export.simulate import restore_batch, simulate
from quant.judge import Judge, _for_others
from tests.conftest import SIGMA_S, STEPS


@pytest.fixture(scope="session")
def judge(programs, degraded) -> Judge:
    observers = dict.fromkeys(programs.modules, MinMaxObserver)
    ranges = calibrate(programs, collect_samples(programs, degraded[:1], 0), observers)
    pairs = [Pair(str(i), x, x.clamp(0.2, 0.8), str(i)) for i, x in enumerate(degraded[1:])]
    return Judge(programs, ranges, pairs, seed=5)


def test_float_is_no_worse_than_itself(judge: Judge) -> None:
    verdict = judge.judge(RECIPES["fp32"])
    assert verdict.psnr_drop_db == verdict.lpips_rise == 0
    assert {*verdict.program_db.values(), *verdict.trajectory_db, verdict.image_db} == {math.inf}


def test_a_verdict_is_what_restoring_gives(judge: Judge) -> None:
    verdict = judge.judge(RECIPES["w8a8"])
    simulated = simulate(judge.programs, RECIPES["w8a8"], judge.ranges)
    image, path = restore_batch(simulated, judge.degraded, judge.noise)
    assert verdict.image_db == pytest.approx(sqnr_db(judge.restored, image), abs=1e-3)
    assert verdict.trajectory_db[-1] == pytest.approx(sqnr_db(judge.trajectory[-1], path[-1]), abs=1e-3)
    clean = torch.cat([pair.clean for pair in judge.pairs])
    drops = metrics.psnr(judge.restored, clean) - metrics.psnr(image, clean)
    assert verdict.psnr_drop_db == pytest.approx(drops.mean().item(), abs=1e-4)
    sources = [pair.source for pair in judge.pairs]
    mean_high = damage({"psnr_db": -drops.numpy()}, {"psnr_db": np.zeros(len(drops))}, sources)[
        "psnr_drop_db_high"
    ]
    margin = verdict.psnr_drop_db_high - verdict.psnr_drop_db
    assert margin == pytest.approx(2**0.5 * (mean_high - verdict.psnr_drop_db), abs=1e-4)
    assert margin > 0
    assert min(verdict.program_db.values()) > 10


def test_adjusted_weights_are_those_of_rounded_layers_alone(judge: Judge) -> None:
    recipe = Recipe("some", (Rule("dec.*", W8A8), Rule("enc.layers.0", W8A8)))
    encode, decode = (judge.programs.modules[name] for name in ("encode", "decode"))
    first, second = (encode.get_parameter(f"enc.layers.{i}.weight") for i in (0, 2))
    last = next(name for name, _ in decode.named_parameters() if name.endswith(".bias"))
    elsewhere = {
        "encode": {"enc.layers.0.weight": 0.9 * first, "enc.layers.2.weight": torch.zeros_like(second)},
        "decode": {last: decode.get_parameter(last) + 0.05},
    }
    moving = Judge(judge.programs, judge.ranges, judge.pairs, judge.seed, elsewhere)
    kept = {"encode": {"enc.layers.0.weight": 0.9 * first}, "decode": elsewhere["decode"]}
    expected = simulate(with_weights(judge.programs, kept), recipe, judge.ranges)
    image, path = restore_batch(expected, judge.degraded, judge.noise)
    verdict = moving.judge(recipe)
    assert verdict.image_db == pytest.approx(sqnr_db(judge.restored, image), abs=1e-3)
    assert verdict.trajectory_db[-1] == pytest.approx(sqnr_db(judge.trajectory[-1], path[-1]), abs=1e-3)
    assert verdict.image_db < judge.judge(recipe).image_db - 1  # what was adjusted is felt
    assert moving.judge(RECIPES["fp32"]).image_db == math.inf


def test_a_recipe_is_known_by_what_it_does(judge: Judge) -> None:
    first = judge.judge(RECIPES["w8a8"])
    assert judge.judge(Recipe("again", RECIPES["w8a8"].rules)) is first
    assert judge.judge(Recipe("other", (Rule("enc.*", FP32), *RECIPES["w8a8"].rules))) is not first
    assert judge.judge(RECIPES["w8a8"], programs=False) == replace(first, program_db={})


def test_the_mean_of_other_pictures_is_below_the_bound_19_times_in_20() -> None:
    generator = np.random.default_rng(0)
    held = []
    for sample, others in generator.normal(0.03, 0.1, (400, 2, 40)):
        worse = damage({"psnr_db": -sample}, {"psnr_db": np.zeros(40)}, range(40))
        held.append(others.mean() <= _for_others(worse, "psnr_drop_db"))
    assert np.mean(held) >= 0.95
    single = damage({"psnr_db": np.zeros(1)}, {"psnr_db": np.ones(1)}, "a")
    assert _for_others(single, "psnr_drop_db") is None


def test_a_layer_of_the_decoder_leaves_what_comes_before_exact(judge: Judge) -> None:
    verdict = judge.judge(Recipe("one", (Rule("dec.layers.0", W8A8),)))
    assert verdict.program_db["encode"] == verdict.program_db["step"] == math.inf
    assert verdict.trajectory_db == [math.inf] * judge.programs.steps
    assert 10 < verdict.image_db < math.inf


def test_only_the_changed_program_and_those_after_it_run(judge: Judge, monkeypatch) -> None:
    judge.judge(RECIPES["w8a8"])
    ran: list[str] = []
    for name, module in judge.programs.modules.items():
        module.register_forward_hook(lambda m, i, o, name=name: ran.append(name))
    judge.judge(Recipe("one", (Rule("dec.layers.0", FP32), *RECIPES["w8a8"].rules)))
    assert ran == []
    before = {key: value.clone() for key, value in judge._starts.items()}  # noqa: SLF001
    judge.judge(Recipe("two", (Rule("dec.layers.1.conv.0", FP32), *RECIPES["w8a8"].rules)))
    assert all(torch.equal(judge._starts[key], value) for key, value in before.items())  # noqa: SLF001
    assert len(judge._starts) == len(before)  # noqa: SLF001


def test_a_picture_that_its_degradation_left_alone_does_not_make_the_mean_infinite() -> None:
    clean = torch.rand(2, 3, 64, 64)
    spoiled = (clean[1:] - 0.1).clamp(0, 1)
    pairs = [Pair(str(i), x[None], x[None], str(i)) for i, x in enumerate(clean)]
    facts = reference_facts([clean[:1], spoiled], pairs)
    other = metrics.psnr(spoiled, clean[1:]).item()
    assert facts["psnr_db"] == pytest.approx((ROUNDING_PSNR_DB + other) / 2, abs=1e-3)
    rounded = (clean * 255).round() / 255
    assert metrics.psnr(rounded, clean).mean().item() == pytest.approx(ROUNDING_PSNR_DB, abs=0.1)


def test_equal_images_say_nothing_of_how_far_the_others_are() -> None:
    images = [torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.25)]
    reference = [images[0], images[1] + 0.01]
    assert psnr_between(images, reference) == pytest.approx(40, abs=1e-3)
    assert psnr_between(images, images) is None


@pytest.fixture(scope="session")
def golden(restorer, degraded, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("golden")
    image = (degraded[0] * 255).round() / 255
    return read_golden(folder, write_golden(folder, eager_runner(restorer, STEPS), image, STEPS, SIGMA_S))


def test_what_a_precision_reaches_is_simulated_and_enough_is_enough(programs, golden: dict) -> None:
    reached = {
        name: reached_db(programs, RECIPES[name], golden, 0) for name in ("fp32", "fp16", "w8a8", "w4")
    }
    assert reached["fp32"] == {"encode": 90, "step": 90, "decode": 50, "image": 50}
    assert 45 < reached["fp16"]["encode"] <= 55  # how a processor sums in float16 differs
    assert reached["fp16"]["step"] == 55
    for name in ("w8a8", "w4"):
        assert all(10 < value < 50 for value in reached[name].values()), reached[name]
    simulated = simulate(programs, RECIPES["w4"])
    start = torch.from_numpy(golden["coarse"] + np.float32(SIGMA_S) * golden["noise"])
    step = simulated.modules["step"](start, programs.row(0))
    assert reached["w4"]["step"] == pytest.approx(sqnr_db(golden["step"], step.numpy()), abs=1e-3)


def test_a_file_may_be_20_db_below_what_its_precision_reaches_and_not_more() -> None:
    reached = {"encode": 45.0, "image": 30.0}
    check_reached("litert w8", {"encode": 25.0, "step": -3.0, "image": None}, reached)
    with pytest.raises(
        UserError, match="litert w8 was exported .* encode is 24.9 dB from float, 45.0 in sim"
    ):
        check_reached("litert w8", {"encode": 24.9, "image": 30.0}, reached)
    with pytest.raises(UserError, match="image is -inf dB"):
        check_reached("litert w8", {"encode": 50.0, "image": -math.inf}, reached)
