"""Measure restorations against ground truth; the command is :mod:`elir_mobile.cli.evaluate`.

Two ways to name what is measured. ``--images FOLDER``: pictures that lie beside CLEAN under the same
names, degraded or already restored. Without it: the centred squares of CLEAN, degraded as ``--task``
says. With ``--task`` the pictures are also restored, by the float model or an exported file, and
both are measured. Every picture is measured as the 8-bit picture that its file is or would be.

Confidence intervals are bootstrapped over the pictures (Efron 1979).
"""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import, so that Ctrl-C is no traceback
    from elir_mobile.cli.evaluate import main
    from elir_mobile.cli.options import alone

    alone(main)()

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from elir_mobile import metrics
from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import CONFIDENCE, bootstrap
from elir_mobile.images import AS_STORED, Reading, as_shown, list_images, read_photo, square, to_tensor
from elir_mobile.records import COMPARED, comparison
from elir_mobile.restore import Model, enlarged, restore
from elir_mobile.tasks import Task

FRECHET = "frechet_efficientnet_lite0"
FRECHET_RESAMPLES = 200  # at most: one costs a decomposition as large as the set


@dataclass(frozen=True)
class Metric:
    """A number for each picture.

    Attributes:
        key: in the JSON.
        title: in the table, with an arrow towards better.
        digits: shown.
        measure: from the picture and its ground truth, (1, 3, H, W) in [0, 1] both, to (1,).
    """

    key: str
    title: str
    digits: int
    measure: Callable[[Tensor, Tensor], Tensor]


METRICS = (
    Metric("psnr_db", "PSNR, dB ↑", 2, metrics.psnr),
    Metric("ssim", "SSIM ↑", 3, metrics.ssim),
    Metric("lpips", "LPIPS ↓", 4, metrics.lpips),
    Metric("niqe", "NIQE ↓", 2, lambda image, truth: metrics.niqe(image)),
    Metric("identity", "identity, cosine ↑", 4, metrics.identity_similarity),
)


@dataclass(frozen=True)
class Estimate:
    """A number of a set of pictures with its confidence interval (None for a single picture)."""

    value: float
    low: float | None
    high: float | None
    images: int


@dataclass(frozen=True)
class Example:
    """One picture to measure."""

    name: str
    index: int  # seeds the degradation, with the command's seed
    clean: Path
    image: Path | None  # None: degrade the clean one


@dataclass
class Scores:
    """What one picture measures.

    Attributes:
        values: metric → number; one that cannot be had is missing.
        missing: metric → why.
        features: of EfficientNet-Lite0, (1280,), if it is installed.
    """

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    features: np.ndarray | None = None


@dataclass(frozen=True)
class Measured:
    """The scores of one example's pictures, by kind: ``images``, ``degraded``, ``restored``."""

    name: str
    size: tuple[int, int]  # width, height
    scores: dict[str, Scores]
    truth: np.ndarray | None  # features of the ground truth
    notes: tuple[str, ...] = ()


def score(image: Image.Image, truth: Image.Image) -> Scores:
    """Every metric of ``image`` that can be had."""
    out, ref, scores = to_tensor(image)[None], to_tensor(truth)[None], Scores()
    for metric in METRICS:
        try:
            value = metric.measure(out, ref).item()
        except UserError as error:
            scores.missing[metric.key] = str(error)
            continue
        if math.isfinite(value):
            scores.values[metric.key] = value
        elif math.isnan(value):
            scores.missing[metric.key] = "left out where no face is found in the clean image"
        else:
            scores.missing[metric.key] = "left out where it is infinite: an image equals the clean one"
    try:
        scores.features = _features(image)
    except UserError as error:
        scores.missing[FRECHET] = str(error)
    return scores


def _features(image: Image.Image) -> np.ndarray:
    return metrics.efficientnet_features(to_tensor(image)[None])[0].numpy()


def measurer(
    restorer: tuple[Callable[[], Model], Task] | None,
    size: int | None,
    seed: int,
    reading: Reading = AS_STORED,
) -> Callable[[Example], Measured | str]:
    """A worker that restores and measures one example, see :func:`elir_mobile.engine.run`.

    It returns what is wrong with pictures that cannot be measured: one must not hold up the others.

    Args:
        restorer: what loads the model, and its task; None: images are measured as they are.
        size: side of the degraded squares; None: the model's own.
        seed: of degradation and noise.
    """
    load, task = restorer or (None, None)
    model = load() if load else None

    def measure(example: Example) -> Measured | str:
        try:
            return measured(example)
        except UserError as error:
            said = str(error)
            return said if example.name in said else f"{example.name}: {said}"

    def measured(example: Example) -> Measured:
        photos = [read_photo(path, reading) for path in (example.clean, example.image) if path]
        notes = tuple(
            f"holds {photo.frames} pictures: the first was taken" for photo in photos if photo.frames > 1
        )
        truth = photos[0].image
        if example.image:
            kind, given = "images", photos[1].image
            if task:
                given = enlarged(given, task)
        else:
            assert task is not None and model is not None  # the command refuses to degrade without a task
            truth = square(truth, size or model.size)
            degrade = task.degradation(model.domain)
            kind, given = "degraded", degrade(truth, np.random.default_rng([seed, example.index]))
        if given.size != truth.size:
            raise UserError(
                f"{example.image} is {given.width}×{given.height} and its clean image "
                f"{truth.width}×{truth.height}: give images of the same size"
            )
        pictures = {kind: given}
        if model:
            restored = restore(given, model, seed, lambda done, total: None)
            pictures["restored"] = as_shown(photos[1], restored) if example.image else restored
        scores = {kind: score(picture, truth) for kind, picture in pictures.items()}
        known = all(s.features is not None for s in scores.values())
        return Measured(example.name, truth.size, scores, _features(truth) if known else None, notes)

    return measure


def examples(
    clean: Path, images: Path | None, tell: Callable[[str], None] = lambda text: None
) -> tuple[list[Example], list[str]]:
    """What there is to measure: every clean image, or every image with its clean one.

    Names match with their endings or, where the endings differ, without. What ``restore --compare`` wrote
    beside the images is no image.

    Args:
        tell: is told what else is in the folders.

    Returns:
        The examples, and a sentence for each image that has no clean one or several.

    Raises:
        UserError: a folder is missing or empty.
    """
    truths = list_images(clean, tell, comparison)
    if images is None:
        return [Example(path.name, index, path.resolve(), None) for index, path in enumerate(truths)], []
    by_name, by_stem = {path.name: path for path in truths}, defaultdict(list)
    for path in truths:
        by_stem[path.stem].append(path)
    known = {*by_name, *by_stem}
    found, wrong = [], []
    for index, path in enumerate(list_images(images, tell, comparison)):
        same = [by_name[path.name]] if path.name in by_name else by_stem.get(path.stem, [])
        if len(same) == 1:
            found.append(Example(path.name, index, same[0].resolve(), path.resolve()))
        elif not same and path.name.endswith(COMPARED) and {path.name.removesuffix(COMPARED)} & known:
            tell(f"{path} is a comparison: left out")
        else:
            number = "no image" if not same else "several images"
            wrong.append(f"{clean} has {number} named like {path}: give each image one clean one")
    if not found:
        raise UserError(wrong[0] if wrong else f"{images} has nothing but comparisons: name another folder")
    return found, wrong


def summarize(measured: list[Measured], resamples: int, seed: int) -> tuple[dict, dict[str, str]]:
    """Estimates of every kind of picture, and why some are missing.

    Returns:
        kind → metric → :class:`Estimate` or None; metric → a sentence.
    """
    table: dict[str, dict[str, Estimate | None]] = {}
    missing: dict[str, str] = {}
    for kind in measured[0].scores:
        scores = [one.scores[kind] for one in measured]
        for one in scores:
            missing |= one.missing
        table[kind] = {}
        for metric in METRICS:
            values = np.array([s.values[metric.key] for s in scores if metric.key in s.values])
            mean = partial(_mean, values)
            table[kind][metric.key] = estimate(mean, len(values), resamples, seed) if len(values) else None
        if any(one.truth is None for one in measured):
            table[kind][FRECHET] = None
        elif len(measured) < 2:
            table[kind][FRECHET] = None
            missing[FRECHET] = "a Fréchet distance needs at least two images"
        else:
            features = torch.from_numpy(np.stack([s.features for s in scores if s.features is not None]))
            truths = torch.from_numpy(np.stack([m.truth for m in measured if m.truth is not None]))
            table[kind][FRECHET] = estimate(
                partial(_frechet, features, truths), len(features), min(resamples, FRECHET_RESAMPLES), seed
            )
    return table, missing


def _mean(values: np.ndarray, chosen: np.ndarray) -> float:
    return values[chosen].mean()


def _frechet(features: Tensor, truths: Tensor, chosen: np.ndarray) -> float:
    return metrics.frechet_distance(features[chosen], truths[chosen])


def estimate(statistic: Callable[[np.ndarray], float], count: int, resamples: int, seed: int) -> Estimate:
    """A statistic of the values at some of ``count`` indices, with its confidence interval."""
    low, high = bootstrap(statistic, count, resamples, seed) or (None, None)
    return Estimate(float(statistic(np.arange(count))), low, high, count)


def to_json(measured: list[Measured], table: dict, missing: dict[str, str], facts: dict[str, object]) -> dict:
    """The report: facts, estimates, and the numbers of each picture."""
    return {
        **facts,
        "confidence": CONFIDENCE,
        "missing": missing,
        "metrics": {
            kind: {key: estimate and asdict(estimate) for key, estimate in row.items()}
            for kind, row in table.items()
        },
        "images": [
            {"name": m.name, "size": list(m.size), **{kind: s.values for kind, s in m.scores.items()}}
            for m in measured
        ],
    }


def terminal_table(table: dict) -> Table:
    """Metrics down, kinds of pictures across."""
    shown = Table(
        title=f"mean and {CONFIDENCE:.0%} confidence interval",
        caption="Fréchet: distance on features of EfficientNet-Lite0, not the FID",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("metric", no_wrap=True)
    for kind in table:
        shown.add_column(kind, justify="right", no_wrap=True)
    titles = [(metric.key, metric.title, metric.digits) for metric in METRICS]
    for key, title, digits in (*titles, (FRECHET, "Fréchet, Lite0 ↓", 1)):
        shown.add_row(title, *(_cell(row[key], digits) for row in table.values()))
    return shown


def _cell(estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})"
