"""Pictures in and out: files to tensors, tensors to pictures, rows and columns of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from elir_mobile.core.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
MIN_SIDE = 32  # below this nothing is left to restore
# Orientation, which is applied, and how a TIFF stores its pixels (TIFF 6.0), over once they are read.
_PIXEL_TAGS = (
    *(ExifTags.Base.Orientation, 254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320),
    *(322, 323, 324, 325, 338, 339, 347, ExifTags.Base.InterColorProfile),
)


@dataclass(frozen=True)
class Photo:
    """An upright picture and what its file said beside the colours.

    Attributes:
        image: 8-bit RGB; of a transparent picture the colours as stored, under ``alpha``.
        alpha: 8-bit greyscale, or nothing.
        exif: without the orientation, which is applied.
        icc_profile: of RGB colours; a profile of another colour space does not outlive the conversion.
    """

    image: Image.Image
    alpha: Image.Image | None
    exif: bytes | None
    icc_profile: bytes | None


def read_photo(path: Path) -> Photo:
    """An image file of any kind; greyscale, 16-bit, palette and CMYK images become 8-bit RGB.

    Raises:
        UserError: not an image, damaged, or a side under ``MIN_SIDE`` pixels.
    """
    try:
        with Image.open(path) as opened:
            # A copy, and before the pixels: of a turned TIFF Pillow drops all tags when it loads them.
            exif = Image.Exif()
            exif.load(opened.getexif().tobytes())
            for tag in _PIXEL_TAGS:
                exif.pop(tag, None)
            icc_profile = opened.info.get("icc_profile")
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not an image that can be read: replace or remove it") from error
    if min(image.size) < MIN_SIDE:
        raise UserError(
            f"{path} is {image.width}×{image.height}: use images of at least {MIN_SIDE} pixels a side"
        )
    if image.mode not in ("RGB", "RGBA", "P"):
        icc_profile = None
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips wide greyscale when it converts; scale 16-bit values down instead.
        values = np.asarray(image).astype(np.float32)
        peak = 65535.0 if values.max() > 255 else 255.0
        image = Image.fromarray((values / peak * 255).round().clip(0, 255).astype(np.uint8))
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    return Photo(image.convert("RGB"), alpha, exif.tobytes() if len(exif) else None, icc_profile)


def read_image(path: Path) -> Image.Image:
    """The colours of :func:`read_photo`, with transparent pixels laid on white."""
    photo = read_photo(path)
    if photo.alpha is None:
        return photo.image
    return Image.composite(photo.image, Image.new("RGB", photo.image.size, "white"), photo.alpha)


def list_images(folder: Path) -> list[Path]:
    """Image files directly in ``folder``, sorted by name.

    Raises:
        UserError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"no image folder at {folder}: check the path")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{folder} has no images: put {', '.join(sorted(SUFFIXES))} files into it")
    return paths


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
