"""Parity and quality: what an artifact computes, held against the float reference.

Trajectory: the latent after each Euler step, errors adding up along the ODE. Image: the restored
picture against the float one and against ground truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from elir_mobile import metrics
from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import Sqnr, bootstrap, unless_equal
from elir_mobile.data.pairs import Pair

PARITY_MARGIN_DB = 3.0
ENOUGH_SOURCES = 10  # photographs; an interval over fewer says little of the next one
ENOUGH_SQNR_DB = 90.0
ENOUGH_HALF_SQNR_DB = 55.0  # of a file with float16 in it
ROUNDING_PSNR_DB = 10 * math.log10(12 * 255**2)  # 59 dB: of an 8-bit picture to the one that was rounded
ENOUGH_PSNR_DB = 50.0  # of which a device may lose some
BROKEN_DB = 20.0  # below what a precision reaches: rounding, and the kernels' own ways, do not explain that


@dataclass
class Parity:
    """Everything measured of one artifact against the float reference."""

    trajectory: list[Sqnr] = field(default_factory=list)
    image: Sqnr = field(default_factory=Sqnr)  # end to end, each file on its own trajectory
    update: Sqnr = field(default_factory=Sqnr)  # of z_K - z_0: what the flow itself does
    restored: list[Tensor] = field(default_factory=list)  # (1, 3, H, W) each

    @classmethod
    def over(cls, steps: int) -> Parity:
        """Nothing measured yet, with K = ``steps``."""
        return cls(trajectory=[Sqnr() for _ in range(steps)])


def psnr_of_8_bit(image: Tensor, clean: Tensor) -> Tensor:
    """PSNR of each image in dB, at most what rounding to 8 bits leaves, 10 log10(12 · 255²): some
    degradations leave some pictures as they are, and one that is infinite would be the mean of all."""
    return metrics.psnr(image, clean).clamp(max=ROUNDING_PSNR_DB)


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr_db": psnr_of_8_bit,
    "ssim": metrics.ssim,
    "lpips": metrics.lpips,
}


def few_sources(sources: int | None) -> str:
    """A sentence for figures of fewer than ``ENOUGH_SOURCES`` photographs; empty otherwise."""
    if sources is None or sources >= ENOUGH_SOURCES:
        return ""
    return f"{sources} source photographs only: the quality figures say little of the next photograph"


def measured(images: list[Tensor], pairs: list[Pair]) -> dict[str, np.ndarray]:
    """PSNR, SSIM and LPIPS of each image against its ground truth; without LPIPS if not installed."""
    out = torch.cat(images)
    clean = torch.cat([pair.clean for pair in pairs])
    return {
        name: metric(out, clean).double().numpy()
        for name, metric in METRICS.items()
        if name != "lpips" or metrics.lpips_available()
    }


def with_interval(
    key: str, values: np.ndarray | None, sources: Sequence[Hashable]
) -> dict[str, float | None]:
    """The mean of ``values`` as ``key``, and as ``key_low`` and ``key_high`` its 95 % interval, by bootstrap
    over the source photographs (None for one); all None without values."""
    if values is None:
        return dict.fromkeys((key, f"{key}_low", f"{key}_high"))
    spread = bootstrap(lambda chosen: float(values[chosen].mean()), len(values), clusters=sources)
    low, high = spread or (None, None)
    return {key: float(values.mean()), f"{key}_low": low, f"{key}_high": high}


def quality(images: list[Tensor], pairs: list[Pair]) -> dict[str, float | None]:
    """Mean PSNR, SSIM and LPIPS of ``images`` against ground truth; LPIPS None if not installed."""
    return means(measured(images, pairs))


def means(values: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Of what :func:`measured` gave; LPIPS None if it is not there."""
    return {name: float(values[name].mean()) if name in values else None for name in METRICS}


def quality_intervals(
    values: Mapping[str, np.ndarray], sources: Sequence[Hashable]
) -> dict[str, float | None]:
    """The means of what :func:`measured` gave, with their intervals, see :func:`with_interval`."""
    found: dict[str, float | None] = {}
    for name in METRICS:
        found |= with_interval(name, values.get(name), sources)
    return found


def reference_facts(images: list[Tensor], pairs: list[Pair]) -> dict[str, float | None]:
    """:func:`quality_intervals` of what files are held against, and the Fréchet distance ``frechet`` from
    the ground truth (None where its weights are not installed, or for one picture)."""
    facts = quality_intervals(measured(images, pairs), [pair.source for pair in pairs])
    frechet = None
    if len(pairs) > 1:
        sets = torch.cat(images), torch.cat([pair.clean for pair in pairs])
        with suppress(UserError):
            frechet = metrics.frechet_distance(*(metrics.efficientnet_features(side) for side in sets))
    return {**facts, "frechet": frechet}


def damage(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], sources: Sequence[Hashable]
) -> dict[str, float | None]:
    """``psnr_drop_db`` and ``lpips_rise`` of ``ours`` against ``theirs`` on the same pairs, both from
    :func:`measured`, with the interval of the paired difference: much narrower than those of the means."""
    drop = theirs["psnr_db"] - ours["psnr_db"] if "psnr_db" in ours else None
    rise = ours["lpips"] - theirs["lpips"] if "lpips" in ours else None
    return with_interval("psnr_drop_db", drop, sources) | with_interval("lpips_rise", rise, sources)


def no_damage() -> dict[str, float | None]:
    """:func:`damage` where there is none to be had."""
    return damage({}, {}, ())


def psnr_between(images: list[Tensor], reference: list[Tensor]) -> float | None:
    """Mean PSNR in dB of those ``images`` that differ from their ``reference``; None if none does."""
    values = metrics.psnr(torch.cat(images), torch.cat(reference))
    different = values[values != math.inf]
    return unless_equal(different.mean().item()) if len(different) else None


def pairwise_psnr(restored: Mapping[tuple[str, str], list[Tensor]]) -> list[dict[str, object]]:
    """How far targets agree: mean PSNR in dB between the images of each two files of one precision.

    Args:
        restored: images of each (target, precision).
    """
    return [
        {"precision": precision, "targets": [first, second], "psnr_db": psnr_between(theirs, images)}
        for ((first, other), theirs), ((second, precision), images) in combinations(restored.items(), 2)
        if other == precision
    ]


def parity_budgets(parity: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    """What a file made of the golden vectors here, and the budget it must hold on another device.

    Args:
        parity: see :func:`elir_mobile.core.golden.golden_parity_db`.

    Returns:
        For each golden output ``{host_db, budget_db}``: a device may be ``PARITY_MARGIN_DB`` below the host,
        and need not be above ``ENOUGH_SQNR_DB`` or ``ENOUGH_PSNR_DB``.
    """
    enough = dict.fromkeys(("encode", "step"), ENOUGH_SQNR_DB)
    enough |= dict.fromkeys(("decode", "image"), ENOUGH_PSNR_DB)
    budgets = {}
    for name, value in parity.items():
        reached = math.inf if value is None else value
        budgets[name] = {"host_db": value, "budget_db": min(reached - PARITY_MARGIN_DB, enough[name])}
    return budgets


def check_reached(file: str, parity: Mapping[str, float | None], reached: Mapping[str, float]) -> None:
    """Refuse a file that is so far from float that it computes something else than its precision does.

    Args:
        file: its name in the message.
        parity: what it made of the golden vectors, see :func:`elir_mobile.core.golden.golden_parity_db`.
        reached: what its precision makes of them in simulation, in dB.

    Raises:
        UserError: an output is more than ``BROKEN_DB`` below that.
    """
    for name, wanted in reached.items():
        value = parity[name]
        if value is not None and value < wanted - BROKEN_DB:
            raise UserError(
                f"{file} was exported but computes something else: {name} is {value:.1f} dB from float, "
                f"{wanted:.1f} in simulation: leave it out, or choose another precision"
            )
