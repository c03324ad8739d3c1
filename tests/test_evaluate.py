"""The evaluation command: what it pairs, what it reports, its intervals, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from elir_mobile import metrics
from elir_mobile.checkpoints import save_weights
from elir_mobile.cli.evaluate import main
from elir_mobile.cli.options import alone
from elir_mobile.cli.restore import main as restore_main
from elir_mobile.data.pairs import BUNDLED, make_pairs
from elir_mobile.evaluate import FRECHET, METRICS
from elir_mobile.harness.compare import quality
from elir_mobile.images import list_images, read_image, to_tensor
from elir_mobile.metrics import frechet, identity, naturalness, packages, perceptual
from elir_mobile.models.restorer import Restorer
from elir_mobile.tasks import get_task
from tests.conftest import SIGMA_S, SIZE, STEPS

app = alone(main)
restore_app = alone(restore_main)


def call(*arguments: object, code: int = 0, command=app) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def evaluate(tmp_path: Path, *arguments: object) -> dict:
    call(*arguments, "--resamples", 100, "--json", tmp_path / "report.json")
    return json.loads((tmp_path / "report.json").read_text())


@pytest.fixture
def weights(restorer: Restorer, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(restorer, path, task="bfr", size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    return path


@pytest.fixture
def blurred(picture_folder: Path, tmp_path: Path) -> Path:
    """The picture folder in blocks, one file with another ending."""
    folder = tmp_path / "blurred"
    folder.mkdir()
    for index, path in enumerate(list_images(picture_folder)):
        image = Image.open(path)
        small = image.resize((image.width // 4, image.height // 4)).resize(image.size)
        small.save(folder / path.with_suffix(".bmp" if index else ".png").name)
    return folder


def test_pairs_are_matched_by_name_and_measured(tmp_path: Path, picture_folder: Path, blurred: Path) -> None:
    report = evaluate(tmp_path, picture_folder, "--images", blurred)
    assert [image["name"] for image in report["images"]] == ["0.png", "1.bmp", "2.bmp"]
    for row in report["images"]:
        name = Path(row["name"])
        clean = to_tensor(read_image(picture_folder / f"{name.stem}.png"))[None]
        image = to_tensor(read_image(blurred / name))[None]
        for key in ("psnr_db", "ssim", "lpips"):
            measure = next(metric.measure for metric in METRICS if metric.key == key)
            assert row["images"][key] == pytest.approx(measure(image, clean).item(), rel=1e-5)
    estimate = report["metrics"]["images"]["psnr_db"]
    values = [row["images"]["psnr_db"] for row in report["images"]]
    assert estimate["value"] == pytest.approx(np.mean(values))
    assert estimate["low"] < estimate["value"] < estimate["high"]
    assert estimate["images"] == 3
    blurs, cleans = (
        torch.cat([metrics.efficientnet_features(to_tensor(read_image(path))[None]) for path in paths])
        for paths in (list_images(blurred), list_images(picture_folder))
    )
    frechet = report["metrics"]["images"][FRECHET]["value"]
    assert frechet == pytest.approx(metrics.frechet_distance(blurs, cleans), rel=1e-4)


def test_degraded_and_restored_are_what_the_other_commands_make(
    tmp_path: Path, weights: Path, picture_folder: Path
) -> None:
    """The degraded squares are ``make_pairs``'s; restoring their files by hand gives the same numbers."""
    report = evaluate(tmp_path, picture_folder, "--task", "bfr", "--weights", weights, "--seed", 3)
    pairs = make_pairs(list_images(picture_folder), get_task("bfr"), SIZE, 3, seed=3)
    expected = quality([pair.degraded for pair in pairs], pairs)
    for key, value in expected.items():
        assert report["metrics"]["degraded"][key]["value"] == pytest.approx(value, rel=1e-5)
    for kind in ("degraded", "clean"):
        (tmp_path / kind).mkdir()
        for index, pair in enumerate(pairs):
            tensor = getattr(pair, kind)[0]
            image = Image.fromarray((tensor * 255).round().byte().permute(1, 2, 0).numpy())
            image.save(tmp_path / kind / f"{index}.png")
    common = ("--task", "bfr", "--weights", weights, "--seed", 3)
    by_files = evaluate(tmp_path, tmp_path / "clean", "--images", tmp_path / "degraded", *common)
    assert by_files["metrics"]["restored"] == report["metrics"]["restored"]
    call(tmp_path / "degraded", tmp_path / "restored", *common, command=restore_app)
    again = evaluate(tmp_path, tmp_path / "clean", "--images", tmp_path / "restored", "--seed", 3)
    assert again["metrics"]["images"] == report["metrics"]["restored"]


def test_missing_packages_leave_columns_blank_and_say_why(
    tmp_path: Path, picture_folder: Path, blurred: Path, monkeypatch
) -> None:
    for cached in (perceptual._lpips_weights, naturalness._natural, frechet._weights, identity._networks):
        cached.cache_clear()
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    report = evaluate(tmp_path, picture_folder, "--images", blurred)
    estimates = report["metrics"]["images"]
    assert [key for key, estimate in estimates.items() if estimate] == ["psnr_db", "ssim"]
    assert set(report["missing"]) == {"lpips", "niqe", "identity", FRECHET}
    assert all("pip install" in why for why in report["missing"].values())


def test_images_that_equal_their_clean_ones_leave_psnr_out(tmp_path: Path, picture_folder: Path) -> None:
    report = evaluate(tmp_path, picture_folder, "--images", picture_folder)
    assert report["metrics"]["images"]["psnr_db"] is None
    assert "infinite" in report["missing"]["psnr_db"]
    assert report["metrics"]["images"]["ssim"]["value"] == pytest.approx(1)
    assert report["metrics"]["images"][FRECHET]["value"] == pytest.approx(0, abs=1e-6)


def test_portraits_have_a_niqe_and_an_identity(tmp_path: Path) -> None:
    """Two portraits of 256 pixels, each in blocks of 4×4: less natural and less of the person."""
    clean, folder = tmp_path / "clean", tmp_path / "blocks"
    clean.mkdir()
    folder.mkdir()
    for name in ("biden.png", "collins.png"):
        image = read_image(BUNDLED / "faces" / "evaluation" / name)
        image.save(clean / name)
        image.resize((64, 64), Image.Resampling.BOX).resize((256, 256), 0).save(folder / name)
    report = evaluate(tmp_path, clean, "--images", folder)
    assert not report["missing"]
    estimates = report["metrics"]["images"]
    for row in report["images"]:
        undamaged = metrics.niqe(to_tensor(read_image(clean / row["name"]))[None]).item()
        assert row["images"]["niqe"] > undamaged
    assert 0.8 < estimates["identity"]["value"] < 0.999


def test_what_cannot_be_measured_is_a_line_and_the_rest_is_measured(
    tmp_path: Path, picture_folder: Path, blurred: Path
) -> None:
    (blurred / "0.png").write_bytes(b"cut")
    (picture_folder / "1.png").write_bytes((picture_folder / "1.png").read_bytes()[:300])
    Image.new("RGB", (64, 64)).save(blurred / "extra.png")
    arguments = (picture_folder, "--images", blurred, "--resamples", 100, "--json", tmp_path / "report.json")
    said = call(*arguments, code=2)
    for line in ("0.png is not an image", "1.png is not an image", "no image named like", "1 images; report"):
        assert line in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["name"] for row in report["images"]] == ["2.bmp"]


def test_alpha_and_wide_values_are_read_as_restore_reads_them(
    tmp_path: Path, weights: Path, picture_folder: Path
) -> None:
    """Restored files of transparent and of float pictures measure what ``evaluate --task`` measures."""
    clean, degraded, restored = (tmp_path / name for name in ("clean", "degraded", "restored"))
    clean.mkdir()
    degraded.mkdir()
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(rgba).resize((96, 80), Image.Resampling.NEAREST).save(degraded / "0.png")
    values = np.linspace(0, 1, 96, dtype=np.float32)[None].repeat(80, 0)
    Image.fromarray(values).save(degraded / "1.tif")
    for index, name in enumerate(("0.png", "1.png")):
        Image.open(picture_folder / f"{index}.png").save(clean / name)
    reading = ("--range", "0..1", "--background-color", "#204060")
    common = ("--task", "bfr", "--weights", weights, *reading)
    here = evaluate(tmp_path, clean, "--images", degraded, *common)
    call(degraded, restored, *common, "--anyway", command=restore_app)
    again = evaluate(tmp_path, clean, "--images", restored, *reading)
    for key in ("psnr_db", "ssim"):
        value = here["metrics"]["restored"][key]["value"]
        assert again["metrics"]["images"][key]["value"] == pytest.approx(value, rel=1e-6)


def test_bad_input_is_one_sentence(tmp_path: Path, picture_folder: Path, blurred: Path) -> None:
    assert "nothing to measure" in call(picture_folder, code=2)
    assert "no image folder at" in call(tmp_path / "none", "--task", "bfr", code=2)
    assert "unknown task 'x'" in call(picture_folder, "--task", "x", code=2)
    assert "is of the float model" in call(
        picture_folder, "--task", "bfr", "--bundle", tmp_path, "--weights", "demo", code=2
    )
    assert "--tile restores nothing" in call(picture_folder, "--images", blurred, "--tile", 64, code=2)
    assert "--size is of the squares" in call(picture_folder, "--images", blurred, "--size", 64, code=2)
    Image.new("RGB", (64, 64)).save(blurred / "extra.png")
    assert "has no image named like" in call(picture_folder, "--images", blurred, code=2)
    (blurred / "extra.png").rename(blurred / "0.png")
    assert "of the same size" in call(picture_folder, "--images", blurred, code=2)
