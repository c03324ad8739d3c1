"""Restoring photographs of any size: tiles, metadata, folders that go on, exported files, bad input."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageOps
from typer.testing import CliRunner

from elir_mobile.bundle import building, file_entry, task_facts, write_golden, write_manifest, write_table
from elir_mobile.checkpoints import absolute_weights, save_weights
from elir_mobile.cli.options import alone
from elir_mobile.cli.restore import main
from elir_mobile.colors import is_grey, keep_colors
from elir_mobile.core.errors import NO_MEMORY, UserError
from elir_mobile.data.pairs import BUNDLED
from elir_mobile.devices.process import WorkerProcess
from elir_mobile.evaluate import examples
from elir_mobile.images import RECORDS, list_images, to_image, to_tensor
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.precision import get_recipe
from elir_mobile.records import record_of, recorded, state
from elir_mobile.restore import Job, Model, file_restorer, load_float, plan, restore
from elir_mobile.runtimes.programs import open_programs
from elir_mobile.tasks import ALIGNED_FACE, PHOTO, TASKS, get_task
from export.programs import Programs, build_programs
from export.targets import TARGETS
from tests.conftest import SIGMA_S, SIZE, STEPS, TINY, eager_of

app = alone(main)


ORIENTATION, CAMERA = 0x0112, 0x0110


@pytest.fixture(scope="module")
def weights(restorer: Restorer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(restorer, path, task="bfr", size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    return path


def photo(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def call(*arguments: object, task: str = "bfr", code: int = 0) -> str:
    """The command on pictures that stand for aligned faces: tests/test_faces.py has whole photographs."""
    result = CliRunner().invoke(app, [str(a) for a in (*arguments, "--task", task, "--aligned")])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_a_picture_of_one_tile_is_the_networks_own_result(weights: Path) -> None:
    model, picture = load_float(get_task("bfr"), str(weights), None), photo(96, 64)
    told = []
    out = restore(picture, model, 3, lambda done, total: told.append((done, total)))
    noise = seeded_noise((1, 16, 8, 12), 3)
    expected = model.runner.restore(to_tensor(picture)[None], noise, steps=STEPS, sigma_s=SIGMA_S)[0]
    assert np.array_equal(np.asarray(out), np.asarray(to_image(expected[0])))
    assert told == [(1, 1)]


@pytest.mark.parametrize("size", [(33, 47), (64, 100), (130, 71)])
def test_any_size_comes_back_in_that_size(weights: Path, size: tuple[int, int]) -> None:
    model = load_float(get_task("bfr"), str(weights), 1, 64)
    picture = Image.new("RGB", size, (90, 120, 150))
    first, again, other = (np.asarray(restore(picture, model, s, lambda d, n: None)) for s in (0, 0, 1))
    assert first.shape == (size[1], size[0], 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


class PointwiseRunner:
    """Restores each pixel from itself and from its noise alone, so tiling must not show at all."""

    def restore(self, x: torch.Tensor, noise: torch.Tensor, *, steps: int, sigma_s: float, fidelity: float):
        assert x.shape[2:] == (noise.shape[2] * 8, noise.shape[3] * 8)
        assert max(x.shape[2:]) <= 64
        grain = torch.nn.functional.interpolate(noise[:, :3], scale_factor=8, mode="nearest")
        return 0.5 * x + 0.25 + sigma_s * grain, []


@settings(deadline=None, max_examples=40)
@given(st.integers(16, 200), st.integers(16, 200), st.sampled_from([(32, 0), (32, 16), (64, 0), (64, 32)]))
def test_every_pixel_is_covered_once_whatever_the_size(width: int, height: int, tiles: tuple) -> None:
    tile, multiple = tiles
    model = Model(PointwiseRunner(), 1, 0.03, tile, tile, multiple, 16, ALIGNED_FACE)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    told = []
    out = np.asarray(restore(Image.fromarray(pixels), model, 5, lambda *n: told.append(n)), float)
    units = [(multiple or tile) if side <= tile else 8 for side in (height, width)]
    padded = [-(-side // unit) * unit for side, unit in zip((height, width), units, strict=True)]
    noise = seeded_noise((1, 16, padded[0] // 8, padded[1] // 8), 5)[0, :3]
    grain = noise.repeat_interleave(8, 1).repeat_interleave(8, 2).permute(1, 2, 0).numpy()
    expected = (0.5 * pixels / 255 + 0.25 + 0.03 * grain[:height, :width]) * 255
    assert np.abs(out - expected.clip(0, 255)).max() <= 0.51  # rounding to bytes, nothing else
    assert [done for done, _ in told] == list(range(1, told[0][1] + 1))


def test_tiles_join_without_a_seam() -> None:
    """The trained network on a large picture: tiled and whole differ by less than one 8-bit step."""
    picture = Image.new("RGB", (768, 640))
    shown = [*sorted(BUNDLED.glob("faces/calibration/obama*")), *sorted(BUNDLED.glob("faces/*/[bc]*"))]
    for index, path in enumerate(shown):
        x, y = index % 3 * 256, index // 3 * 256
        picture.paste(Image.open(path), (x, y))
    picture.paste(ImageOps.mirror(picture.crop((0, 0, 768, 256))), (0, 384))
    picture = ImageChops.offset(picture, 90, 0)  # so that no portrait ends where a tile does
    whole, tiled = (
        np.asarray(restore(picture, load_float(get_task("bfr"), "demo", None, tile), 0, lambda d, n: None))
        for tile in (1024, 512)
    )
    difference = np.abs(whole.astype(float) - tiled)[32:-32, 32:-32]
    assert 0 < difference.mean() <= 1
    # Where tiles end nothing may jump: the difference is as smooth across the seams as elsewhere.
    jumps = np.abs(np.diff(whole.astype(float) - tiled, axis=1)).mean((0, 2))
    assert jumps[[255, 383, 511]].max() < 3 * np.median(jumps) + 0.5


class MoodyRunner(PointwiseRunner):
    """Makes every other tile lighter by so many 8-bit steps."""

    def __init__(self, by: float) -> None:
        self.by, self.calls = by, 0

    def restore(self, x: torch.Tensor, noise: torch.Tensor, **facts: float):
        self.calls += 1
        return super().restore(x, noise, **facts)[0] + self.calls % 2 * self.by / 255, []


def test_no_line_is_seen_on_a_smooth_gradient() -> None:
    """Tiles whose levels differ by four meet without a step of one."""
    across = np.linspace(60, 180, 160) * np.ones((60, 1))
    given = Image.fromarray(np.stack([across, across - 20, across + 30], -1).round().astype(np.uint8))

    def profile(by: float, keeps: bool) -> np.ndarray:
        model = Model(MoodyRunner(by), 1, 0.03, 64, 64, 16, 16, PHOTO, keeps_colors=keeps)
        return np.asarray(restore(given, model, 0, lambda done, total: None), float).mean((0, 2))

    before, after = (profile(4, keeps) - profile(0, keeps) for keeps in (False, True))
    assert np.ptp(before) > 3.5
    assert np.ptp(after.reshape(-1, 8).mean(1)) < 0.6
    assert 0 < after.mean() < 4


def test_metadata_and_alpha_outlive_the_restoration(weights: Path, tmp_path: Path) -> None:
    picture = photo(96, 64).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((96, 64)))
    exif = Image.Exif()
    exif[ORIENTATION], exif[CAMERA] = 6, "camera"  # 6: the camera was held upright
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "in.png", exif=exif, icc_profile=profile)
    call(tmp_path / "in.png", tmp_path / "out.png", "--weights", weights)
    with Image.open(tmp_path / "out.png") as out:
        out.load()
        assert out.size == (64, 96)
        assert ORIENTATION not in out.getexif()
        assert out.getexif()[CAMERA] == "camera"
        assert out.info["icc_profile"] == profile
        upright = ImageOps.exif_transpose(Image.open(tmp_path / "in.png"))
        assert np.array_equal(np.asarray(out.getchannel("A")), np.asarray(upright.getchannel("A")))
    call(tmp_path / "in.png", tmp_path / "out.jpg", "--weights", weights)
    with Image.open(tmp_path / "out.jpg") as out:
        assert out.mode == "RGB"
        assert out.getexif()[CAMERA] == "camera"


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16"])
def test_other_kinds_of_pictures_are_converted(weights: Path, tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode in ("CMYK", "I;16") else ".png"
    grey = photo(64, 64).convert("L")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        picture = grey.convert(mode)
    picture.save(tmp_path / f"in{suffix}")
    call(tmp_path / f"in{suffix}", tmp_path / "out.png", "--weights", weights)
    grey.convert("RGB").save(tmp_path / "rgb.png")
    call(tmp_path / "rgb.png", tmp_path / "expected.png", "--weights", weights)
    out, expected = (Image.open(tmp_path / name) for name in ("out.png", "expected.png"))
    assert out.mode == ("L" if mode in ("L", "I;16") else "RGB")
    difference = np.asarray(out.convert("RGB"), float) - np.asarray(expected, float)
    assert np.abs(difference).mean() < 3


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != RECORDS)


def test_a_stopped_folder_goes_on(weights: Path, tmp_path: Path, picture_folder: Path) -> None:
    out = tmp_path / "restored"
    call(picture_folder / "1.png", out / "1.png", "--weights", weights)
    before = (out / "1.png").stat().st_mtime_ns
    assert "1 of 3 are already in" in call(picture_folder, out, "--weights", weights).replace("\n", " ")
    assert names(out) == ["0.png", "1.png", "2.png"]
    assert (out / "1.png").stat().st_mtime_ns == before
    call(picture_folder, out, "--weights", weights, "--overwrite", "--compare")
    with Image.open(out / "1.png") as image, Image.open(out / "1-compare.png") as both:
        assert image.size == (96, 80)
        assert both.size == (2 * 96 + 2, 80)
        left, right = both.crop((0, 0, 96, 80)), both.crop((98, 0, 194, 80))
        assert np.array_equal(np.asarray(left), np.asarray(Image.open(picture_folder / "1.png")))
        assert np.array_equal(np.asarray(right), np.asarray(image))


def test_what_a_picture_was_made_from_decides_whether_it_is_done(
    weights: Path, restorer: Restorer, tmp_path: Path, picture_folder: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other.safetensors"
    facts = {"task": "bfr", "size": SIZE, "steps": STEPS, "sigma_s": SIGMA_S}
    call(picture_folder, out, "--weights", weights)
    made = {path.name: path.read_bytes() for path in list_images(out)}
    assert "3 of 3 are already" in call(picture_folder, out, "--weights", weights)
    shutil.copy(picture_folder / "2.png", picture_folder / "0.png")  # another source of the same name
    assert "2 of 3 are already" in call(picture_folder, out, "--weights", weights)
    assert (out / "0.png").read_bytes() == (out / "2.png").read_bytes() != made["0.png"]
    changed = copy.deepcopy(restorer)
    changed.dec.layers[-1].bias.data += 0.1
    save_weights(changed, other, **facts)
    for arguments in (("--weights", other), ("--weights", other, "--sigma-s", 0.5)):
        before = (out / "1.png").read_bytes()
        assert "already" not in call(picture_folder, out, *arguments)
        assert (out / "1.png").read_bytes() != before


def test_what_somebody_else_wrote_is_kept(weights: Path, tmp_path: Path, picture_folder: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.png").write_bytes(b"mine")
    assert "1.png is not what this command wrote" in refused(picture_folder, out, "--weights", weights)
    assert names(out) == ["0.png", "1.png", "2.png"]  # the others are made
    assert (out / "1.png").read_bytes() == b"mine"
    (out / "0.png").write_bytes(b"retouched")
    assert "0.png is not what this" in refused(picture_folder / "0.png", out / "0.png", "--weights", weights)
    call(picture_folder, out, "--weights", weights, "--overwrite")
    assert Image.open(out / "1.png").size == (96, 80)


def test_a_killed_run_knows_its_own_files(weights: Path, tmp_path: Path, picture_folder: Path) -> None:
    """Between the record and the renaming the older file still lies there."""
    out, facts = tmp_path / "x.png", {"kind": "restored", "seed": 1}
    with recorded(out, facts) as staged:
        staged.write_bytes(b"older")
    assert [state(out, facts), state(out, {**facts, "seed": 2})] == ["done", "stale"]
    with recorded(out, {**facts, "seed": 2}) as staged:
        staged.write_bytes(b"newer")
    out.write_bytes(b"older")
    assert state(out, {**facts, "seed": 2}) == "stale"
    out.unlink()
    assert state(out, facts) == "absent"


def test_a_record_names_what_the_file_replaced_if_that_was_another(tmp_path: Path) -> None:
    """Else two commands that write the same picture at once leave other records than one."""
    out = tmp_path / "x.png"
    before = []
    for content in (b"older", b"older", b"newer"):
        with recorded(out, {}) as staged:
            staged.write_bytes(content)
        before.append(record_of(out)["before"])
    assert before == [None, None, hashlib.sha256(b"older").hexdigest()]


def test_frames_of_a_film_start_from_one_noise_and_do_not_flicker(tmp_path: Path) -> None:
    """Equal frames give equal bytes; under fresh noise the result flickers less than the input, and less than
    half as much as with noise fields of their own."""
    still = Image.open(sorted(BUNDLED.glob("photos/*/*.png"))[0]).convert("RGB").crop((0, 0, 128, 128))
    noise = [np.random.default_rng(i).normal(0, 8, (128, 128, 3)) for i in range(4)]
    frames = [(np.asarray(still) + one).clip(0, 255).astype(np.uint8) for one in [*noise, noise[0]]]
    (tmp_path / "in").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "in" / f"{index:04}.png")
    call(tmp_path / "in", tmp_path / "out", "--weights", "demo", task="denoising")
    made = [np.asarray(Image.open(tmp_path / "out" / f"{index:04}.png")) for index in range(5)]
    assert np.array_equal(made[0], made[4])
    model = load_float(get_task("denoising"), "demo", None)
    apart = [restore(Image.fromarray(f), model, i, lambda d, n: None) for i, f in enumerate(frames[:4])]
    given, one, own = (float(np.std(some, axis=0).mean()) for some in (frames[:4], made[:4], apart))
    assert one < 0.5 * given
    assert one < 0.7 * own


def test_a_damaged_image_does_not_hold_up_the_others(
    weights: Path, tmp_path: Path, picture_folder: Path
) -> None:
    (picture_folder / "0.png").write_bytes((picture_folder / "0.png").read_bytes()[:200])
    (picture_folder / "note.jpg").write_text("no image")
    Image.fromarray(np.zeros((40, 40), np.float32)).save(picture_folder / "float.tif")
    said = refused(picture_folder, tmp_path / "out", "--weights", weights)
    for name in ("0.png is not an image", "note.jpg is not an image", "float.tif has float values"):
        assert name in said
    assert names(tmp_path / "out") == ["1.png", "2.png"]


def test_what_a_folder_has_besides_is_counted_and_said(
    weights: Path, tmp_path: Path, picture_folder: Path
) -> None:
    for name in ("._1.png", ".DS_Store", "Thumbs.db", "clip.mov"):
        (picture_folder / name).write_bytes(b"\0\5\26\7")
    (picture_folder / "album.png").mkdir()
    os.mkfifo(picture_folder / "pipe.png")
    (picture_folder / "loop.png").symlink_to("loop.png")
    picture = photo(64, 64)
    for name in ("x.gif", "x.jfif", "x.bmp", "x.jp2", "x.avif", "x.png", "y.tga"):
        picture.save(picture_folder / name)
    said = " ".join(call(picture_folder, tmp_path / "out", "--weights", weights).split())
    assert "hidden (3): .DS_Store, ._1.png, Thumbs.db" in said
    assert "folders (1): album.png" in said
    assert "of other formats (1): clip.mov" in said
    assert "no regular files (2): loop.png, pipe.png" in said
    made = ["0.png", "1.png", "2.png", "x.avif", "x.bmp", "x.gif.png", "x.jfif", "x.jp2", "x.png", "y.png"]
    assert names(tmp_path / "out") == made
    for path in list_images(tmp_path / "out"):
        with Image.open(path) as out:
            assert {".jfif": "JPEG", ".jp2": "JPEG2000"}.get(
                path.suffix, path.suffix[1:].upper()
            ) == out.format


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_an_error_and_no_black_picture(
    tmp_path: Path, picture_folder: Path, value: float
) -> None:
    class Broken(PointwiseRunner):
        def restore(self, x: torch.Tensor, noise: torch.Tensor, **loop: object):
            made = x.clone()
            made[0, 1, 3, 5] = value
            return made, []

    model = Model(Broken(), 1, 0.03, 64, 64, 0, 16, ALIGNED_FACE)
    work = file_restorer(lambda: model, get_task("bfr"), 0)
    outcome = work(Job(picture_folder / "0.png", tmp_path / "out.png"))
    assert outcome.became == "failed"
    assert "0.png: the model gives values that are not finite" in outcome.reason
    assert not (tmp_path / "out.png").exists()


def test_want_of_memory_is_one_files(tmp_path: Path, picture_folder: Path) -> None:
    class Full(PointwiseRunner):
        def restore(self, x: torch.Tensor, noise: torch.Tensor, **loop: object):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    model = Model(Full(), 1, 0.03, 64, 64, 0, 16, ALIGNED_FACE)
    outcome = file_restorer(lambda: model, get_task("bfr"), 0)(
        Job(picture_folder / "0.png", tmp_path / "o.png")
    )
    assert outcome.reason.endswith(f"0.png could not be restored: {NO_MEMORY}")


def test_what_the_format_cannot_hold_is_known_before_the_work(restorer: Restorer, tmp_path: Path) -> None:
    """An image of 2100 pixels is 16800 wide once super-resolution ×8 is done."""
    path = tmp_path / "tiny.safetensors"
    save_weights(restorer, path, task="sr", size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    Image.new("RGB", (2100, 32)).save(tmp_path / "wide.webp")

    class Unasked(PointwiseRunner):
        def restore(self, *_: object, **__: object):
            raise AssertionError("it was restored first")

    model = Model(Unasked(), 1, 0.03, 64, 64, 0, 16, ALIGNED_FACE)
    outcome = file_restorer(lambda: model, get_task("sr"), 0)(
        Job(tmp_path / "wide.webp", tmp_path / "o.webp")
    )
    assert "o.webp would be 16800×256, and WEBP holds 16383 pixels a side" in outcome.reason


def test_sigma_s_is_the_spread_of_the_noise(weights: Path, tmp_path: Path, picture_folder: Path) -> None:
    source, seen = picture_folder / "0.png", []
    for arguments in ((), ("--sigma-s", SIGMA_S), ("--sigma-s", 0), ("--sigma-s", 0, "--seed", 9)):
        call(source, tmp_path / "out.png", "--weights", weights, *arguments)
        seen.append((tmp_path / "out.png").read_bytes())
    own, same, none, unseeded = seen
    assert own == same != none == unseeded  # without noise its seed means nothing
    for value in ("nan", "inf", "-1"):
        call(source, tmp_path / "out.png", "--weights", weights, "--sigma-s", value, code=2)


@pytest.mark.parametrize("task", ["inpainting", "colorization"])
def test_a_grey_file_comes_back_grey_unless_colours_are_asked_for(
    restorer: Restorer, tmp_path: Path, task: str
) -> None:
    path = tmp_path / "tiny.safetensors"
    save_weights(restorer, path, task=task, size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    photo(64, 64).convert("L").save(tmp_path / "in.png")
    arguments = [tmp_path / "in.png", tmp_path / "out.png", "--task", task, "--weights", path]
    assert CliRunner().invoke(app, [str(a) for a in arguments]).exit_code == 0
    out = Image.open(tmp_path / "out.png")
    assert out.mode == ("RGB" if task == "colorization" else "L")
    assert is_grey(out.convert("RGB")) is (task != "colorization")


def test_every_picture_of_a_file_is_restored_where_the_format_holds_several(
    weights: Path, tmp_path: Path
) -> None:
    frames = [photo(64, 48), photo(64, 48).transpose(0), photo(64, 48).transpose(1)]
    frames[0].save(tmp_path / "in.webp", save_all=True, append_images=frames[1:], duration=80, lossless=True)
    said = call(tmp_path / "in.webp", tmp_path / "first.png", "--weights", weights)
    assert "in.webp: holds 3 pictures, and the first was restored" in " ".join(said.split())
    call(tmp_path / "in.webp", tmp_path / "all.png", "--weights", weights, "--frames", "all")
    with Image.open(tmp_path / "all.png") as made, Image.open(tmp_path / "first.png") as first:
        assert (made.n_frames, first.n_frames, made.info["duration"]) == (3, 1, 80)
        assert np.array_equal(np.asarray(made.convert("RGB")), np.asarray(first))
        for index, frame in enumerate(frames):
            frame.save(tmp_path / "one.png")
            call(tmp_path / "one.png", tmp_path / "alone.png", "--weights", weights)
            made.seek(index)
            assert np.array_equal(
                np.asarray(made.convert("RGB")), np.asarray(Image.open(tmp_path / "alone.png"))
            )
    said = refused(tmp_path / "in.webp", tmp_path / "all.jpg", "--weights", weights, "--frames", "all")
    assert "JPEG holds one picture, not 3" in said


@pytest.mark.parametrize("name", ["pipe.png", "device.png", "socket.png", "loop.png"])
def test_a_special_file_is_refused_at_once(weights: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("pipe"):
        os.mkfifo(path)
    elif name.startswith("device"):
        path.symlink_to("/dev/zero")
    elif name.startswith("socket"):
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
    else:
        path.symlink_to(path)
    assert name in refused(path, tmp_path / "out.png", "--weights", weights)


def test_comparisons_replace_nothing_and_have_names_of_their_own(
    weights: Path, tmp_path: Path, picture_folder: Path
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    photo(64, 64).save(photos / "a.jpg")
    photo(64, 64).convert("L").save(photos / "a.png")
    photo(64, 64).save(photos / "c-compare.png")
    original = (photos / "c-compare.png").read_bytes()
    said = refused(photos / "a.png", photos / "c.png", "--weights", weights, "--compare")
    assert "c-compare.png is not what this command wrote there" in said
    assert (photos / "c-compare.png").read_bytes() == original
    call(photos, out, "--weights", weights, "--compare")
    made = [
        "a.jpg",
        "a.jpg-compare.png",
        "a.png",
        "a.png-compare.png",
        "c-compare-compare.png",
        "c-compare.png",
    ]
    assert names(out) == made
    assert "comparisons (3)" in " ".join(call(out, tmp_path / "again", "--weights", weights).split())
    kept = ["a.jpg", "a.png", "c-compare.png"]
    assert [example.name for example in examples(photos, out)[0]] == kept
    shutil.rmtree(out / RECORDS)  # of an earlier version
    found, wrong = examples(photos, out)
    assert [example.name for example in found] == kept
    assert wrong == []


def test_no_two_outputs_have_one_name_and_none_is_an_original(tmp_path: Path, picture_folder: Path) -> None:
    for name in ("A.png", "a.png", "a.gif", "a.tga", "a-compare.png"):
        shutil.copy(picture_folder / "0.png", picture_folder / name)
    jobs = plan(picture_folder, tmp_path / "out", compare=True)
    places = [place.name for job in jobs for place in (job.out, job.comparison)]
    assert len({name.casefold() for name in places}) == len(places) == 16
    made = {job.source.name: job.out.name for job in jobs}
    assert made == {
        "0.png": "0.png", "1.png": "1.png", "2.png": "2.png", "A.png": "A.png",
        "a-compare.png": "a-compare.png",
        "a.png": "a.png.png", "a.gif": "a.gif.png", "a.tga": "a.tga.png",
    }  # fmt: skip
    assert plan(picture_folder / "a.gif", tmp_path)[0].out == tmp_path / "a.png"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0.png").symlink_to(picture_folder / "0.png")
    with pytest.raises(UserError, match="0.png is what is to be restored: name another place"):
        plan(picture_folder, tmp_path / "out")


@pytest.mark.parametrize(("name", "tail"), [("фото" * 31, ".jpg"), ("x" * 251, ".png"), ("я" * 120, ".gif")])
def test_names_as_long_as_there_are(weights: Path, tmp_path: Path, name: str, tail: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photo(64, 64).save(folder / f"{name}{tail}")
    call(folder, tmp_path / "out", "--weights", weights, "--compare")
    made = names(tmp_path / "out")
    assert len(made) == 2 and all(len(os.fsencode(one)) <= 255 for one in made)
    assert f"{name}{tail}" in made or tail == ".gif"
    assert "1 of 1 are already" in call(folder, tmp_path / "out", "--weights", weights, "--compare")


def test_originals_are_never_replaced(weights: Path, picture_folder: Path) -> None:
    before = (picture_folder / "0.png").read_bytes()
    for source, target in (("0.png", "0.png"), ("0.png", "."), (".", ".")):
        said = refused(picture_folder / source, picture_folder / target, "--weights", weights, "--overwrite")
        assert "name another place" in said
    assert (picture_folder / "0.png").read_bytes() == before


def test_super_resolution_enlarges(restorer: Restorer, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_weights(restorer, path, task="sr", size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    photo(40, 32).save(tmp_path / "in.png")
    arguments = [tmp_path / "in.png", tmp_path / "out.png", "--task", "sr", "--weights", path, "--aligned"]
    assert CliRunner().invoke(app, [str(a) for a in arguments]).exit_code == 0
    assert Image.open(tmp_path / "out.png").size == (320, 256)


def exported(programs: Programs, degraded: torch.Tensor, folder: Path) -> Path:
    """A bundle with one file of ``programs``."""
    with building(folder) as staging:
        path = staging / "bfr-fp32.pte"
        TARGETS["executorch"].lower(programs, get_recipe("fp32"), {}, path)
        write_manifest(
            staging,
            {
                **task_facts(get_task("bfr"), ALIGNED_FACE),
                **{"size": SIZE, "steps": STEPS, "sigma_s": SIGMA_S},
                "table": write_table(staging, programs.table),
                "golden": write_golden(staging, eager_of(programs), degraded, STEPS, SIGMA_S),
                "files": [file_entry(staging, path, target="executorch", precision="fp32")],
            },
        )
    return folder


@pytest.fixture(scope="module")
def bundle(programs: Programs, degraded: list[torch.Tensor], tmp_path_factory) -> Path:
    return exported(programs, degraded[0], tmp_path_factory.mktemp("bundles") / "bfr-tiny")


@pytest.mark.lowering
def test_an_exported_file_restores_as_the_float_model(bundle: Path, weights: Path, tmp_path: Path) -> None:
    photo(112, 80).save(tmp_path / "in.png")
    call(tmp_path / "in.png", tmp_path / "pte.png", "--bundle", bundle)  # its one file is advised
    call(tmp_path / "in.png", tmp_path / "eager.png", "--weights", weights, "--tile", SIZE)
    pte, eager = (np.asarray(Image.open(tmp_path / n), float) for n in ("pte.png", "eager.png"))
    assert pte.shape == (80, 112, 3)
    assert np.abs(pte - eager).max() <= 2  # the weights file is in float16
    assert "exported with 2 steps" in refused(
        tmp_path / "in.png", tmp_path / "no.png", "--bundle", bundle, "--steps", 3
    )
    assert "no exported file at w8a8: it has executorch fp32" in refused(
        tmp_path / "in.png", tmp_path / "no.png", "--bundle", bundle, "--precision", "w8a8"
    )


@pytest.mark.lowering
def test_a_latent_of_four_channels_restores_in_float_and_exported(
    degraded: list[torch.Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shallow = replace(TINY, latent_channels=4, autoencoder="half", ch_mult=(1,), n_mid_blocks=0)
    narrow = Restorer(shallow).eval().requires_grad_(False)
    facts = {"size": SIZE, "steps": STEPS, "sigma_s": SIGMA_S}
    save_weights(narrow, tmp_path / "four.safetensors", task="bfr", **facts, dtype=torch.float32)
    bundle = exported(build_programs(narrow, **facts), degraded[0], tmp_path / "bfr-four")
    photo(112, 80).save(tmp_path / "in.png")
    call(tmp_path / "in.png", tmp_path / "pte.png", "--bundle", bundle, "--precision", "fp32")
    four = ("--weights", tmp_path / "four.safetensors", "--tile", SIZE)
    call(tmp_path / "in.png", tmp_path / "eager.png", *four)
    pte, eager = (np.asarray(Image.open(tmp_path / n), float) for n in ("pte.png", "eager.png"))
    assert np.abs(pte - eager).max() <= 1


def test_what_would_be_ignored_is_refused(picture_folder: Path, tmp_path: Path) -> None:
    picture, out = picture_folder / "0.png", tmp_path / "out.png"
    for arguments, sentence in (
        (("--bundle", tmp_path, "--weights", "demo"), "--weights is of the float model"),
        (("--bundle", tmp_path, "--tile", 512), "--tile is of the float model"),
        (("--precision", "w8a8"), "--precision chooses a file of --bundle"),
        (("--target", "litert"), "--target chooses a file of --bundle"),
        (("--workers", 2), "--workers is of --engine ray"),
    ):
        assert sentence in refused(picture, out, *arguments)
    assert not out.exists()


def test_a_folder_called_demo_does_not_hide_the_demo_weights(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    call(picture_folder / "0.png", "out.png", "--weights", "demo", "--steps", 1)
    assert (tmp_path / "out.png").exists()
    assert absolute_weights("released") == "released"
    assert absolute_weights("https://host/a.pth") == "https://host/a.pth"
    assert absolute_weights("./demo") == str(tmp_path / "demo")


@pytest.mark.lowering
def test_threads_reach_the_runtime_and_the_float_model(
    bundle: Path, weights: Path, picture_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    from executorch.extension.pybindings import portable_lib

    asked = []

    def noted(worker: WorkerProcess, do: str, *arrays: np.ndarray, **arguments) -> tuple:
        if do == "load":
            asked.append(arguments)
        return exchange(worker, do, *arrays, **arguments)

    exchange = WorkerProcess.exchange
    monkeypatch.setattr(WorkerProcess, "exchange", noted)
    before, picture, out = torch.get_num_threads(), picture_folder / "0.png", tmp_path / "out.png"
    try:
        for threads in (2, 1):
            call(picture, out, "--bundle", bundle, "--precision", "fp32", "--threads", threads)
            assert asked[-1]["threads"] == threads
            # What the worker does with it.
            open_programs(asked[-1]["target"], Path(asked[-1]["path"]), threads)
            assert portable_lib._threadpool_get_thread_count() == threads
            call(picture, out, "--weights", weights, "--threads", threads)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def refused(*arguments: object) -> str:
    return " ".join(call(*arguments, code=2).split())


def test_bad_input_is_one_sentence(weights: Path, tmp_path: Path, picture_folder: Path) -> None:
    picture, out = picture_folder / "0.png", tmp_path / "out.png"
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert "no image or folder at" in refused(tmp_path / "none.png", out)
    assert "not an image that can be read" in refused(tmp_path / "text.png", out, "--weights", weights)
    assert "1×1" in refused(tmp_path / "dot.png", out, "--weights", weights)
    assert "is no image name" in refused(picture, tmp_path / "out.doc", "--weights", weights)
    assert "use a multiple of" in refused(picture, out, "--weights", weights, "--tile", 100)
    assert "is not a bundle" in refused(picture, out, "--bundle", tmp_path)
    below = weights / "out.png"
    assert "cannot write" in refused(picture, below, "--weights", weights)
    assert not out.exists()
    assert not list(tmp_path.rglob("*.part"))


def test_noise_seed_and_steps_reach_the_model(weights: Path, tmp_path: Path, picture_folder: Path) -> None:
    outs = []
    for arguments in ((), ("--seed", 1), ("--steps", 5)):
        call(picture_folder / "0.png", tmp_path / "out.png", "--weights", weights, *arguments)
        outs.append(to_tensor(Image.open(tmp_path / "out.png")))
    assert not torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_fidelity_goes_from_the_sample_to_the_coarse_estimate(weights: Path) -> None:
    picture, noise = to_tensor(photo(64, 64))[None], seeded_noise((1, 16, 8, 8), 0)
    model = load_float(get_task("bfr"), str(weights), None)
    run, loop = model.runner, {"steps": STEPS, "sigma_s": SIGMA_S}
    coarse = run.encode(picture)
    sample, path = run.restore(picture, noise, **loop)
    half, _ = run.restore(picture, noise, fidelity=0.5, **loop)
    whole, short = run.restore(picture, noise, fidelity=1.0, **loop)
    assert torch.equal(sample, run.decode(path[-1]))
    assert torch.allclose(half, run.decode(path[-1] + 0.5 * (coarse - path[-1])), atol=1e-6)
    assert torch.equal(whole, run.decode(coarse))
    assert len(short) == 1  # no step was computed


def test_the_command_restores_with_fidelity_and_colors(weights: Path, tmp_path: Path) -> None:
    picture = photo(64, 64)
    picture.save(tmp_path / "in.png")
    made = {}
    for name, options in (
        ("kept", ()),
        ("sample", ("--no-keep-colors",)),
        ("coarse", ("--no-keep-colors", "--fidelity", 1)),
    ):
        call(tmp_path / "in.png", tmp_path / f"{name}.png", "--weights", weights, *options)
        made[name] = Image.open(tmp_path / f"{name}.png").convert("RGB")
    model = load_float(get_task("bfr"), str(weights), None)
    for fidelity, name in ((0.0, "sample"), (1.0, "coarse")):
        expected = restore(picture, replace(model, fidelity=fidelity), 0, lambda done, total: None)
        assert np.array_equal(np.asarray(made[name]), np.asarray(expected)), name
    assert (
        made["kept"].tobytes() == keep_colors(made["sample"], picture).tobytes() != made["sample"].tobytes()
    )
    said = call(tmp_path / "in.png", tmp_path / "no.png", "--fidelity", 2, code=2)
    assert "less than or equal to 1" in said


def chroma(image: Image.Image) -> np.ndarray:
    """Mean Cb and Cr of each square of 32 pixels."""
    small = image.resize((image.width // 32, image.height // 32), Image.Resampling.BOX).convert("YCbCr")
    return np.asarray(small)[..., 1:].astype(float)


def test_colors_are_the_inputs_and_detail_the_restorers() -> None:
    given = photo(256, 192)
    rng = np.random.default_rng(1)
    detail = rng.integers(-20, 20, (192, 256, 1))
    tinted = np.asarray(given).astype(int) * [1.0, 0.8, 1.15] + [12, 0, -8] + detail
    restored = Image.fromarray(tinted.clip(0, 255).astype(np.uint8))
    kept = keep_colors(restored, given)
    before, after = (np.abs(chroma(image) - chroma(given)).mean() for image in (restored, kept))
    assert before > 8
    assert after < 1.5
    luma = [np.asarray(image.convert("L")).astype(float) for image in (restored, kept)]
    assert np.abs(luma[0] - luma[1]).mean() < 2  # light and detail stay


def test_a_grey_picture_stays_grey() -> None:
    grey = photo(64, 96).convert("L").convert("RGB")
    tinted = Image.merge("RGB", [grey.split()[0].point(lambda v, k=k: v * k) for k in (1.0, 0.9, 0.7)])
    kept = np.asarray(keep_colors(tinted, grey))
    assert (kept[..., 0] == kept[..., 1]).all() and (kept[..., 1] == kept[..., 2]).all()


def test_missing_pixels_and_grey_inputs_give_no_colors() -> None:
    assert {name for name, task in TASKS.items() if not task.keeps_colors} == {
        "inpainting", "colorization", "mask",
    }  # fmt: skip
