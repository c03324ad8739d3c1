"""Golden files of the Kotlin core beside :mod:`tests.app_fixtures`: colours, fidelity, backgrounds, EXIF.

``android.json`` lists every case; arrays are as that module writes them, photographs as Pillow does.
"""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import ExifTags, Image

from elir_mobile import restore
from elir_mobile.bundle import read_bundle
from elir_mobile.colors import keep_colors
from elir_mobile.core.tiling import Sample, level_offsets
from elir_mobile.faces.align import TEMPLATE
from elir_mobile.faces.detect import Face
from elir_mobile.faces.inplace import Wanted, restore_faces
from elir_mobile.tasks import ALIGNED_FACE
from tests.app_fixtures import CHANNELS, SIGMA_S, SIZE, STEPS, STUBS, Fixtures, Recorder, picture, stub_runner

SIZES = ((40, 50), (24, 7), (205, 130), (512, 301))  # height, width
WISHES = ((0.0, True), (0.25, True), (0.5, False), (1.0, True))  # fidelity, whether colours are kept
LARGER = 2  # the background's size in sides of the photograph
SQUARE, COLOUR = 128, (250, 240, 230)  # what is made of every face


def colours(out: Fixtures) -> list[dict]:
    """Pictures with the colours of others, one of them grey."""
    pairs = [(picture(*size, 5), picture(*size, 6)) for size in SIZES]
    pairs.append((picture(70, 90, 5), picture(70, 90, 6).convert("L").convert("RGB")))
    entries = []
    for number, (restored, given) in enumerate(pairs):
        arrays = {"restored": restored, "given": given, "kept": keep_colors(restored, given)}
        entries.append(
            {key: out.array(f"colours/{number}-{key}", np.asarray(image)) for key, image in arrays.items()}
        )
    return entries


def levels(out: Fixtures) -> dict:
    """Tiles that overlap in rows, of reduced pixels, and what brings them to one level."""
    rng = np.random.default_rng(0)
    places = [(top, left) for top in (0, 6) for left in (0, 5, 11)]
    tiles = [Sample(top, left, rng.uniform(0, 1, (8, 8)).astype(np.float32)) for top, left in places]
    before, after = tiles[:3], tiles[3:]
    return {
        "places": places,
        "tiles": out.array("levels/tiles", np.stack([tile.values for tile in tiles])),
        "first": out.array("levels/first", level_offsets(before)),
        "second": out.array("levels/second", level_offsets(after, before)),
    }


def restorations(out: Fixtures, bundle: Path) -> list[dict]:
    """A picture of several tiles, restored with each of ``WISHES``."""
    runner = stub_runner(STUBS["fp32"], read_bundle(bundle).table)
    given = picture(130, 205, 4)
    entries = []
    for number, (fidelity, kept) in enumerate(WISHES):
        model = restore.Model(
            runner, STEPS, SIGMA_S, SIZE, SIZE, 0, CHANNELS, ALIGNED_FACE, fidelity, keeps_colors=kept
        )
        recorder, advance = Recorder(), mock.Mock()
        with mock.patch.object(restore, "_to_bytes", recorder):
            made = restore.restore(given, model, 7, advance)
        entries.append(
            {
                "fidelity": fidelity,
                "keep_colors": kept,
                "input": out.array(f"wishes/{number}-input", np.asarray(given)),
                "blended": out.array(f"wishes/{number}-blended", np.concatenate(recorder.bands)),
                "output": out.array(f"wishes/{number}-output", np.asarray(made)),
            }
        )
    return entries


def background(out: Fixtures) -> dict:
    """Two neighbouring faces of a photograph set into a larger picture of it."""
    photo = picture(200, 300, 3)
    canvas = photo.resize((photo.width * LARGER, photo.height * LARGER), Image.Resampling.BICUBIC)
    places = ((TEMPLATE * 110 + (40, 50)), (TEMPLATE * 90 + (130, 60)))
    faces = [Face(np.array([0.0, 0.0, 1.0, 1.0]), points, 1.0) for points in places]
    square = Image.new("RGB", (SQUARE, SQUARE), COLOUR)
    made, _ = restore_faces(photo, faces, lambda given: square, SQUARE, Wanted(all_faces=True), canvas)
    return {
        "photo": out.array("background/photo", np.asarray(photo)),
        "canvas": out.array("background/canvas", np.asarray(canvas)),
        "faces": [points.tolist() for points in places],
        "square": SQUARE,
        "colour": COLOUR,
        "output": out.array("background/output", np.asarray(made)),
    }


def photographs(folder: Path) -> list[dict]:
    """Files with every kind of EXIF tag; what is to be left of them is what Pillow reads again."""
    folder.mkdir(exist_ok=True)
    entries = []
    for name in ("plain.jpg", "plain.png", "none.jpg"):
        exif = Image.Exif()
        if name != "none.jpg":
            exif[ExifTags.Base.Orientation] = 6
            exif[ExifTags.Base.Make] = "A camera"
            exif[ExifTags.Base.DateTime] = "2026:11:30 07:00:00"
            exif[ExifTags.Base.XResolution] = 72.0
            exif[ExifTags.Base.Compression] = 6
            inside = exif.get_ifd(ExifTags.IFD.Exif)
            inside[ExifTags.Base.ExposureTime] = 0.01
            inside[ExifTags.Base.ExifImageWidth] = 9999
            inside[ExifTags.Base.ColorSpace] = 65535
            inside[ExifTags.Base.MakerNote] = bytes(range(200))
            place = exif.get_ifd(ExifTags.IFD.GPSInfo)
            place[ExifTags.GPS.GPSLatitudeRef] = "N"
            place[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 14.5)
        picture(40, 50, 9).save(folder / name, exif=exif)
        entries.append({"path": f"{folder.name}/{name}", "has": name != "none.jpg"})
    return entries


def write_goldens(folder: Path) -> None:
    """Write everything below ``folder``, where :func:`tests.app_fixtures.write_fixtures` has written."""
    out = Fixtures(folder)
    index = {
        "colours": colours(out),
        "levels": levels(out),
        "restore": restorations(out, folder / "bundle"),
        "background": background(out),
        "photographs": photographs(folder / "photographs"),
    }
    (folder / "android.json").write_text(json.dumps(index, indent=1) + "\n")
