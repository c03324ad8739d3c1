"""Find the fastest recipe within a budget: rank the layers, search, and judge the executed files.

``quant/search.py`` has the search itself, on a judge that simulates; here is what drives it from a job.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import write_text
from elir_mobile.data.pairs import Pair, PairCounts, load_pair_sets
from elir_mobile.harness.charts import executed, number
from elir_mobile.harness.compare import ENOUGH_SOURCES, damage, measured
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.precision import recipe_toml
from elir_mobile.terminal import Stages
from export.calibrate import calibrate
from export.gptq import Adjusted, adjusted_weights
from export.job import Job
from export.samples import collect_samples
from export.simulate import AT_ONCE
from quant.judge import Judge
from quant.search import FASTEST, Attempt, Budget, Cost, damages, fallback_order, layer_costs, search

DAMAGE_PAIRS = 4  # pairs on which a search rounds layer by layer
JUDGED_PAIRS = 48  # pairs on which it judges a recipe: more of them, closer to the budget


@dataclass(frozen=True)
class Ranking:
    """What a search needs to know, whatever the budget."""

    judge: Judge
    order: list[str]  # layers, the one that float helps most for its time first
    costs: dict[str, Cost]


def rank_layers(job: Job, console: Console, few: bool) -> Ranking:
    """Round every layer alone and rank it by the damage for the time that int8 saves on it.

    Ranges come from the calibration pairs, recipes are judged on ``JUDGED_PAIRS`` more of the same
    images degraded anew; the evaluation images are left for the executed file. Weights that
    ``job.gptq`` asks for are adjusted once, for int8 everywhere, though they depend on what is rounded
    before them: the file of the recipe that is found has them adjusted anew.

    Args:
        few: whether fewer than ``ENOUGH_SOURCES`` photographs will do.

    Raises:
        UserError: the images cannot be used, or are few.
    """
    torch.set_num_threads(job.protocol.threads)
    seen, heldout = _pairs(job, few)
    programs = job.programs()
    with Stages(console) as shown:
        with shown.stage("calibrating"):
            samples = collect_samples(programs, [pair.degraded for pair in seen], job.seed)
            ranges = calibrate(programs, samples)
        adjusted: Adjusted = {}
        if job.gptq:
            with shown.stage("adjusting weights"):
                adjusted = adjusted_weights(programs, FASTEST, samples)
        judge = Judge(programs, ranges, heldout[:DAMAGE_PAIRS], job.seed, adjusted)
        total = sum(len(layers) for layers in judge.layers.values())
        with shown.stage("rounding layer by layer", total):
            damage = damages(judge, shown.tick)
    costs = layer_costs(programs)
    return Ranking(Judge(programs, ranges, heldout, job.seed, adjusted), fallback_order(damage, costs), costs)


def _pairs(job: Job, few: bool) -> tuple[list[Pair], list[Pair]]:
    """Pairs that calibrate, and ``JUDGED_PAIRS`` more of the same photographs.

    Raises:
        UserError: the images cannot be used, or are few.
    """
    counts = PairCounts()
    more = replace(counts, calibration=counts.calibration + JUDGED_PAIRS)
    pairs = load_pair_sets(job.images, job.task, job.size, job.seed, more, job.info.domain).calibration
    sources = len({pair.source for pair in pairs})
    if sources < ENOUGH_SOURCES and not few:
        raise UserError(
            f"a search on {sources} photographs finds what suits these: name a folder of at least "
            f"{2 * ENOUGH_SOURCES} with --images, half of which judge the result, or add --few"
        )
    return pairs[: counts.calibration], pairs[counts.calibration :]


@torch.no_grad()
def fewest_steps(job: Job, budget: Budget, few: bool, console: Console) -> int:
    """The smallest K whose pictures in float are within ``budget`` of those with the model's own K.

    Raises:
        UserError: the images cannot be used, or are few.
    """
    torch.set_num_threads(job.protocol.threads)
    pairs = _pairs(job, few)[1]
    x = torch.cat([pair.degraded for pair in pairs])
    shape = job.restorer.arch.latent_shape(job.size, job.size)
    noise = torch.cat([seeded_noise(shape, job.seed + i) for i in range(len(pairs))])

    def restored(k: int) -> dict[str, np.ndarray]:
        parts = zip(x.split(AT_ONCE), noise.split(AT_ONCE), strict=True)
        return measured([job.restorer(*part, steps=k, sigma_s=job.info.sigma_s) for part in parts], pairs)

    own, sources = job.info.steps, [pair.source for pair in pairs]
    with Stages(console) as shown:
        theirs = restored(own)
        for k in shown.track(range(1, own), description="trying fewer steps"):
            worse = damage(restored(k), theirs, sources)
            holds = budget.held_by(worse["psnr_drop_db_high"], worse["lpips_rise_high"], math.inf)
            shown.console.print(
                f"K = {k} for {own}: PSNR drop up to {number(worse['psnr_drop_db_high'], 3)} dB, "
                f"LPIPS rise up to {number(worse['lpips_rise_high'], 4)}: "
                f"{'holds' if holds else 'over budget'}"
            )
            if holds:
                return k
    return own


def find_recipe(job: Job, ranking: Ranking, budget: Budget, console: Console) -> Attempt:
    """Search for the fastest recipe within ``budget``, each try printed; writes it as TOML."""
    console.print(f"searching the fastest recipe with {budget}")
    with Stages(console) as shown:

        def say(tried: Attempt) -> None:
            verdict = tried.verdict
            lpips = ""
            if verdict.lpips_rise is not None:
                lpips = (
                    f", LPIPS {number(verdict.lpips_rise, 4)} (up to {number(verdict.lpips_rise_high, 4)})"
                )
            shown.console.print(
                f"{tried.fallbacks:4} layers in float: PSNR drop {number(verdict.psnr_drop_db, 3)} dB "
                f"(up to {number(verdict.psnr_drop_db_high, 3)}){lpips}, "
                f"update {verdict.update_db:.1f} dB, about {tried.milliseconds:.0f} ms, "
                f"{tried.bytes / 1e6:.2f} MB: {'holds' if tried.holds else 'over budget'}"
            )

        with shown.stage("searching"):
            found = search(ranking.judge, ranking.order, ranking.costs, budget, say)
    job.out.mkdir(parents=True, exist_ok=True)
    path = job.out / f"{job.task.name}-{job.info.name}-{FASTEST.name}.toml"
    write_text(path, recipe_toml(found.recipe))
    if not found.holds:
        console.print(
            "the budget cannot be held within these bytes; the best reachable is the last one above"
        )
    again = f"--recipe {path}" + (" --gptq" if job.gptq else "")
    console.print(f"recipe: {path} (run it again with {again})")
    return found


def verdicts(rows: list[dict], recipe: str, budget: Budget) -> list[tuple[str, bool | None, str]]:
    """Of each file of ``recipe``: its target, whether it holds the budget, and the figures.

    It holds if the upper ends of the 95 % intervals over photographs do. Of a file that nobody executed
    nothing is known (None), and in place of figures stands why.
    """
    said: list[tuple[str, bool | None, str]] = []
    for row in rows:
        if row["precision"] != recipe:
            continue
        if not executed(row):
            said.append((row["target"], None, row["against"]["run"]))
            continue
        image, update_db = row["image"], row["update_sqnr_db"]
        update = -math.inf if update_db is None else update_db  # what is not known does not hold
        holds = budget.held_by(image["psnr_drop_db_high"], image["lpips_rise_high"], update)
        holds = holds and (budget.max_bytes is None or row["bytes"] <= budget.max_bytes)
        drop, rise = (
            f"{number(image[key], digits)} (up to {number(image[f'{key}_high'], digits)})"
            for key, digits in (("psnr_drop_db", 3), ("lpips_rise", 4))
        )
        figures = [
            f"PSNR drop in dB {drop}",
            f"LPIPS rise {rise}",
            f"SQNR of the update {number(update_db, 1)} dB",
            f"{row['bytes']} bytes",
        ]
        said.append((row["target"], holds, ", ".join(figures)))
    return said
