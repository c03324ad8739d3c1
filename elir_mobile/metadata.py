"""What a picture's file says beside its colours: EXIF, ICC profile, XMP, resolution.

None of it may cost the picture. Each tag is taken if Pillow can write it again, and left out with a note if
not: cameras, phones and editors write tags of any type. Before a picture is written, its metadata is tried on
a small picture in the format that it goes into, and what that cannot hold is left out.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

_XMP = 700
_Tags = dict[int, Any]
# Orientation, which is applied, and what describes how a TIFF stores its pixels and its pages (TIFF 6.0; TIFF
# Technical Note 1 for SubIFDs), over once they are read. The profile and XMP are kept beside the EXIF.
_PIXEL_TAGS = {
    *(ExifTags.Base.Orientation, 254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279),
    *(280, 281, 284, 288, 289, 290, 291, 292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325),
    *(330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 342, 347, 512, 513, 514, 515, 517, 518, 519, 520),
    *(521, 529, 530, 531, 532, _XMP, ExifTags.Base.InterColorProfile, 34377),
}
_SUB_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop)
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation="\d+"|<tiff:Orientation>\d+</tiff:Orientation>')
_SPACES = {"L": b"GRAY", "LA": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB "}  # ICC.1:2022, table 19
NAMED = 3  # tags that a note names; of more it says how many


@dataclass(frozen=True)
class Metadata:
    """What is kept of a file beside its colours.

    Attributes:
        exif: without the orientation and what describes the stored pixels.
        icc_profile, xmp: as stored; XMP without an orientation.
        dpi: across and down.
    """

    exif: Image.Exif | None = None
    icc_profile: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def read_metadata(opened: Image.Image) -> tuple[Metadata, int, list[str]]:
    """The metadata of a picture whose pixels are not read yet, its orientation, and what was left out.

    The opened image forgets its EXIF, so that loading its pixels cannot trip over it: Pillow turns a TIFF
    when it loads it, and reads all its tags to do so.

    Returns:
        metadata; the orientation, 1 to 8; a note for each kind of thing that was left out.
    """
    notes: list[str] = []
    orientation, exif = 1, None
    try:
        loaded = opened.getexif()
    except Exception:  # whatever a damaged block of tags makes the parser raise
        notes.append("damaged EXIF was left out")
    else:
        told = _value(loaded, ExifTags.Base.Orientation)
        orientation = told if isinstance(told, int) and 1 <= told <= 8 else 1
        exif, dropped = _kept(loaded)
        if told not in (None, 0, orientation):  # cameras without a sensor write 0
            dropped.insert(0, ExifTags.Base.Orientation)
        notes += _named(dropped, "not as EXIF has it")
        for tag in list(loaded):
            del loaded[tag]
    info = opened.info
    xmp = info.get("xmp", info.get("XML:com.adobe.xmp"))
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    kept_xmp = _XMP_ORIENTATION.sub(b"", xmp) if isinstance(xmp, bytes) and xmp else None
    profile = info.get("icc_profile")
    icc_profile = profile if isinstance(profile, bytes) and len(profile) > 128 else None  # its header's size
    return Metadata(exif, icc_profile, kept_xmp, _dpi(info.get("dpi"))), orientation, notes


def _value(tags: Any, tag: int) -> Any:
    try:
        return tags[tag]
    except Exception:  # a value that cannot be decoded is as good as none
        return None


def _dpi(given: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in given)
    except Exception:  # no resolution, or none that is two numbers
        return None
    return (across, down) if all(math.isfinite(v) and v > 0 for v in (across, down)) else None


def _kept(loaded: Image.Exif) -> tuple[Image.Exif | None, list[int]]:
    """A copy of the tags that can be written again, and those that cannot."""
    kept = Image.Exif()
    dropped: list[int] = []
    for tag in sorted(set(loaded) - _PIXEL_TAGS):
        value = told = _value(loaded, tag)
        if tag in _SUB_IFDS:
            value = _ifd(loaded, tag, dropped)
        if value is not None and value != {} and _writes({tag: value}):
            kept[tag] = value
        elif value != {} or not isinstance(told, int):  # a directory may be empty, its offset is a number
            dropped.append(tag)
    return (kept if len(kept) else None), dropped


def _ifd(loaded: Image.Exif, tag: int, dropped: list[int]) -> dict[int, Any] | None:
    """The tags of a directory of its own, without those that cannot be written."""
    try:
        inside = loaded.get_ifd(tag)
    except Exception:  # an offset that leads nowhere, or into something else
        return None
    found = {}
    for name in sorted(inside):
        value = _value(inside, name)
        if name == ExifTags.IFD.Interop:
            value = _ifd(loaded, name, dropped)
        if value is not None and value != {} and _writes({tag: {name: value}}):
            found[name] = value
        elif value != {}:
            dropped.append(name)
    return found


def _writes(tags: dict[int, Any]) -> bool:
    """Whether Pillow can write these tags and read them again."""
    again = Image.Exif()
    try:
        again.load(_bytes(tags))
        return set(again) == set(tags) and all(_reads(again, tag) for tag in tags)
    except Exception:  # the writer of tags has no error of its own
        return False


def _reads(exif: Image.Exif, tag: int) -> bool:
    return bool(exif.get_ifd(tag)) if tag in _SUB_IFDS else exif[tag] is not None


def _named(tags: Iterable[int], why: str) -> list[str]:
    """A note that names some tags, if there are any."""
    known = {**ExifTags.TAGS, **ExifTags.GPSTAGS} | {tag.value: tag.name for tag in ExifTags.IFD}
    names = [known.get(tag, str(tag)) for tag in dict.fromkeys(tags)]
    if not names:
        return []
    others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"EXIF {', '.join(names[:NAMED])}{others} left out: {why}"]


def fitting(
    metadata: Metadata, kind: str, mode: str, options: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Arguments of ``Image.save`` that write as much of ``metadata`` as a format holds.

    Args:
        kind: Pillow's name of the format.
        mode: of the picture that will be written.
        options: arguments that the picture is saved with in any case.

    Returns:
        ``options`` and more; a note for each thing that is lost.

    Raises:
        OSError, ValueError, KeyError: the format cannot be written here at all.
    """
    notes: list[str] = []
    _try(kind, mode, options)
    profile = metadata.icc_profile
    if profile and profile[16:20] != _SPACES[mode]:
        profile = None  # of another colour space, it does not outlive the conversion
    for what, value in (("ICC profile", profile), ("XMP", metadata.xmp), ("resolution", metadata.dpi)):
        if not value:
            continue
        more = _argument(what, value, kind)
        if more and _works(kind, mode, options | more):
            options = options | more
        elif what != "resolution" and not (what == "XMP" and kind == "TIFF"):
            notes.append(f"the {what} does not fit into {kind} and was left out")
    tags = dict(metadata.exif or {})
    if kind == "TIFF" and metadata.xmp:
        tags[_XMP] = metadata.xmp  # a tag like the others there
    if tags and kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        saved = options
        kept, dropped = _fitting_exif(tags, lambda tags: _works(kind, mode, saved | {"exif": _bytes(tags)}))
        if kept:
            options = options | {"exif": _bytes(kept)}
        notes += _named(dropped, f"{kind} cannot hold that")
    elif tags:
        notes.append(f"{kind} holds no EXIF: it was left out")
    return options, notes


def _argument(what: str, value: Any, kind: str) -> dict[str, Any]:
    """The argument of ``Image.save`` for it; nothing where the format has no place."""
    if what == "ICC profile":
        return {"icc_profile": value} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    if what == "resolution":
        return {"dpi": value} if kind in ("JPEG", "PNG", "TIFF", "BMP") else {}
    if kind == "PNG":
        chunk = PngImagePlugin.PngInfo()
        chunk.add_itxt("XML:com.adobe.xmp", value.decode("utf-8", "replace"))
        return {"pnginfo": chunk}
    return {"xmp": value} if kind in ("JPEG", "WEBP", "AVIF") else {}


def _fitting_exif(tags: _Tags, works: Callable[[_Tags], bool]) -> tuple[_Tags, list[int]]:
    """As many tags as a format holds, and those left out: what it holds not even alone, then the largest."""
    if works(tags):
        return tags, []
    single = [{tag: value} for tag, value in tags.items() if not isinstance(value, dict)]
    single += [
        {ifd: {tag: value}}
        for ifd, inside in tags.items()
        if isinstance(inside, dict)
        for tag, value in inside.items()
    ]
    left = sorted((one for one in single if works(one)), key=lambda one: len(_bytes(one)))
    while left and not works(_merged(left)):
        left.pop()
    kept = _merged(left)
    return kept, [tag for one in single if one not in left for tag in _innermost(one)]


def _merged(single: list[_Tags]) -> _Tags:
    merged: _Tags = {}
    for one in single:
        for tag, value in one.items():
            merged[tag] = {**merged.get(tag, {}), **value} if isinstance(value, dict) else value
    return merged


def _innermost(tags: _Tags) -> Iterable[int]:
    return next((value for value in tags.values() if isinstance(value, dict)), tags)


def _bytes(tags: _Tags) -> bytes:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    return exif.tobytes()


def _works(kind: str, mode: str, options: dict[str, Any]) -> bool:
    try:
        _try(kind, mode, options)
    except Exception:  # each encoder raises its own
        return False
    return True


def _try(kind: str, mode: str, options: dict[str, Any]) -> None:
    """Write a small picture and read it again."""
    buffer = io.BytesIO()
    Image.new(mode, (16, 16)).save(buffer, kind, **options)
    buffer.seek(0)
    with Image.open(buffer, formats=[kind]) as again:
        again.load()
