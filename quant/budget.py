"""Find the fastest recipe within a budget: rank the layers, search, and judge the executed files.

``quant/search.py`` has the search itself, on a judge that simulates; here is what drives it from a job.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from rich.console import Console

from elir_mobile.core.files import write_text
from elir_mobile.data.pairs import PairCounts, load_pair_sets
from elir_mobile.harness.charts import number
from elir_mobile.precision import recipe_toml
from export.samples import collect_samples
from quant.calibrate import calibrate
from quant.gptq import Adjusted, adjusted_weights
from quant.job import Job, Stages
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


def rank_layers(job: Job, console: Console) -> Ranking:
    """Round every layer alone and rank it by the damage for the time that int8 saves on it.

    Ranges come from the calibration pairs, recipes are judged on ``JUDGED_PAIRS`` more of the same
    images degraded anew; the evaluation images are left for the executed file. Weights that
    ``job.gptq`` asks for are adjusted once, for int8 everywhere, though they depend on what is rounded
    before them: the file of the recipe that is found has them adjusted anew.

    Raises:
        UserError: the images cannot be used.
    """
    torch.set_num_threads(job.protocol.threads)
    counts = PairCounts()
    more = replace(counts, calibration=counts.calibration + JUDGED_PAIRS)
    pairs = load_pair_sets(job.images, job.task, job.size, job.seed, more, job.info.domain).calibration
    seen, heldout = pairs[: counts.calibration], pairs[counts.calibration :]
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
                f"(up to {number(verdict.psnr_drop_db_high, 3)}){lpips}, about {tried.milliseconds:.0f} ms, "
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


def verdicts(rows: list[dict], recipe: str, budget: Budget) -> list[tuple[str, bool, str]]:
    """Of each executed file of ``recipe``: its target, whether it holds the budget, and the figures."""
    float_row = rows[0]["image"]
    said = []
    for row in rows[1:]:
        if row["precision"] != recipe:
            continue
        image = row["image"]
        drop = float_row["psnr_db"] - image["psnr_db"]
        rise = None if image["lpips"] is None else image["lpips"] - float_row["lpips"]
        holds = budget.held_by(drop, rise)
        holds = holds and (budget.max_bytes is None or row["bytes"] <= budget.max_bytes)
        figures = f"PSNR drop {drop:.3f} dB, " + ("" if rise is None else f"LPIPS {rise:+.4f}, ")
        said.append((row["target"], holds, f"{figures}{row['bytes']} bytes"))
    return said
