"""The Kotlin core on the JVM: against the golden files, and with a real exported file executed by Python."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from android_demo.tests.conftest import ROOT
from elir_mobile.bundle import read_bundle
from elir_mobile.runtimes.runner import open_runner
from tests.app_fixtures import golden_tensors


def junit(classpath: list[Path], test: str, *jvm: str, **properties: object) -> str:
    """Run a JUnit class of the core and return what it printed; fail with that where a test fails."""
    defined = [f"-Delir.{name}={value}" for name, value in properties.items()]
    runner = ["-cp", ":".join(map(str, classpath)), "org.junit.runner.JUnitCore"]
    command = ["java", *jvm, *defined, *runner, f"org.elir.mobile.core.{test}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_core_computes_what_the_package_computes(core, fixtures: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    printed = junit(core, "CoreTest", fixtures=fixtures, result=result)
    assert "OK (2" in printed  # twenty-odd tests
    rows = json.loads(result.read_text())["rows"]
    for row in rows[:-1]:  # the format that every device writes; the last row is a file that is not there
        assert (row["threads"], row["error"]) == (2, None)
        for name, program in row["programs"].items():
            runs = program["runs_ms"]
            assert len(runs) == 5, name
            assert program["median_ms"] == np.median(runs)
            assert np.isclose(program["p90_ms"], np.percentile(runs, 90))
        assert set(row["parity"]) == set(row["output_sha256"]) == {"encode", "step", "decode", "image"}
        assert row["peak_bytes"] > 1e7
    assert rows[-1]["error"]


def test_the_cores_loop_over_a_real_file_gives_the_packages_picture_to_the_bit(
    core, fixtures: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    junit(core, "RealFilesTest", fixtures=fixtures, bundle=demo_bundle, python=sys.executable, result=result)
    (row,) = json.loads(result.read_text())["rows"]
    bundle = read_bundle(demo_bundle)
    vectors = golden_tensors(bundle)
    runner = open_runner("executorch", demo_bundle / row["path"], bundle.table)
    steps, sigma_s = bundle.manifest["steps"], bundle.manifest["sigma_s"]
    image, _ = runner.restore(vectors["input"], vectors["noise"], steps=steps, sigma_s=sigma_s)
    start = vectors["coarse"] + sigma_s * vectors["noise"]
    expected = {
        "encode": runner.encode(vectors["input"]),
        "step": runner.step(start, 0),
        "decode": runner.decode(vectors["latent"]),
        "image": image,
    }
    assert row["output_sha256"] == {name: digest(out) for name, out in expected.items()}
    assert torch.isfinite(image).all()


def test_faces_are_found_aligned_and_put_back_as_the_package_does(core, fixtures: Path) -> None:
    assert "OK (5 tests)" in junit(core, "FacesTest", fixtures=fixtures)


def test_wishes_and_what_a_file_says_are_kept_as_the_package_does(
    core, fixtures: Path, tmp_path: Path
) -> None:
    assert "OK (10 tests)" in junit(core, "WishesTest", fixtures=fixtures, saved=tmp_path)
    saved = sorted(tmp_path.iterdir())
    assert [path.name for path in saved] == ["plain.jpg.jpg", "plain.png.jpg"]
    for path in saved:
        with Image.open(path) as image:
            image.load()
            exif = image.getexif()
            inside, place = (exif.get_ifd(ifd) for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))
        assert ExifTags.Base.Orientation not in exif and not exif.get_ifd(ExifTags.IFD.IFD1)
        assert (exif[ExifTags.Base.Make], exif[ExifTags.Base.XResolution]) == ("A camera", 72)
        assert exif[ExifTags.Base.DateTime] == "2026:11:30 07:00:00"
        assert inside[ExifTags.Base.ExposureTime] == 0.01
        assert inside[ExifTags.Base.MakerNote] == bytes(range(200))
        assert (inside[ExifTags.Base.ExifImageWidth], inside[ExifTags.Base.ColorSpace]) == (640, 1)
        assert place == {1: "N", 2: (48, 8, 14.5)}


def test_touches_and_waiting_work(core, fixtures: Path) -> None:
    assert "OK (8 tests)" in junit(core, "TouchTest", fixtures=fixtures)


def test_a_file_is_used_where_it_computes_what_it_should(core, fixtures: Path) -> None:
    assert "OK (10 tests)" in junit(core, "ChooseTest", fixtures=fixtures)


def test_a_photo_of_48_megapixels_fits_the_heap_of_a_phone(core) -> None:
    assert "OK (2 tests)" in junit(core, "MemoryTest", "-Xmx192m", "-XX:+UseG1GC")


def digest(values: Tensor) -> str:
    return hashlib.sha256(values.numpy().astype("<f4").tobytes()).hexdigest()
