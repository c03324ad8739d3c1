"""The apps' golden files: complete, and as the package computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from elir_mobile.bundle import read_bundle
from elir_mobile.core.errors import UserError
from tests.app_fixtures import JOB, write_fixtures

FAULTS = {
    "missing": "has no manifest",
    "damaged": "damaged|values, not",
    "too new": "schema 99",
    "outside": "outside the bundle",
}


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("app") / "fixtures"
    return folder, write_fixtures(folder)


def array(folder: Path, entry: dict) -> np.ndarray:
    kind = np.dtype(entry["path"].rsplit(".", 1)[1]).newbyteorder("<")
    return np.fromfile(folder / entry["path"], kind).reshape(entry["shape"])


def test_the_bundle_is_whole_and_each_damaged_copy_has_the_fault_it_is_listed_with(fixtures) -> None:
    folder, index = fixtures
    files = {entry["path"] for entry in read_bundle(folder / index["bundle"]).manifest["files"]}
    assert set(JOB["files"]) - files == {"stub/absent.stub"}
    for case in index["damaged"]:
        with pytest.raises(UserError, match=FAULTS[case["fault"]]):
            read_bundle(folder / case["path"])


def test_noise_is_a_twister_and_box_muller_in_blocks_of_sixteen(fixtures) -> None:
    """The recipe that Kotlin and Swift follow, written with numpy's own Mersenne twister."""
    folder, index = fixtures
    for case in index["noise"]:
        (count,) = case["shape"]
        bits = np.random.RandomState(int(case["seed"]) % 2**32).bytes(4 * (count + 16))
        uniform = (np.frombuffer(bits, "<u4") & 0xFFFFFF) / 2.0**24
        starts = [*range(0, count - 15, 16)]
        blocks = uniform[: len(starts) * 16].reshape(-1, 2, 8)
        if count % 16:  # the last sixteen are drawn anew, over what is there
            starts.append(count - 16)
            blocks = np.concatenate([blocks, uniform[count : count + 16].reshape(1, 2, 8)])
        radius = np.sqrt(-2 * np.log(1 - blocks[:, 0]))
        angle = np.float32(2 * np.pi) * blocks[:, 1].astype(np.float32)  # torch multiplies in float32
        drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)
        noise = np.zeros(count)
        for start, values in zip(starts, drawn, strict=True):
            noise[start : start + 16] = values
        np.testing.assert_allclose(noise, array(folder, case), atol=1e-6)


def test_blended_tiles_round_to_the_restored_picture(fixtures) -> None:
    folder, index = fixtures
    for case in index["restore"]:
        height, width, _ = case["output"]["shape"]
        blended = array(folder, case["blended"])[:height, :width]
        expected = (blended * 255).round().clip(0, 255)
        assert (expected == array(folder, case["output"])).all()
    assert {case["tiles"] for case in index["restore"]} >= {1, 3, 6}


def test_fidelity_and_kept_colours_change_a_picture_and_grey_stays_grey(fixtures) -> None:
    folder, index = fixtures
    for case in index["finished"]:
        given, made = (array(folder, case[key]).astype(int) for key in ("input", "output"))
        assert given.shape == made.shape and np.abs(given - made).mean() > 1
        grey = (np.ptp(given, -1) == 0).all() and (case["keep_grey"] or case["keep_colors"])
        assert (np.ptp(made, -1) == 0).all() == grey
    for case in index["colors"]:
        given, restored, kept = (array(folder, case[key]) for key in ("given", "restored", "expected"))
        means = [picture.mean((0, 1)) @ [[-0.169], [-0.331], [0.5]] for picture in (given, restored, kept)]
        assert abs(means[2] - means[0]) < 0.2 * abs(means[1] - means[0])


def test_faces_are_set_into_restored_backgrounds(fixtures) -> None:
    folder, index = fixtures
    scenes = [scene for scene in index["faces"] if scene["background"]]
    assert {s["background"]["canvas"]["shape"][0] // s["photo"]["shape"][0] for s in scenes} == {1, 2, 4}
    for scene in scenes:
        canvas, made = (array(folder, scene["background"][key]) for key in ("canvas", "output"))
        assert 0.01 < (canvas != made).any(-1).mean() < 0.9
