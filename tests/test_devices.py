"""The devices that are not the host: what they compute, leave behind, and say when they cannot.

The real ones run where they are set up (``make devices-test``) and are skipped by name where not. A phone
with the demo app is played by ``fake_adb.py``.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import socket
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from elir_mobile.bundle import (
    building,
    file_entry,
    read_bundle,
    task_facts,
    write_golden,
    write_manifest,
    write_table,
)
from elir_mobile.cli.measure import main
from elir_mobile.cli.options import alone
from elir_mobile.core.errors import UserError
from elir_mobile.core.jobs import OUTPUTS, DeviceFacts, Job, Result, Row, read_result, write_json
from elir_mobile.core.manifest import copy_files, read_manifest
from elir_mobile.devices import adb, arm64, browser, remote
from elir_mobile.devices.protocol import Device, device
from elir_mobile.harness.measure import IN_SOFTWARE, executed_by
from elir_mobile.precision import RECIPES
from elir_mobile.runtimes.eager import eager_runner
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.runtimes.table import RUNTIMES
from elir_mobile.tasks import ALIGNED_FACE, get_task
from export import executorch, litert
from export.programs import build_programs
from export.samples import collect_samples
from export.targets import TARGETS
from tests import adbd
from tests.conftest import SIGMA_S, SIZE, STEPS, golden_budgets, write_micro_bundle, write_pictures

app = alone(main)


FILES = {
    ("executorch", "fp32"): "executorch/bfr-fp32.pte",
    ("executorch", "w8a8"): "executorch/bfr-w8a8.pte",
    ("litert", "fp32"): "litert/bfr-fp32.tflite",
    ("litert", "w8a8"): "litert/bfr-w8a8.tflite",
}
FP32 = [path for (_, precision), path in FILES.items() if precision == "fp32"]
LITERT = tuple(path for (target, _), path in FILES.items() if target == "litert")
FLOAT_TOLERANCE = 1e-4


class Watch:
    """A progress callback that checks what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []

    def __call__(self, done: int, total: int, text: str) -> None:
        assert 0 <= done <= total
        self.told.append((done, total, text))


@pytest.fixture(scope="module")
def int8_bundle(restorer, programs, degraded, tmp_path_factory) -> Path:
    """The tiny network in fp32 and int8 for both runtimes, as the exporters write it."""
    folder = tmp_path_factory.mktemp("bundles") / "bfr-tiny"
    form = TARGETS["litert"]
    channels_last = build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=form.form)
    converted = litert.convert(channels_last)
    with building(folder) as staging:
        for (target, precision), name in FILES.items():
            path = staging / name
            path.parent.mkdir(exist_ok=True)
            form_of_target = channels_last if target == "litert" else programs
            samples = collect_samples(form_of_target, degraded, seed=0) if precision == "w8a8" else {}
            if target == "litert":
                recipe = RECIPES[precision].on(channels_last.roles)
                path.write_bytes(litert.quantize(converted, recipe, samples))
            else:
                executorch.lower(programs, RECIPES[precision], samples, path)
        image = (degraded[0] * 255).round() / 255
        golden = write_golden(staging, eager_runner(restorer, STEPS), image, STEPS, SIGMA_S)
        files = []
        for (target, precision), name in FILES.items():
            runner = open_runner(target, staging / name, programs.table)
            parity = golden_budgets(golden, staging, runner, steps=STEPS, sigma_s=SIGMA_S)
            entry = {"target": target, "precision": precision, "parity": parity}
            files.append(file_entry(staging, staging / name, **entry))
        # Its task takes 8×8 pixels and enlarges them first: what the page does with a photo shows.
        facts = task_facts(get_task("sr"), ALIGNED_FACE) | {"model": {"name": "tiny"}, "size": SIZE}
        facts |= {"steps": STEPS, "sigma_s": SIGMA_S}
        table = write_table(staging, programs.table)
        write_manifest(staging, {**facts, "table": table, "golden": golden, "files": files})
    return folder


@pytest.fixture(scope="module")
def on_host(int8_bundle, tmp_path_factory) -> tuple[Result, Path]:
    """What this machine's own runtimes make of every file."""
    folder = tmp_path_factory.mktemp("host")
    job, result = folder / "job.json", folder / "result.json"
    write_json(job, Job(str(int8_bundle), tuple(FILES.values()), threads=1, warmup=0, runs=0))
    subprocess.run([sys.executable, "-m", remote.WORKER, str(job), str(result)], check=True)
    found = read_result(result)
    assert all(row.error is None for row in found.rows)
    return found, folder


def job_of(files: tuple[str, ...], **changes: int) -> Job:
    return replace(Job("", files, threads=1, warmup=1, runs=2), **changes)


def found_or_skipped(spec: str) -> Device:
    """The device, or a skip that says what this machine lacks."""
    try:
        return device(spec)
    except UserError as error:
        pytest.skip(str(error))


def row_of(result: Result, path: str) -> Row:
    (row,) = [row for row in result.rows if row.path == path]
    assert row.error is None, row.error
    return row


def output(folder: Path, row: Row, name: str) -> np.ndarray:
    return np.fromfile(folder / row.outputs[name], "<f4")


def assert_no_latency(result: Result) -> None:
    assert result.device.emulated
    for row in result.rows:
        assert (row.load_ms, row.first_ms, row.programs, row.total) == (None, None, {}, None)


# arm64 ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulated() -> Device:
    return found_or_skipped("arm64")


@pytest.fixture(scope="module")
def on_arm64(emulated: Device, int8_bundle: Path, tmp_path_factory) -> tuple[Result, Path]:
    folder, watch = tmp_path_factory.mktemp("arm64"), Watch()
    result = emulated.run(int8_bundle, job_of(tuple(FILES.values())), folder, watch)
    assert watch.told[-1][:2] == (len(FILES), len(FILES))
    assert read_result(folder / "result.json") == result
    return result, folder


@pytest.mark.devices
def test_arm64_runs_every_file_with_both_runtimes_and_claims_no_latency(on_arm64) -> None:
    result = on_arm64[0]
    assert [row.path for row in result.rows] == list(FILES.values())
    assert (result.device.kind, result.device.arch) == ("arm64", "aarch64")
    assert result.device.runtimes == {"ai-edge-litert": "2.2.0", "executorch": "1.1.0"}
    assert_no_latency(result)


@pytest.mark.devices
@pytest.mark.parametrize(
    ("path", "name"),
    [
        *((FILES["litert", "w8a8"], name) for name in OUTPUTS),
        *((FILES["executorch", "w8a8"], name) for name in ("encode", "decode")),
    ],
)
def test_arm64_int8_is_bit_identical_to_x86(on_arm64, on_host, path: str, name: str) -> None:
    (there, folder), (here, host_folder) = on_arm64, on_host
    row, reference = row_of(there, path), row_of(here, path)
    assert row.output_sha256[name] == reference.output_sha256[name]
    bits = output(folder, row, name), output(host_folder, reference, name)
    assert np.array_equal(*bits)
    assert np.ptp(bits[0]) > 0.1


@pytest.mark.devices
def test_arm64_int8_step_with_float_norms_keeps_the_budget(on_arm64, on_host, int8_bundle: Path) -> None:
    """Its bits are not always x86's, and so neither are the picture's (docs/devices.md)."""
    path = FILES["executorch", "w8a8"]
    (entry,) = [e for e in read_manifest(int8_bundle)["files"] if e["path"] == path]
    for name, value in row_of(on_arm64[0], path).parity.items():
        assert value is not None
        assert value >= entry["parity"][name]["budget_db"], name


@pytest.mark.devices
@pytest.mark.parametrize("path", FP32)
@pytest.mark.parametrize("name", OUTPUTS)
def test_arm64_fp32_is_within_tolerance_of_x86(on_arm64, on_host, path: str, name: str) -> None:
    (there, folder), (here, host_folder) = on_arm64, on_host
    difference = output(folder, row_of(there, path), name) - output(host_folder, row_of(here, path), name)
    assert np.abs(difference).max() <= FLOAT_TOLERANCE


def test_arm64_says_how_to_set_it_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda command: f"/usr/bin/{command}")
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="not set up: run make arm64"):
        device("arm64")
    (tmp_path / "arm64").mkdir()
    (tmp_path / "arm64" / "recipe.sha256").write_text("an older one")
    with pytest.raises(UserError, match="of another version: run make arm64"):
        device("arm64")


def test_arm64_set_up_names_the_packages_it_needs_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install mmdebstrap qemu-user-static"):
        arm64.set_up(tmp_path / "arm64", arm64.Console(quiet=True))
    with pytest.raises(UserError, match="needs qemu: apt-get install qemu-user-static"):
        device("arm64")
    assert list(tmp_path.iterdir()) == []


def test_arm64_wheels_are_pinned_by_digest() -> None:
    pins = [line for line in arm64.WHEELS.read_text().splitlines() if not line.startswith("#")]
    assert {"ai-edge-litert==2.2.0", "torch==2.10.0", "executorch==1.1.0"} <= {pin.split()[0] for pin in pins}
    assert all("--hash=sha256:" in pin for pin in pins)


def test_only_the_runtime_of_a_wheel_is_unpacked(tmp_path: Path) -> None:
    wheel = tmp_path / "executorch-1.1.0-cp311-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("runtime/__init__.py", "exir/__init__.py", "exir/_warnings.py"):
            archive.writestr(f"executorch/{name}", "")
    arm64.unpack_wheel(wheel, tmp_path / "site")
    found = {p.relative_to(tmp_path / "site").as_posix() for p in (tmp_path / "site").rglob("*.py")}
    assert found == {"executorch/runtime/__init__.py", "executorch/exir/_warnings.py"}


# The worker elsewhere -----------------------------------------------------------------------------------

MANIFEST = {
    "files": [{"path": p, "sha256": "0", "target": "litert", "precision": p} for p in ("a", "b", "c")]
}
FACTS = DeviceFacts("x", "arm64", "", "", "", True, {})


def test_a_file_that_kills_the_process_costs_the_others_nothing() -> None:
    asked = []

    def run(job: Job) -> Result:
        asked.append(job.files)
        if "b" in job.files:
            raise remote.WorkerDied(remote.how_it_ended(-11, "warning\nlast words\n"))
        rows = tuple(Row(path, "0", "litert", path, 1) for path in job.files)
        return Result(replace(FACTS, runtimes={job.files[0]: "1"}), rows)

    result = remote.run_surviving(job_of(("a", "b", "c")), MANIFEST, FACTS, run)
    assert asked == [("a", "b", "c"), ("a",), ("b",), ("c",)]
    assert [row.path for row in result.rows] == ["a", "b", "c"]
    said = "the worker ended with signal 11 (Segmentation fault): last words"
    assert [row.error for row in result.rows] == [None, said, None]
    assert result.device.runtimes == {"a": "1", "c": "1"}


def test_a_file_whose_output_is_not_finite_has_failed(tmp_path: Path) -> None:
    for name, last in (("good", 2.0), ("bad", np.nan)):
        np.array([1.0, last], "<f4").tofile(tmp_path / name)
    row = Row("a.tflite", "0" * 64, "litert", "w8a8", 1, parity={"image": None}, outputs={"image": "good"})
    assert remote.only_finite(row, tmp_path) == row
    failed = remote.only_finite(replace(row, outputs={"image": "bad"}), tmp_path)
    assert failed.error == "image gives values that are not finite"
    assert failed.parity == {}


def test_the_copied_worker_runs_by_itself(tmp_path: Path) -> None:
    remote.copy_worker(tmp_path)
    absent = ("torch", "PIL", "typer", "rich", "pydantic", "safetensors")  # a device has NumPy and a runtime
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({absent})); "
    code += "sys.argv[1:] = ['missing.json', 'result.json']; "
    code += f"runpy.run_module({remote.WORKER!r}, None, '__main__')"
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert remote.last_line(done.stderr).startswith("error: missing.json")
    assert not list(tmp_path.rglob("*.safetensors"))
    assert {path.name for path in (tmp_path / "elir_mobile").iterdir() if path.suffix != ".py"} <= {
        "core", "runtimes", "devices", "__pycache__",
    }  # fmt: skip


# adb: a phone with the demo app -------------------------------------------------------------------------


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    """A valid bundle of three files that no runtime looks at."""
    with building(tmp_path / "bundle") as staging:
        files = []
        for name in ("a", "b", "c"):
            path = staging / "executorch" / f"{name}.pte"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(name.encode())
            files.append(file_entry(staging, path, target="executorch", precision=name))
        facts = task_facts(get_task("bfr"), ALIGNED_FACE) | {"size": 64, "steps": 2, "sigma_s": 0.1}
        write_manifest(staging, {**facts, "table": write_table(staging, torch.zeros(2, 3)), "files": files})
    return tmp_path / "bundle"


class Phone:
    """The fake phone's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set(state="device", app=True, properties={"ro.product.model": "Pixel 8"})

    def set(self, **state: object) -> None:
        known = self.folder / "state.json"
        before = json.loads(known.read_text()) if known.exists() else {}
        known.write_text(json.dumps({**before, **state}))

    def calls(self) -> list[list[str]]:
        return [json.loads(line)[2:] for line in (self.folder / "calls.jsonl").read_text().splitlines()]


@pytest.fixture
def phone(tmp_path: Path, monkeypatch) -> Phone:
    folder = tmp_path / "phone"
    (folder / "bin").mkdir(parents=True)
    client = folder / "bin" / "adb"
    client.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_adb.py")} "$@"\n')
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("FAKE_PHONE", str(folder))
    monkeypatch.setenv("PATH", str(folder / "bin"))
    return Phone(folder)


PHONE_FILES = ("executorch/a.pte", "executorch/c.pte")


def test_the_app_on_a_phone_does_the_job(phone: Phone, small_bundle: Path, tmp_path: Path) -> None:
    found = device("adb:SERIAL")
    assert (found.name, found.kind) == ("Pixel 8 (adb)", "android")
    assert found.runtimes == ("executorch", "litert", "litert/gpu")
    folder, watch = tmp_path / "out", Watch()
    folder.mkdir()
    result = found.run(small_bundle, job_of(PHONE_FILES), folder, watch)
    assert [row.path for row in result.rows] == list(PHONE_FILES)
    assert result.rows[0].total is not None
    assert result.rows[0].total.runs_ms == (2.0, 2.0)
    assert (result.device.name, result.device.kind, result.device.cpu) == (
        "Pixel 8 (adb)",
        "android",
        "Tensor G3",
    )
    assert read_result(folder / "result.json") == result
    assert [text for _, _, text in watch.told] == ["pushing", "running", "pulling", "done"]


def test_the_commands_to_a_phone_are_these(phone: Phone, small_bundle: Path, tmp_path: Path) -> None:
    found = device("adb:SERIAL")
    before = len(phone.calls())
    folder = tmp_path / "out"
    folder.mkdir()
    found.run(small_bundle, job_of(PHONE_FILES), folder, Watch())
    place = "/sdcard/Android/data/org.elir.mobile.demo/files/harness"
    calls = phone.calls()[before:]
    assert [call[0] for call in calls] == ["shell", "push", "push", "shell", "pull", "shell"]
    assert calls[1][2] == calls[2][2] == place
    assert calls[3][1] == (
        f"rm -f {place}/result.json; am instrument -w -e job {place}/job.json -e result {place}/result.json "
        "org.elir.mobile.demo/.JobInstrumentation"
    )
    assert calls[4] == ["pull", f"{place}/result.json", str(folder / "result.json")]
    assert calls[5] == ["shell", f"rm -rf {place}"]
    assert not any((phone.folder / "files").rglob("*.pte"))


def test_only_what_the_job_needs_is_pushed(small_bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(small_bundle)
    kept = [entry for entry in manifest["files"] if entry["path"] in PHONE_FILES]
    copy_files(small_bundle, manifest, kept, tmp_path / "staged")
    staged = read_bundle(tmp_path / "staged")
    assert [entry["path"] for entry in staged.manifest["files"]] == list(PHONE_FILES)
    assert {p.name for p in (tmp_path / "staged").rglob("*") if p.is_file()} == {
        "manifest.json", "steps.bin", "a.pte", "c.pte",
    }  # fmt: skip


def test_an_app_that_crashes_on_one_file_does_the_others(
    phone: Phone, small_bundle: Path, tmp_path: Path
) -> None:
    phone.set(crashes_on="executorch/a.pte")
    result = device("adb:SERIAL").run(small_bundle, job_of(PHONE_FILES), tmp_path, Watch())
    assert [row.error for row in result.rows] == ["the demo app ended early: Process crashed.", None]
    assert result.rows[0].precision == "a"


def test_an_app_that_refuses_says_why(phone: Phone, small_bundle: Path, tmp_path: Path) -> None:
    phone.set(refuses="job.json has job schema 2, this app reads 1: update the app")
    with pytest.raises(UserError, match="demo app on SERIAL refuses the job: job.json has job schema 2"):
        device("adb:SERIAL").run(small_bundle, job_of(PHONE_FILES), tmp_path, Watch())
    assert not (phone.folder / "files/sdcard/Android/data/org.elir.mobile.demo/files/harness").exists()


def test_an_emulated_phone_claims_no_latency(phone: Phone, small_bundle: Path, tmp_path: Path) -> None:
    phone.set(properties={"ro.product.model": "sdk_gphone64", "ro.boot.qemu": "1"})
    assert_no_latency(device("adb:SERIAL").run(small_bundle, job_of(PHONE_FILES), tmp_path, Watch()))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"state": "unauthorized"}, r"SERIAL does not answer adb \(unauthorized\): see 'adb devices'"),
        ({"app": False}, "neither the demo app org.elir.mobile.demo nor a python3"),
    ],
)
def test_what_is_wrong_with_a_phone_is_one_sentence(phone: Phone, state: dict, message: str) -> None:
    phone.set(**state)
    with pytest.raises(UserError, match=message):
        device("adb:SERIAL")


def test_a_full_phone_is_one_sentence(phone: Phone, small_bundle: Path, tmp_path: Path) -> None:
    found = device("adb:SERIAL")
    phone.set(full=True)
    with pytest.raises(UserError, match="adb push with SERIAL failed: .*No space left on device"):
        found.run(small_bundle, job_of(PHONE_FILES), tmp_path, Watch())


def test_no_adb_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install adb"):
        device("adb:SERIAL")


# adb: a real adbd ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_adbd(tmp_path_factory):
    """A running adbd; its client is first on the path."""
    reason = adbd.why_not()
    if reason:
        pytest.skip(f"no adbd to test against: {reason}")
    with adbd.running(tmp_path_factory.mktemp("adbd")) as client, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(client), prepend=":")
        yield adb.Adb(adbd.SERIAL)


@pytest.mark.devices
def test_exit_codes_and_files_come_through_a_real_adbd(real_adbd: adb.Adb, tmp_path: Path) -> None:
    assert real_adbd.shell("exit 3").returncode == 3
    assert real_adbd.shell("uname -m").out == "aarch64\n"
    (tmp_path / "there").mkdir()
    content = np.random.default_rng(0).bytes(8 << 20)
    (tmp_path / "there" / "x.bin").write_bytes(content)
    with real_adbd.folder(adb.MAKE_FOLDER) as folder:
        real_adbd.push(tmp_path / "there", folder)
        real_adbd.pull(f"{folder}/x.bin", tmp_path / "back.bin")
        with pytest.raises(UserError, match="adb pull with .* failed"):
            real_adbd.pull(f"{folder}/absent", tmp_path / "absent")
    assert (tmp_path / "back.bin").read_bytes() == content
    assert real_adbd.shell(f"ls {folder}").returncode != 0


@pytest.mark.devices
def test_a_job_on_a_real_adbd_gives_the_bits_of_this_machine(
    real_adbd: adb.Adb, int8_bundle: Path, on_host, tmp_path: Path
) -> None:
    found = device(f"adb:{adbd.SERIAL}")
    assert (found.kind, found.runtimes) == ("adb", ("executorch", "litert"))
    result = found.run(int8_bundle, job_of(LITERT), tmp_path, Watch())
    assert (result.device.arch, result.device.runtimes) == ("aarch64", {"ai-edge-litert": "2.2.0"})
    assert_no_latency(result)
    path = FILES["litert", "w8a8"]
    assert row_of(result, path).output_sha256 == row_of(on_host[0], path).output_sha256
    assert {p.name for p in tmp_path.iterdir()} == {"result.json"} | {
        name for row in result.rows for name in row.outputs.values()
    }
    assert real_adbd.shell("ls /tmp").out == ""


@pytest.mark.devices
def test_a_device_that_goes_away_is_one_sentence(real_adbd: adb.Adb) -> None:
    gone = adb.Adb("127.0.0.1:1")
    with pytest.raises(UserError, match="no longer answers"):
        gone.shell("true")


# browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> browser.Browser:
    found = found_or_skipped("browser")
    assert isinstance(found, browser.Browser)
    return found


@pytest.fixture
def pages(tmp_path: Path, monkeypatch):
    """The page's server with stand-ins for the npm packages, a bundle and a job: connection and folder."""
    monkeypatch.setattr(browser, "is_ready", lambda: True)
    monkeypatch.setattr(browser, "modules_folder", lambda: tmp_path / "node_modules")
    for name in ("bundle", "job"):
        (tmp_path / name).mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    (tmp_path / "secret").write_text("not for the page")
    with browser.serving(tmp_path / "bundle", tmp_path / "job") as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        yield connection, tmp_path
        connection.close()


def asked(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None):
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, response.read(), response


def test_the_page_is_isolated_so_that_threads_work(pages) -> None:
    status, body, response = asked(pages[0], "GET", "/")
    assert status == 200
    assert b"importmap" in body
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert asked(pages[0], "GET", "/page.js")[2].headers["Content-Type"].startswith("text/javascript")
    status, body, response = asked(pages[0], "GET", "/bundle/manifest.json")
    assert (status, body, response.headers["Cache-Control"]) == (200, b"{}", "no-store")


def test_a_browser_may_keep_the_runtime_and_is_told_whether_it_is_still_that(pages) -> None:
    connection, folder = pages
    script = folder / "node_modules" / "@litertjs" / "core" / "index.js"
    script.parent.mkdir(parents=True)
    script.write_text("export {};")
    _, body, response = asked(connection, "GET", "/litert/core/index.js")
    assert (body, response.headers["Cache-Control"]) == (b"export {};", "no-cache")
    connection.request(
        "GET", "/litert/core/index.js", headers={"If-Modified-Since": response.headers["Last-Modified"]}
    )
    again = connection.getresponse()
    assert (again.status, again.read()) == (304, b"")


def test_a_request_that_is_none_is_answered_as_one(pages) -> None:
    connection, _ = pages
    with socket.create_connection((connection.host, connection.port)) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b"400" in client.recv(1 << 16)


def test_an_export_has_what_browsers_run_and_nothing_else(
    micro_bundle: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(browser, "is_ready", lambda: True)
    monkeypatch.setattr(browser, "modules_folder", lambda: tmp_path / "node_modules")
    core = tmp_path / "node_modules" / "@litertjs" / "core"
    (core / "wasm").mkdir(parents=True)
    for name in ("package.json", "index.js", "index.js.map", "wasm/litert.wasm"):
        (core / name).write_text("{}")
    browser.export_page(micro_bundle, tmp_path / "page")
    files = {path.relative_to(tmp_path / "page").as_posix() for path in (tmp_path / "page").rglob("*")}
    assert {"index.html", "page.js", "app.webmanifest", "LICENSE", "bundle/steps.bin"} <= files
    assert {"litert/core/package.json", "litert/core/wasm/litert.wasm"} <= files
    assert not files & {"headless.mjs", "package.json", "package-lock.json", "litert/core/index.js.map"}
    copied = read_bundle(tmp_path / "page" / "bundle").manifest
    assert {entry["target"] for entry in copied["files"]} == {"litert"}
    index = (tmp_path / "page" / "index.html").read_text()
    assert 'src="offline.js"' in index and 'rel="manifest"' in index and 'src="page.js"' not in index
    assert re.match(r'const DIGEST = "[0-9a-f]{64}";\n', (tmp_path / "page" / "worker.js").read_text())
    with pytest.raises(UserError, match="exists: name a new folder"):
        browser.export_page(micro_bundle, tmp_path / "page")
    no_tflite = tmp_path / "b"
    shutil.copytree(micro_bundle, no_tflite)
    manifest = json.loads((no_tflite / "manifest.json").read_text())
    kept = [entry for entry in manifest["files"] if entry["target"] == "coreml"]
    (no_tflite / "manifest.json").write_text(json.dumps({**manifest, "files": kept}))
    with pytest.raises(UserError, match="no .tflite file"):
        browser.export_page(no_tflite, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "path",
    ["/bundle/../secret", "/bundle/%2e%2e/secret", "/..%2fsecret", "/bundle/", "//etc/passwd"],
)
def test_nothing_outside_is_served(pages, path: str) -> None:
    status, body, _ = asked(pages[0], "GET", path)
    assert status == 404
    assert b"not for the page" not in body


def test_a_page_may_put_files_into_its_job_alone(pages) -> None:
    connection, folder = pages
    assert asked(connection, "PUT", "/job/result.json", b"{}")[0] == 201
    assert (folder / "job" / "result.json").read_bytes() == b"{}"
    for path in ("/job/../secret", "/bundle/manifest.json", "/page.js", "/job/deeper/x"):
        assert asked(connection, "PUT", path, b"overwritten")[0] == 403, path
        connection.close()
    assert (folder / "secret").read_text() == "not for the page"


def test_the_browser_says_how_to_set_it_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda command: f"/usr/bin/{command}")
    with pytest.raises(UserError, match="not set up: run make browser"):
        device("browser")
    monkeypatch.setattr(shutil, "which", lambda command: None)
    with pytest.raises(UserError, match="apt-get install nodejs npm chromium"):
        device("browser")
    with pytest.raises(UserError, match="needs npm"):
        browser.set_up()


def test_the_npm_lock_pins_digests_and_names_no_host() -> None:
    lock = json.loads((browser.PAGE / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages["node_modules/@litertjs/core"]["version"] == "2.5.3"
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())


@pytest.mark.devices
def test_the_browser_runs_litert_files_as_this_machine_does(
    chromium: browser.Browser, int8_bundle: Path, on_host, tmp_path: Path
) -> None:
    result = chromium.run(int8_bundle, job_of(LITERT), tmp_path, Watch())
    assert [row.path for row in result.rows] == list(LITERT)
    assert (result.device.kind, result.device.runtimes) == ("browser", {"@litertjs/core": "2.5.3"})
    for row in result.rows:
        assert row.error is None
        assert row.total is not None
        assert len(row.total.runs_ms) == 2
        assert row.total.median_ms > 0
        assert row.programs.keys() == {"encode", "step", "decode"}
        host = row_of(on_host[0], row.path)
        for name, here in row.parity.items():
            expected = host.parity[name]
            assert here is not None
            assert expected is not None
            assert here >= min(expected - 3, 90), (row.path, name)
            raw = (tmp_path / row.outputs[name]).read_bytes()
            assert row.output_sha256[name] == hashlib.sha256(raw).hexdigest()
    fp32 = row_of(result, "litert/bfr-fp32.tflite")
    for name in OUTPUTS:
        difference = output(tmp_path, fp32, name) - output(on_host[1], row_of(on_host[0], fp32.path), name)
        assert np.abs(difference).max() <= FLOAT_TOLERANCE


@pytest.mark.devices
def test_a_damaged_file_is_a_row_with_its_error(
    chromium: browser.Browser, int8_bundle: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(int8_bundle, bundle)
    spoiled = bundle / LITERT[1]
    spoiled.write_bytes(b"TFL3" * 1000)
    manifest = json.loads((bundle / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == LITERT[1]:
            entry.update(file_entry(bundle, spoiled))
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "out").mkdir()
    result = chromium.run(bundle, job_of(LITERT, runs=1, warmup=0), tmp_path / "out", Watch())
    assert result.rows[0].error is None
    assert result.rows[1].error


@pytest.mark.devices
def test_the_page_restores_a_photo_at_every_width(
    chromium: browser.Browser, int8_bundle: Path, tmp_path: Path
) -> None:
    """A photo on its side is upright and as its task takes it, the budgets hold, and no request leaves."""
    # Red and green above blue and white; stored lying on its side, which the EXIF orientation 6 says.
    quarters = Image.new("RGB", (2, 2))
    quarters.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
    upright = quarters.resize((400, 400), Image.Resampling.NEAREST)
    grain = np.random.default_rng(0).integers(-30, 31, (400, 400, 1))
    upright = Image.fromarray((np.asarray(upright) + grain).clip(0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    script = Path(__file__).with_name("page.mjs")
    with browser.serving(int8_bundle) as url:
        command = [chromium.node, script, browser.modules_folder(), chromium.chromium, url]
        command += [tmp_path / "photo.jpg", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    views = json.loads(done.stdout)
    assert views.keys() == {"phone", "desktop", "dark", "dark-phone"}
    for name, view in views.items():
        expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
        assert np.abs(np.array(view["corners"]) - expected).max() <= 12, name
        assert view["squares"] == {"8": True, "16": False}, name  # pixels of 8×8, as the task enlarges
        assert view["title"] == "super-resolution ×8"
        assert "64×64 pixels, for a photo that one upright face fills." in view["about"]
        assert view["cut"] == "30%"
        assert [row[0] for row in view["latency"]] == ["encode", f"step (× {STEPS})", "decode", "whole"]
        assert all(float(cell) > 0 for row in view["latency"] for cell in row[1:])
        assert [(row[0], row[3]) for row in view["parity"]] == [(part, "✓ holds") for part in OUTPUTS]
        assert view["models"] == ["litert/bfr-w8a8.tflite", "litert/bfr-fp32.tflite"]
        assert view["status"].startswith("This device computes")
        assert view["reason"].startswith("litert w8a8: it was executed, its pictures were not judged; ")
        assert view["problem"] == "notes.txt is not an image that can be read: choose another"
        assert view["overflow"] <= 0
        assert view["save"]
        assert view["errors"] == []
        assert all(request.startswith((url, f"blob:{url}", "data:")) for request in view["requests"])
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10
    assert views["dark"]["ground"] != views["desktop"]["ground"]


@pytest.fixture(scope="module")
def gpu_bundle(degraded, tiny_weights: Path, tmp_path_factory) -> Path:
    """LiteRT's fp32 file for processors, and those for GPUs."""
    if lacking := RUNTIMES["litert/gpu"].lacking:
        pytest.skip(f"without {', '.join(lacking)}: make gpu")
    artifacts = (("litert", "fp32"), ("litert/gpu", "fp32"), ("litert/gpu", "fp16"))
    folder = tmp_path_factory.mktemp("bundles") / "bfr-gpu"
    return write_micro_bundle(folder, artifacts, degraded, tiny_weights)


@pytest.mark.devices
@pytest.mark.lowering
def test_the_browser_runs_gpu_files_as_this_machine_does(
    chromium: browser.Browser, gpu_bundle: Path, tmp_path: Path
) -> None:
    files = ("litert/gpu/bfr-fp32.tflite", "litert/gpu/bfr-fp16.tflite", "litert/bfr-fp32.tflite")
    listed = {entry["path"]: entry for entry in read_bundle(gpu_bundle).manifest["files"]}
    assert sorted(files) == sorted(listed)
    result = chromium.run(gpu_bundle, job_of(files), tmp_path, Watch())
    assert result.device.runtimes["webgpu"].endswith(IN_SOFTWARE)
    for row in result.rows:
        assert row.error is None
        software = listed[row.path]["target"] == "litert/gpu"  # no time is claimed of a GPU in software
        assert (row.total is None) == software
        by = f"WebGPU on {result.device.runtimes['webgpu']}" if software else "LiteRT.js "
        assert executed_by(row, result.device).startswith(by)
        for name, decibels in row.parity.items():
            assert decibels is None or decibels >= listed[row.path]["parity"][name]["budget_db"], name


@pytest.mark.devices
@pytest.mark.lowering
@pytest.mark.parametrize("gpu", [True, False])
def test_the_page_offers_the_gpu_where_there_is_one_and_says_when_it_used_it(
    chromium: browser.Browser, gpu_bundle: Path, gpu: bool, tmp_path: Path
) -> None:
    Image.effect_noise((80, 80), 50).convert("RGB").save(tmp_path / "photo.png")
    script = Path(__file__).with_name("page.mjs")
    flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"] if gpu else ["--disable-gpu"]
    with browser.serving(gpu_bundle) as url:
        command = [chromium.node, script, browser.modules_folder(), chromium.chromium, url]
        command += [tmp_path / "photo.png", tmp_path, *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    on_gpu = ["litert/gpu/bfr-fp16.tflite", "litert/gpu/bfr-fp32.tflite"] if gpu else []
    for view in json.loads(done.stdout).values():
        assert view["models"] == ["litert/bfr-fp32.tflite", *on_gpu]
        assert ("with the GPU" in view["restored"]) == gpu
        assert view["status"].startswith("This device computes")


@pytest.mark.devices
def test_the_report_is_readable_at_every_width_without_a_network(
    chromium: browser.Browser, micro_bundle: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    pictures = write_pictures(tmp_path / "pictures", 2)
    arguments = [
        micro_bundle, "--targets", "litert", "--images", pictures, "--weights", tiny_weights, "--runs", 2,
        "--warmups", 0, "--out", tmp_path / "out",
    ]  # fmt: skip
    measured = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert measured.exit_code == 0, measured.output
    report = tmp_path / "out" / "bfr-micro" / "report.html"
    script = Path(__file__).with_name("report.mjs")
    looked = [chromium.node, script, browser.modules_folder(), chromium.chromium, report, tmp_path]
    done = subprocess.run(looked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    views = json.loads(done.stdout)
    assert views.keys() == {"phone", "desktop", "dark", "dark-phone"}
    for name, view in views.items():
        assert view["errors"] == []
        assert set(view["requests"]) <= {"file:", "data:"}
        assert view["overflow"] <= 0, name  # wide tables scroll by themselves
        assert view["smallest"] >= 10, name  # pixels
        assert view["charts"] == 3
        assert (view["cut"], view["changed"]) == ("30%", True)
        assert json.loads((tmp_path / f"{name}.json").read_text()) == json.loads(
            report.with_name("report.json").read_text()
        )
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10
    for light, dark in (("desktop", "dark"), ("phone", "dark-phone")):
        assert views[light]["ground"] != views[dark]["ground"]
        assert views[light]["ink"] != views[dark]["ink"]
