"""Accuracy-controlled search: the fastest recipe that keeps the pictures within a budget.

Starts with int8 everywhere and raises layers to float, first those that do the most damage for the
time they save, until the budget holds (the idea of OpenVINO NNCF's ``quantize_with_accuracy_control``).
Damage is measured layer by layer in simulation; time and bytes are estimated from the layers' shapes.
A budget counts as held if the mean loss of as many other pictures would be within it 39 times in 40: the
mean of these is exceeded on the next pictures every other time.
What is found is only a proposal until its exported file has been run: ``quant.ptq`` does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp

from elir_mobile.precision import FP32, W8A8, Recipe, Rule
from export.programs import Programs
from quant.fakequant import find_layers, trace
from quant.judge import Judge, Verdict

# Everything in int8 but the additions inside rewritten group norms, which no runtime does well.
FASTEST = Recipe("searched", (Rule("*.block.0.add", FP32), Rule("*", W8A8)))
# Multiply-accumulates a millisecond of plain 3×3 convolutions: the middle of what
# benchmarks/roofline.py measured on two threads of an AVX2 machine (docs/decisions.md). The order
# of the layers depends on the ratio alone.
RATES = {FP32: 33e6, W8A8: 78e6}
# Elements of a sum a millisecond. Assumed, not measured: three tensors through memory at 10 GB/s.
ADDED = {FP32: 10e6 / 12, W8A8: 10e6 / 3}
WEIGHT_BYTES = {FP32: 4, W8A8: 1}
CHANNEL_BYTES = {FP32: 4, W8A8: 8}  # bias, and the channel's scale


@dataclass(frozen=True)
class Cost:
    """Estimates for one layer in one restoration: milliseconds and bytes by precision."""

    milliseconds: dict[str, float]
    bytes: dict[str, int]

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            {p: self.milliseconds[p] + other.milliseconds[p] for p in RATES},
            {p: self.bytes[p] + other.bytes[p] for p in RATES},
        )


@dataclass(frozen=True)
class Budget:
    """What a recipe may cost; None: no limit."""

    psnr_drop_db: float | None = None
    lpips_rise: float | None = None
    max_bytes: int | None = None

    def held_by(self, psnr_drop_db: float | None, lpips_rise: float | None) -> bool:
        """Whether pictures so much worse than float are within the budget; what is not known is not."""
        limits = ((psnr_drop_db, self.psnr_drop_db), (lpips_rise, self.lpips_rise))
        return all(most is None or (value is not None and value <= most) for value, most in limits)

    def __str__(self) -> str:
        parts = []
        if self.psnr_drop_db is not None:
            parts.append(f"PSNR drop at most {self.psnr_drop_db} dB")
        if self.lpips_rise is not None:
            parts.append(f"LPIPS rise at most {self.lpips_rise}")
        if self.max_bytes is not None:
            parts.append(f"at most {self.max_bytes} bytes")
        return ", ".join(parts)


@dataclass(frozen=True)
class Attempt:
    """One recipe that was tried: how many layers are in float, and what that gave and costs."""

    raised: int
    recipe: Recipe
    verdict: Verdict
    milliseconds: float
    bytes: int
    holds: bool


def layer_costs(programs: Programs) -> dict[str, Cost]:
    """Estimated cost of every layer; a step's layer runs K times, additions of one name are summed."""
    costs: dict[str, Cost] = {}
    for name, module in programs.modules.items():
        graph = trace(module)
        with torch.no_grad():
            ShapeProp(graph).propagate(*programs.example_inputs[name])
        calls = programs.steps if name == "step" else 1
        for layer in find_layers(graph):
            n_in, n_out = (prod(node.meta["tensor_meta"].shape) for node in (layer.inputs[0], layer.node))
            if layer.node.op == "call_module":
                module = graph.get_submodule(str(layer.node.target))
                weights = module.get_parameter("weight")
                channels = weights.shape[1 if isinstance(module, nn.ConvTranspose2d) else 0]
                # Each weight meets every output position once, or every input position if transposed.
                positions = (
                    n_in / weights.shape[0] if isinstance(module, nn.ConvTranspose2d) else n_out / channels
                )
                macs = weights.numel() * positions
                cost = Cost(
                    {p: calls * macs / RATES[p] for p in RATES},
                    {p: WEIGHT_BYTES[p] * weights.numel() + CHANNEL_BYTES[p] * channels for p in RATES},
                )
            else:
                cost = Cost({p: calls * n_out / ADDED[p] for p in RATES}, dict.fromkeys(RATES, 0))
            costs[layer.name] = costs[layer.name] + cost if layer.name in costs else cost
    return costs


def damages(judge: Judge, advance: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Relative error energy of the restored image with one layer alone in int8, for every layer."""
    found = {}
    for layers in judge.layers.values():
        for layer in layers:
            if FASTEST.precision_of(layer) == W8A8:
                verdict = judge.judge(Recipe("alone", (Rule(layer, W8A8),)), programs=False)
                found[layer] = 10 ** (-verdict.image_db / 10)
            advance()
    return found


def raising_order(damage: dict[str, float], costs: dict[str, Cost]) -> list[str]:
    """Layers by the damage they do for each millisecond that int8 saves, worst first."""

    def gain(layer: str) -> float:
        saved = costs[layer].milliseconds[FP32] - costs[layer].milliseconds[W8A8]
        return damage[layer] / max(abs(saved), 1e-6)

    return sorted(damage, key=gain, reverse=True)


def search(
    judge: Judge,
    order: list[str],
    costs: dict[str, Cost],
    budget: Budget,
    say: Callable[[Attempt], None] = lambda attempt: None,
) -> Attempt:
    """The fewest layers of ``order`` in float with which the budget holds, or the best reachable.

    Doubles the number of raised layers until the budget holds, then halves the interval: the budget
    is taken to hold with more layers in float if it holds with fewer.

    Args:
        judge: simulates a recipe on held-out pairs.
        order: layers, the first to be raised first.
        costs: of every layer.
        budget: what must hold.
        say: told of every recipe that is tried.

    Returns:
        An attempt whose ``holds`` is False if the budget cannot be held within its bytes: it is then
        the largest one that fits, or all of int8 if not even that does.
    """

    def attempt(raised: int) -> Attempt:
        rules = tuple(Rule(layer, FP32) for layer in order[:raised])
        recipe = Recipe(FASTEST.name, (*rules, *FASTEST.rules))
        precisions = {layer: recipe.precision_of(layer) for layer in costs}
        size = sum(cost.bytes[precisions[layer]] for layer, cost in costs.items())
        verdict = judge.judge(recipe, programs=False)
        tried = Attempt(
            raised,
            recipe,
            verdict,
            sum(cost.milliseconds[precisions[layer]] for layer, cost in costs.items()),
            size,
            budget.held_by(verdict.psnr_drop_db_high, verdict.lpips_rise_high)
            and (budget.max_bytes is None or size <= budget.max_bytes),
        )
        say(tried)
        return tried

    most = len(order)
    if budget.max_bytes is not None:
        size = sum(cost.bytes[FASTEST.precision_of(layer)] for layer, cost in costs.items())
        for most, layer in enumerate(order):  # noqa: B007 - the first that no longer fits
            size += costs[layer].bytes[FP32] - costs[layer].bytes[W8A8]
            if size > budget.max_bytes:
                break
        else:
            most = len(order)
    best = attempt(0)
    failed, raised = 0, 1
    while not best.holds and failed < most:
        best = attempt(min(raised, most))
        if not best.holds:
            failed, raised = best.raised, 2 * raised
    if not best.holds:
        return best
    while best.raised - failed > 1:
        tried = attempt((failed + best.raised) // 2)
        if tried.holds:
            best = tried
        else:
            failed = tried.raised
    return best
