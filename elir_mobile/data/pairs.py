"""Clean pictures into (degraded, clean) pairs, and the pictures that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import ImageOps
from torch import Tensor

from elir_mobile.core.errors import UserError, say
from elir_mobile.images import list_images, read_image, readable, square, to_tensor
from elir_mobile.tasks import ALIGNED_FACE, Task

BUNDLED = Path(__file__).with_name("evaluation_set")  # (faces or photos)/(calibration or evaluation)


@dataclass(frozen=True)
class PairCounts:
    """How many pairs to make."""

    # With 12, ranges cut off what the next pictures hold: bfr's w8a8 kept 15.3 dB of the update on 44 faces,
    # with 48 17.9 dB, with 176 18.9 dB.
    calibration: int = 48
    min_evaluation: int = 8  # fewer images than this are degraded more than once
    max_evaluation: int = 48  # 0: nothing is evaluated, and a folder of one image will do


@dataclass(frozen=True)
class Pair:
    """One degraded image and its ground truth, both (1, 3, size, size) in [0, 1], made of ``source``."""

    name: str
    degraded: Tensor
    clean: Tensor
    source: str  # the picture's name, the same for each degradation of it and for its mirror image


@dataclass(frozen=True)
class PairSets:
    """Disjoint images for calibration and for evaluation, and a sentence on where they are from."""

    calibration: list[Pair]
    evaluation: list[Pair]
    source: str


def make_pairs(
    paths: list[Path], task: Task, size: int, count: int, seed: int, domain: str = ALIGNED_FACE
) -> list[Pair]:
    """``count`` pairs of ``task``'s degradation for networks of ``domain``.

    They go round ``paths``, mirrored on every other round.
    Pair ``i`` depends on its image, ``seed`` and ``i`` alone.
    """
    degrade, pairs = task.degradation(domain), []
    for index in range(count):
        path = paths[index % len(paths)]
        clean = square(read_image(path), size)
        if index // len(paths) % 2:
            clean = ImageOps.mirror(clean)
        degraded = degrade(clean, np.random.default_rng([seed, index]))
        pairs.append(
            Pair(f"{path.stem}-{index}", to_tensor(degraded)[None], to_tensor(clean)[None], path.stem)
        )
    return pairs


def bundled(domain: str, part: str) -> list[Path]:
    """The bundled pictures for networks of ``domain``; ``part`` is "calibration" or "evaluation"."""
    return list_images(BUNDLED / ("faces" if domain == ALIGNED_FACE else "photos") / part)


def load_pair_sets(
    folder: Path | None,
    task: Task,
    size: int,
    seed: int,
    counts: PairCounts = PairCounts(),
    domain: str = ALIGNED_FACE,
    tell: Callable[[str], None] = say,
) -> PairSets:
    """Pairs for calibration and evaluation from a folder of clean images, or from the bundled ones.

    Of a user's folder every other image that can be read, in the order of names, is kept for evaluation.
    ``domain`` is what the network was trained on: it chooses between the bundled portraits and the bundled
    photographs. ``tell`` is told of what cannot be read and of what else is in the folder.

    Raises:
        UserError: no folder, no images, or fewer than two where some are evaluated.
    """
    if folder is None:
        calibration, evaluation = bundled(domain, "calibration"), bundled(domain, "evaluation")
        source = f"bundled {'portraits' if domain == ALIGNED_FACE else 'photographs'}"
    else:
        listed = list_images(folder, tell)
        # No more than are used: of a large folder, reading all would take minutes.
        paths = list(islice(readable(listed, tell), 2 * max(counts.calibration, counts.max_evaluation)))
        if not paths:
            raise UserError(f"{folder} has no image that can be read: put others into it")
        if len(paths) < 2 and counts.max_evaluation:
            raise UserError(
                f"{folder} has one image: put in at least two, to calibrate on one and evaluate on the other"
            )
        calibration, evaluation = paths[0::2], paths[1::2]
        source = f"images of the folder {folder.name}"
    count = min(max(len(evaluation), counts.min_evaluation), counts.max_evaluation)
    return PairSets(
        make_pairs(calibration, task, size, counts.calibration, seed, domain),
        make_pairs(evaluation, task, size, count, seed + 1, domain),
        source,
    )
