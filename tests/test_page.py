"""The page's modules that need no browser, run by Node: what they read of a bundle, and how they enlarge."""

from __future__ import annotations

import hashlib
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from elir_mobile.runtimes.table import file_stem
from tests.app_fixtures import TOLD, write_fixtures
from tests.node import printed

ROOT = Path(__file__).parents[1]


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a word."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory) -> tuple[Path, dict]:
    """The golden files and their index."""
    folder = tmp_path_factory.mktemp("page") / "fixtures"
    return folder, write_fixtures(folder)


@pytest.fixture(scope="module")
def seen(fixtures) -> dict:
    """What ``tests/bundle.mjs`` prints."""
    return printed("bundle.mjs", partial(Quiet, directory=str(fixtures[0])))


def test_the_manifest_says_all_of_the_task(fixtures, seen: dict) -> None:
    cases = fixtures[1]["tasks"]
    assert len(cases) >= 8
    for case in cases:
        read = seen["read"][case["path"]]
        assert {key: read[key] for key in TOLD} == {key: case[key] for key in TOLD}, case["path"]


def test_a_manifest_that_cannot_be_used_is_refused_in_a_sentence(fixtures, seen: dict) -> None:
    refused = {Path(path).name: sentence for path, sentence in seen["refused"].items()}
    assert "made by a newer elir-mobile (schema 99" in refused["newer"]
    assert "cannot be read (404)" in refused["no-manifest"]
    for name in ("not-json", "no-table", "files-are-numbers", "no-title", "shrinking", "uneven"):
        assert "damaged" in refused[name], name
    assert "'wishful'" in refused["unheard-filter"]
    assert "noise.float32 is damaged" in refused["changed-golden"]


def test_a_browser_that_gives_no_digests_is_told_where_it_would(seen: dict) -> None:
    assert seen["unchecked"].count(".") == 0
    assert "open it by https:// or as localhost" in seen["unchecked"]


def test_decibels_are_the_packages(fixtures, seen: dict) -> None:
    cases = fixtures[1]["fidelity"]
    assert len(cases) == len(seen["decibels"]) == 4
    for case, (psnr, sqnr) in zip(cases, seen["decibels"], strict=True):
        assert psnr == pytest.approx(case["psnr_db"], abs=1e-3)  # there the mean is float32
        assert sqnr == pytest.approx(case["sqnr_db"], abs=1e-6)


def test_the_name_of_an_output_has_no_slash(seen: dict) -> None:
    assert seen["stem"] == file_stem("litert/webgpu", "w8a8") == "litert-webgpu-w8a8"


def test_a_nan_is_an_error_and_not_equal(seen: dict) -> None:
    assert seen["finite"] == "encode gives values that are not finite"


def test_what_was_not_asked_or_not_measured_does_not_hold(seen: dict) -> None:
    unmeasured, missed, broken, unasked = seen["held"]
    assert unmeasured == unasked == [None] * 4
    assert missed == [True, False, True, None]  # equal to the last bit holds; the image has no budget
    assert broken == [False, True, True, None]


def test_enlarging_gives_pillows_bytes(fixtures, seen: dict) -> None:
    folder, index = fixtures
    cases = index["resize"]["enlarged"]
    assert {(case["filter"], case["factor"]) for case in cases} == {
        (filter_, factor) for filter_ in ("nearest", "bicubic") for factor in (4, 8)
    }
    for case in cases:
        expected = hashlib.sha256((folder / case["path"]).read_bytes()).hexdigest()
        assert seen["pictures"][case["path"]] == expected, case["path"]
