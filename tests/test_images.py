"""Any picture becomes upright 8-bit RGB; anything else is refused in one sentence."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elir_mobile.core.errors import UserError
from elir_mobile.images import (
    FORMATS,
    HEIF_INSTALL,
    Reading,
    Source,
    has_heif,
    hstack_images,
    list_images,
    read_image,
    read_photo,
    readable,
    square,
    to_image,
    to_tensor,
    vstack_images,
    with_alpha,
)

GRADIENT = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(48, 0)


def read(tmp_path: Path, image: Image.Image, name: str = "x.png", **options: object) -> np.ndarray:
    image.save(tmp_path / name, **options)
    out = read_image(tmp_path / name)
    assert out.mode == "RGB"
    return np.asarray(out)


def test_greyscale_becomes_equal_channels(tmp_path: Path) -> None:
    out = read(tmp_path, Image.fromarray(GRADIENT))
    assert (out == GRADIENT[..., None]).all()


def test_16_bit_is_scaled_not_clipped(tmp_path: Path) -> None:
    out = read(tmp_path, Image.fromarray(GRADIENT.astype(np.uint16) * 257))
    assert (out == GRADIENT[..., None]).all()


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[:, :32] = (10, 20, 30, 255)
    out = read(tmp_path, Image.fromarray(rgba))
    assert (out[:, :32] == (10, 20, 30)).all()
    assert (out[:, 32:] == 255).all()


def test_palette_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((48, 64), np.uint8)).convert("P")
    assert (read(tmp_path, image, "x.gif", transparency=0) == 255).all()


def test_cmyk_is_converted(tmp_path: Path) -> None:
    rgb = Image.new("RGB", (64, 48), (200, 50, 50))
    out = read(tmp_path, rgb.convert("CMYK"), "x.jpg", quality=95)
    assert abs(out.astype(int) - (200, 50, 50)).max() <= 6


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to show
    assert read(tmp_path, Image.fromarray(GRADIENT), "x.jpg", exif=exif).shape == (64, 48, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_turned_photograph_keeps_its_other_tags(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "camera", "2020:01:01 00:00:00"
    path = tmp_path / f"x{suffix}"
    Image.fromarray(GRADIENT).convert("RGB").save(path, exif=exif)
    photo = read_photo(path)
    assert photo.image.size == (48, 64)
    assert dict(photo.metadata.exif) == {0x010F: "camera", 0x0132: "2020:01:01 00:00:00"}


def test_a_picture_without_tags_has_none(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT).save(tmp_path / "x.tif")
    assert read_photo(tmp_path / "x.tif").metadata.exif is None


def test_tiny_images_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="1×1: use images of at least 32 pixels"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match="not an image that can be read"):
        read_image(tmp_path / "x.png")


def test_truncated_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
        tmp_path / "x.png"
    )
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="not an image that can be read"):
        read_image(tmp_path / "x.png")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image folder"):
        list_images(tmp_path / "absent")
    (tmp_path / "readme.txt").write_text("none here")
    with pytest.raises(UserError, match="has no images"):
        list_images(tmp_path)


def refused(path: Path, **options: object) -> str:
    with pytest.raises(UserError) as error:
        read_photo(path, Reading(**options))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_range_is_the_modes_and_never_the_contents(tmp_path: Path) -> None:
    dark = GRADIENT.astype(np.uint16)  # at most 255 of 65535
    assert read(tmp_path, Image.fromarray(dark)).max() == 1
    assert read(tmp_path, Image.fromarray(dark), "x.tif").max() == 1
    twelve = GRADIENT.astype(np.uint16) * 16 + 15
    Image.fromarray(twelve).save(tmp_path / "x.tif")
    whole = np.asarray(read_photo(tmp_path / "x.tif", Reading(range=(0, 4095))).image)
    assert np.abs(whole[..., 0].astype(int) - GRADIENT).max() <= 1


def test_twelve_bits_that_say_so_are_twelve_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 64).round().astype(np.uint16)[None].repeat(48, 0)
    pairs = values.reshape(-1, 2).astype(np.uint32)
    joined = (pairs[:, 0] << 12) | pairs[:, 1]
    packed = np.stack([joined >> 16, joined >> 8 & 255, joined & 255], 1).astype(np.uint8).tobytes()
    tags = {256: (4, 64), 257: (4, 48), 258: (3, 12), 259: (3, 1), 262: (3, 1), 273: (4, 200), 278: (4, 48)}
    tags[279] = (4, len(packed))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags))
    head += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items())
    (tmp_path / "x.tif").write_bytes((head + bytes(4)).ljust(200, b"\0") + packed)
    out = np.asarray(read_image(tmp_path / "x.tif"))
    assert np.abs(out[..., 0].astype(int) - GRADIENT).max() <= 1


def test_a_16_bit_tiff_whose_zero_is_white_is_turned_round(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(GRADIENT.astype(np.uint16) * 257).save(path, tiffinfo={262: 0})
    assert (np.asarray(read_image(path))[..., 0] == 255 - GRADIENT).all()


def test_float_values_want_a_range(tmp_path: Path) -> None:
    for white in (1.0, 255.0):
        Image.fromarray((GRADIENT / 255 * white).astype(np.float32)).save(tmp_path / "x.tif")
        assert "say which with --range" in refused(tmp_path / "x.tif")
        photo = read_photo(tmp_path / "x.tif", Reading(range=(0, white)))
        assert photo.grey
        assert (np.asarray(photo.image)[..., 0] == GRADIENT).all()
    broken = GRADIENT.astype(np.float32)
    broken[0, 0] = np.nan
    Image.fromarray(broken).save(tmp_path / "x.tif")
    assert "not finite" in refused(tmp_path / "x.tif", range=(0, 255))
    Image.fromarray(GRADIENT.astype(np.int32)).save(tmp_path / "x.tif")
    assert "32-bit values" in refused(tmp_path / "x.tif")


def test_hidden_colours_never_come_through(tmp_path: Path) -> None:
    """Whatever is under an alpha of 0, the picture, and what is written of it, is the same."""
    seen = []
    for hidden in ((0, 0, 0), (255, 0, 0)):
        rgba = np.full((48, 64, 4), (*hidden, 0), np.uint8)
        rgba[:, :32] = (10, 20, 30, 255)
        Image.fromarray(rgba).save(tmp_path / "x.png")
        photo = read_photo(tmp_path / "x.png", Reading(background=(0, 0, 255)))
        seen.append([np.asarray(photo.image), np.asarray(with_alpha(photo, photo.image, "PNG"))])
    for first, second in zip(*seen, strict=True):
        assert np.array_equal(first, second)
    assert (seen[0][0][:, 32:] == (0, 0, 255)).all()
    assert (seen[0][1][:, 32:] == (0, 0, 255, 0)).all()


def test_a_transparent_picture_looks_on_its_background_as_it_was_restored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (48, 64, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    photo = read_photo(tmp_path / "x.png")
    saved = with_alpha(photo, photo.image, "PNG")
    laid = Image.alpha_composite(Image.new("RGBA", saved.size, "white"), saved).convert("RGB")
    assert np.abs(np.asarray(laid, int) - np.asarray(photo.image)).max() <= 1
    opaque = rgba[..., 3] > 200
    assert np.abs(np.asarray(saved, int)[opaque][:, :3] - rgba[opaque][:, :3]).max() <= 2
    assert with_alpha(photo, photo.image, "JPEG") is photo.image


def test_one_value_of_a_16_bit_png_can_be_transparent(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT.astype(np.uint16) * 257).save(tmp_path / "x.png", transparency=0)
    photo = read_photo(tmp_path / "x.png")
    assert photo.alpha is not None
    assert (np.asarray(photo.alpha) == np.where(GRADIENT == 0, 0, 255)).all()
    assert (np.asarray(photo.image)[GRADIENT == 0] == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_stays_grey(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(GRADIENT)
    picture = Image.fromarray(GRADIENT.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    picture.save(tmp_path / "x.png")
    photo = read_photo(tmp_path / "x.png")
    for kind in ("PNG", "JPEG"):
        assert with_alpha(photo, photo.image, kind).mode == ("LA" if mode == "LA" and kind == "PNG" else "L")


def test_the_endings_of_each_format_are_pillows() -> None:
    known = Image.registered_extensions()
    for kind, suffixes in FORMATS.items():
        if kind != "HEIF":  # of a package that need not be here
            assert {s for s, name in known.items() if name == kind} - {".avifs"} == set(suffixes), kind


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n{} loop\n", b"\xd7\xcd\xc6\x9a"]
)
@pytest.mark.parametrize("suffix", [".png", ".eps", ".jpg"])
def test_no_interpreter_is_ever_started(tmp_path: Path, content: bytes, suffix: str, monkeypatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("an interpreter was started")

    monkeypatch.setattr("subprocess.check_call", started)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    (tmp_path / f"x{suffix}").write_bytes(content.ljust(100))
    assert "not an image that can be read" in refused(tmp_path / f"x{suffix}")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt"])
@pytest.mark.parametrize("before", [True, False])
def test_a_chunk_that_unpacks_to_very_much_costs_neither_memory_nor_the_picture(
    tmp_path: Path, name: bytes, before: bool
) -> None:
    packed = zlib.compress(bytes(80_000_000), 9)
    made = io.BytesIO()
    Image.fromarray(GRADIENT).save(made, "PNG")
    data = made.getvalue()
    at = 33 if before else len(data) - 12  # behind IHDR, or before IEND
    (tmp_path / "x.png").write_bytes(data[:at] + chunk(name, b"a\0\0" + packed) + data[at:])
    tracemalloc.start()
    photo = read_photo(tmp_path / "x.png")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert (np.asarray(photo.image)[..., 0] == GRADIENT).all()
    assert photo.metadata.icc_profile is None
    if before or name == b"zTXt":
        assert photo.notes == ("damaged or oversized metadata was left out",)


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("suffix", ["tif", "jpg", "png", "webp", "gif", "bmp"])
def test_a_damaged_file_is_a_picture_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, place: int, junk: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    made = io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = "camera"
    options = {} if suffix in ("gif", "bmp") else {"exif": exif}
    small = Image.fromarray(GRADIENT).convert("RGB")
    small.save(made, Image.registered_extensions()[f".{suffix}"], **options)
    data = made.getvalue()
    place %= len(data)
    path.write_bytes(data[:place] + junk + data[place + len(junk) :])
    try:
        assert read_photo(path).image.mode == "RGB"
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_each_picture_of_a_file_can_be_read(tmp_path: Path, suffix: str) -> None:
    shades = [Image.new("RGB", (48, 40), (40 * n, 0, 0)) for n in range(1, 5)]
    shades[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=shades[1:], duration=70)
    for index in range(4):
        photo = read_photo(tmp_path / f"x.{suffix}", frame=index)
        assert photo.frames == 4
        assert abs(photo.image.getpixel((5, 5))[0] - 40 * (index + 1)) <= 6
        assert photo.duration == (0 if suffix == "tif" else 70)


def test_a_training_set_reads_on_behind_a_damaged_picture(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for index, path in enumerate(paths):
        Image.new("RGB", (48, 40), (index * 50, 0, 0)).save(path)
    paths[1].write_bytes(b"cut")
    paths[3].unlink()
    told = []
    images = Source(paths, told.append)
    assert [images[index].getpixel((0, 0))[0] for index in (0, 1, 2, 3, 1)] == [0, 100, 100, 0, 100]
    assert [line.partition(" ")[2].split("/")[-1][:5] for line in told] == ["1.png", "3.png"]
    with pytest.raises(UserError, match="has no image that can be read"):
        Source(paths[1:2], told.append)[0]
    assert list(readable(paths, told.append)) == [paths[0], paths[2]]


def test_heic_is_read_where_it_can_be_and_named_where_not(tmp_path: Path) -> None:
    path = tmp_path / "x.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(60))
    Image.new("RGB", (48, 40)).save(tmp_path / "a.png")
    told = []
    listed = list_images(tmp_path, told.append)
    if has_heif():
        import pillow_heif

        pillow_heif.from_pillow(Image.new("RGB", (48, 40), "red")).save(path)
        assert listed == [tmp_path / "a.png", path]
        assert np.abs(np.asarray(read_image(path), int) - (255, 0, 0)).max() < 12
    else:
        assert listed == [tmp_path / "a.png"]
        assert told == [f"{tmp_path}, left out: HEIC, to be read after {HEIF_INSTALL} (1): x.heic"]
        assert HEIF_INSTALL in refused(path)


@given(st.integers(32, 90), st.integers(32, 90), st.integers(1, 64))
@settings(max_examples=25, deadline=None)
def test_square_has_the_asked_side(width: int, height: int, side: int) -> None:
    assert square(Image.new("RGB", (width, height)), side).size == (side, side)


@given(st.integers(0, 255))
def test_tensor_round_trip_is_exact(value: int) -> None:
    image = Image.new("RGB", (3, 2), (value, 255 - value, 0))
    assert np.array_equal(np.asarray(to_image(to_tensor(image))), np.asarray(image))
    assert to_tensor(image).shape == (3, 2, 3)


def test_values_outside_are_clipped() -> None:
    assert np.asarray(to_image(torch.full((3, 1, 1), 1.5))).max() == 255
    assert np.asarray(to_image(torch.full((3, 1, 1), -0.5))).max() == 0


def test_stacks_place_images_side_by_side_and_below() -> None:
    a, b = Image.new("RGB", (4, 3), "red"), Image.new("RGB", (5, 3), "blue")
    row = hstack_images([a, b], gap=1)
    assert row.size == (10, 3)
    assert (row.getpixel((0, 0)), row.getpixel((4, 0)), row.getpixel((5, 0))) == (
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
    )
    assert vstack_images([row, row], gap=1).size == (10, 7)
