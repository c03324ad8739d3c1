"""Pictures in and out: files to tensors, tensors to pictures, rows and columns of pictures.

What a file holds is trusted as little as its name: it is opened by the decoders of :data:`FORMATS` alone,
none of which runs what is in a file, as PostScript's does. Whatever is wrong with one file is one sentence.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from elir_mobile.core.errors import UserError, say
from elir_mobile.core.files import opened
from elir_mobile.metadata import Metadata, fitting, read_metadata

# The formats that are read, by Pillow's names, and the endings of their files. Those that Pillow writes come
# first; of what is read from the others, a picture is written as PNG.
WRITTEN: dict[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "BMP": (".bmp",),
}
FORMATS: dict[str, tuple[str, ...]] = {
    **WRITTEN,
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
    "GIF": (".gif",),
    "MPO": (".mpo",),
    "PSD": (".psd",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "PCX": (".pcx",),
    "DIB": (".dib",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "QOI": (".qoi",),
    "ICO": (".ico",),
}
SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}
WRITTEN_SUFFIXES = {suffix: kind for kind, suffixes in WRITTEN.items() for suffix in suffixes}
HEIF_INSTALL = "pip install 'elir-mobile[heif]'"
MIN_SIDE = 32  # below this nothing is left to restore
# The longest side that a format holds, pixels: RFC 9649, section 2.6; libjpeg's JPEG_MAX_DIMENSION; libavif
# reads no larger ones (avif.h: AVIF_DEFAULT_IMAGE_DIMENSION_LIMIT).
MAX_SIDE = {"WEBP": 16383, "JPEG": 65500, "AVIF": 32768}
OPAQUE = ("JPEG", "BMP")  # formats without alpha
FRAMED = ("PNG", "WEBP", "TIFF", "AVIF")  # that hold several pictures
QUALITY = 95  # of JPEG, WebP and AVIF
WHITE = (255, 255, 255)
RECORDS = ".elir-mobile"  # the folder of what was written beside it, see records.py
_ANIMATED = {"GIF", "PNG", "WEBP", "AVIF", "TIFF", "MPO", "HEIF"}  # a PSD's frames are its layers
_HIDDEN = {"thumbs.db", "desktop.ini"}
_HEADS = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # the chunks that the colours come from
_JPEG_PIXELS = {0xE0, 0xE2, 0xEE}  # JFIF, the ICC profile, Adobe's colour transform
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF 3.0, Orientation


@dataclass(frozen=True)
class Reading:
    """How pictures are read that do not say it themselves.

    Attributes:
        range: the values of black and of white in pictures of more than 8 bits; None: what their mode says.
        background: the colour that transparent pixels are laid on, RGB.
    """

    range: tuple[float, float] | None = None
    background: tuple[int, int, int] = WHITE


AS_STORED = Reading()


@dataclass(frozen=True)
class Photo:
    """An upright picture and what its file said beside the colours.

    Attributes:
        image: 8-bit RGB; of a transparent picture as it looks on ``background``.
        alpha: 8-bit greyscale, or nothing.
        metadata: that can be kept.
        grey: whether the file had no colours at all, rather than colours that are grey.
        background: RGB.
        frames: how many pictures the file holds.
        duration: of this one in an animation, milliseconds.
        notes: on what was left out of it.
    """

    image: Image.Image
    alpha: Image.Image | None = None
    metadata: Metadata = Metadata()
    grey: bool = False
    background: tuple[int, int, int] = WHITE
    frames: int = 1
    duration: float = 0
    notes: tuple[str, ...] = ()


def read_photo(path: Path, reading: Reading = AS_STORED, frame: int = 0) -> Photo:
    """An image file of any kind; greyscale, 16-bit, palette and CMYK images become 8-bit RGB.

    Args:
        frame: which of the file's pictures.

    Raises:
        UserError: not an image, damaged, a side under ``MIN_SIDE`` pixels, or of a range that is not known.
    """
    with opened(path) as file:
        try:
            with warnings.catch_warnings():
                # Of what Pillow warns of, tags are in the notes; large pictures are meant.
                warnings.simplefilter("ignore")
                photo = _decoded(file, path, reading, frame)
        except UserError:
            raise
        except Image.DecompressionBombError as error:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
            raise UserError(f"{path} has more than {most} million pixels: make it smaller") from error
        except Exception as error:  # decoders have no error of their own
            raise UserError(_unreadable(path, file, error)) from error
    if min(photo.image.size) < MIN_SIDE:
        width, height = photo.image.size
        raise UserError(f"{path} is {width}×{height}: use images of at least {MIN_SIDE} pixels a side")
    return photo


def _unreadable(path: Path, file: BinaryIO, error: Exception) -> str:
    file.seek(0)
    brand = file.read(12)[4:]
    if brand[:4] == b"ftyp" and brand[4:7] != b"avi" and not has_heif():
        return f"{path} cannot be read here: for HEIC, {HEIF_INSTALL}"
    # A decoder's own words say what is wrong with a file that is an image after all.
    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({str(error) or type(error).__name__})"
    return f"{path} is not an image that can be read{reason}: replace or remove it"


@lru_cache(maxsize=1)
def has_heif() -> bool:
    """Whether HEIC can be read; if so, Pillow knows how from now on."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@lru_cache(maxsize=1)
def _decoders() -> list[str]:
    """Those of ``FORMATS`` that this Pillow has."""
    has_heif()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _decoded(file: BinaryIO, path: Path, reading: Reading, frame: int) -> Photo:
    try:
        return _decoded_by(_decoders(), file, path, reading, frame)
    except (UserError, Image.DecompressionBombError):
        raise
    except Exception:  # perhaps for what lies beside the pixels: too large when it is unpacked, or mistyped
        file.seek(0)
        start = file.read(8)
        kind = next((name for name, head in _HEADS.items() if start.startswith(head)), None)
        if kind is None:
            raise
        file.seek(0)
        pixels, exif = (_png_pixels if kind == "PNG" else _jpeg_pixels)(file.read())
        photo = _decoded_by([kind], io.BytesIO(pixels), path, reading, frame, exif)
        return replace(photo, notes=("damaged or oversized metadata was left out", *photo.notes))


def _decoded_by(
    formats: list[str], file: IO[bytes], path: Path, reading: Reading, frame: int, exif: bytes = b""
) -> Photo:
    image = Image.open(file, formats=formats)
    if exif:
        image.info["exif"] = exif
    with image:
        frames = _frames(image)
        image.seek(frame)
        if image.format != "TIFF":  # which loses its tags with that
            image.load()
        metadata, orientation, notes = read_metadata(image)
        duration = image.info.get("duration", 0)
        known = _range(image, reading, path)
        image.load()
        grey = image.mode in ("1", "L", "LA", "La") or known is not None
        shown, alpha = _eight_bits(image, known, path)
    colours, alpha = _on(shown, alpha, reading.background)
    if orientation in _TURNED:
        colours = colours.transpose(_TURNED[orientation])
        alpha = alpha and alpha.transpose(_TURNED[orientation])
    return Photo(
        colours,
        alpha,
        metadata,
        grey,
        reading.background,
        frames,
        float(duration) if isinstance(duration, (int, float)) else 0,
        tuple(notes),
    )


def _png_pixels(data: bytes) -> tuple[bytes, bytes]:
    """A PNG file with what its colours come from alone (PNG, third edition, section 5.3), and no EXIF."""
    kept, place = [_HEADS["PNG"]], len(_HEADS["PNG"])
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name in _PNG_PIXELS:
            kept.append(data[place : place + length + 12])
        place += length + 12
    return b"".join(kept), b""


def _jpeg_pixels(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG file without most application segments (ITU-T T.81, annex B), and its EXIF."""
    kept, place, exif = [data[:2]], 2, b""
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:  # up to the scan
        marker, length = struct.unpack_from(">xBH", data, place)
        end = place + length + 2
        if marker == 0xE1 and data.startswith(b"Exif\0\0", place + 4):
            exif = data[place + 4 : end]
        elif not 0xE0 <= marker <= 0xEF or marker in _JPEG_PIXELS:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]]), exif


def _frames(image: Image.Image) -> int:
    if image.format not in _ANIMATED:
        return 1
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # a damaged frame behind the first
        return 1


def _range(image: Image.Image, reading: Reading, path: Path) -> tuple[float, float] | None:
    """Black and white of a picture of more than 8 bits, by its mode; None for 8 bits.

    Never by its values: a dark picture is dark.

    Raises:
        UserError: its mode does not say, and ``reading`` neither.
    """
    wide = image.mode.startswith("I;16")
    if not wide and image.mode not in ("I", "F"):
        return None
    if reading.range:
        return reading.range
    if wide:
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(258, (16,))  # BitsPerSample
        white = 2.0 ** (bits[0] if isinstance(bits, tuple) else bits) - 1
        # Where 0 is white (PhotometricInterpretation), Pillow turns 8-bit values round, but no wider ones.
        return (white, 0) if tags.get(262) == 0 else (0, white)
    if image.mode == "I" and image.format == "PPM":
        return 0, 65535  # Pillow scales all PGM of more than 8 bits to this
    what = "float values" if image.mode == "F" else "32-bit values"
    raise UserError(f"{path} has {what} of an unknown range: say which with --range BLACK..WHITE")


def _eight_bits(
    image: Image.Image, known: tuple[float, float] | None, path: Path
) -> tuple[Image.Image, Image.Image | None]:
    """RGB or greyscale and alpha of 8 bits each.

    Raises:
        UserError: a value is not finite.
    """
    if known is None:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return image.convert("RGB"), image.getchannel("A")
        return image.convert("RGB"), None
    values, (black, white) = np.asarray(image).astype(np.float64), known
    if not np.isfinite(values).all():
        raise UserError(f"{path} has values that are not finite: replace or remove it")
    scaled = ((values - black) / (white - black) * 255).round().clip(0, 255).astype(np.uint8)
    hidden = image.info.get("transparency")  # one value of a 16-bit PNG
    alpha = None
    if isinstance(hidden, int):
        alpha = Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8))
    return Image.fromarray(scaled).convert("RGB"), alpha


def _on(
    shown: Image.Image, alpha: Image.Image | None, background: tuple[int, int, int]
) -> tuple[Image.Image, Image.Image | None]:
    """The colours laid on the background."""
    if alpha is None:
        return shown, None
    return Image.composite(shown, Image.new("RGB", shown.size, background), alpha), alpha


def read_image(path: Path, reading: Reading = AS_STORED) -> Image.Image:
    """The colours of :func:`read_photo`."""
    return read_photo(path, reading).image


def save_options(photo: Photo, path: Path, size: tuple[int, int]) -> tuple[dict[str, Any], list[str]]:
    """Arguments of ``Image.save`` for a picture made from ``photo``, as far as the format of ``path`` holds
    what its file said; known before the picture is.

    Args:
        size: of that picture, width and height.

    Returns:
        The arguments, ``format`` among them; a note for each thing that will be lost.

    Raises:
        UserError: the format cannot hold such a picture.
    """
    kind = WRITTEN_SUFFIXES[path.suffix.lower()]
    most = MAX_SIDE.get(kind)
    if most and max(size) > most:
        raise UserError(
            f"{path.name} would be {size[0]}×{size[1]}, and {kind} holds {most} pixels a side: "
            "restore it into a .png or .tif"
        )
    mode = "L" if photo.grey else "RGB"
    if photo.alpha is not None and kind not in OPAQUE:
        mode += "A"
    quality = {"quality": QUALITY} if kind in ("JPEG", "WEBP", "AVIF") else {}
    try:
        options, notes = fitting(photo.metadata, kind, mode, quality)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{kind} cannot be written here ({error}): restore {path.name} into a .png"
        ) from error
    return {**options, "format": kind}, notes


def with_alpha(photo: Photo, restored: Image.Image, kind: str) -> Image.Image:
    """``restored`` in the mode that ``photo`` had, its alpha included where the format ``kind`` has one.

    A restored transparent picture is one on its background: what the background added is taken off again, so
    that laid on it the picture looks as restored, and nothing that was hidden shows on another.

    Args:
        restored: RGB, any multiple of the photo's size.
    """
    if photo.alpha is None or kind in OPAQUE:
        return restored.convert("L") if photo.grey else restored
    alpha = photo.alpha
    if alpha.size != restored.size:
        alpha = alpha.resize(restored.size, Image.Resampling.BICUBIC)
    share = np.asarray(alpha, np.float32)[..., None] / 255
    ground = np.asarray(photo.background, np.float32)
    colours = (np.asarray(restored, np.float32) - ground) / np.maximum(share, 1 / 255) * (share > 0) + ground
    made = Image.fromarray(colours.round().clip(0, 255).astype(np.uint8))
    made = made.convert("L") if photo.grey else made
    made.putalpha(alpha)
    return made


def as_shown(photo: Photo, restored: Image.Image) -> Image.Image:
    """``restored`` as its PNG looks on the background of ``photo``: RGB."""
    if photo.alpha is None:
        return restored
    made = with_alpha(photo, restored, "PNG")
    return _on(made.convert("RGB"), made.getchannel("A"), photo.background)[0]


@dataclass
class Listing:
    """A folder's images, sorted by name, and what else is in it, by kind."""

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave(self, path: Path, kind: str) -> None:
        """Leave a file out."""
        self.left_out.setdefault(kind, []).append(path.name)

    def __str__(self) -> str:
        kinds = (f"{kind} ({len(names)}): {few(names)}" for kind, names in self.left_out.items())
        return f"left out: {'; '.join(kinds)}"


def few(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, and how many there are besides."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def scan_images(folder: Path, skip: Callable[[Path], str | None] = lambda path: None) -> Listing:
    """What lies directly in ``folder``.

    Args:
        skip: says of a picture what kind it is of, if it is to be left out.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"no image folder at {folder}: check the path")
    found = Listing()
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.name == RECORDS:  # not the user's
            continue
        if path.name.startswith(".") or path.name.lower() in _HIDDEN:
            found.leave(path, "hidden")
        elif path.is_dir():
            found.leave(path, "folders")
        elif suffix not in SUFFIXES:
            found.leave(path, "of other formats")
        elif not path.is_file():
            found.leave(path, "no regular files")
        elif suffix in FORMATS["HEIF"] and not has_heif():
            found.leave(path, f"HEIC, to be read after {HEIF_INSTALL}")
        elif (kind := skip(path)) is not None:
            found.leave(path, kind)
        else:
            found.images.append(path)
    return found


def list_images(
    folder: Path,
    tell: Callable[[str], None] = lambda text: None,
    skip: Callable[[Path], str | None] = lambda path: None,
) -> list[Path]:
    """Image files directly in ``folder``, sorted by name.

    Args:
        tell: is told what else is there.
        skip: see :func:`scan_images`.

    Raises:
        UserError: no such folder, or no image in it.
    """
    found = scan_images(folder, skip)
    if not found.images:
        others = f" ({found})" if found.left_out else ""
        raise UserError(f"{folder} has no images{others}: put .png, .jpg, .webp, .tif, … files into it")
    if found.left_out:
        tell(f"{folder}, {found}")
    return found.images


def readable(
    paths: Iterable[Path], tell: Callable[[str], None], reading: Reading = AS_STORED
) -> Iterator[Path]:
    """Those that can be read; ``tell`` is told of each other one."""
    for path in paths:
        try:
            photo = read_photo(path, reading)
        except UserError as error:
            tell(f"left out: {error}")
            continue
        if photo.frames > 1:
            tell(f"{path} holds {photo.frames} pictures: the first is taken")
        yield path


@dataclass
class Source:
    """The images of a training set, read as they are drawn; one that cannot be read is told of once and
    stands for the next that can, so that a draw means the same picture whenever it is made."""

    paths: list[Path]
    tell: Callable[[str], None] = say
    damaged: set[int] = field(default_factory=set)

    def __getitem__(self, index: int) -> Image.Image:
        for offset in range(len(self.paths)):
            place = (index + offset) % len(self.paths)
            if place in self.damaged:
                continue
            try:
                return read_image(self.paths[place])
            except UserError as error:
                self.tell(f"left out: {error}")
                self.damaged.add(place)
        raise UserError(f"{self.paths[0].parent} has no image that can be read: put others into it")

    def __len__(self) -> int:
        return len(self.paths)


def square(image: Image.Image, side: int) -> Image.Image:
    """The centred square of ``image``, resized to ``side`` pixels."""
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image → float32 (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255).contiguous()


def to_image(tensor: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] (values outside are clipped) → RGB image."""
    return Image.fromarray(tensor.mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())


def hstack_images(images: list[Image.Image], gap: int = 2) -> Image.Image:
    """Images of one height in a row on white."""
    out = Image.new("RGB", (sum(i.width + gap for i in images) - gap, images[0].height), "white")
    x = 0
    for image in images:
        out.paste(image, (x, 0))
        x += image.width + gap
    return out


def vstack_images(images: list[Image.Image], gap: int = 2) -> Image.Image:
    """Images below one another on white."""
    out = Image.new("RGB", (max(i.width for i in images), sum(i.height + gap for i in images) - gap), "white")
    y = 0
    for image in images:
        out.paste(image, (0, y))
        y += image.height + gap
    return out


def image_rows(columns: Sequence[Iterable[Tensor]]) -> Image.Image:
    """A row for each image, the columns side by side: each holds one (3, H, W) in [0, 1] for every row."""
    return vstack_images([hstack_images([to_image(x) for x in row]) for row in zip(*columns, strict=True)])


def caption(texts: list[str], width: int, gap: int = 2, font_size: int = 14) -> Image.Image:
    """A line of text to stand above columns of ``width`` pixels that :func:`hstack_images` made."""
    out = Image.new("RGB", (len(texts) * (width + gap) - gap, 2 * font_size), "white")
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(font_size)
    for index, text in enumerate(texts):
        draw.text((index * (width + gap) + 4, 6), text, fill="black", font=font)
    return out
