"""The page's modules that need no browser, run by Node: what they read of a bundle, how they enlarge, and
what they make of whole photos."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elir_mobile.bundle import read_bundle
from elir_mobile.core.tiling import Sample, level_offsets
from elir_mobile.restore import Model, enlarged, restore
from elir_mobile.runtimes.runner import Runner
from elir_mobile.runtimes.table import file_stem
from elir_mobile.tasks import PHOTO, get_task
from tests.app_fixtures import (
    CHANNELS,
    SIGMA_S,
    SIZE,
    STEPS,
    STUBS,
    TOLD,
    Fixtures,
    picture,
    stub_runner,
    write_fixtures,
)
from tests.node import printed

ROOT = Path(__file__).parents[1]
SWAY = 0.3  # how much lighter the stub makes a tile of lighter pixels


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


# Whole photos, in tiles.


def swaying(runner: Runner) -> Runner:
    """The stub, whose level depends on the whole tile, as that of a network with group norms does."""
    return Runner(
        lambda x: runner.encode(x) * (1 - SWAY + 2 * SWAY * x.double().mean().float()),
        runner.step,
        runner.decode,
    )


def gradient(height: int, width: int) -> Image.Image:
    """A smooth ground, on which a step would be seen."""
    rows, columns = np.mgrid[0:height, 0:width]
    values = [40 + 150 * rows / height, 60 + 120 * columns / width, 200 - 100 * columns / width]
    return Image.fromarray(np.stack(values, -1).astype(np.uint8))


def write_whole(folder: Path) -> dict:
    """Photos restored whole, and levels of tiles, as ``tiled.json``; returns it."""
    out = Fixtures(folder)
    runner = swaying(stub_runner(STUBS["fp32"], read_bundle(folder / "bundle").table))
    grey = picture(70, 90, 5).convert("L").convert("RGB")
    photos = {
        "gradient": gradient(150, 190), "noisy": picture(100, 117, 6), "panorama": picture(5, 700, 7),
        "column": picture(130, 1, 8), "pixel": picture(1, 1, 9), "grey": grey,
    }  # fmt: skip
    cases = [(name, "denoising", 0.0, True, True) for name in photos]
    cases += [("gradient", "denoising", 0.4, False, False), ("gradient", "denoising", 1.0, True, True)]
    cases += [("pixel", "bsr", 0.0, True, True), ("grey", "bsr", 0.0, True, True)]
    cases += [("noisy", "bsr", 0.3, True, True), ("grey", "bsr", 0.0, False, True)]
    cases += [("gradient", "denoising", 0.0, False, True)]  # which has colours, so that it changes nothing
    whole = []
    for seed, (name, task_name, fidelity, colors, grey) in enumerate(cases):
        task = get_task(task_name)
        model = Model(
            runner, STEPS, SIGMA_S, SIZE, SIZE, 0, CHANNELS, PHOTO,
            fidelity, keeps_colors=colors, keeps_grey=grey,
        )  # fmt: skip
        made = restore(enlarged(photos[name], task), model, seed, lambda done, total: None)
        whole.append(
            {
                "seed": seed,
                "fidelity": fidelity,
                "colors": colors,
                "grey": grey,
                "task": {"upscale": task.upscale, "enlarge": task.enlarge.name.lower()},
                "input": out.array(f"whole/{seed}-input", np.asarray(photos[name])),
                "output": out.array(f"whole/{seed}-output", np.asarray(made)),
            }
        )
    rng = np.random.default_rng(0)
    places = [*product((0, 6, 11), (0, 6, 12, 17))]
    samples = [Sample(top, left, rng.normal(0, 1, (8, 8)).astype(np.float32)) for top, left in places]
    levels = []
    for count in (0, 4):
        before, tiles = samples[:count], samples[count : count + 4]
        told = [
            [
                {"top": s.top, "left": s.left, "height": 8, "width": 8, "values": s.values.ravel().tolist()}
                for s in some
            ]
            for some in (tiles, before)
        ]
        offsets = level_offsets(tiles, before).tolist()
        levels.append({"tiles": told[0], "before": told[1], "offsets": offsets})
    index = {"sway": SWAY, "whole": whole, "levels": levels}
    (folder / "tiled.json").write_text(json.dumps(index))
    return index


@pytest.fixture(scope="module")
def whole(fixtures) -> tuple[dict, dict]:
    """What Python makes of whole photos, and what ``tests/tiled.mjs`` prints."""
    folder = fixtures[0]
    with torch.inference_mode():
        index = write_whole(folder)
    return index, printed("tiled.mjs", partial(Quiet, directory=str(folder)))


def test_the_pages_noise_is_pytorchs(fixtures, whole) -> None:
    assert len(whole[1]["noise"]) == len(fixtures[1]["noise"]) >= 30
    assert max(whole[1]["noise"]) < 1e-6


def test_the_pages_windows_and_levels_are_the_packages(whole) -> None:
    assert len(whole[1]["windows"]) >= 7
    for weights, starts in whole[1]["windows"]:
        assert weights < 1e-6
        assert starts == 0
    assert len(whole[1]["offsets"]) == 2
    assert max(whole[1]["offsets"]) < 1e-6
    assert min(np.abs(case["offsets"]).max() for case in whole[0]["levels"]) > 0.1


def test_a_photo_in_tiles_has_the_packages_pixels(fixtures, whole) -> None:
    assert len(whole[1]["restored"]) == len(fixtures[1]["restore"]) >= 5
    for most, differ, tiles in whole[1]["restored"]:
        assert most <= 1
        assert differ < 0.002
        assert tiles == 0


def test_a_photo_in_tiles_is_levelled_and_keeps_its_colours_as_the_packages(whole) -> None:
    index, seen = whole
    assert len(seen["whole"]) == len(index["whole"]) == 13
    for case, found in zip(index["whole"], seen["whole"], strict=True):
        for most, differ in (found["first"], found["again"]):
            assert most <= 1, case
            assert differ < 0.01, case
        assert found["size"] == case["output"]["shape"][:2]
        assert found["other"] > 1  # another fidelity, and no colours kept
        assert found["counted"] == found["tiles"] * (STEPS + 2)
        assert found["cancelled"] == "enough" or found["tiles"] * (STEPS + 2) <= 3
        assert found["positive"]
    assert max(found["tiles"] for found in seen["whole"]) > 60
