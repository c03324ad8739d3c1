"""Faces in photographs: alignment, suppression, masks and putting back; and, where the detector is fetched,
what it finds in pictures whose faces are known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps
from skimage import data as pictures
from skimage import transform
from typer.testing import CliRunner

from elir_mobile import photographs
from elir_mobile.checkpoints import save_weights
from elir_mobile.cli.options import alone
from elir_mobile.cli.restore import main
from elir_mobile.data.pairs import BUNDLED
from elir_mobile.faces import detect
from elir_mobile.faces.align import TEMPLATE, corners, inverse, mapped, scale_of, similarity, warp
from elir_mobile.faces.compose import BOX, Placement, composed
from elir_mobile.faces.detect import (
    MIN_FACE,
    OVERLAP,
    SEEN,
    SIDE,
    Face,
    FaceFinder,
    anchors,
    decoded,
    overlaps,
    suppressed,
    tiles,
)
from elir_mobile.faces.inplace import NOT_LARGEST, RESTORED, SHARP, Wanted, compared, restore_faces
from elir_mobile.faces.paste import FACE_ONLY, Patch, faded, paste, radius
from elir_mobile.models.restorer import Restorer
from elir_mobile.photographs import NO_FACE
from tests.conftest import SIGMA_S, SIZE, STEPS

app = alone(main)
ORIENTATION = 0x0112


def turned(angle: float, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """A similarity."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """A soft coloured picture."""
    values = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@given(st.floats(-3, 3), st.floats(0.05, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_a_similarity_is_found_again(angle: float, scale: float, x: float, y: float) -> None:
    matrix = turned(angle, scale, (x, y))
    found = similarity(TEMPLATE, mapped(matrix, TEMPLATE))
    assert np.allclose(found, matrix, atol=1e-6 * (1 + scale + abs(x) + abs(y)))
    assert np.allclose(mapped(inverse(found), mapped(found, TEMPLATE)), TEMPLATE, atol=1e-9)
    assert scale_of(found) == pytest.approx(scale)


def test_alignment_is_least_squares_and_never_a_mirror_image() -> None:
    points = TEMPLATE * 100 + np.random.default_rng(0).normal(0, 3, (5, 2))
    ours = similarity(points, TEMPLATE * 128)
    theirs = transform.SimilarityTransform.from_estimate(points, TEMPLATE * 128).params[:2]
    assert np.allclose(ours, theirs)
    mirrored = similarity(points * [-1, 1], TEMPLATE * 128)
    assert np.linalg.det(mirrored[:, :2]) > 0


def test_the_template_is_ffhqs() -> None:
    left, right, nose, *mouth = TEMPLATE * 512
    assert np.allclose([left, right], [[192.98, 239.95], [318.90, 240.19]], atol=0.01)
    assert left[0] < nose[0] < right[0] and left[1] < nose[1] < mouth[0][1]


def test_warping_by_nothing_changes_nothing() -> None:
    pixels = np.asarray(smooth(40, 30))
    assert np.allclose(warp(pixels, turned(0), 40, 30), pixels, atol=1e-3)
    moved = warp(pixels, turned(0, 1, (-7, -5)), 20, 20)
    assert np.allclose(moved, pixels[5:25, 7:27], atol=1e-3)


def test_warping_agrees_with_scikit_image() -> None:
    pixels = np.asarray(smooth(90, 70)).astype(float)
    matrix = turned(0.4, 1.5, (10, -20))
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # theirs has pixel centres at whole numbers
    theirs = np.linalg.inv(centre) @ np.vstack([matrix, [0, 0, 1]]) @ centre
    expected = transform.warp(pixels, np.linalg.inv(theirs), output_shape=(60, 60), order=3, mode="symmetric")
    ours = warp(pixels, matrix, 60, 60)
    assert np.abs(ours - expected).mean() < 0.3
    assert np.abs(ours - expected).max() < 3


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((240, 240, 1), np.float32)
    stripes[:, ::2] = 255
    small = warp(stripes, turned(0.3, 0.22, (10, -5)), 40, 40)
    assert small.std() < 3
    assert small.mean() == pytest.approx(127.5, abs=2)


def test_there_and_back_is_the_picture() -> None:
    pixels = np.asarray(smooth(120, 100)).astype(float)
    matrix = turned(-0.5, 1.3, (20, 60))
    back = warp(warp(pixels, matrix, 260, 260), inverse(matrix), 120, 100)
    assert np.abs(back - pixels)[10:-10, 10:-10].mean() < 0.5


def test_what_lies_beyond_the_border_is_mirrored() -> None:
    pixels = np.asarray(smooth(50, 40))
    wide = warp(pixels, turned(0, 1, (15, 10)), 80, 60)
    expected = np.pad(pixels, ((10, 10), (15, 15), (0, 0)), mode="symmetric")
    assert np.allclose(wide, expected, atol=1e-3)
    far = warp(pixels, turned(0, 1, (60, 0)), 60, 40)  # all of it beyond
    assert np.allclose(far[:, 10:], pixels[:, ::-1], atol=1e-3)


def test_anchors_are_the_middles_of_cells_row_by_row() -> None:
    grid = anchors()
    assert grid.shape == (2304, 2)
    assert np.allclose(grid[0], [2 / 192, 2 / 192])
    assert np.allclose(grid[1], [6 / 192, 2 / 192])
    assert np.allclose(grid[48], [2 / 192, 6 / 192])
    assert np.allclose(grid[-1], [190 / 192, 190 / 192])


def test_decoding_is_from_the_anchor_in_pixels() -> None:
    raw, logits = np.zeros((2304, 16), np.float32), np.full(2304, -20.0, np.float32)
    raw[49] = [3, -1, 40, 60, *np.arange(12)]
    logits[49] = 2.0
    boxes, scores = decoded(raw, logits)
    assert scores == pytest.approx([1 / (1 + math.exp(-2))])
    assert np.allclose(boxes[0, :4], [6 + 3 - 20, 6 - 1 - 30, 6 + 3 + 20, 6 - 1 + 30])
    assert np.allclose(boxes[0, 4:], np.arange(12) + 6)
    assert decoded(raw, np.full(2304, -20.0))[0].shape == (0, 16)


def test_overlaps_are_over_the_union_and_over_the_smaller() -> None:
    union, smaller = overlaps(
        np.array([0.0, 0, 10, 10]), np.array([[0, 0, 10, 10], [5, 0, 15, 10], [2, 2, 4, 4], [20, 0, 30, 10]])
    )
    assert union == pytest.approx([1, 50 / 150, 4 / 100, 0])
    assert smaller == pytest.approx([1, 0.5, 1, 0])


def test_suppression_weighs_one_face_and_keeps_neighbours() -> None:
    rows = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [30, 0, 40, 10], [32, 2, 35, 5]], float)
    scores = np.array([0.6, 0.9, 0.8, 0.7])
    kept, best = suppressed(rows, scores)
    assert best == pytest.approx([0.9, 0.8])
    assert kept[0] == pytest.approx([1.2, 0, 11.2, 10])  # by 0.6 and 0.9
    assert kept[1] == pytest.approx([30, 0, 40, 10])  # what lies within is of it, and does not move it
    for order in permutations(range(4)):
        again, _ = suppressed(rows[list(order)], scores[list(order)])
        assert np.allclose(again, kept)
    assert suppressed(np.empty((0, 16)), np.empty(0))[0].shape == (0, 16)


@settings(deadline=None, max_examples=60)
@given(st.integers(33, 1500), st.integers(33, 1500), st.floats(0, 1), st.floats(0, 1), st.floats(24, 1500))
def test_every_face_lies_whole_and_large_enough_in_some_tile(
    width: int, height: int, across: float, down: float, side: float
) -> None:
    side = max(MIN_FACE, min(side, 0.9 * width, 0.9 * height))
    if side > min(width, height):
        return
    left, top = across * (width - side), down * (height - side)
    seen = 0.0
    for tile in tiles(Image.new("RGB", (width, height))):
        box = np.array([left, top, left + side, top + side]) * tile.scale - [tile.left, tile.top] * 2
        low, high = box[:2], box[2:]
        inside = [low[0] > 1, low[1] > 1, high[0] < SIDE - 1, high[1] < SIDE - 1]
        if all(ok or not inner for ok, inner in zip(inside, tile.inner, strict=True)):
            seen = max(seen, side * tile.scale)
    assert seen >= SEEN * 0.97


def test_tiles_are_the_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth(700, 500)
    for tile in tiles(image):
        assert tile.pixels.shape == (SIDE, SIDE, 3)
        height, width = (
            min(SIDE, round(side * tile.scale) - start) for side, start in ((500, tile.top), (700, tile.left))
        )
        low = np.array([tile.left, tile.top]) / tile.scale
        expected = warp(np.asarray(image), turned(0, tile.scale, tuple(-low * tile.scale)), width, height)
        assert np.abs(tile.pixels[:height, :width] - expected).mean() < 3
    assert OVERLAP >= 2.4 * SEEN  # what is too large for one level is large enough at the one before


def test_the_mask_keeps_hair_and_ears_and_ends_within_the_square() -> None:
    edge = np.linspace(0, 1, 101)
    border = np.concatenate([np.stack([edge, side], -1) for side in (0 * edge, 0 * edge + 1)])
    border = np.concatenate([border, border[:, ::-1]])
    for margin in (0.0, 0.5, 1.0):
        assert (faded(radius(border, margin)) == 0).all()
        assert faded(radius(TEMPLATE, margin)).min() > 0.99
    hair, ears = np.array([[0.5, 0.12]]), np.array([[0.16, 0.52], [0.84, 0.52]])
    for places in (hair, ears):
        assert faded(radius(places, 1.0)).min() > 0.9
        assert faded(radius(places, 0.0)).max() == 0
    inside = radius(np.random.default_rng(0).random((500, 2)), 0.3)
    wider = radius(np.random.default_rng(0).random((500, 2)), 0.8)
    assert (faded(wider) >= faded(inside) - 1e-9).all()


def patch_at(middle: tuple[float, float], side: float, value: int | None, angle: float = 0.0) -> Patch:
    """A face's square of 32 pixels, of one value, in a photograph."""
    back = turned(angle, side / 32)
    back[:, 2] = np.array(middle) - back[:, :2] @ np.full(2, 16.0)
    return Patch(inverse(back), 32, None if value is None else np.full((32, 32, 3), value, np.uint8))


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_what_no_mask_reaches_keeps_its_bytes(angle: float) -> None:
    photo = np.asarray(smooth(200, 150))
    patch = patch_at((90, 70), 60, 255, angle)
    out = np.asarray(paste(Image.fromarray(photo), [patch], 1.0))
    columns, rows = np.meshgrid(np.arange(200) + 0.5, np.arange(150) + 0.5)
    distance = radius(mapped(patch.matrix, np.stack([columns, rows], -1)) / 32, 1.0)
    assert np.array_equal(out[distance >= 1], photo[distance >= 1])
    assert (out[distance < 0.7] == 255).all()
    ramp = (out[distance < 1].astype(int) - photo[distance < 1]).min()
    assert ramp >= 0  # between the two everywhere


def test_a_face_cut_by_the_edge_is_put_back_where_it_is() -> None:
    photo = np.asarray(smooth(100, 80))
    out = np.asarray(paste(Image.fromarray(photo), [patch_at((0, 40), 50, 255)], 1.0))
    assert (out[40, :10] == 255).all()
    assert np.array_equal(out[:, 30:], photo[:, 30:])
    beyond = paste(Image.fromarray(photo), [patch_at((-90, 40), 50, 255)], 1.0)
    assert np.array_equal(np.asarray(beyond), photo)


def test_neighbours_share_the_picture_and_a_face_that_is_left_alone_is_not_painted_over() -> None:
    photo = np.zeros((120, 200, 3), np.uint8)
    left, right = patch_at((80, 60), 80, 100), patch_at((120, 60), 80, 200)
    out = np.asarray(paste(Image.fromarray(photo), [left, right], 1.0))
    assert (abs(out[50:70, 75:85].astype(int) - 100) <= 3).all()
    assert (abs(out[50:70, 115:125].astype(int) - 200) <= 3).all()
    assert 120 < out[60, 100, 0] < 180
    again = np.asarray(paste(Image.fromarray(photo), [right, left], 1.0))
    assert np.abs(again.astype(int) - out).max() <= 1
    kept = np.asarray(paste(Image.fromarray(photo), [left, patch_at((120, 60), 80, None)], 1.0))
    assert (kept[50:70, 118:150] <= 2).all()
    assert (kept[50:70, 70:80] >= 97).all()


def face_picture(name: str) -> Image.Image:
    return Image.open(next(BUNDLED.glob(f"faces/*/{name}.png"))).convert("RGB")


def test_detail_is_what_both_have_in_common() -> None:
    clean = np.asarray(face_picture("collins").resize((128, 128), Image.Resampling.LANCZOS))
    noise = np.random.default_rng(0).normal(0, 30, clean.shape)
    noisy = (clean + noise).clip(0, 255).astype(np.uint8)
    soft = np.asarray(Image.fromarray(clean).filter(ImageFilter.GaussianBlur(2)))
    detail, agreement = compared(clean, clean, 128)
    assert detail == pytest.approx(1) and agreement == pytest.approx(1)
    lost = compared(soft, clean, 128)[0]
    assert lost < 0.4
    assert compared(noisy, clean, 128)[0] == pytest.approx(1, abs=0.15)  # noise is no detail
    assert compared(noisy, clean, 128)[1] < 0.6
    assert compared(soft, clean, 32)[0] > lost + 0.25  # a photograph that is no finer lacks less
    flat = np.full_like(clean, 128)
    assert compared(flat, clean, 128)[0] == pytest.approx(0, abs=0.01)


def found_at(placement: Placement, score: float = 1.0) -> Face:
    """The face of a placement."""
    x, y = placement.middle
    half = placement.box / 2
    return Face((x - half, y - half, x + half, y + half), placement.points, score)


def sharpened(image: Image.Image) -> Image.Image:
    """A network that makes detail."""
    return image.filter(ImageFilter.UnsharpMask(2, 400, 0))


def two_faces() -> tuple[Image.Image, list[Face]]:
    """A large blurred face and a small sharp one."""
    blurred = face_picture("henner").filter(ImageFilter.GaussianBlur(6))
    placed = [Placement(blurred, (65, 65), 50), Placement(face_picture("biden"), (150, 60), 35)]
    return composed(smooth(210, 130), placed), [found_at(placement) for placement in placed]


def test_faces_are_restored_where_they_are_and_sharp_ones_left_alone() -> None:
    image, faces = two_faces()
    shown = []

    def network(square: Image.Image) -> Image.Image:
        shown.append(square)
        return square.filter(ImageFilter.GaussianBlur(0.7)) if len(shown) % 2 == 0 else sharpened(square)

    out, treated = restore_faces(image, faces, network, 64)
    assert [face.done for face in treated] == [RESTORED, SHARP]
    assert [square.size for square in shown] == [(64, 64)] * 2
    # What the network was shown is the face as it was trained on it.
    upright = np.asarray(face_picture("henner").filter(ImageFilter.GaussianBlur(6)).resize((64, 64)), float)
    assert np.abs(np.asarray(shown[0], float) - upright)[12:-12, 12:-12].mean() < 6
    before, after = np.asarray(image), np.asarray(out)
    side = 50 / BOX
    assert treated[0].side == pytest.approx(side)
    changed = (before != after).any(-1)
    assert changed[50:80, 50:80].mean() > 0.5
    assert not changed[:, int(65 + side / 2) + 1 :].any()
    _, everyone = restore_faces(image, faces, network, 64, Wanted(all_faces=True))
    assert [face.done for face in everyone] == [RESTORED, RESTORED]
    _, one = restore_faces(image, faces, network, 64, Wanted(all_faces=True, only_largest=True))
    assert [face.done for face in one] == [RESTORED, NOT_LARGEST]
    assert json.dumps([face.to_json() for face in one])


def test_a_larger_canvas_gets_the_faces_at_its_own_size() -> None:
    image, faces = two_faces()
    canvas = image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)
    white = Image.new("RGB", (64, 64), "white")
    out, _ = restore_faces(image, faces[:1], lambda square: white, 64, Wanted(all_faces=True), canvas)
    assert out.size == canvas.size
    assert out.getpixel((130, 130)) == (255, 255, 255)
    assert out.getpixel((130, 210)) != (255, 255, 255)
    assert np.array_equal(np.asarray(out)[:, 250:], np.asarray(canvas)[:, 250:])


# The command, with faces that are said to be somewhere.


class Said:
    """Finds what it was told."""

    faces: list[Face] = []
    looked = 0

    def __init__(self, threads: int | None = None) -> None:
        pass

    def find(self, image: Image.Image) -> list[Face]:
        Said.looked += 1
        return Said.faces


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> type[Said]:
    monkeypatch.setattr(photographs, "FaceFinder", Said)
    Said.faces, Said.looked = [], 0
    return Said


@pytest.fixture(scope="module")
def weights(restorer: Restorer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("weights")

    def make(task: str, **facts: str) -> Path:
        path = folder / f"{task}{'-'.join(facts.values())}.safetensors"
        save_weights(restorer, path, task=task, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, **facts)
        return path

    return make


def call(*arguments: object, task: str = "bfr", code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in (*arguments, "--task", task)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_a_picture_without_faces_keeps_its_bytes_and_the_command_says_so(
    said: type[Said], weights: Callable[..., Path], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    smooth(200, 90).save(tmp_path / "in.jpg", exif=exif, quality=70)
    tell = call(tmp_path / "in.jpg", tmp_path / "out.jpeg", "--weights", weights("bfr"))
    assert f"in.jpg: {NO_FACE}" in tell
    assert (tmp_path / "out.jpeg").read_bytes() == (tmp_path / "in.jpg").read_bytes()
    call(tmp_path / "in.jpg", tmp_path / "out.png", "--weights", weights("bfr"))
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "in.jpg"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(upright))
    assert said.looked == 2


def test_the_rest_of_a_photograph_keeps_its_bytes(
    said: type[Said], weights: Callable[..., Path], tmp_path: Path
) -> None:
    image, said.faces = two_faces()
    image.save(tmp_path / "in.png")
    report = tmp_path / "report.json"
    call(
        *(tmp_path / "in.png", tmp_path / "out.png", "--weights", weights("bfr")),
        *("--all-faces", "--only-largest", "--report", report),
    )
    out = Image.open(tmp_path / "out.png")
    changed = (np.asarray(out) != np.asarray(image)).any(-1)
    side = 50 / BOX / 2 + 1
    assert changed.any()
    changed[int(65 - side) : int(65 + side) + 1, int(65 - side) : int(65 + side) + 1] = False
    assert not changed.any()
    entry = json.loads(report.read_text())["files"][0]
    assert (entry["name"], entry["became"]) == ("in.png", "restored")
    assert [face["done"] for face in entry["faces"]] == [RESTORED, NOT_LARGEST]
    assert entry["faces"][0]["box"] == [40, 40, 90, 90]
    assert entry["faces"][0]["side"] == pytest.approx(50 / BOX, abs=0.01)
    assert "1 of 2 faces restored; 1 left: not the largest" in entry["notes"]


def test_a_smaller_margin_changes_less(
    said: type[Said], weights: Callable[..., Path], tmp_path: Path
) -> None:
    image, said.faces = two_faces()
    image.save(tmp_path / "in.png")
    changed = []
    for margin in (0, 1):
        call(
            *(tmp_path / "in.png", tmp_path / "out.png", "--weights", weights("bfr")),
            *("--all-faces", "--margin", margin),
        )
        changed.append(int((np.asarray(Image.open(tmp_path / "out.png")) != np.asarray(image)).any(-1).sum()))
    assert 0 < changed[0] < changed[1] / 2


def test_an_aligned_face_goes_straight_through(
    said: type[Said], weights: Callable[..., Path], tmp_path: Path
) -> None:
    smooth(SIZE, SIZE).save(tmp_path / "face.png")
    call(tmp_path / "face.png", tmp_path / "a.png", "--weights", weights("bfr"))
    smooth(96, 80).save(tmp_path / "other.png")
    call(tmp_path / "other.png", tmp_path / "b.png", "--weights", weights("bfr"), "--aligned")
    assert said.looked == 0
    for before, after in (("face.png", "a.png"), ("other.png", "b.png")):
        one, two = (np.asarray(Image.open(tmp_path / name)) for name in (before, after))
        assert one.shape == two.shape
        assert (one != two).mean() > 0.9


def test_photographs_are_refused_by_other_weights_for_faces(
    said: type[Said], weights: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    smooth(200, 90).save(folder / "a.png")
    smooth(SIZE, SIZE).save(folder / "b.png")
    inpainting = ("--weights", weights("inpainting"))
    tell = call(folder, tmp_path / "out", *inpainting, task="inpainting", code=2)
    assert "a.png: it is a whole photograph" in tell and "--anyway" in tell
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["b.png"]  # the face is restored
    call(folder, tmp_path / "out", *inpainting, "--anyway", task="inpainting")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png"]
    smooth(40, 32).save(tmp_path / "small.png")
    tell = call(tmp_path / "small.png", tmp_path / "large.png", "--weights", weights("sr"), task="sr", code=2)
    assert "these sr weights know aligned faces" in tell
    photos = weights("inpainting", domain="photo")
    call(folder / "a.png", tmp_path / "c.png", "--weights", photos, task="inpainting")
    assert said.looked == 0


def test_the_background_is_restored_with_weights_for_photographs(
    said: type[Said], weights: Callable[..., Path], tmp_path: Path
) -> None:
    image, said.faces = two_faces()
    image.save(tmp_path / "in.png")
    behind = weights("denoising", domain="photo")
    arguments = (tmp_path / "in.png", tmp_path / "out.png", "--weights", weights("bfr"), "--only-largest")
    call(*arguments, "--all-faces", "--background", behind)
    call(tmp_path / "in.png", tmp_path / "behind.png", "--weights", behind, task="denoising")
    out, alone_behind = (np.asarray(Image.open(tmp_path / name)) for name in ("out.png", "behind.png"))
    assert np.array_equal(out[:, 115:], alone_behind[:, 115:])
    assert not np.array_equal(out[50:80, 50:80], alone_behind[50:80, 50:80])
    said.faces = []
    tell = call(*arguments, "--background", behind)
    assert "no face found" in tell and "left as it is" not in tell
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), alone_behind)
    image.crop((0, 0, 60, 40)).save(tmp_path / "in.png")
    call(*arguments, "--background", weights("bsr"))
    assert Image.open(tmp_path / "out.png").size == (240, 160)
    tell = call(*arguments, "--background", weights("inpainting"), code=2)
    assert "is for aligned faces" in tell
    assert "no weights file" in call(*arguments, "--background", tmp_path / "none.safetensors", code=2)


MEASURED = """
import resource, sys
from pathlib import Path
from elir_mobile import photographs
from elir_mobile.faces.align import TEMPLATE
from elir_mobile.faces.detect import Face
from elir_mobile.photographs import Background, Handling, Restorer
from elir_mobile.restore import Job, Model, file_restorer, model_loader
from elir_mobile.tasks import PHOTO, get_task

class Copier:
    def restore(self, x, noise, **facts):
        return x, []

class Finder:
    def __init__(self, threads):
        pass
    def find(self, image):
        side = min(image.size)
        return [Face((0, 0, side, side), TEMPLATE * side, 1.0)]

photographs.FaceFinder = Finder
source, out, faces = sys.argv[1:]
behind = Model(Copier(), 1, 0.1, 256, 512, 16, 16, PHOTO, keeps_colors=True, keeps_grey=True)
handling = Handling(background=Background(get_task("denoising"), lambda: behind))
load = model_loader(get_task("bfr"), weights=faces)
make = lambda *those: Restorer(*those, handling)
outcome = file_restorer(load, get_task("bfr"), 0, maker=make)(Job(Path(source), Path(out)))
assert outcome.became == "restored", outcome
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_grows_by_few_bytes_a_pixel(weights: Callable[..., Path], tmp_path: Path) -> None:
    """A turned photograph with a face that fills it and a background: at 20 bytes a pixel, 48 megapixels take
    0.9 GiB more than a small picture."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    peaks = []
    for width, height in ((600, 400), (3000, 2000)):
        smooth(width, height).save(tmp_path / "in.jpg", exif=exif)
        files = (tmp_path / "in.jpg", tmp_path / f"{width}.jpg", weights("bfr"))
        command = [sys.executable, "-c", MEASURED, *map(str, files)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert (peaks[1] - peaks[0]) / (3000 * 2000 - 600 * 400) < 20


def test_a_bundle_restores_faces_as_weights_do(said: type[Said], micro_bundle: Path, tmp_path: Path) -> None:
    image, said.faces = two_faces()
    image.save(tmp_path / "in.png")
    chosen = ("--bundle", micro_bundle, "--target", "litert", "--precision", "fp32")
    call(tmp_path / "in.png", tmp_path / "out.png", *chosen, "--only-largest", "--all-faces")
    changed = (np.asarray(Image.open(tmp_path / "out.png")) != np.asarray(image)).any(-1)
    assert changed[50:80, 50:80].mean() > 0.9
    assert not changed[:, 115:].any()


def test_one_bad_file_does_not_cost_the_others(
    said: type[Said], weights: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image, said.faces = two_faces()
    image.save(folder / "good.png")
    (folder / "bad.jpg").write_text("no image")
    report = tmp_path / "report.json"
    options = ("--weights", weights("bfr"), "--all-faces", "--report", report)
    tell = call(folder, tmp_path / "out", *options, code=2)
    assert "bad.jpg" in tell
    assert [path.name for path in (tmp_path / "out").glob("*.*g")] == ["good.png"]
    listed = {entry["name"]: entry for entry in json.loads(report.read_text())["files"]}
    assert listed["bad.jpg"]["became"] == "failed" and listed["bad.jpg"]["faces"] is None
    assert len(listed["good.png"]["faces"]) == 2


def test_options_of_faces_are_refused_where_none_are_looked_for(tmp_path: Path, weights: Callable) -> None:
    smooth(64, 64).save(tmp_path / "in.png")
    paths = (tmp_path / "in.png", tmp_path / "out.png")
    for option in (("--all-faces",), ("--only-largest",), ("--margin", 0.5), ("--background", "denoising")):
        assert "looks for none" in call(*paths, "--aligned", *option, code=2)
        assert "does not look for them" in call(*paths, *option, task="sr", code=2)
    assert not (tmp_path / "out.png").exists()


def test_a_detector_that_cannot_be_had_is_one_sentence(
    weights: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "face-detection"
    folder.mkdir(parents=True)
    (folder / detect.DETECTOR).write_bytes(b"another one")
    smooth(200, 90).save(tmp_path / "in.png")
    tell = call(tmp_path / "in.png", tmp_path / "out.png", "--weights", weights("bfr"), code=2)
    assert f"is not the file of {detect.PACKAGE}: remove" in tell
    assert not (tmp_path / "out.png").exists()


# What the detector finds.


NAMES = [path.stem for path in sorted(BUNDLED.glob("faces/*/*.png"))]
SCENE = Image.fromarray(pictures.coffee()).resize((1200, 800), Image.Resampling.BICUBIC)


def matched(found: list[Face], placements: list[Placement]) -> list[Face | None]:
    """The face found for each placement: its points lie on it; each face once."""
    free, out = list(found), []
    for placement in placements:
        near = [
            (float(np.linalg.norm(face.points.mean(0) - placement.points.mean(0))) / placement.box, index)
            for index, face in enumerate(free)
        ]
        distance, index = min(near, default=(9.0, 0))
        out.append(free.pop(index) if distance < 0.3 else None)
    return out


def placed(names: list[str], box: float, angle: float = 0.0) -> list[Placement]:
    """Faces in rows."""
    step = max(150.0, 1.9 * box)
    across = int(1200 // step)
    return [
        Placement(
            face_picture(name),
            (step * (i % across + 0.5), step * (i // across + 0.5)),
            box,
            angle * (-1) ** i,
        )
        for i, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def true_points(finder: FaceFinder) -> dict[str, np.ndarray]:
    """The points of each bundled face, in squares of side 1."""
    found = {name: finder.find(face_picture(name)) for name in NAMES}
    assert all(len(faces) == 1 for faces in found.values())
    return {name: faces[0].points / 256 for name, faces in found.items()}


def test_bundled_faces_lie_as_the_template_says(true_points: dict[str, np.ndarray]) -> None:
    """The pictures that networks are calibrated and judged on are aligned as the finder aligns."""
    middle = np.mean(list(true_points.values()), 0)
    assert np.abs(middle[:2] - TEMPLATE[:2]).max() < 0.03
    assert scale_of(similarity(middle, TEMPLATE)) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("box", [28, 40, 64, 150, 300])
def test_faces_of_every_size_are_found(finder: FaceFinder, true_points: dict, box: int) -> None:
    names = NAMES if box < 200 else NAMES[4:6]
    placements = placed(names, box)
    found = finder.find(composed(SCENE, placements))
    assert len(found) == len(names)
    for name, placement, face in zip(names, placements, matched(found, placements), strict=True):
        assert face is not None, name
        expected = mapped(placement.matrix, true_points[name] * placement.face.width)
        assert np.linalg.norm(face.points - expected, axis=1).mean() / box < (0.1 if box < 60 else 0.05), name
        assert 0.6 < face.side / box < 1.5


def test_the_smallest_faces_are_found(finder: FaceFinder) -> None:
    """Of 24 pixels in six positions: 59 of 60 were found, and nothing else."""
    found = 0
    for shift in range(6):
        moved = [
            replace(one, middle=(one.middle[0] + 11.3 * shift, one.middle[1] + 7.7 * shift))
            for one in placed(NAMES, 24)
        ]
        faces = finder.find(composed(SCENE, moved))
        known = [face for face in matched(faces, moved) if face]
        assert len(known) == len(faces)
        assert all(0.6 < face.side / 24 < 1.5 for face in known)
        found += len(known)
    assert found >= 58


@pytest.mark.parametrize("angle", [15, 30, 45])
def test_turned_faces_are_found_upright(finder: FaceFinder, true_points: dict, angle: int) -> None:
    placements = placed(NAMES, 90, angle)
    found = finder.find(composed(SCENE, placements))
    assert len(found) == len(NAMES)
    for index, face in enumerate(matched(found, placements)):
        assert face is not None
        back = similarity(face.points, TEMPLATE)
        upright = similarity(true_points[NAMES[index]], TEMPLATE)
        turn = math.degrees(np.angle(complex(*upright[:, 0]) / complex(*back[:, 0])))
        assert abs(turn - angle * (-1) ** index) < 8, NAMES[index]


def test_thirty_faces_are_thirty(finder: FaceFinder) -> None:
    rng = np.random.default_rng(0)
    placements = [
        Placement(
            face_picture(NAMES[i % 10]),
            (100 + i % 6 * 200 + rng.uniform(-20, 20), 80 + i // 6 * 160 + rng.uniform(-10, 10)),
            float(rng.uniform(28, 72)),
            float(rng.uniform(-15, 15)),
        )
        for i in range(30)
    ]
    found = finder.find(composed(SCENE, placements))
    assert len(found) == 30
    assert all(matched(found, placements))
    assert [face.side for face in found] == sorted((face.side for face in found), reverse=True)


def test_faces_cut_by_the_edge_are_found(finder: FaceFinder) -> None:
    box = 120
    out = 0.18 * box / BOX
    middles = [(out, 300), (1200 - out, 300), (600, out), (600, 800 - out)]
    placements = [
        Placement(face_picture(name), middle, box)
        for name, middle in zip(("collins", "obama-2012", "giunchedi", "biden"), middles, strict=True)
    ]
    found = finder.find(composed(SCENE, placements))
    assert len(found) == 4
    assert all(matched(found, placements))


def test_a_profile_is_found(finder: FaceFinder, true_points: dict) -> None:
    for image in (face_picture("paumier"), ImageOps.mirror(face_picture("paumier"))):
        placement = Placement(image, (600, 400), 100)
        (face,) = finder.find(composed(SCENE, [placement]))
        assert matched([face], [placement]) == [face]
        square = similarity(face.points, TEMPLATE)
        assert 1 / scale_of(square) == pytest.approx(100 / BOX, rel=0.3)


def test_a_sideways_camera_is_no_hindrance(
    finder: FaceFinder, weights: Callable[..., Path], tmp_path: Path
) -> None:
    placement = Placement(face_picture("collins").filter(ImageFilter.GaussianBlur(3)), (150, 200), 90)
    upright = composed(SCENE.resize((400, 300)), [placement])
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn clockwise to see it upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in.png", exif=exif)
    report = tmp_path / "report.json"
    call(
        *(tmp_path / "in.png", tmp_path / "out.png", "--weights", weights("bfr")),
        *("--all-faces", "--report", report),
    )
    (face,) = json.loads(report.read_text())["files"][0]["faces"]
    assert np.linalg.norm(np.mean(face["points"], 0) - placement.points.mean(0)) < 12
    out = np.asarray(Image.open(tmp_path / "out.png"))
    assert out.shape[:2] == (300, 400)
    assert np.array_equal(out[:, 260:], np.asarray(upright)[:, 260:])


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "retina", "immunohistochemistry"])
def test_nothing_is_found_where_there_is_no_face(finder: FaceFinder, name: str) -> None:
    try:
        image = Image.fromarray(getattr(pictures, name)()).convert("RGB")
    except (ModuleNotFoundError, OSError):  # scikit-image fetches some of its pictures
        pytest.skip(f"scikit-image has no {name} here")
    assert finder.find(image) == []


def test_bundled_photographs_have_no_faces(finder: FaceFinder) -> None:
    for path in BUNDLED.glob("photos/*/*.png"):
        image = Image.open(path).convert("RGB")
        assert finder.find(image) == [], path.name
        assert finder.find(image.resize((600, 600), Image.Resampling.BICUBIC)) == [], path.name


def test_the_astronaut_has_one_face(finder: FaceFinder) -> None:
    (face,) = finder.find(Image.fromarray(pictures.astronaut()))
    left, top, right, bottom = face.box
    assert 170 < left < 195 and 50 < top < 90 and 255 < right < 285 and 160 < bottom < 195
    assert abs(face.points[0] - [204, 102]).max() < 5 and abs(face.points[1] - [247, 104]).max() < 5


def test_corners_enclose_a_picture() -> None:
    assert corners(3, 2).tolist() == [[0, 0], [3, 0], [3, 2], [0, 2]]
    assert FACE_ONLY.shape == (4,)
