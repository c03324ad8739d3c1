"""Training sees what targets run, moves the reference network, and ends in an ordinary checkpoint."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from elir_mobile.checkpoints import build_restorer, load_weights, save_weights
from elir_mobile.cli.options import alone
from elir_mobile.cli.qat import main
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.data.pairs import load_pair_sets
from elir_mobile.harness.compare import means
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.precision import RECIPES, W4, Recipe, Rule
from elir_mobile.tasks import get_task
from export.calibrate import calibrate
from export.gptq import adjusted_weights
from export.programs import Programs, Samples, build_programs
from export.samples import collect_samples
from export.simulate import restore_batch, simulate
from quant.qat import Made, make_row, simulated
from quant.student import QatTraining, on_grid, starting_point
from tests.conftest import SIGMA_S, SIZE, STEPS, TINY, with_signals

app = alone(main)


W4_EVERYWHERE = Recipe("w4-everywhere", (Rule("*", W4),))


@pytest.fixture(scope="module", params=["taesd", "half"])
def restorer(request: pytest.FixtureRequest) -> Restorer:
    """A network of either form: the half form's decoder ends in a transposed convolution of its own."""
    if request.param == "taesd":
        return request.getfixturevalue("restorer")
    torch.manual_seed(0)
    return with_signals(Restorer(replace(TINY, autoencoder="half")))


@pytest.fixture(scope="module")
def programs(restorer: Restorer) -> Programs:
    return build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S)


@pytest.fixture(scope="module")
def samples(programs: Programs, degraded: list[Tensor]) -> Samples:
    return collect_samples(programs, degraded, seed=0)


@pytest.fixture(scope="module")
def ranges(programs, samples):
    return calibrate(programs, samples)


@pytest.fixture(scope="module")
def batch(degraded) -> tuple[Tensor, int]:
    return torch.cat(degraded[:2]), 3


def moved(restorer: Restorer) -> Restorer:
    """Another network of the same architecture: every parameter a little off."""
    other = copy.deepcopy(restorer)
    generator = torch.Generator().manual_seed(5)
    for parameter in other.parameters():
        parameter.data *= 1 + 0.02 * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.mark.parametrize("name", ["fp32", "w8a8", "w4"])
def test_training_computes_what_an_exporter_of_the_student_would(
    restorer, programs, ranges, batch, name: str
) -> None:
    """Also after the student has moved away from the programs that the simulation was made of."""
    recipe = RECIPES[name]
    module = QatTraining(restorer, restorer, programs, recipe, [ranges], steps=2, lr=1e-3)
    module.student = moved(restorer)
    noise = seeded_noise((2, *programs.latent_shape[1:]), 3)
    written = on_grid(module.student, module.programs, STEPS)
    rebuilt = build_programs(written, size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    want, want_path = restore_batch(simulate(rebuilt, recipe, ranges), batch[0], noise)
    with torch.no_grad():
        image, path = module.restored(batch[0], noise)
    original, _ = restore_batch(simulate(programs, recipe, ranges), batch[0], noise)
    # Arithmetic in another order flips a rounding of activations here and there.
    floor = 35 if name == "w8a8" else 80
    assert sqnr_db(want, image) > max(floor, sqnr_db(want, original) + 10)
    for z, want_z in zip(path, want_path, strict=True):
        assert sqnr_db(want_z, z) > floor - 10


def test_every_parameter_is_trained_and_the_teacher_is_not(restorer, programs, ranges, batch) -> None:
    module = QatTraining(restorer, restorer, programs, RECIPES["w8a8"], [ranges], steps=2, lr=1e-3)
    module.training_step(batch, 0).backward()
    without = [name for name, p in module.student.named_parameters() if p.grad is None]
    assert without == []
    layers = module.student.dec.layers
    upsampling = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Upsample))
    upsampled = layers[upsampling + 1].weight  # merged with the nearest upsampling before it
    assert upsampled.shape[2:] == (3, 3)
    assert upsampled.grad.abs().max() > 0
    assert module.student.fmir.time_mlp.linear1.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in module.teacher.parameters())
    assert all(p.grad is None for p in module.programs.parameters())
    assert torch.equal(module.teacher.enc.layers[0].weight, restorer.enc.layers[0].weight)


def test_ranges_take_turns(restorer, programs, ranges, batch) -> None:
    narrow = {
        name: {tensor: (low / 8, high / 8) for tensor, (low, high) in tensors.items()}
        for name, tensors in ranges.items()
    }
    module = QatTraining(restorer, restorer, programs, RECIPES["w8a8"], [ranges, narrow], steps=2, lr=1e-3)
    fits, clips, again = (module.losses(batch[0], seed)["image"].item() for seed in (2, 3, 2))
    assert clips > fits + 0.5
    assert again == fits


def test_loss_is_the_weighted_sum_and_vanishes_in_float(restorer, programs, batch) -> None:
    terms = QatTraining(restorer, restorer, programs, RECIPES["fp32"], [{}], steps=2, lr=1e-3).losses(*batch)
    want = terms["image"] + 0.5 * terms["trajectory"] + 0.1 * terms["lcfm"]
    assert terms["loss"].item() == pytest.approx(want.item(), rel=1e-6)
    floor = torch.tensor(1e-6).log().item()  # an unquantized student is its teacher
    assert terms["image"].item() == pytest.approx(floor, abs=1e-3)
    assert terms["trajectory"].item() == pytest.approx(floor, abs=1e-2)


def test_training_brings_int4_closer_to_float(restorer, programs, batch) -> None:
    torch.manual_seed(0)
    module = QatTraining(restorer, restorer, programs, W4_EVERYWHERE, [{}], steps=12, lr=2e-3)
    optimizer = module.configure_optimizers()["optimizer"]
    before = module.losses(*batch)
    for _ in range(12):
        optimizer.zero_grad()
        module.losses(*batch)["loss"].backward()
        optimizer.step()
    after = module.losses(*batch)
    assert after["image"] < before["image"] - 0.2  # 0.9 dB
    assert after["trajectory"] < before["trajectory"] - 0.2


def test_training_starts_where_post_training_quantization_ends(
    restorer, programs, samples, ranges, batch
) -> None:
    recipe = RECIPES["w8a8"]
    start = starting_point(restorer, adjusted_weights(programs, recipe, samples, biases=False), STEPS)
    rebuilt = build_programs(start, size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    plain = QatTraining(restorer, restorer, programs, recipe, [ranges], steps=2, lr=1e-3).losses(*batch)
    better = QatTraining(restorer, start, rebuilt, recipe, [ranges], steps=2, lr=1e-3).losses(*batch)
    assert better["image"] < plain["image"]
    assert better["trajectory"] < plain["trajectory"]
    # The last convolution carries 1/K in the programs and not in the network.
    last, before = (network.fmir.final_proj.weight for network in (start, restorer))
    assert 0 < (last - before).abs().max() < 0.02 * before.abs().max()


def test_float32_checkpoints_keep_the_weights_exactly(restorer, tmp_path: Path) -> None:
    facts = {"task": "bfr", "size": SIZE, "steps": STEPS, "sigma_s": SIGMA_S}
    save_weights(restorer, tmp_path / "half.safetensors", **facts)
    save_weights(restorer, tmp_path / "single.safetensors", **facts, dtype=torch.float32)
    half, single = (
        load_weights(str(tmp_path / f"{name}.safetensors"), get_task("bfr"))[0] for name in ("half", "single")
    )
    state = restorer.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in single.state_dict().items())
    assert not all(torch.equal(value, state[name]) for name, value in half.state_dict().items())


def test_rows_say_how_far_from_float() -> None:
    def made(psnr_db: list[float], lpips: list[float] | None, update: Tensor) -> Made:
        values = {"psnr_db": np.array(psnr_db), "ssim": np.array([0.7, 0.7, 0.7])}
        if lpips:
            values["lpips"] = np.array(lpips)
        return Made(values, update, ["a", "b", "c"])

    update = torch.ones(3, 16, 2, 2)
    reference = made([25.0, 26.0, 27.0], [0.27, 0.28, 0.29], update)
    row = make_row("w4", "qat", made([24.9, 25.9, 26.7], [0.28, 0.29, 0.30], 1.1 * update), reference, seed=1)
    assert row["psnr_db"] == pytest.approx(77.5 / 3)
    assert row["psnr_drop_db"] == pytest.approx(0.5 / 3)
    # Of three photographs a 27th part of the draws is thrice the worst, which is more than 2.5 %.
    assert row["psnr_drop_db_high"] == pytest.approx(0.3, abs=0.01)
    assert row["lpips_rise"] == pytest.approx(0.01) == row["lpips_rise_high"]
    assert row["update_sqnr_db"] == pytest.approx(20, abs=1e-3)
    assert row["seed"] == 1
    blank = make_row("w4", "qat", made([24.9, 25.9, 26.7], None, update), reference)
    assert blank["lpips"] is blank["lpips_rise"] is blank["lpips_rise_high"] is None
    assert blank["update_sqnr_db"] is None  # equal to the last bit


@pytest.mark.parametrize("restorer", ["half"], indirect=True)
def test_the_command_trains_resumes_and_writes_a_checkpoint(
    restorer, picture_folder: Path, tmp_path: Path
) -> None:
    weights, run_dir = tmp_path / "float.safetensors", tmp_path / "out" / "qat-bfr-w4-0"
    save_weights(restorer, weights, task="bfr", size=32, steps=STEPS, sigma_s=SIGMA_S)
    arguments = [
        "--out",
        str(tmp_path / "out"),
        "--task",
        "bfr",
        "--precision",
        "w4",
        "--weights",
        str(weights),
    ]
    arguments += ["--images", str(picture_folder), "--evaluate", str(picture_folder), "--batch", "1"]
    arguments += ["--steps", "50", "--lr", "1e-3"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    trained, info = load_weights(str(run_dir / "qat-bfr-w4.safetensors"), get_task("bfr"))
    assert (info.size, info.steps, info.sigma_s) == (32, STEPS, SIGMA_S)
    original = load_weights(str(weights), get_task("bfr"))[0].state_dict()
    assert all(not torch.equal(value, original[name]) for name, value in trained.state_dict().items())
    report = json.loads((run_dir / "report.json").read_text())
    assert [row["method"] for row in report["rows"]] == ["float", "ptq", "qat"]
    assert report["rows"][2]["minutes"] > 0
    # The row is of the very checkpoint, quantized by no more than its weights.
    data = load_pair_sets(picture_folder, get_task("bfr"), 32, 0)
    again = simulated(trained, info, RECIPES["w4"], data, 0)
    assert means(again.values)["psnr_db"] == pytest.approx(report["rows"][2]["psnr_db"], abs=1e-5)
    assert report["rows"][0]["update_sqnr_db"] is None  # it is what the others are held against
    assert 0 < report["rows"][1]["update_sqnr_db"] < 90

    written = (run_dir / "last.ckpt").stat().st_mtime_ns
    second = CliRunner().invoke(app, arguments)
    assert second.exit_code == 0, second.output
    assert (run_dir / "last.ckpt").stat().st_mtime_ns == written  # a finished run is not trained again
    assert json.loads((run_dir / "report.json").read_text()) == report

    other = CliRunner().invoke(app, [*arguments, "--batch", "2"])
    assert other.exit_code == 2
    assert "another run" in other.output
    assert build_restorer(trained.state_dict()).arch == restorer.arch


def test_steps_that_would_not_be_saved_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "out"), "--task", "bfr", "--steps", "70"])
    assert result.exit_code == 2
    assert "multiple of 50" in result.output
    assert not (tmp_path / "out").exists()
