"""Every face of a photograph restored where it is, the rest left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from elir_mobile.faces.align import TEMPLATE, scale_of, similarity, warp
from elir_mobile.faces.detect import Face
from elir_mobile.faces.paste import FACE_ONLY, Patch, paste

RESTORED = "restored"
SHARP = "left: as sharp as the model would make it"
NOT_LARGEST = "left: not the largest"
# A face is left alone from this detail and this agreement on, see :func:`compared`. Of 600 training faces,
# clean, blurred, reduced, noisy, from JPEG files and degraded as for bfr, 95 % are judged by these two as
# LPIPS against the clean face judges them; a clean one has a detail of 0.68, since the network exaggerates.
ENOUGH_DETAIL, ENOUGH_AGREEMENT = 0.45, 0.35
FINE = 0.7  # spread of the Gaussian that takes fine structure away, pixels
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601


@dataclass(frozen=True)
class Wanted:
    """What is done with the faces of a photograph.

    Attributes:
        all_faces: also restore those that are sharp already.
        only_largest: leave all but the largest face alone.
        margin: see :func:`elir_mobile.faces.paste.radius`.
    """

    all_faces: bool = False
    only_largest: bool = False
    margin: float = 1.0


@dataclass(frozen=True)
class Treated:
    """A face, and what was done with it.

    Attributes:
        face: where it is.
        side: of its aligned square in the photograph, pixels.
        done: ``RESTORED``, ``SHARP`` or ``NOT_LARGEST``.
        detail, agreement: see :func:`compared`; None where the model was not asked.
    """

    face: Face
    side: float
    done: str
    detail: float | None = None
    agreement: float | None = None

    def to_json(self) -> dict:
        """In pixels of the upright photograph."""
        return {
            "box": [round(float(value), 2) for value in self.face.box],
            "points": self.face.points.round(2).tolist(),
            "score": round(self.face.score, 4),
            "side": round(self.side, 2),
            "done": self.done,
            "detail": None if self.detail is None else round(self.detail, 4),
            "agreement": None if self.agreement is None else round(self.agreement, 4),
        }


def compared(given: np.ndarray, restored: np.ndarray, side: float) -> tuple[float, float]:
    """How the fine structure of a face relates to that of its restoration, within the face.

    Both are looked at no finer than the photograph is, and fine structure is what a narrow Gaussian
    (``FINE``) takes away from the luma. The restorer makes detail where the face has it, and no noise, so
    that noise does not count: what counts is what both have in common.

    Args:
        given, restored: aligned squares (S, S, 3) uint8.
        side: of the square in the photograph, pixels.

    Returns:
        The detail: how strongly the restored structure appears in the given one, 1 where it is as strong
        (the coefficient of their regression). And the agreement: their correlation, -1 to 1.
    """
    size = min(len(given), max(16, round(side)))
    fine = []
    for pixels in (given, restored):
        x = torch.from_numpy(pixels.astype(np.float32) @ LUMA)[None, None]
        x = F.interpolate(x, size=(size, size), mode="bicubic", antialias=True)
        taps = torch.exp(-0.5 * (torch.arange(-3, 4) / FINE) ** 2)
        taps = taps / taps.sum()
        padded = F.pad(x, (3, 3, 3, 3), mode="reflect")
        smooth = F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
        fine.append((x - smooth)[0, 0].numpy())
    rows, columns = (np.mgrid[0:size, 0:size] + 0.5) / size
    x, y, wide, high = FACE_ONLY
    face = ((columns - x) / wide) ** 2 + ((rows - y) / high) ** 2 < 1
    ours, theirs = fine[0][face], fine[1][face]
    common = float((ours * theirs).sum())
    own, made = float((ours**2).sum()), float((theirs**2).sum())
    return common / max(made, 1e-6), common / max(np.sqrt(own * made), 1e-6)


def restore_faces(
    image: Image.Image,
    faces: Sequence[Face],
    restore: Callable[[Image.Image], Image.Image],
    size: int,
    wanted: Wanted = Wanted(),
    canvas: Image.Image | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Image.Image, list[Treated]]:
    """``image`` with its faces restored.

    Args:
        image: RGB, upright.
        faces: that were found in it, the largest first.
        restore: what the network makes of an aligned square.
        size: of such squares, pixels.
        wanted: which faces, and how much around them.
        canvas: the photograph that the faces are set into, the same scene in the same or a larger size;
            None: ``image`` itself.
        advance: told (faces done, faces in all) after each face.

    Returns:
        The canvas with the restored faces, and what was done with each face. A canvas pixel that no
        restored face reaches keeps its bytes.
    """
    ground = canvas or image
    larger = ground.width / image.width
    patches, treated = [], []
    for number, face in enumerate(faces):
        matrix = similarity(face.points, TEMPLATE * size)
        side = size / scale_of(matrix)
        onto = matrix / np.array([larger, larger, 1.0])
        restored, done = None, NOT_LARGEST
        seen: tuple[float, float] | tuple[None, None] = (None, None)
        if not (wanted.only_largest and number):
            given = warp(image, matrix, size, size).round().clip(0, 255).astype(np.uint8)
            made = np.asarray(restore(Image.fromarray(given)))
            seen = detail, agreement = compared(given, made, side)
            sharp = detail >= ENOUGH_DETAIL and agreement >= ENOUGH_AGREEMENT
            done = SHARP if sharp and not wanted.all_faces else RESTORED
            restored = made if done == RESTORED else None
        patches.append(Patch(onto, size, restored))
        treated.append(Treated(face, side, done, *seen))
        advance(number + 1, len(faces))
    if all(patch.restored is None for patch in patches):
        return ground, treated
    return paste(ground, patches, wanted.margin), treated
