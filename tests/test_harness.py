"""The harness on real files: the worker in real processes, the host, the command, the report."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html import unescape
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from elir_mobile.bundle import file_entry, read_bundle
from elir_mobile.checkpoints import load_weights
from elir_mobile.cli.measure import main
from elir_mobile.cli.options import alone
from elir_mobile.core.errors import UserError
from elir_mobile.core.golden import golden_outputs, golden_parity_db, output_sha256
from elir_mobile.core.jobs import OUTPUTS, DeviceFacts, Job, Row, Times, read_result, write_json
from elir_mobile.core.jobs import Result as JobResult
from elir_mobile.core.manifest import read_golden, read_manifest
from elir_mobile.core.sampling import PROGRAMS, Loop
from elir_mobile.core.statistics import psnr_db, sqnr_db
from elir_mobile.core.timing import take_turns, timed_restore
from elir_mobile.data.pairs import PairCounts, load_pair_sets
from elir_mobile.devices import protocol as devices
from elir_mobile.devices.host import Host, WorkerError, WorkerProcess, pictures_of, worker_process
from elir_mobile.devices.worker import Artifact, Server, find_entry
from elir_mobile.harness import measure
from elir_mobile.harness.charts import charts, number, standalone
from elir_mobile.harness.compare import quality
from elir_mobile.harness.protocol import Protocol
from elir_mobile.harness.report import ops_text, page, terminal_table
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.restore import load_artifact
from elir_mobile.runtimes.programs import open_programs
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.runtimes.table import RUNTIMES, runtimes_on
from elir_mobile.tasks import get_task
from tests.conftest import SIGMA_S, SIZE, STEPS, write_micro_bundle, write_pictures

app = alone(main)


LITERT = ("litert/bfr-fp32.tflite", "litert/bfr-w8.tflite")
EXECUTORCH, COREML = "executorch/bfr-fp32.pte", "coreml/bfr-fp32.mlpackage"
# The worker with every package out of reach that a device need not have.
BARE = """
import sys
for name in ("torch", "PIL", "typer", "rich", "jinja2", "safetensors"):
    sys.modules[name] = None
from elir_mobile.devices.worker import main
sys.exit(main(sys.argv[1:]))
"""


def nothing(done: int, total: int, text: str) -> None:
    assert 0 <= done <= total
    assert text


def spoiled(bundle: Path, target: Path, path: str) -> Path:
    """A copy of the bundle, valid by its checksums, in which ``path`` is no model."""
    shutil.copytree(bundle, target)
    (target / path).write_bytes(b"nonsense" * 100)
    manifest = json.loads((target / "manifest.json").read_text())
    entry = find_entry(manifest, path)
    entry.update(file_entry(target, target / path))
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def run_worker(tmp_path: Path, job: Job, *code: str) -> tuple[subprocess.CompletedProcess, Path]:
    write_json(tmp_path / "job.json", job)
    arguments = [sys.executable, *(code or ("-m", "elir_mobile.devices.worker")), "job.json", "result.json"]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        arguments, cwd=tmp_path, env={"PYTHONPATH": root, "PATH": ""}, capture_output=True, text=True
    )
    return done, tmp_path / "result.json"


# The worker


def test_a_worker_needs_nothing_but_numpy_and_the_runtime(micro_bundle: Path, tmp_path: Path) -> None:
    job = Job(str(micro_bundle), LITERT, threads=1, warmup=1, runs=2)
    done, path = run_worker(tmp_path, job, "-c", BARE)
    assert done.returncode == 0, done.stderr
    result = read_result(path)
    assert result.device.runtimes.keys() == {"ai-edge-litert"}
    fp32, w8 = result.rows
    assert [row.path for row in result.rows] == list(LITERT)
    assert all(fp32.parity[name] is None or fp32.parity[name] > 90 for name in ("encode", "step"))
    assert 20 < (w8.parity["encode"] or 0) < 90
    for row in result.rows:
        assert row.error is None
        assert row.total is not None
        assert len(row.total.runs_ms) == 2
        assert row.programs.keys() == {"encode", "step", "decode"}
        parts = zip(*(row.programs[name].runs_ms for name in ("encode", "step", "decode")), strict=True)
        for total, (encode, step, decode) in zip(row.total.runs_ms, parts, strict=True):
            assert total == pytest.approx(encode + STEPS * step + decode)
        for name in OUTPUTS:
            values = np.fromfile(tmp_path / row.outputs[name], "<f4")
            assert output_sha256(values) == row.output_sha256[name]


def test_without_runs_nothing_is_timed(micro_bundle: Path, tmp_path: Path) -> None:
    done, path = run_worker(tmp_path, Job(str(micro_bundle), LITERT[:1], warmup=0, runs=0))
    assert done.returncode == 0, done.stderr
    (row,) = read_result(path).rows
    assert (row.load_ms, row.first_ms, row.total, row.programs) == (None, None, None, {})
    assert row.parity.keys() == set(OUTPUTS)


def test_a_file_that_does_not_run_is_its_own_row(micro_bundle: Path, tmp_path: Path) -> None:
    bundle = spoiled(micro_bundle, tmp_path / "spoiled", LITERT[0])
    files = (*LITERT, "litert/none.tflite")
    done, path = run_worker(tmp_path, Job(str(bundle), files, warmup=0, runs=1))
    assert done.returncode == 0, done.stderr
    bad, good, absent = read_result(path).rows
    assert "not a LiteRT model" in (bad.error or "")
    assert good.error is None
    assert good.total is not None
    assert absent.error == "the bundle has no file litert/none.tflite"


def test_a_bad_job_is_one_line_and_no_result(micro_bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(micro_bundle, damaged)
    (damaged / LITERT[0]).write_bytes(b"x")
    for bundle, message in ((damaged, "missing or damaged"), (tmp_path / "none", "not a bundle")):
        done, path = run_worker(tmp_path, Job(str(bundle), LITERT[:1]))
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert not path.exists()


# Golden vectors and turns


def test_golden_parity_is_none_where_outputs_are_equal() -> None:
    golden = {name: np.ones((1, 1, 2, 2), np.float32) for name in ("coarse", "step", "output")}
    outputs = {name: np.ones((1, 1, 2, 2), np.float32) for name in OUTPUTS}
    assert golden_parity_db(outputs, golden) == dict.fromkeys(OUTPUTS)
    outputs["encode"] = outputs["encode"] * np.float32(1.1)
    outputs["image"] = outputs["image"] * np.float32(0.9)
    found = golden_parity_db(outputs, golden)
    assert found["encode"] == pytest.approx(20, abs=1e-4)  # error of a tenth
    assert found["image"] == pytest.approx(20, abs=1e-4)
    assert found["decode"] is None
    assert (
        sqnr_db(golden["coarse"], golden["coarse"]) == psnr_db(golden["coarse"], golden["coarse"]) == np.inf
    )


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_program_that_gives_what_is_not_finite_never_passes_for_equal(program: str, broken: float) -> None:
    """One value of one output: an error that names the output, where None would say equal to the last bit."""
    golden = {
        name: np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
        for name in ("input", "noise", "coarse", "step", "latent")
    }
    golden["output"] = np.ones((1, 1, 2, 2), np.float32)

    def spoiled(values: np.ndarray, *k: int) -> np.ndarray:
        values = values.copy()
        values[0, 0, 1, 1] = broken
        return values

    programs = dict.fromkeys(PROGRAMS, lambda values, *k: values) | {program: spoiled}
    with pytest.raises(UserError, match=f"^{program} gives values that are not finite$"):
        golden_outputs(Loop(**programs, steps=2, sigma_s=0.1), golden)
    whole = {name: np.ones((1, 1, 2, 2), np.float32) for name in OUTPUTS}
    with pytest.raises(UserError, match="not finite"):
        golden_parity_db(whole | {program: spoiled(whole[program])}, golden)


def test_a_device_without_a_figure_holds_only_where_its_bits_are_the_float_ones(tmp_path: Path) -> None:
    """What is not a number is null in a device's JSON, as what is equal is."""
    ran = object.__new__(measure.Ran)
    ran.expected = {name: np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2) for name in OUTPUTS}
    entry = {"parity": {name: {"budget_db": 30.0} for name in OUTPUTS}}
    same, other = output_sha256(ran.expected["step"]), "0" * 64
    (tmp_path / "decode.f32").write_bytes(ran.expected["decode"].tobytes())
    (tmp_path / "image.f32").write_bytes(np.full(4, np.nan, np.float32).tobytes())
    row = Row(
        "a.tflite", other, "litert", "fp32", 1,
        parity=dict.fromkeys(OUTPUTS),
        output_sha256={"encode": other, "step": same},
        outputs={"decode": "decode.f32", "image": "image.f32"},
    )  # fmt: skip
    found = ran._golden(row, entry, tmp_path)
    assert {name: facts["holds"] for name, facts in found.items()} == {
        "encode": False, "step": True, "decode": True, "image": False,
    }  # fmt: skip
    known = Row("a", other, "litert", "fp32", 1, parity={"encode": 29.9, "step": 30.0})
    held = {name: facts["holds"] for name, facts in ran._golden(known, entry, tmp_path).items()}
    assert held == {"encode": False, "step": True}


def test_a_clipped_picture_does_not_hide_a_latent_that_is_not_finite(tmp_path: Path) -> None:
    loop = Loop(
        lambda x: np.zeros((1, 4, 1, 1), np.float32),
        lambda z, k: z * np.float32(np.nan),
        lambda z: np.linspace(0, 1, 192, dtype=np.float32).reshape(1, 3, 8, 8),
        steps=2,
        sigma_s=0.1,
    )
    server = Server()
    server.artifact = Artifact({}, loop, False, 0.0, 0)
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 3, 8, 8), "f4"), noise=np.ones((1, 4, 1, 1), "f4"))
    request = {"inputs": str(tmp_path / "in.npz"), "outputs": str(tmp_path / "out.npz"), "steps": None}
    with pytest.raises(UserError, match="step gives values that are not finite"):
        server.restore({**request, "starts": False})
    assert not (tmp_path / "out.npz").exists()


def test_artifacts_take_turns_and_warm_ups_do_not_count() -> None:
    calls: list[str] = []

    def run(name: str) -> dict[str, float]:
        calls.append(name)
        return {"total": float(len(calls))}

    times = take_turns([lambda: run("a"), lambda: run("b")], warmup=1, count=2)
    assert calls == ["a", "b"] * 3
    assert times == [[{"total": 3.0}, {"total": 5.0}], [{"total": 4.0}, {"total": 6.0}]]


def test_a_step_is_the_mean_over_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("elir_mobile.core.timing.time.perf_counter", lambda: next(clock))
    x = np.zeros(1, np.float32)
    spent = timed_restore(Loop(lambda x: x, lambda z, k: z, lambda z: z, 4, 0.1), x, x)
    assert spent == {"encode": 1000, "step": 1000, "decode": 1000, "total": 6000}


# The host


@pytest.fixture(scope="module")
def on_host(micro_bundle: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory):
    """One run of everything: result and the folder of outputs."""
    folder = tmp_path_factory.mktemp("host")
    rng = np.random.default_rng(0)
    x = rng.random((2, 3, SIZE, SIZE), np.float32)
    noise = rng.standard_normal((2, 16, SIZE // 8, SIZE // 8), np.float32)
    np.savez(folder / "in.npz", x=x, noise=noise)
    job = Job("", (EXECUTORCH, *LITERT, COREML), threads=1, warmup=0, runs=2)
    result = Host().run(
        micro_bundle, job, folder, nothing, weights=str(tiny_weights), pictures=folder / "in.npz"
    )
    return result, folder


def test_every_artifact_has_its_row_after_the_float_network(on_host) -> None:
    result, folder = on_host
    assert [(row.target, row.precision) for row in result.rows] == [
        ("eager", "fp32"), ("executorch", "fp32"), ("litert", "fp32"), ("litert", "w8"), ("coreml", "fp32"),
    ]  # fmt: skip
    assert [row.error for row in result.rows] == [None] * 5
    assert read_result(folder / "result.json") == result


def test_files_are_timed_and_an_interpreter_is_not(on_host) -> None:
    *timed, coreml = on_host[0].rows
    for row in timed:
        assert row.total is not None
        assert len(row.total.runs_ms) == 2
        assert row.load_ms is not None
        assert row.first_ms is not None
        assert 0 < row.base_bytes <= row.peak_bytes
    assert (coreml.load_ms, coreml.first_ms, coreml.total, coreml.programs) == (None, None, None, {})
    assert coreml.peak_bytes > 0


def test_memory_is_each_processs_own(on_host) -> None:
    """A LiteRT worker imports no PyTorch, and does not inherit the peak of this process, which did."""
    rows = {row.target: row for row in on_host[0].rows}
    assert rows["litert"].peak_bytes < rows["executorch"].peak_bytes


def test_fp32_files_compute_what_float_does(on_host) -> None:
    rows = {(row.target, row.precision): row for row in on_host[0].rows}
    for target in ("executorch", "litert", "coreml"):
        parity = rows[target, "fp32"].parity
        assert min(parity["encode"] or 999, parity["step"] or 999) > 90, target
        assert parity["image"] > 55, target  # the golden picture has 8 bits
    assert 40 < rows["litert", "w8"].parity["image"] < 58


def test_the_float_network_is_the_weights(on_host, tiny_weights: Path, micro_bundle: Path) -> None:
    result, folder = on_host
    restorer = load_weights(str(tiny_weights), get_task("bfr"))[0]
    golden = read_golden(micro_bundle, read_manifest(micro_bundle)["golden"])
    expected = restorer(
        torch.from_numpy(golden["input"]), torch.from_numpy(golden["noise"]), steps=STEPS, sigma_s=0.1
    )
    found = np.fromfile(folder / result.rows[0].outputs["image"], "<f4")
    assert np.abs(found - expected.numpy().ravel()).max() < 1e-5


def test_pictures_are_restored_by_every_file(on_host) -> None:
    result, folder = on_host
    found = {}
    for row in result.rows:
        with np.load(pictures_of(folder, row.target, row.precision)) as arrays:
            assert arrays["trajectory"].shape == (2, STEPS + 1, 16, SIZE // 8, SIZE // 8)
            found[row.target, row.precision] = arrays["image"]
            assert ("coarse" in arrays) == ("identity" in arrays) == (row.target == "eager")
    reference = found["litert", "fp32"]
    assert reference.shape == (2, 3, SIZE, SIZE)
    for key, images in found.items():
        if key[0] != "eager":
            assert psnr_db(reference, images) > (90 if key[1] == "fp32" else 20), key


def test_a_file_that_does_not_load_leaves_the_others_measured(micro_bundle: Path, tmp_path: Path) -> None:
    bundle = spoiled(micro_bundle, tmp_path / "spoiled", LITERT[0])
    (tmp_path / "out").mkdir()
    job = Job("", LITERT, threads=1, warmup=0, runs=1)
    bad, good = Host().run(bundle, job, tmp_path / "out", nothing).rows
    assert "not a LiteRT model" in (bad.error or "")
    assert (bad.target, bad.precision, bad.total) == ("litert", "fp32", None)
    assert good.error is None
    assert good.total is not None


def test_a_worker_that_dies_is_one_sentence() -> None:
    with worker_process() as worker:
        with pytest.raises(WorkerError, match="no artifact is open"):
            worker.ask("run")
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(WorkerError, match="the worker ended with signal 9"):
            worker.ask("run")


def test_a_worker_that_dies_in_its_turn_leaves_the_others_measured(
    micro_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, turns = WorkerProcess.ask, []

    def killing(self: WorkerProcess, do: str, **arguments: object) -> dict:
        if do == "run":
            turns.append(self)
            if len(turns) == 5:  # the first file's second turn, after two runs of each
                self.process.kill()
        return ask(self, do, **arguments)

    monkeypatch.setattr(WorkerProcess, "ask", killing)
    job = Job("", LITERT, threads=1, warmup=0, runs=3)
    dead, alive = Host().run(micro_bundle, job, tmp_path, nothing).rows
    assert "signal 9" in (dead.error or "")
    assert dead.total is None
    assert alive.total is not None
    assert len(alive.total.runs_ms) == 3


def test_the_runs_are_shared_by_fresh_processes(
    micro_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = WorkerProcess.ask, []

    def listening(self: WorkerProcess, do: str, **arguments: object) -> dict:
        asked.append((self.process.pid, do))
        return ask(self, do, **arguments)

    monkeypatch.setattr(WorkerProcess, "ask", listening)
    [row] = (
        Host()
        .run(micro_bundle, Job("", LITERT[:1], threads=1, warmup=1, runs=4), tmp_path, nothing, cold_starts=3)
        .rows
    )
    assert row.total is not None
    assert len(row.total.runs_ms) == 4
    runs = Counter(pid for pid, do in asked if do == "run")
    assert list(runs.values()) == [2 * (1 + 2), 2 * (1 + 1), 2 * (1 + 1)]  # every turn: untimed, timed
    assert [pid for pid, do in asked if do == "open"] == list(runs)


# The command


def harness(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def finished(micro_bundle: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory):
    """Two runs of the command on LiteRT's files: the first with the float network and a budget that holds,
    the second without it and with a budget that does not."""
    folder = tmp_path_factory.mktemp("command")
    pictures = write_pictures(folder / "pictures", 4)
    (folder / "holds.toml").write_text(
        '[[limit]]\nfield = "golden.image.holds"\nmin = 1\n[[limit]]\nfield = "bytes"\nmax = 1e8\n'
    )
    (folder / "fails.toml").write_text(
        '[[limit]]\nfield = "image.psnr_vs_float_db"\nmin = 200\nprecision = "w8"\n'
    )
    results = [
        harness(
            micro_bundle, "--targets", "litert", "--images", pictures, "--runs", 2, "--warmups", 0,
            "--threads", 1, "--out", folder / name, "--budget", folder / f"{name}.toml", *more,
        )
        for name, more in (("holds", ("--weights", tiny_weights)), ("fails", ()))
    ]  # fmt: skip
    return folder, results


def test_a_budget_that_holds_is_exit_code_0_and_one_that_does_not_is_1(finished) -> None:
    holds, fails = finished[1]
    assert holds.exit_code == 0, holds.output
    assert "all 2 limits" in holds.output
    assert fails.exit_code == 1, fails.output
    assert "fell short" in fails.output
    assert "image.psnr_vs_float_db" in fails.output


def test_the_float_network_is_a_row_to_be_faster_than(finished) -> None:
    report = json.loads((finished[0] / "holds" / "bfr-micro" / "report.json").read_text())
    eager, fp32, w8 = report["rows"]
    assert (eager["target"], eager["golden"]["image"]["budget_db"]) == ("eager", None)
    assert eager["speedup_vs_eager"] == fp32["speedup_vs_fp32"] == 1
    assert w8["speedup_vs_eager"] == pytest.approx(eager["latency_ms"]["median"] / w8["latency_ms"]["median"])
    assert "the float network in PyTorch eager" in w8["against"]["quality"]


def test_every_row_says_what_was_compared_with_what(finished) -> None:
    report = json.loads((finished[0] / "fails" / "bfr-micro" / "report.json").read_text())
    assert [(row["target"], row["precision"]) for row in report["rows"]] == [
        ("litert", "fp32"), ("litert", "w8"),
    ]  # fmt: skip
    fp32, w8 = report["rows"]
    for row in report["rows"]:
        assert {"parity", "latency", "quality"} <= row["against"].keys()
        assert row["latency_ms"]["low"] <= row["latency_ms"]["median"] <= row["latency_ms"]["high"]
        assert row["image"]["psnr_db_low"] <= row["image"]["psnr_db"] <= row["image"]["psnr_db_high"]
        assert row["speedup_vs_eager"] is None
    assert "no float weights at hand" in w8["against"]["quality"]
    assert 15 < w8["image"]["psnr_vs_float_db"] < 90
    assert w8["image"]["psnr_drop_db"] == pytest.approx(
        fp32["image"]["psnr_db"] - w8["image"]["psnr_db"], abs=1e-9
    )
    assert len(w8["trajectory_sqnr_db"]) == STEPS
    assert all(w8["golden"][name]["holds"] for name in OUTPUTS)
    assert w8["programs"]["step"]["delegates"] == 1
    assert w8["programs"]["step"]["gmacs"] > 0
    (facts,) = report["devices"]
    assert facts["kind"] == "host"


def test_the_report_shows_what_the_flow_does(finished, tiny_weights: Path) -> None:
    """Held against the float network itself, run here on the same pictures."""
    report = json.loads((finished[0] / "holds" / "bfr-micro" / "report.json").read_text())
    assert list(report["references"]) == ["degraded", "coarse", "identity", "float", "colors"]
    assert report["data"]["sources"] == 2
    network, info = load_weights(str(tiny_weights), get_task("bfr"))
    judged = load_pair_sets(
        finished[0] / "pictures", get_task("bfr"), SIZE, report["data"]["seed"], PairCounts(calibration=0)
    ).evaluation
    drawn = [
        seeded_noise((1, 16, SIZE // 8, SIZE // 8), report["data"]["seed"] + i) for i in range(len(judged))
    ]
    with torch.no_grad():
        z = [network.encode(pair.degraded) for pair in judged]
        coarse = [network.decode(latent) for latent in z]
        identity = [
            network.decode(latent + info.sigma_s * noise) for latent, noise in zip(z, drawn, strict=True)
        ]
    for name, pictures in (("coarse", coarse), ("identity", identity)):
        expected = quality(pictures, judged)["psnr_db"]
        assert report["references"][name]["psnr_db"] == pytest.approx(expected, abs=1e-3), name
    eager, fp32, w8 = report["rows"]
    one, own = report["steps"]
    assert (one["steps"], own["steps"]) == (1, STEPS)
    assert own["psnr_db"] == pytest.approx(eager["image"]["psnr_db"])
    once = [
        network(pair.degraded, noise, steps=1, sigma_s=info.sigma_s)
        for pair, noise in zip(judged, drawn, strict=True)
    ]
    assert one["psnr_db"] == pytest.approx(quality([x.detach() for x in once], judged)["psnr_db"], abs=1e-3)
    spent = {name: program["latency_ms"]["median"] for name, program in w8["programs"].items()}
    assert one["milliseconds"]["litert w8"] == pytest.approx(sum(spent.values()))
    assert own["milliseconds"]["litert w8"] == pytest.approx(
        sum(spent.values()) + (STEPS - 1) * spent["step"]
    )
    assert report["references"]["float"]["psnr_db"] == pytest.approx(eager["image"]["psnr_db"], abs=1e-9)
    assert eager["update_sqnr_db"] is None
    assert {row["steps"] for row in report["rows"]} == {STEPS}
    assert {row["autoencoder"] for row in report["rows"]} == {"taesd"}
    assert {row["sources"] for row in report["rows"]} == {2}
    assert eager["executed_by"].startswith("PyTorch 2.")
    assert fp32["executed_by"].startswith("LiteRT ")
    text = (finished[0] / "holds" / "bfr-micro" / "report.html").read_text()
    assert "2 source photographs only" in text
    assert "step = identity" in text


def test_the_error_of_the_update_is_that_of_the_flow_alone(finished, micro_bundle: Path) -> None:
    """Held against the two files themselves, opened here; without float weights fp32 stands for float."""
    report = json.loads((finished[0] / "fails" / "bfr-micro" / "report.json").read_text())
    fp32, w8 = report["rows"]
    assert fp32["update_sqnr_db"] is None
    bundle, seed = read_bundle(micro_bundle), report["data"]["seed"]
    judged = load_pair_sets(
        finished[0] / "pictures", get_task("bfr"), SIZE, seed, PairCounts(calibration=0)
    ).evaluation
    updates = {}
    for precision in ("fp32", "w8"):
        runner = open_runner("litert", bundle.file("litert", precision), bundle.table, 1)
        paths = [
            runner.restore(
                pair.degraded,
                seeded_noise((1, 16, SIZE // 8, SIZE // 8), seed + i),
                steps=STEPS,
                sigma_s=SIGMA_S,
            )[1]
            for i, pair in enumerate(judged)
        ]
        updates[precision] = torch.cat([path[-1] - path[0] for path in paths])
    expected = sqnr_db(updates["fp32"], updates["w8"])
    assert w8["update_sqnr_db"] == pytest.approx(expected, abs=0.01)
    assert abs(expected - w8["trajectory_sqnr_db"][-1]) > 0.5


def test_two_reports_are_compared(finished) -> None:
    before, after = (finished[0] / name / "bfr-micro" / "report.json" for name in ("holds", "fails"))
    result = harness("--compare", before, after)
    assert result.exit_code == 0, result.output
    assert "the same bundle" in result.output
    assert "only in one report" in result.output  # the float network
    assert "sha256" not in result.output  # nothing that a file computes has changed
    assert "image, dB" not in result.output
    other = json.loads(after.read_text())
    other["protocol"]["threads"] = 7
    after.with_name("other.json").write_text(json.dumps(other))
    refused = harness("--compare", before, after.with_name("other.json"))
    assert refused.exit_code == 2
    assert "differ in threads (1 and 7)" in refused.stderr


def test_the_page_asks_nobody_for_anything(finished) -> None:
    text = (finished[0] / "fails" / "bfr-micro" / "report.html").read_text()
    for source in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert source.startswith("data:"), source[:80]
    assert "url(" not in text
    assert "@import" not in text
    assert text.count("<svg") == 3
    embedded = re.search(r'download="report.json" href="data:application/json;base64,([^"]+)"', text)
    assert embedded is not None
    report = json.loads((finished[0] / "fails" / "bfr-micro" / "report.json").read_text())
    assert json.loads(base64.b64decode(embedded[1])) == report
    assert (finished[0] / "fails" / "bfr-micro" / "strip.png").is_file()


def test_a_name_cannot_break_the_page(finished) -> None:
    report = json.loads((finished[0] / "fails" / "bfr-micro" / "report.json").read_text())
    for row in report["rows"]:
        row["precision"] = "<script>alert(1)</script>"
        row["error"] = "</style><img src=x>"
    text = page(report, None)
    assert "<script>alert" not in text
    assert "<img src=x>" not in text


def test_charts_are_left_out_where_there_are_no_figures(finished) -> None:
    report = json.loads((finished[0] / "fails" / "bfr-micro" / "report.json").read_text())
    drawn = charts(report)
    assert drawn.keys() == {"pareto", "latency", "trajectory"}
    alone = standalone(drawn["pareto"])
    assert alone.startswith("<svg ") and 'xmlns="http://www.w3.org/2000/svg"' in alone
    assert ElementTree.fromstring(alone).tag.endswith("svg")
    for row in report["rows"]:
        row["trajectory_sqnr_db"] = []
        row["latency_ms"] |= dict.fromkeys(("median", "p90", "low", "high"))
    assert charts(report) == {}


def test_figures_for_people() -> None:
    assert number(None) == "–"
    assert number(-0.0001) == "0.00"
    assert number(1234.5, 1) == "1,234.5"
    assert ops_text(["a", "b", "a"]) == "a × 2, b"
    assert ops_text([]) == "none"
    assert ops_text(None) == "–"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the bundle folder"),
        (("none",), "is not a bundle"),
        (("BUNDLE", "--compare", "0", "1"), "leave the bundle out"),
        (("BUNDLE", "--targets", "ncnn"), "has no target 'ncnn': it has coreml, executorch, litert"),
        (("BUNDLE", "--precision", "int8"), "has no precision 'int8'"),
        (("BUNDLE", "--targets", "coreml", "--precision", "w8"), "no file of that target at that precision"),
        (("BUNDLE", "--device", "toaster"), "unknown device 'toaster'"),
        (("BUNDLE", "--weights", "demo"), "is not what the bundle was made from"),
        (("BUNDLE", "--images", "none"), "no image folder"),
        (("BUNDLE", "--budget", "none.toml"), "cannot be read"),
        (("--compare", "none.json", "none.json"), "cannot be read"),
        (("--compare", __file__, __file__), "is no report.json"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    micro_bundle: Path, tmp_path: Path, arguments: tuple, message: str
) -> None:
    given = [str(micro_bundle) if a == "BUNDLE" else a for a in arguments]
    result = harness(*given, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    line = result.stderr.strip()
    assert line.startswith("error: ")
    assert message in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


# Other devices


class Recorded:
    """A device that gives back what the host computed, but for one output."""

    name, kind, runtimes = "fake phone", "adb", ("litert",)

    def run(self, bundle: Path, job: Job, folder: Path, progress: devices.Progress) -> JobResult:
        golden = read_golden(bundle, read_manifest(bundle)["golden"])
        host = Host().run(bundle, Job("", job.files, threads=1, warmup=0, runs=0), folder, progress)
        rows = []
        for row in host.rows:
            path = folder / row.outputs["decode"]
            changed = (np.fromfile(path, "<f4") * np.float32(0.99)).astype("<f4")
            path.write_bytes(changed.tobytes())
            values = changed.reshape(golden["output"].shape)
            facts = {
                **vars(row),
                "output_sha256": {**row.output_sha256, "decode": output_sha256(values)},
                "parity": {**row.parity, "decode": psnr_db(golden["output"], values)},
            }
            rows.append(Row(**facts))
        return JobResult(DeviceFacts("fake phone", "adb", "Android", "aarch64", "", True, {}), tuple(rows))


def test_another_device_is_held_against_the_host(
    micro_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elir_mobile.devices.protocol.device", lambda spec: Recorded())
    result = harness(micro_bundle, "--device", "adb:1", "--targets", "litert", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "bfr-micro" / "report.json").read_text())
    assert [(row["device"], row["target"]) for row in report["rows"]] == [("fake phone", "litert")] * 2
    assert "fake phone" in result.output  # a lone device is named, too
    html = (tmp_path / "bfr-micro" / "report.html").read_text()
    assert "litert w8 @ fake phone" in html
    assert "same bits" in html
    for row in report["rows"]:
        same = row["same_file_on_host"]
        assert [same[name]["identical"] for name in OUTPUTS] == [True, True, False, True]
        assert same["decode"]["sqnr_db"] == pytest.approx(40, abs=0.01)  # error of a hundredth
        assert row["latency_ms"]["median"] is None
        assert "emulated" in row["against"]["latency"]
        assert "on this machine" in row["against"]["same file"]
        assert row["image"]["psnr_db"] is None


TIMES = Times.of([5.0, 6.0, 7.0])
# Who executes the files of each target on this machine; the last two nobody.
HERE = {
    ("litert", "w8a8"): "LiteRT 2.2.0",
    ("coreml", "fp16"): "our interpreter of Core ML programs",
    ("litert/gpu", "fp16"): "SwiftShader (a GPU in software)",
    ("onnx/qnn", "w8a16"): "Qualcomm's emulator of the Hexagon NPU",
    ("executorch", "fp32"): "nobody",
    ("executorch/vulkan", "fp32"): "nobody",
}
ELSEWHERE = {
    ("arm64", "litert"): "LiteRT 2.2.0 on an emulated processor",
    ("browser", "litert"): "LiteRT.js 2.5.3",
    ("browser", "litert/gpu"): "WebGPU on swiftshader (a GPU in software)",
    ("Pixel", "litert/gpu"): "LiteRT 2.2.0 on a GPU",
}


class Told:
    """A device that claims times for every file, whoever executed it."""

    def __init__(self, name: str = "host", kind: str = "host", **runtimes: str) -> None:
        self.name, self.kind = name, kind
        self.runtimes = runtimes_on(kind)
        versions = runtimes or {"ai-edge-litert": "2.2.0"}
        self.facts = DeviceFacts(name, kind, "Linux", "", "", name == "arm64", versions)

    def run(self, bundle: Path, job: Job, folder: Path, progress: devices.Progress, **more) -> JobResult:
        rows = []
        for path in job.files:
            target, precision = path.rsplit(" ", 1)
            times = {"total": TIMES, "programs": dict.fromkeys(PROGRAMS, TIMES)}
            facts = {"parity": dict.fromkeys(OUTPUTS, 40.0), "load_ms": 1.0, "first_ms": 9.0, **times}
            if target == "executorch":
                facts = {"error": "it is no program"}
            rows.append(Row(path, "0" * 64, target, precision, 1, **facts))
        return JobResult(self.facts, tuple(rows))


@pytest.fixture
def told(micro_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    """The report of a bundle with a file for every way to be executed, and its page."""
    monkeypatch.setattr(measure, "Host", Told)
    monkeypatch.setitem(
        RUNTIMES,
        "coreml",
        replace(RUNTIMES["coreml"], stand_in=HERE["coreml", "fp16"]),  # on a Mac, too
    )
    opened = read_bundle(micro_bundle)
    files = [
        {"path": f"{target} {precision}", "sha256": "0" * 64, "bytes": 1000, "target": target,
         "precision": precision, **({"devices": ["ios"]} if "vulkan" in target else {})}
        for target, precision in HERE
    ]  # fmt: skip
    bundle = replace(opened, manifest={**opened.manifest, "files": files})
    others = [
        Told("arm64", "arm64"),
        Told(
            "browser", "browser", **{"@litertjs/core": "2.5.3", "webgpu": "swiftshader (a GPU in software)"}
        ),
        Told("Pixel", "android", litert="2.2.0"),
    ]
    report, _ = measure.measure_bundle(bundle, [Told(), *others], Protocol(1, 0, 3, 1), nothing)
    return report, page(report, None)


def test_every_row_says_who_executed_the_file_and_only_a_runtime_on_its_own_chip_has_times(told) -> None:
    rows = {(row["device"], row["target"]): row for row in told[0]["rows"]}
    wanted = {("host", target): who for (target, _), who in HERE.items()} | ELSEWHERE
    wanted["nobody", "executorch/vulkan"] = wanted.pop(("host", "executorch/vulkan"))
    assert {key: row["executed_by"] for key, row in rows.items() if key in wanted} == wanted
    timed = {("host", "litert"), ("browser", "litert"), ("Pixel", "litert"), ("Pixel", "litert/gpu")}
    for key, row in rows.items():
        medians = [
            row["latency_ms"]["median"],
            *(p["latency_ms"]["median"] for p in row["programs"].values()),
        ]
        if key in timed:
            assert medians == [6.0] * 4, key
            continue
        assert medians == [None] * 4, key
        assert (row["load_ms"], row["first_ms"], row["speedup_vs_fp32"]) == (None, None, None), key
        if key[0] == "nobody":
            assert row["against"] == {"run": "not executed here: it runs on ios"}
            continue
        why = "nobody executed" if row["executed_by"] == "nobody" else "not claimed: "
        assert why in row["against"]["latency"], key
    assert rows["host", "executorch"]["error"] == "it is no program"


def test_the_page_says_who_executed_each_file_and_shows_no_time_of_a_stand_in(told) -> None:
    report, text = told
    (table,) = re.findall(r'<th class="words">executed by</th>.*?</table>', text, re.DOTALL)
    shown = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in table.split("<tr>")[1:]]
    assert [unescape(cells[1]) for cells in shown] == [row["executed_by"] for row in report["rows"]]
    for cells, row in zip(shown, report["rows"], strict=True):
        timed = row["latency_ms"]["median"] is not None
        if row["device"] == "nobody":
            assert cells[3:] == ["not executed here: it runs on ios"]
            continue
        assert cells[3].startswith("6.0" if timed else "–"), cells
        assert (cells[7] != "–") == timed, cells


def test_the_terminal_says_who_executed_each_file(told) -> None:
    console = Console(width=80, file=StringIO())
    console.print(terminal_table(told[0]["rows"]))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    for sentence in (
        "LiteRT 2.2.0: litert @ host, litert @ Pixel",
        "our interpreter of Core ML programs: coreml @ host",
        "SwiftShader (a GPU in software): litert/gpu @ host",
        "Qualcomm's emulator of the Hexagon NPU: onnx/qnn @ host",
        "nobody: executorch @ host, executorch @ arm64, executorch @ Pixel, executorch/vulkan",
        "LiteRT 2.2.0 on an emulated processor: litert @ arm64",
        "WebGPU on swiftshader (a GPU in software): litert/gpu @ browser",
    ):
        assert f" {sentence} " in f"{said} ", sentence
    (untimed,) = [line.split() for line in lines if line.startswith(" onnx/qnn w8a16 @ host ")]
    assert untimed[4:6] == ["0.00", "–"]


def test_a_device_without_a_file_for_it_is_one_sentence(micro_bundle: Path, tmp_path: Path) -> None:
    once, wanted = Protocol(1, 0, 2, 1), {"targets": ("executorch",)}
    with pytest.raises(UserError, match="fake phone runs litert: the bundle has none"):
        measure.measure_bundle(read_bundle(micro_bundle), [Recorded()], once, nothing, **wanted)


def test_a_bundle_of_which_no_file_runs_is_one_sentence_and_no_report(
    micro_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "lacks" / "ai_edge_litert"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text('raise ModuleNotFoundError("No module", name="ai_edge_litert")\n')
    monkeypatch.setenv("PYTHONPATH", str(hidden.parent), prepend=os.pathsep)
    result = harness(micro_bundle, "--targets", "litert", "--out", tmp_path / "out")
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if "error: " in line]
    assert line == (
        f"error: no file of {micro_bundle} ran: "
        "ai-edge-litert is not installed: pip install 'elir-mobile[litert]'"
    )
    assert not (tmp_path / "out").exists()


# Files that nothing here can run


@pytest.fixture(scope="module")
def left_bundle(degraded, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left") / "bfr-micro"
    artifacts = (("executorch", "fp32"), ("executorch/vulkan", "fp16"))
    return write_micro_bundle(folder, artifacts, degraded, tiny_weights)


@pytest.mark.lowering
def test_a_file_that_nothing_here_runs_is_a_row_that_says_so(
    left_bundle: Path, picture_folder: Path, tmp_path: Path
) -> None:
    budget = tmp_path / "budget.toml"
    budget.write_text('[[limit]]\nfield = "golden.image.db"\nmin = 40\nprecision = "fp16"\n')
    asked = ("--images", picture_folder, "--runs", 2, "--warmups", 0, "--out", tmp_path, "--budget", budget)
    result = harness(left_bundle, *asked)
    assert result.exit_code == 1, result.output  # the budget is not known to hold
    assert "executorch/vulkan fp16: not executed here: it runs on android" in result.output
    assert "nobody executed it" in result.output
    report = json.loads((tmp_path / "bfr-micro" / "report.json").read_text())
    own, left = report["rows"]
    assert (own["device"], left["device"], left["executed_by"]) == ("host", "nobody", "nobody")
    assert left["bytes"] > 0 and left["latency_ms"]["median"] is None and left["golden"] == {}
    assert left["programs"]["step"]["ops_inside"]["aten.convolution.default"] == 3
    assert list(report["steps"]) == []
    page = (tmp_path / "bfr-micro" / "report.html").read_text()
    # In the place of figures: size and speed, quality, three programs, golden vectors, what was compared.
    assert page.count("not executed here: it runs on android") == 7
    assert "executorch/vulkan fp16 @" not in page and "executorch fp32 @" not in page


@pytest.mark.lowering
def test_a_report_may_be_of_files_that_nothing_here_runs_alone(left_bundle: Path, tmp_path: Path) -> None:
    result = harness(left_bundle, "--targets", "executorch/vulkan", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "bfr-micro" / "report.json").read_text())
    assert [(row["target"], row["device"]) for row in report["rows"]] == [("executorch/vulkan", "nobody")]
    assert report["devices"] == [] or report["devices"][0]["name"] == "host"


@pytest.mark.lowering
def test_restoring_with_such_a_file_is_refused_in_one_sentence(left_bundle: Path, tmp_path: Path) -> None:
    wanted = r"executorch/bfr-fp16-vulkan\.pte is not executed here: it runs on android"
    with pytest.raises(UserError, match=wanted):
        load_artifact(get_task("bfr"), left_bundle, "executorch/vulkan", None)
    assert load_artifact(get_task("bfr"), left_bundle, None, None).steps == STEPS


# Runtimes


@pytest.mark.parametrize("target", ["executorch", "litert", "coreml"])
def test_an_image_with_other_strides_is_the_same_image(
    micro_bundle: Path, degraded: list[torch.Tensor], target: str
) -> None:
    """A picture read from (H, W, 3) bytes is a permuted view: its memory must not be taken as it lies."""
    bundle = read_bundle(micro_bundle)
    runner = open_runner(target, bundle.file(target, "fp32"), bundle.table)
    view = degraded[0].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not view.is_contiguous()
    assert torch.equal(runner.encode(view), runner.encode(degraded[0]))


@pytest.mark.parametrize("target", ["executorch", "litert"])
def test_the_number_of_threads_changes_no_output(micro_bundle: Path, target: str) -> None:
    path = read_bundle(micro_bundle).file(target, "fp32")
    x = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
    one, two = (open_programs(target, path, threads)["encode"](x) for threads in (1, 2))
    assert np.array_equal(one, two)


def test_an_unknown_target_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"unknown target 'ncnn': choose from {', '.join(RUNTIMES)}"):
        open_programs("ncnn", tmp_path / "x.ncnn")
