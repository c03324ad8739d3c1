"""Any picture becomes upright 8-bit RGB; anything else is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elir_mobile.core.errors import UserError
from elir_mobile.images import (
    hstack_images,
    list_images,
    read_image,
    read_photo,
    square,
    to_image,
    to_tensor,
    vstack_images,
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
