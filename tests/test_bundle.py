"""Bundles are written whole or not at all, and read with suspicion."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from elir_mobile.bundle import (
    ANDROID_FOLDER,
    building,
    copy_bundle,
    file_entry,
    read_bundle,
    task_facts,
    write_bundle,
    write_detector,
    write_golden,
    write_manifest,
    write_table,
)
from elir_mobile.checkpoints import load_weights
from elir_mobile.cli.push import app
from elir_mobile.core.errors import UserError
from elir_mobile.core.manifest import GOLDEN_IMAGES, GOLDEN_LATENTS, sha256_of
from elir_mobile.faces import detect
from elir_mobile.runtimes.eager import eager_runner
from elir_mobile.tasks import ALIGNED_FACE, get_task
from tests.conftest import SIGMA_S, SIZE, STEPS

FACTS = task_facts(get_task("bfr"), ALIGNED_FACE) | {"size": 64, "steps": 2, "sigma_s": 0.1}
TABLE = torch.arange(6, dtype=torch.float32).view(2, 3)


def write(target: Path, content: bytes = b"program") -> Path:
    with building(target) as staging:
        (staging / "executorch").mkdir()
        path = staging / "executorch" / "a.pte"
        path.write_bytes(content)
        entry = file_entry(staging, path, target="executorch", precision="fp32")
        write_manifest(staging, {**FACTS, "table": write_table(staging, TABLE), "files": [entry]})
    return target


def test_what_is_written_is_read(tmp_path: Path) -> None:
    bundle = read_bundle(write(tmp_path / "out" / "b"))
    assert torch.equal(bundle.table, TABLE)
    assert bundle.file("executorch", "fp32").read_bytes() == b"program"
    assert bundle.file("executorch/xnnpack", "fp32") == bundle.file("executorch", "fp32")
    with pytest.raises(UserError, match="no executorch file at w8a8"):
        bundle.file("executorch", "w8a8")


def test_of_several_files_the_advised_one_is_taken_unless_another_is_named(tmp_path: Path) -> None:
    with building(tmp_path / "b") as staging:
        files = []
        for number, (target, precision) in enumerate(
            (("coreml", "w4"), ("executorch", "fp32"), ("litert", "fp32"), ("executorch", "w8a8"))
        ):
            (staging / str(number)).write_text(target)
            files.append(file_entry(staging, staging / str(number), target=target, precision=precision))
        write_manifest(staging, {**FACTS, "table": write_table(staging, TABLE), "files": files})
    bundle = read_bundle(tmp_path / "b")
    assert bundle.manifest["recommendation"]["host"] == bundle.entry(None, None)["path"] == "3"
    named = {("litert", None): "2", (None, "fp32"): "2", ("executorch", None): "3", ("coreml", None): "0"}
    for (target, precision), path in named.items():
        assert bundle.entry(target, precision)["path"] == path
    del bundle.manifest["recommendation"]
    assert bundle.entry(None, None)["path"] == "3"
    elsewhere = {"target": "executorch/vulkan", "precision": "fp32", "path": "4", "devices": ["android"]}
    bundle.manifest["files"].insert(0, elsewhere)
    assert bundle.entry(None, "fp32")["path"] == "2"
    assert bundle.entry("executorch/vulkan", None)["path"] == "4"
    bundle.manifest["files"].remove(elsewhere)
    with pytest.raises(UserError, match="no exported file at w8: it has coreml w4, executorch fp32"):
        bundle.entry(None, "w8")


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), building(tmp_path / "b") as staging:
        (staging / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_earlier_bundle(tmp_path: Path) -> None:
    write(tmp_path / "b")
    with pytest.raises(RuntimeError), building(tmp_path / "b"):
        raise RuntimeError
    assert read_bundle(tmp_path / "b").file("executorch", "fp32").read_bytes() == b"program"
    write(tmp_path / "b", b"newer")
    assert read_bundle(tmp_path / "b").file("executorch", "fp32").read_bytes() == b"newer"


def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    for content in (b"{", b"\xff", b"[]", b"[" * 100_000):
        (folder / "manifest.json").write_bytes(content)
        with pytest.raises(UserError, match="manifest.json is damaged"):
            read_bundle(folder)


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a bundle"), building(tmp_path / "b"):
        pass
    assert (tmp_path / "b" / "thesis.txt").exists()


def test_only_what_this_program_wrote_is_replaced(tmp_path: Path) -> None:
    """A web application's folder has a manifest.json too."""
    cases = {
        "foreign": ({"name": "my app", "icons": []}, "is not a bundle that can be read"),
        "unsigned": ({"schema_version": 2, "files": []}, "was not written by elir-mobile"),
        "broken": ({"schema_version": 2, "made_by": "elir-mobile"}, "is not a bundle that can be read"),
    }
    for name, (manifest, said) in cases.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / name / "index.html").write_text("years of work")
        with pytest.raises(UserError, match=said), building(tmp_path / name):
            pass
        assert (tmp_path / name / "index.html").read_text() == "years of work"
    folder = write(tmp_path / "ours")
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("ours")
    write(folder, b"newer")
    (folder / "executorch" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds executorch/notes.txt, which is no part of a bundle"):
        write(folder)
    assert (folder / "executorch" / "notes.txt").read_text() == "mine"
    (tmp_path / "link").symlink_to(write(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="is not a bundle"):
        write(tmp_path / "link")


def special(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.close()


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "socket"])
@pytest.mark.parametrize("name", ["manifest.json", "steps.bin", "executorch/a.pte"])
def test_nothing_but_regular_files_is_opened(tmp_path: Path, kind: str, name: str, monkeypatch) -> None:
    folder = write(tmp_path / "b")
    monkeypatch.chdir(folder / Path(name).parent)  # the name of a socket must be short
    special(Path(Path(name).name), kind)
    with pytest.raises(UserError, match="no regular file|outside|missing or damaged|is not a bundle"):
        read_bundle(folder)


def test_a_link_inside_a_package_is_refused_and_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("private")
    with building(tmp_path / "b") as staging:
        package = staging / "a.mlpackage"
        package.mkdir()
        (package / "weights").write_text("w")
        entry = file_entry(staging, package, target="coreml", precision="fp32")
        write_manifest(staging, {**FACTS, "table": write_table(staging, TABLE), "files": [entry]})
    bundle = read_bundle(tmp_path / "b")
    for target in (secret, secret / "key", Path("nowhere")):
        link = tmp_path / "b" / "a.mlpackage" / "more"
        link.symlink_to(target)
        with pytest.raises(UserError, match="more is a link: put the file itself into a.mlpackage"):
            read_bundle(tmp_path / "b")
        link.unlink()
    (tmp_path / "b" / "a.mlpackage" / "more").symlink_to(secret)  # after it was verified
    with pytest.raises(UserError, match="is a link"):
        copy_bundle(bundle, tmp_path / "copy", "ios")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_table_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    folder = tmp_path / "b"
    with building(folder) as staging:
        broken = TABLE.clone()
        broken[1, 2] = value
        write_manifest(staging, {**FACTS, "table": write_table(staging, broken), "files": []})
    with pytest.raises(UserError, match="steps.bin has values that are not finite: write the bundle again"):
        read_bundle(folder)


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write into"), building(tmp_path / "file" / "b"):
        pass


def edit(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # Whatever else is in it: a newer one need not have the keys of today.
        (lambda m: (m.clear(), m.update(schema_version=99)), "newer elir-mobile .*schema 99.*update"),
        (lambda m: m.update(schema_version=0), "is damaged"),
        (lambda m: m.update(schema_version="2"), "is damaged"),
        (lambda m: m["files"][0].update(path="../../etc/passwd"), "outside the bundle"),
        (lambda m: m["files"][0].update(sha256="0" * 64), "missing or damaged"),
        (lambda m: m["files"][0].update(path="gone.pte"), "missing or damaged"),
        (lambda m: m["table"].update(shape=[3, 3]), "not 3×3"),
        (lambda m: m["table"].update(shape=[6]), "table.shape is not a number of steps and a width"),
        (lambda m: m["table"].update(shape=[3, 2]), "for 2 steps"),
        (lambda m: m.pop("domain"), "it has no domain"),
        (lambda m: m.update(upscale=0), "upscale is not a whole number of at least 1"),
        (lambda m: m.update(upscale=3), "size 64 is no multiple of upscale 3"),
        (lambda m: m.update(enlarge="wishful"), "enlarge is not one of nearest, bicubic, lanczos"),
        (lambda m: m.update(steps=0), "steps is not a whole number of at least 1"),
        (lambda m: m.update(size=-64), "size is not a whole number of at least 1"),
        (lambda m: m.update(sigma_s=float("nan")), "sigma_s is not a finite number"),
        (lambda m: m.update(sigma_s=-0.1), "sigma_s is not a finite number of at least 0"),
        (lambda m: m.pop("sigma_s"), "it has no sigma_s"),
        (lambda m: m["files"][0].update(sha256="abc"), r"files\[0\].sha256 is not 64 hexadecimal digits"),
        (lambda m: m["files"][0].update(path="a\0b"), r"files\[0\].path is not a path"),
        (lambda m: m["files"][0].pop("target"), r"it has no files\[0\].target"),
        (
            lambda m: m["files"][0].update(quality={"pairs": 8}),
            r"it has no files\[0\].quality.update_sqnr_db",
        ),
        (lambda m: m.update(recommendation=["a"]), "recommendation is not an object"),
        (lambda m: m.update(reasons={"android": 1}), "reasons.android is not text"),
        (lambda m: m.update(budget={"psnr_drop_db": "little"}), "budget.psnr_drop_db is not a number"),
        (lambda m: m.pop("table"), "is damaged"),
        (lambda m: m.update(files=[7]), "is damaged"),
        (lambda m: m["files"][0].update(precision="../../x"), r"files\[0\].precision is not a name"),
        (lambda m: m["files"][0].update(target="litert/../x"), r"files\[0\].target is not a runtime"),
        (lambda m: m["files"][0].update(path="a" * 5000), r"files\[0\].path is not text of at most 4096"),
        (lambda m: m.update(recommendation=None), "recommendation is not an object"),
        (lambda m: m.update(golden=None), "golden is not an object"),
        (lambda m: m.update(golden={"arrays": {}}), "golden arrays are not input, output, noise"),
    ],
)
def test_bad_manifests_are_refused(tmp_path: Path, change, message: str) -> None:
    folder = write(tmp_path / "b")
    edit(folder, change)
    with pytest.raises(UserError, match=message):
        read_bundle(folder)


def test_damaged_artifact_and_absent_bundle_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    (folder / "executorch" / "a.pte").write_bytes(b"progrbm")
    with pytest.raises(UserError, match="missing or damaged"):
        read_bundle(folder)
    with pytest.raises(UserError, match="not a bundle"):
        read_bundle(tmp_path / "none")


def test_a_bundle_of_schema_1_gets_what_it_lacks_and_copies_are_of_schema_2(tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    told = ("title", "domain", "upscale", "enlarge", "recommendation", "reasons")
    edit(folder, lambda m: (m.update(schema_version=1, task="bsr"), [m.pop(key) for key in told]))
    copy = copy_bundle(read_bundle(folder), tmp_path / "copy", "android")
    for manifest in (read_bundle(folder).manifest, json.loads((copy / "manifest.json").read_text())):
        assert manifest["schema_version"] == 2
        assert manifest["title"] == "blind super-resolution ×4"
        assert (manifest["domain"], manifest["upscale"], manifest["enlarge"]) == ("photo", 4, "bicubic")
        assert manifest["recommendation"]["android"] == "executorch/a.pte"
        assert manifest["reasons"]["android"].startswith("executorch fp32: nobody executed it")
    edit(folder, lambda m: m.pop("task"))
    with pytest.raises(UserError, match="unknown task"):
        read_bundle(folder)


def push(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["push", *(str(a) for a in arguments)])


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A bundle with a file for each kind of phone."""
    with building(tmp_path / "it's a bundle") as staging:
        for place in ("executorch", "coreml/a.mlpackage"):
            (staging / place).mkdir(parents=True)
            (staging / place / "a.pte").write_text(place)
        files = [
            file_entry(staging, staging / "executorch" / "a.pte", target="executorch", precision="fp32"),
            file_entry(staging, staging / "coreml" / "a.mlpackage", target="coreml", precision="fp16"),
        ]
        (staging / "report").mkdir()
        write_manifest(staging, {**FACTS, "table": write_table(staging, TABLE), "files": files})
    return tmp_path / "it's a bundle"


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The storage of a phone behind an ``adb`` that knows ``push`` and ``shell``, and which serial it has."""
    storage = tmp_path / "storage"
    storage.mkdir()
    adb = tmp_path / "bin" / "adb"
    adb.parent.mkdir()
    adb.write_text(
        '#!/bin/sh\nif [ "$1" = -s ]; then\n'
        '  [ "$2" = phone ] || { echo "error: device \'$2\' not found" >&2; exit 1; }; shift 2\nfi\n'
        f'cd "{storage}"\n'
        'case "$1" in\n'
        '  push) cp -r "$2" ".$3" ;;\n'
        f'  shell) sh -c "$(printf %s "$2" | sed "s,/sdcard,{storage}/sdcard,g")" ;;\n'
        "esac\n"
    )
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{adb.parent}:/usr/bin:/bin")
    return storage / ANDROID_FOLDER[1:]


def test_a_phone_gets_what_it_can_run_and_an_older_copy_is_replaced(whole: Path, phone: Path) -> None:
    for _ in range(2):
        result = push(whole, "--android", "--serial", "phone")
        assert result.exit_code == 0, result.output
        assert [entry.name for entry in phone.iterdir()] == [whole.name]
        pushed = read_bundle(phone / whole.name)
        assert [entry["target"] for entry in pushed.manifest["files"]] == ["executorch"]
        assert not (phone / whole.name / "report").exists()


@pytest.mark.parametrize(
    ("option", "targets"), [("--android-folder", ["executorch"]), ("--ios-folder", ["executorch", "coreml"])]
)
def test_a_folder_of_an_app_gets_what_the_app_can_run(whole: Path, tmp_path: Path, option, targets) -> None:
    result = push(whole, option, tmp_path / "app" / "bundles")
    assert result.exit_code == 0, result.output
    copied = read_bundle(tmp_path / "app" / "bundles" / whole.name)
    kept = {entry["path"] for entry in copied.manifest["files"]}
    assert kept >= set(copied.manifest["recommendation"].values()) > set()
    assert [entry["target"] for entry in copied.manifest["files"]] == targets


def test_a_push_says_which_file_the_device_should_run_and_which_the_app_cannot(tmp_path: Path) -> None:
    ran = {"image": {"host_db": 45.0, "budget_db": 42.0}}
    with building(tmp_path / "b") as staging:
        files = []
        for target, precision, more in (
            ("onnx/qnn", "w8a16", {"parity": ran}),
            ("litert/gpu", "fp16", {"parity": ran, "executed_by": "SwiftShader (a GPU in software)"}),
            ("litert", "w8a8", {}),
            ("coreml", "fp16", {}),
        ):
            path = staging / target.replace("/", "-")
            path.write_text(target)
            files.append(file_entry(staging, path, target=target, precision=precision, **more))
        write_manifest(staging, {**FACTS, "table": write_table(staging, TABLE), "files": files})
    said = push(tmp_path / "b", "--android-folder", tmp_path / "app").output.splitlines()
    npu, gpu, processor = said[-3:]
    assert npu == "Android, Snapdragon's NPU: onnx-qnn is left out, since the demo app cannot run it"
    assert gpu.startswith(
        "Android, GPU: litert/gpu fp16: SwiftShader (a GPU in software) ran it, its pictures"
    )
    assert processor.startswith("Android, processor: litert w8a8: nobody executed it; ")
    copied = read_bundle(tmp_path / "app" / "b").manifest
    assert copied["recommendation"] == {
        "android-gpu": "litert-gpu", "android": "litert", "browser-gpu": "litert-gpu", "browser": "litert",
        "host": "litert",
    }  # fmt: skip
    assert copied["reasons"].keys() == copied["recommendation"].keys()


def test_what_cannot_be_pushed_is_said_in_a_sentence(
    whole: Path, phone: Path, tmp_path: Path, monkeypatch
) -> None:
    assert "say where to" in push(whole).output
    unknown = push(whole, "--android", "--serial", "other")
    assert unknown.exit_code == 2
    assert "device 'other' not found" in unknown.output
    only_core_ml = json.loads((whole / "manifest.json").read_text())
    only_core_ml["files"] = only_core_ml["files"][1:]
    (whole / "manifest.json").write_text(json.dumps(only_core_ml))
    assert "no executorch or litert or litert/gpu file" in push(whole, "--android").output
    (whole / "coreml" / "a.mlpackage" / "a.pte").write_text("damaged")
    assert "missing or damaged" in push(whole, "--ios-folder", tmp_path / "app").output
    assert not (tmp_path / "app").exists()


def test_without_adb_the_command_names_the_package(whole: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = push(whole, "--android")
    assert result.exit_code == 2
    assert "apt-get install adb" in result.output


def golden_bundle(folder: Path) -> Path:
    """A bundle with golden vectors of zeros, for pictures of 64 pixels."""
    shapes = dict.fromkeys(GOLDEN_IMAGES, (64, 64, 3)) | dict.fromkeys(GOLDEN_LATENTS, (1, 16, 8, 8))
    with building(folder) as staging:
        (staging / "golden").mkdir()
        arrays = {}
        for name, shape in shapes.items():
            path, dtype = staging / "golden" / name, "uint8" if len(shape) == 3 else "float32"
            np.zeros(shape, dtype).tofile(path)
            arrays[name] = {"path": f"golden/{name}", "shape": list(shape), "dtype": dtype}
            arrays[name]["sha256"] = sha256_of(path)
        facts = {**FACTS, "size": 64, "table": write_table(staging, TABLE), "files": []}
        write_manifest(staging, {**facts, "golden": {"seed": 0, "arrays": arrays}})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("noise"), "golden arrays are not input, output, noise"),
        (lambda a: a["noise"].update(shape=[]), "golden latents are not of one shape"),
        (lambda a: a["noise"].update(shape=[1, 16, 64]), "golden latents are not of one shape"),
        (lambda a: [a[n].update(shape=[2, 8, 8, 8]) for n in GOLDEN_LATENTS], "latents are not of one shape"),
        (lambda a: [a[n].update(shape=[1, 16, 9, 8]) for n in GOLDEN_LATENTS], "has not the 4608 bytes"),
        (lambda a: [a[n].update(shape=[1, 10**30, 8, 8]) for n in GOLDEN_LATENTS], "has not the .* bytes"),
        (lambda a: a["input"].update(shape=[8, 512, 3]), "golden images are not 64×64 pixels"),
        (lambda a: a["input"].update(dtype="float32"), "golden images are not 64×64 pixels"),
    ],
)
def test_golden_vectors_have_the_shapes_that_are_relied_on(tmp_path: Path, change, message: str) -> None:
    folder = golden_bundle(tmp_path / "b")
    assert read_bundle(folder).manifest["size"] == 64
    edit(folder, lambda manifest: change(manifest["golden"]["arrays"]))
    with pytest.raises(UserError, match=message):
        read_bundle(folder)


@pytest.fixture
def with_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with a face detector, whose files are short here."""
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    (fetched / detect.DETECTOR).write_bytes(b"finds")
    (fetched / detect.MESH).write_bytes(b"places")
    monkeypatch.setattr(detect, "fetch_detector", lambda: fetched)
    with building(tmp_path / "b") as staging:
        (staging / "a.pte").write_bytes(b"program")
        files = [file_entry(staging, staging / "a.pte", target="executorch", precision="fp32")]
        facts = {**FACTS, "table": write_table(staging, TABLE), "files": files}
        write_manifest(staging, {**facts, "detector": write_detector(staging)})
    return tmp_path / "b"


def test_a_bundle_names_its_face_detector_and_a_copy_has_it(with_detector: Path, tmp_path: Path) -> None:
    bundle = read_bundle(with_detector)
    detector = bundle.manifest["detector"]
    assert {name: entry["bytes"] for name, entry in detector["files"].items()} == {"detect": 5, "mesh": 6}
    assert (detect.PACKAGE in detector["source"], detector["licence"]) == (True, "Apache-2.0")
    copy = read_bundle(copy_bundle(bundle, tmp_path / "copy", "android"))
    assert copy.manifest["detector"] == detector
    with building(with_detector):  # all that lies in it is its own, so it may be written anew
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["files"].pop("mesh"), "it has no detector.files.mesh"),
        (lambda d: d["files"]["detect"].update(path="../a"), "outside the bundle"),
        (lambda d: d["files"]["mesh"].update(bytes=7), "has not the 7 bytes of its entry"),
        (lambda d: d["files"]["mesh"].update(sha256="0" * 64), "missing or damaged"),
        (lambda d: d.pop("licence"), "it has no detector.licence"),
    ],
)
def test_the_face_detector_is_checked_as_every_file(with_detector: Path, change, message: str) -> None:
    edit(with_detector, lambda manifest: change(manifest["detector"]))
    with pytest.raises(UserError, match=message):
        read_bundle(with_detector)


def test_a_bundle_without_a_network_has_no_detector_and_says_so(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(folder: Path) -> dict:
        raise UserError("pip could not download it: check the network and try again")

    monkeypatch.setattr("elir_mobile.bundle.write_detector", unreachable)
    restorer, info = load_weights(str(tiny_weights), get_task("bfr"))
    info = replace(info, steps=STEPS, sigma_s=SIGMA_S)
    image = torch.zeros(1, 3, SIZE, SIZE)
    bundle = write_bundle(
        tmp_path,
        get_task("bfr"),
        restorer,
        info,
        size=SIZE,
        table=TABLE,
        golden=write_golden(tmp_path, eager_runner(restorer, STEPS), image, STEPS, SIGMA_S),
        files=[],
        calibration={},
        budget={},
    )
    assert "detector" not in bundle.manifest
    assert "no detector: pip could not download it" in capsys.readouterr().err
