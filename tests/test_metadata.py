"""Whatever a file says beside its colours, its picture is read, and what the next format holds is kept."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from elir_mobile.images import read_photo, save_options, with_alpha
from elir_mobile.metadata import fitting, read_metadata

# TIFF 6.0, section 2, and 13 of its Technical Note 1: type → bytes of a value.
TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
IFD0 = sorted({tag.value for tag in ExifTags.Base})
GPS = sorted({tag.value for tag in ExifTags.GPS})
MAKE = 0x010F
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def directory(entries: list[tuple[int, int, int, bytes]], start: int) -> bytes:
    """A little-endian IFD that lies at ``start``: tag, type, count and value of each entry."""
    data_at, head, data = start + 2 + 12 * len(entries) + 4, struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        head += struct.pack("<HHI", tag, kind, count)
        if len(value) <= 4:
            head += value.ljust(4, b"\0")
        else:
            head += struct.pack("<I", data_at + len(data))
            data += value
    return head + bytes(4) + data


def block(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0" + directory(sorted(entries), 8)


def entry(tag: int, kind: int, count: int = 1) -> tuple[int, int, int, bytes]:
    return tag, kind, count, (b"\x31\x00" * TYPES[kind] * count)[: TYPES[kind] * count]


def jpeg(exif: bytes) -> io.BytesIO:
    """A picture of 32 pixels with this EXIF, put in by hand: Pillow would not write it."""
    made = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 50, 50)).save(made, "JPEG")
    plain = made.getvalue()
    return io.BytesIO(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:])


@pytest.mark.parametrize("kind", TYPES)
def test_a_tag_of_any_type_is_read_and_written_or_left_out(kind: int) -> None:
    """Every tag of the first directory and of GPS, with every type, one value and three."""
    for count in (1, 3):
        for tag in IFD0:
            if tag == MAKE:
                continue
            picture = jpeg(block([(MAKE, 2, 4, b"Cam\0"), entry(tag, kind, count)]))
            with Image.open(picture, formats=["JPEG"]) as opened:
                metadata, orientation, _ = read_metadata(opened)
                opened.load()
            assert metadata.exif is not None and metadata.exif[MAKE] == "Cam", tag
            assert orientation == 1
        for tag in GPS:
            inner = block([(MAKE, 2, 4, b"Cam\0"), (ExifTags.IFD.GPSInfo, 4, 1, struct.pack("<I", 60))])
            inner = inner.ljust(66, b"\0") + directory([entry(tag, kind, count)], 60)
            with Image.open(jpeg(inner), formats=["JPEG"]) as opened:
                assert read_metadata(opened)[0].exif[MAKE] == "Cam"


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_all_mistyped_tags_together_cost_neither_the_picture_nor_the_good_tag(
    tmp_path: Path, kind: int, suffix: str
) -> None:
    tags = [entry(tag, kind) for tag in IFD0 if tag != MAKE]
    (tmp_path / "in.jpg").write_bytes(jpeg(block([*tags, (MAKE, 2, 4, b"Cam\0")])).getvalue())
    photo = read_photo(tmp_path / "in.jpg")
    options, _ = save_options(photo, tmp_path / f"out{suffix}", photo.image.size)
    with_alpha(photo, photo.image, options["format"]).save(tmp_path / f"out{suffix}", **options)
    with Image.open(tmp_path / f"out{suffix}") as out:
        assert out.getexif()[MAKE] == "Cam"
        assert np.abs(np.asarray(out.convert("RGB"), int) - (200, 50, 50)).max() < 8


def test_a_mistyped_tag_is_named(tmp_path: Path) -> None:
    ascii_resolution = [(282, 2, 3, b"72\0"), (283, 2, 3, b"72\0"), (296, 3, 1, b"\2\0")]
    (tmp_path / "x.jpg").write_bytes(jpeg(block(ascii_resolution)).getvalue())
    photo = read_photo(tmp_path / "x.jpg")
    assert photo.notes == ("EXIF XResolution, YResolution left out: not as EXIF has it",)
    assert dict(photo.metadata.exif) == {296: 2}
    (tmp_path / "x.jpg").write_bytes(jpeg(block([(274, 4, 1, struct.pack("<I", 1 << 20))])).getvalue())
    photo = read_photo(tmp_path / "x.jpg")
    assert photo.notes == ("EXIF Orientation left out: not as EXIF has it",)


@pytest.mark.parametrize("cut", range(6, 40, 3))
def test_a_block_that_breaks_off_costs_nothing_but_itself(tmp_path: Path, cut: int) -> None:
    whole = block([(MAKE, 2, 4, b"Cam\0"), (306, 2, 20, b"2020:01:01 00:00:00\0")])
    (tmp_path / "x.jpg").write_bytes(jpeg(whole[:cut]).getvalue())
    assert read_photo(tmp_path / "x.jpg").image.size == (32, 32)


def tagged(size: int) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE] = "Cam"
    exif[ExifTags.IFD.Exif] = {0x9003: "2020:01:01 00:00:00", 0x927C: b"m" * size, 0x9286: b"c" * 200}
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (48.0, 8.0, 0.5)}
    return exif


def saved(picture: Image.Image, path: Path, **options: object) -> Image.Image:
    picture.save(path, **options)
    photo = read_photo(path)
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        out = path.with_name(f"out{suffix}")
        chosen, _ = save_options(photo, out, photo.image.size)
        with_alpha(photo, photo.image, chosen["format"]).save(out, **chosen)
    return photo


def test_resolution_profile_and_xmp_are_kept_where_the_format_can(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" b="c"/></x:xmpmeta>'
    options = {"dpi": (300, 300), "icc_profile": SRGB, "xmp": xmp, "exif": tagged(10)}
    saved(Image.new("RGB", (48, 40), "red"), tmp_path / "x.jpg", **options)
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        with Image.open(tmp_path / f"out{suffix}") as out:
            out.load()
            assert out.info["icc_profile"] == SRGB
            exif = out.getexif()
            assert exif[MAKE] == "Cam"
            assert exif.get_ifd(ExifTags.IFD.Exif)[0x9003] == "2020:01:01 00:00:00"
            assert exif.get_ifd(ExifTags.IFD.GPSInfo)[2] == (48.0, 8.0, 0.5)
            kept = out.info.get("xmp") or out.info.get("XML:com.adobe.xmp")
            kept = kept.encode() if isinstance(kept, str) else kept
            assert kept == xmp.replace(b'tiff:Orientation="6"', b""), suffix  # it is applied
            if suffix in (".jpg", ".png", ".tif"):
                assert [round(float(v)) for v in out.info["dpi"]] == [300, 300]
            assert out.size == (48, 40) or suffix  # upright in each


def test_what_is_too_large_for_jpeg_leaves_the_rest(tmp_path: Path) -> None:
    photo = saved(Image.new("RGB", (48, 40), "red"), tmp_path / "x.png", exif=tagged(70_000))
    _, notes = save_options(photo, tmp_path / "out.jpg", (48, 40))
    assert notes == ["EXIF MakerNote left out: JPEG cannot hold that"]
    with Image.open(tmp_path / "out.jpg") as out:
        inside = out.getexif().get_ifd(ExifTags.IFD.Exif)
        assert set(inside) == {0x9003, 0x9286}
    with Image.open(tmp_path / "out.png") as out:
        assert len(out.getexif().get_ifd(ExifTags.IFD.Exif)[0x927C]) == 70_000


def test_many_small_tags_lose_the_largest_first() -> None:
    exif = Image.Exif()
    for tag in range(40_000, 40_040):
        exif[tag] = b"x" * (1000 + 50 * (tag - 40_000))
    with io.BytesIO() as buffer:
        Image.new("RGB", (32, 32)).save(buffer, "PNG", exif=exif.tobytes())
        with Image.open(buffer) as opened:
            metadata = read_metadata(opened)[0]
    options, notes = fitting(metadata, "JPEG", "RGB", {})
    kept = Image.Exif()
    kept.load(options["exif"])
    assert 0 < len(kept) < 40
    assert sorted(kept) == list(range(40_000, 40_000 + len(kept)))
    assert f"and {40 - len(kept) - 3} more left out" in notes[0]


def test_a_profile_of_other_colours_goes_and_a_grey_one_stays(tmp_path: Path) -> None:
    grey = bytearray(SRGB)
    grey[16:20] = b"GRAY"
    for mode, profile, kept in (("L", bytes(grey), True), ("L", SRGB, False), ("CMYK", SRGB, True)):
        Image.new(mode, (48, 40)).save(tmp_path / "x.tif", icc_profile=profile)
        options, _ = save_options(read_photo(tmp_path / "x.tif"), tmp_path / "y.png", (48, 40))
        assert (options.get("icc_profile") == profile) is kept, mode
