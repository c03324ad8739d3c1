"""The main command from its outside: what it writes, and what it says to bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from html import unescape
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from elir_mobile.bundle import read_bundle
from elir_mobile.checkpoints import ModelInfo
from elir_mobile.cli.options import alone
from elir_mobile.cli.quantize import main
from elir_mobile.core.errors import UserError
from elir_mobile.core.manifest import MANIFEST, sha256_of
from elir_mobile.faces.detect import SHA256
from elir_mobile.harness.protocol import Protocol
from elir_mobile.precision import FP32, RECIPES, read_recipe
from elir_mobile.recommendation import BUDGET, recommendation
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.tasks import ALIGNED_FACE, get_task
from export import artifacts
from export.job import Job
from quant import budget as budget_module
from quant.search import Budget
from tests.conftest import FEW, SIZE, STEPS
from tests.test_checkpoints import Hostile

app = alone(main)


def ptq(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module", autouse=True)
def few_judged() -> Iterator[None]:
    """In the search, too, as many pairs as it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_module, "PairCounts", lambda: FEW)
        patch.setattr(budget_module, "JUDGED_PAIRS", 4)
        yield


@pytest.fixture(autouse=True)
def few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of each file say enough; what ``finished`` says of its protocol is the command's own."""
    monkeypatch.setattr("export.job.SHORT", Protocol(warmups=0, runs=2, cold_starts=1))


@pytest.fixture(scope="module")
def weights(tiny_weights: Path) -> Path:
    return tiny_weights


@pytest.fixture(scope="module")
def odd_pictures(tmp_path_factory) -> Path:
    """Pictures of every mode that must be converted."""
    folder = tmp_path_factory.mktemp("pictures")
    values = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 6), dtype=np.uint8)).resize((80, 70))
    )
    grey = Image.fromarray(values)
    grey.save(folder / "a-grey.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(folder / "b-16bit.png")
    grey.convert("RGBA").save(folder / "c-alpha.png")
    grey.convert("CMYK").save(folder / "d-cmyk.jpg")
    return folder


@pytest.fixture(scope="module")
def finished(weights, odd_pictures, tmp_path_factory) -> tuple[Path, Result]:
    """One whole run of the command."""
    out = tmp_path_factory.mktemp("out")
    result = ptq("--task", "bfr", "--weights", weights, "--images", odd_pictures, "--out", out, "--seed", 3)
    return out / "bfr-tiny", result


def test_the_command_succeeds_and_ends_with_a_table(finished) -> None:
    folder, result = finished
    assert result.exit_code == 0, result.output
    assert "executorch w8a8" in result.output
    assert result.output.rstrip().endswith("report.html")
    assert {p.name for p in folder.iterdir()} == {
        "manifest.json", "steps.bin", "executorch", "golden", "detector", "report",
    }  # fmt: skip


def test_the_bundle_is_valid_and_its_files_run(finished, degraded, noise) -> None:
    bundle = read_bundle(finished[0])
    for precision in ("fp32", "w8a8"):
        runner = open_runner("executorch", bundle.file("executorch", precision), bundle.table)
        image, _ = runner.restore(degraded[0], noise, steps=STEPS, sigma_s=bundle.manifest["sigma_s"])
        assert image.shape == (1, 3, SIZE, SIZE)
        assert 0 <= image.min() < image.max() <= 1


def test_the_manifest_lists_delegation_and_calibration(finished) -> None:
    manifest = read_bundle(finished[0]).manifest
    for entry in manifest["files"]:
        for name in entry["programs"]:
            assert entry["delegation"][name] == {"delegates": 1, "ops_outside": [], "ops_inside": None}
    calls = manifest["calibration"]["calls"]
    assert calls["step"] == STEPS * calls["encode"]
    assert manifest["files"][1]["recipe"]["rules"][-1] == {"pattern": "*", "precision": "w8a8"}


@pytest.mark.lowering
def test_the_manifest_tells_an_app_what_the_task_is_and_which_file_to_run(finished) -> None:
    manifest = read_bundle(finished[0]).manifest
    assert (manifest["task"], manifest["title"]) == ("bfr", "blind face restoration")
    assert (manifest["domain"], manifest["upscale"], manifest["enlarge"]) == ("aligned-face", 1, "nearest")
    assert {entry["sha256"] for entry in manifest["detector"]["files"].values()} == {*SHA256.values()}
    assert manifest["budget"] == BUDGET
    report = json.loads((finished[0] / "report" / "report.json").read_text())
    _, *rows = report["rows"]
    for entry, row in zip(manifest["files"], rows, strict=True):
        assert entry["executed_by"] == row["executed_by"] == f"ExecuTorch {version('executorch')}"
        quality = entry["quality"]
        assert (quality["pairs"], quality["photographs"]) == (2, row["sources"]) == (2, 2)
        assert quality["update_sqnr_db"] == row["update_sqnr_db"]
        for name in ("psnr_drop_db", "psnr_drop_db_high", "lpips_rise", "lpips_rise_high"):
            assert quality[name] == row["image"][name]
    fp32, int8 = manifest["files"]
    # Random weights: what int8 costs may be within the budget or not.
    best = recommendation(manifest["files"])["android"]
    assert best in (fp32["path"], int8["path"])
    assert manifest["recommendation"] == dict.fromkeys(("android", "ios", "host"), best)
    said = manifest["reasons"]["android"]
    chosen = next(entry for entry in manifest["files"] if entry["path"] == best)
    assert said.startswith(f"executorch {chosen['precision']}: {chosen['executed_by']} ran it: SQNR of the ")
    assert (f"; it goes before executorch w8a8: {int8['executed_by']} ran it: " in said) == (
        best == fp32["path"]
    )
    lines = {line["kind"]: line["reason"] for line in report["recommendation"]}
    assert lines == manifest["reasons"]
    page = unescape((finished[0] / "report" / "report.html").read_text())
    assert [kind for kind, reason in lines.items() if f"{reason}<" not in page] == []
    assert "which file for which device" in finished[1].output


def test_the_report_has_every_row_and_key(finished) -> None:
    report = json.loads((finished[0] / "report" / "report.json").read_text())
    assert report.pop("export_seconds") > 0
    assert report.keys() == {
        "rows", "bundle", "model", "recommendation", "data", "devices", "pairwise", "protocol", "machine",
        "references", "steps",
        "revision",
    }  # fmt: skip
    assert [(r["target"], r["precision"]) for r in report["rows"]] == [
        ("eager", "fp32"),
        ("executorch", "fp32"),
        ("executorch", "w8a8"),
    ]
    for row in report["rows"]:
        assert row.keys() >= {
            "target", "precision", "bytes", "latency_ms", "speedup_vs_eager", "speedup_vs_fp32",
            "programs", "trajectory_sqnr_db", "image",
        }  # fmt: skip
        assert 0 < row["latency_ms"]["median"] <= row["latency_ms"]["p90"] * 1.0001
        assert len(row["trajectory_sqnr_db"]) == STEPS
        assert row["programs"].keys() == {"encode", "step", "decode"}
        assert all(row["image"][key] > 0 for key in ("psnr_db", "ssim", "lpips"))
    eager, fp32, w8a8 = report["rows"]
    assert eager["speedup_vs_eager"] == fp32["speedup_vs_fp32"] == 1
    assert all(g["holds"] for row in (fp32, w8a8) for g in row["golden"].values())
    assert w8a8["speedup_vs_eager"] == pytest.approx(
        eager["latency_ms"]["median"] / w8a8["latency_ms"]["median"]
    )
    assert min(p["sqnr_db"] for p in fp32["programs"].values()) > 90
    assert all(15 < p["sqnr_db"] < 90 for p in w8a8["programs"].values())
    assert fp32["image"]["psnr_vs_float_db"] > w8a8["image"]["psnr_vs_float_db"] > 20
    assert report["protocol"]["warmups"] == 3
    assert report["protocol"]["runs"] >= 20
    assert report["bundle"]["sha256"] == sha256_of(finished[0] / MANIFEST)
    assert not set(report["data"]["calibration"]) & set(report["data"]["evaluation"])


def test_the_page_is_self_contained_and_the_strip_shows_six_columns(finished) -> None:
    page = (finished[0] / "report" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', page))
    with Image.open(finished[0] / "report" / "strip.png") as strip:
        assert strip.width == 6 * (3 * SIZE + 2) - 2


def test_the_same_command_writes_the_same_files(
    finished, lowered_anew, weights, odd_pictures, tmp_path: Path
) -> None:
    """One precision is enough: calibration, quantization and lowering all take part in it."""
    first = read_bundle(finished[0]).manifest
    result = ptq(
        "--task", "bfr", "--weights", weights, "--images", odd_pictures,
        "--out", tmp_path, "--seed", 3, "--precision", "w8a8",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    second = read_bundle(tmp_path / "bfr-tiny").manifest
    assert second["calibration"] == first["calibration"]
    assert second["table"] == first["table"]
    assert second["files"][0]["sha256"] == first["files"][1]["sha256"]


def refused(tmp_path: Path, *arguments: object) -> str:
    """Run, expect exit code 2, one line, no traceback and nothing written; return the line."""
    out = tmp_path / "refused-out"
    result = ptq(*arguments, "--out", out)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    line = result.stderr.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    assert not out.exists() or list(out.iterdir()) == []
    return line


def test_unknown_task(tmp_path: Path) -> None:
    assert "unknown task 'bfrr'" in refused(tmp_path, "--task", "bfrr")


def test_a_task_without_demo_weights(tmp_path: Path) -> None:
    line = refused(tmp_path, "--task", "mask")
    assert "no demo weights are bundled for task 'mask': name a checkpoint with --weights" in line


def test_unknown_precision(tmp_path: Path) -> None:
    assert "unknown precision 'int8'" in refused(tmp_path, "--task", "bfr", "--precision", "int8")


def test_missing_weights(tmp_path: Path) -> None:
    assert "no weights file" in refused(tmp_path, "--task", "bfr", "--weights", tmp_path / "absent.pth")


def test_text_weights(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_text("hello")
    assert "not a PyTorch checkpoint" in refused(tmp_path, "--task", "bfr", "--weights", tmp_path / "x.pth")


def test_truncated_weights(tmp_path: Path, restorer) -> None:
    path = tmp_path / "x.pth"
    torch.save(restorer.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    assert "truncated" in refused(tmp_path, "--task", "bfr", "--weights", path)


def test_hostile_weights(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"fmir": Hostile(marker)}, tmp_path / "x.pth")
    assert "execute code" in refused(tmp_path, "--task", "bfr", "--weights", tmp_path / "x.pth")
    assert not marker.exists()


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "x.pth")
    assert "not an ELIR network" in refused(tmp_path, "--task", "bfr", "--weights", tmp_path / "x.pth")


def test_unsuitable_size(tmp_path: Path, weights) -> None:
    line = refused(tmp_path, "--task", "bfr", "--weights", weights, "--size", 50)
    assert "multiple of 16" in line


def test_folder_without_images(tmp_path: Path, weights) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    assert "has no images" in refused(tmp_path, "--task", "bfr", "--weights", weights, "--images", folder)


def test_images_that_cannot_be_used_are_named_and_one_alone_is_too_few(
    tmp_path: Path, weights, picture_folder
) -> None:
    Image.new("RGB", (1, 1)).save(picture_folder / "1.png")
    (picture_folder / "0.png").write_text("hello")
    result = ptq("--task", "bfr", "--weights", weights, "--images", picture_folder, "--out", tmp_path)
    assert result.exit_code == 2, result.output
    *named, last = result.stderr.splitlines()
    assert "0.png" in named[0] and "not an image" in named[0]
    assert "1×1" in named[1]
    assert "has one image: put in at least two" in last


def test_unwritable_output(tmp_path: Path, weights, picture_folder) -> None:
    (tmp_path / "file").write_text("")
    places = [tmp_path / "file" / "out"]
    if Path("/proc/self").is_dir():  # a folder that not even root can write into
        places.append(Path("/proc/self/out"))
    for place in places:
        result = ptq("--task", "bfr", "--weights", weights, "--images", picture_folder, "--out", place)
        assert result.exit_code == 2
        assert "cannot write into" in result.stderr
        assert "Traceback" not in result.output


@pytest.mark.lowering
def test_full_disk_is_one_sentence(tmp_path: Path, weights, picture_folder, monkeypatch) -> None:
    def full(source: Path, target: Path, **unused: bool) -> Path:
        target.write_bytes(source.read_bytes()[:100])
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("export.artifacts.shutil.copyfile", full)
    result = ptq(
        "--task", "bfr", "--weights", weights, "--images", picture_folder, "--precision", "fp32",
        "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert "No space left on device" in result.stderr.strip()
    assert len(list(tmp_path.rglob("*-exports/*/file.pte"))) == 1  # what was exported is never lost


@pytest.mark.lowering
def test_a_stopped_run_goes_on_from_its_exports(tmp_path: Path, weights, picture_folder, monkeypatch) -> None:
    import quant.ptq as command

    def stopped(*unused: object) -> dict:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    arguments = (
        "--task", "bfr", "--weights", weights, "--images", picture_folder, "--precision", "fp32",
        "--out", out,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(command, "measure_written", stopped)
        assert ptq(*arguments).exit_code != 0
    assert [path.name for path in out.iterdir()] == [".bfr-tiny-exports"]
    result = ptq(*arguments)
    assert result.exit_code == 0, result.output
    assert "1 of 1 files were exported before" in result.output
    assert [path.name for path in out.iterdir()] == ["bfr-tiny"]
    assert read_bundle(out / "bfr-tiny").file("executorch", "fp32").stat().st_size > 0


def alive(session: int) -> list[str]:
    """Command lines of the processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append((folder / "cmdline").read_text())
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_run_leaves_nobody_behind_and_its_exports_to_the_next(
    finished, weights, odd_pictures, tmp_path: Path
) -> None:
    arguments = (
        "--task", "bfr", "--weights", weights, "--images", odd_pictures, "--out", tmp_path / "out",
        "--seed", 3, "--threads", 1,
    )  # fmt: skip
    command = [sys.executable, "-m", "quant.ptq", *map(str, arguments)]
    run = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    place = tmp_path / "out" / ".bfr-tiny-exports"
    while not list(place.glob("[0-9a-f]*/file.pte")):  # one of the two files
        assert run.poll() is None
        time.sleep(0.02)
    assert any("spawn_main" in line for line in alive(run.pid))
    (folder,) = (path.parent for path in place.glob("[0-9a-f]*/file.pte"))
    run.kill()
    run.wait()
    deadline = time.monotonic() + 5
    while left := alive(run.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    exported = sha256_of(folder / "file.pte")
    result = ptq(*arguments)
    assert result.exit_code == 0, result.output
    assert "1 of 2 files were exported before" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bfr-tiny"]
    digests = [entry["sha256"] for entry in read_bundle(tmp_path / "out" / "bfr-tiny").manifest["files"]]
    assert digests == [entry["sha256"] for entry in read_bundle(finished[0]).manifest["files"]]
    assert exported == digests[0]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_stopped_run_ends_at_once_with_its_export_processes(
    weights, picture_folder, tmp_path: Path
) -> None:
    arguments = (
        "--task", "bfr", "--weights", weights, "--images", picture_folder, "--out", tmp_path / "out",
        "--precision", "fp32", "--threads", 1,
    )  # fmt: skip
    command = [sys.executable, "-m", "quant.ptq", *map(str, arguments)]
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, start_new_session=True, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    while not list((tmp_path / "out").glob(".*/log.txt")):  # an export process is at work
        assert run.poll() is None
        time.sleep(0.05)
    start = time.monotonic()
    run.terminate()
    said = run.communicate()[0]
    assert run.returncode == 143
    assert time.monotonic() - start < 10
    assert "Traceback" not in said
    while left := alive(run.pid):  # one that was killed is seen until the system has cleared it away
        assert time.monotonic() - start < 15, left
        time.sleep(0.05)
    assert not (tmp_path / "out" / "bfr-tiny").exists()
    assert not list((tmp_path / "out").glob("*.part"))


def test_two_runs_into_one_folder_are_refused(tmp_path: Path, weights, picture_folder) -> None:
    given = ("--task", "bfr", "--weights", weights, "--images", picture_folder, "--out", tmp_path)
    exports = tmp_path / ".bfr-tiny-exports"
    (exports / "0123456789abcdef").mkdir(parents=True)  # that the other has exported
    with artifacts.waiting_room(tmp_path / "bfr-tiny"):
        result = ptq(*given)
        assert result.exit_code == 2, result.output
        assert f"another run is writing {tmp_path / 'bfr-tiny'}: wait until it ends" in result.stderr
        assert (exports / "0123456789abcdef").is_dir()


def test_an_export_process_that_dies_is_one_sentence(
    tmp_path: Path, weights, picture_folder, monkeypatch, lowered_anew
) -> None:
    pool = artifacts.ProcessPoolExecutor
    monkeypatch.setattr(
        artifacts,
        "ProcessPoolExecutor",
        lambda n, **how: pool(n, **how | {"initializer": os._exit, "initargs": (1,)}),
    )
    result = ptq(
        "--task", "bfr", "--weights", weights, "--images", picture_folder, "--out", tmp_path,
        "--precision", "fp32",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "an export process died" in result.output
    assert not (tmp_path / "bfr-tiny").exists()


def test_gptq_is_said_in_the_manifest_and_changes_the_integer_file_alone(
    finished, weights, odd_pictures, tmp_path: Path
) -> None:
    """That it brings int8 nearer is held in tests/test_gptq.py: it takes more pairs than the two here."""
    result = ptq(
        "--task", "bfr", "--weights", weights, "--images", odd_pictures,
        "--out", tmp_path, "--seed", 3, "--precision", "fp32,w8a8", "--gptq",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    plain, moved = (read_bundle(folder).manifest["files"] for folder in (finished[0], tmp_path / "bfr-tiny"))
    assert [entry["gptq"] for entry in plain] == [False, False]
    assert [entry["gptq"] for entry in moved] == [False, True]
    assert plain[0]["sha256"] == moved[0]["sha256"]
    assert plain[1]["sha256"] != moved[1]["sha256"]


@pytest.mark.lowering
def test_random_weights_leave_quality_blank(tmp_path: Path, monkeypatch, restorer, picture_folder) -> None:
    """The option itself at the released size is the benchmark's; here a tiny network stands in."""
    info = ModelInfo("random", "random weights, seed 0", "0" * 64, False, SIZE, STEPS, 0.1, ALIGNED_FACE)
    monkeypatch.setattr("elir_mobile.checkpoints.random_weights", lambda task, seed: (restorer, info))
    result = ptq(
        "--task",
        "bfr",
        "--random-weights",
        "--precision",
        "fp32",
        "--images",
        picture_folder,
        "--out",
        tmp_path / "o",
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "o" / "bfr-random" / "report" / "report.json").read_text())
    for row in report["rows"]:
        assert set(row["image"].values()) == {None}
    assert report["rows"][1]["programs"]["step"]["sqnr_db"] > 90
    assert "Random weights" in (tmp_path / "o" / "bfr-random" / "report" / "report.html").read_text()


def test_help_names_every_option() -> None:
    text = ptq("--help").output
    for option in (
        "--task",
        "--weights",
        "--images",
        "--size",
        "--precision",
        "--out",
        "--seed",
        "--random-weights",
    ):
        assert option in text


def test_the_list_shows_recipes_and_who_realizes_them() -> None:
    result = ptq("--list")
    assert result.exit_code == 0
    lines = [[cell.strip() for cell in line.split("│")] for line in result.output.splitlines()]
    assert ["", "w8a16", "*add fp32; * w8a16", "onnx, onnx/qnn", ""] in lines
    assert "executorch/vulkan: not executed here: it runs on android" in result.output


def test_a_bad_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[rule]]\npattern = "enc.*"\nprecision = "int9"\n')
    assert "rule 1 ('enc.*') has unknown precision 'int9'" in refused(
        tmp_path, "--task", "bfr", "--recipe", path
    )


def test_a_recipe_rule_that_matches_nothing(tmp_path: Path, weights) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[rule]]\npattern = "encoder.*"\nprecision = "w8a8"\n')
    line = refused(tmp_path, "--task", "bfr", "--weights", weights, "--recipe", path)
    assert "rule 1 ('encoder.*') matches no layer" in line


def recipe_file(path: Path, pattern: str, name: str) -> Path:
    path.write_text(f'name = "{name}"\n[[rule]]\npattern = "{pattern}"\nprecision = "w8a8"\n')
    return path


def test_two_recipes_of_one_name_are_refused(tmp_path: Path, weights) -> None:
    one, two = (recipe_file(tmp_path / f"{part}.toml", f"{part}.*", "mine") for part in ("enc", "dec"))
    given = ("--task", "bfr", "--weights", weights, "--recipe", one, "--recipe", two)
    assert "two recipes are called 'mine'" in refused(tmp_path, *given)


def test_a_recipe_called_as_the_search_names_its_own_is_refused(tmp_path: Path, weights) -> None:
    own = recipe_file(tmp_path / "own.toml", "enc.*", "searched")
    given = ("--task", "bfr", "--weights", weights, "--recipe", own, "--max-psnr-drop", 0.1)
    assert "a search names its recipe 'searched'" in refused(tmp_path, *given)


def test_bytes_without_a_budget_for_the_pictures(tmp_path: Path) -> None:
    assert "--max-bytes alone" in refused(tmp_path, "--task", "bfr", "--max-bytes", 1000)


def test_a_budget_for_random_weights(tmp_path: Path) -> None:
    for option in (("--max-psnr-drop", 0.1), ("--weights", "demo")):
        line = refused(tmp_path, "--task", "bfr", "--random-weights", *option)
        assert f"{option[0]} means nothing with --random-weights" in line


def test_the_search_writes_a_recipe_that_can_be_read_back(
    restorer, odd_pictures, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(
        budget_module, "damages", lambda judge, advance: {"enc.layers.0": 2.0, "dec.layers.0": 1.0}
    )
    info = ModelInfo("tiny", "here", "0" * 64, True, SIZE, STEPS, 0.1, ALIGNED_FACE)
    job = Job(get_task("bfr"), restorer, info, SIZE, (), odd_pictures, tmp_path, 0)
    console = Console(width=200, record=True)
    with pytest.raises(UserError, match="add --few"):
        budget_module.rank_layers(job, console, few=False)
    ranking = budget_module.rank_layers(job, console, few=True)
    found = budget_module.find_recipe(job, ranking, Budget(psnr_drop_db=-100.0, max_bytes=10**9), console)
    assert not found.holds  # nobody is a hundred decibels better than float
    assert found.fallbacks == 2
    recipe = read_recipe(tmp_path / "bfr-tiny-searched.toml")
    assert recipe == found.recipe
    assert recipe.precision_of("enc.layers.0") == recipe.precision_of("dec.layers.0") == FP32
    text = console.export_text()
    assert "0 layers in float" in text
    assert "2 layers in float" in text
    assert "cannot be held" in text
    assert "--gptq" not in text

    job = replace(job, gptq=True)
    moved = budget_module.rank_layers(job, console, few=True)
    plain, reconstructed = (r.judge.judge(RECIPES["w8a8"], programs=False) for r in (ranking, moved))
    assert reconstructed.image_db > plain.image_db
    budget_module.find_recipe(job, moved, Budget(psnr_drop_db=-100.0), console)
    assert "--gptq)" in console.export_text()


def test_the_fewest_steps_are_those_within_the_budget(restorer, odd_pictures, tmp_path: Path) -> None:
    info = ModelInfo("tiny", "here", "0" * 64, True, SIZE, 3, 0.1, ALIGNED_FACE)
    job = Job(get_task("bfr"), restorer, info, SIZE, (), odd_pictures, tmp_path, 0)
    console = Console(width=200, record=True)
    assert budget_module.fewest_steps(job, Budget(100.0), True, console) == 1
    assert budget_module.fewest_steps(job, Budget(-100.0), True, console) == 3
    said = console.export_text()
    assert "K = 2 for 3: PSNR drop up to" in said
    assert said.count("over budget") == 2
    with pytest.raises(UserError, match="add --few"):
        budget_module.fewest_steps(job, Budget(100.0), False, console)


def test_steps_are_a_number_or_auto_with_a_budget(tmp_path: Path) -> None:
    assert "--steps auto needs a budget" in refused(tmp_path, "--task", "bfr", "--steps", "auto")
    for wrong in ("0", "many", "-1"):
        assert f"--steps {wrong} is no number of steps" in refused(
            tmp_path, "--task", "bfr", f"--steps={wrong}"
        )
    said = refused(tmp_path, "--task", "bfr", "--min-update", 15)
    assert "--min-update alone asks nothing of the pictures" in said


def test_the_verdict_on_an_executed_file_is_the_budgets() -> None:
    def row(precision: str, drop: float, rise: float) -> dict:
        """As a report has it; upper ends are half as much again."""
        image = {"psnr_drop_db": drop, "psnr_drop_db_high": 1.5 * drop}
        image |= {"lpips_rise": rise, "lpips_rise_high": 1.5 * rise}
        found = {"target": "executorch", "precision": precision, "image": image, "bytes": 100}
        return found | {"update_sqnr_db": 17.0, "device": "host"}

    rows = [row("fp32", 0.0, 0.0), row("w8a8", 4.5, 0.13), row("searched", 0.1, 0.002)]
    (holding,) = budget_module.verdicts(rows, "searched", Budget(0.16, 0.0031, 100, 16.9))
    assert holding[:2] == ("executorch", True)
    assert "PSNR drop in dB 0.100 (up to 0.150)" in holding[2]
    short = Budget(0.14), Budget(0.16, 0.0029), Budget(0.16, max_bytes=99), Budget(0.16, min_update_db=17.1)
    for budget in short:
        assert not budget_module.verdicts(rows, "searched", budget)[0][1]

    nobody = row("searched", 0.0, 0.0) | {"device": "nobody", "against": {"run": "not executed here"}}
    assert budget_module.verdicts([nobody], "searched", Budget(1.0)) == [
        ("executorch", None, "not executed here")
    ]
