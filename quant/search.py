"""Accuracy-controlled search: the fastest recipe that keeps the pictures within a budget.

Starts with int8 everywhere and lets layers fall back to float, first those where int8 does the most
damage for the time it saves, until the budget holds (the idea of OpenVINO NNCF's
``quantize_with_accuracy_control``).
Damage is measured layer by layer in simulation; time and bytes are estimated from the layers' shapes.
A budget counts as held if the mean loss of as many other pictures would be within it 39 times in 40: the
mean of these is exceeded on the next pictures every other time.
What is found is only a proposal until its exported file has been run: ``quant.ptq`` does that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import torch
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp

from elir_mobile.precision import FP32, W8A8, Precision, Recipe, Rule, integer_grid
from elir_mobile.recommendation import BUDGET
from export.programs import Programs
from export.simulate import find_layers, trace
from quant.judge import Judge, Verdict

# Everything in int8 but the additions inside rewritten group norms, which no runtime does well.
FASTEST = Recipe("searched", (Rule("role:norm", FP32), Rule("*", W8A8)))
# Multiply-accumulates a millisecond of plain 3×3 convolutions: the middle of what
# benchmarks/roofline.py measured on two threads of an AVX2 machine (docs/decisions.md). The order
# of the layers depends on the ratio alone. Wider integers are taken to be slower by their bits.
FLOAT_RATE, INT8_RATE = 33e6, 78e6
ADDED_BITS = 80e6  # a millisecond of a sum moves. Assumed, not measured: through memory at 10 GB/s.
SCALE_BYTES = BIAS_BYTES = 4  # of an output channel


@dataclass(frozen=True)
class Cost:
    """What one layer does in one restoration.

    Attributes:
        macs: multiply-accumulates, of all its calls.
        added: values that a sum makes, of all its calls.
        weight: shape of the weight; empty for a sum.
        transposed: whether the weight is (in, out, …).
    """

    macs: float = 0.0
    added: float = 0.0
    weight: tuple[int, ...] = ()
    transposed: bool = False

    def milliseconds(self, precision: Precision) -> float:
        """Estimated time: of a convolution by its multiplications, of a sum by its three tensors."""
        bits = precision.activation_bits or precision.float_bits
        rate = FLOAT_RATE if precision.activation_bits is None else INT8_RATE * 8 / bits
        return self.macs / rate + 3 * self.added * bits / ADDED_BITS

    def bytes(self, precision: Precision) -> int:
        """Estimated size in the file: weight, scales and bias."""
        if not self.weight:
            return 0
        grid = integer_grid(precision, self.weight, transposed=self.transposed)
        bits, scales = (precision.float_bits, 0) if grid is None else (grid.bits, prod(grid.scales))
        channels = self.weight[1 if self.transposed else 0]
        return prod(self.weight) * bits // 8 + SCALE_BYTES * scales + BIAS_BYTES * channels


@dataclass(frozen=True)
class Budget:
    """What a recipe may cost; None: no limit."""

    psnr_drop_db: float | None = None
    lpips_rise: float | None = None
    max_bytes: int | None = None
    min_update_db: float | None = None  # SQNR of z_K - z_0 against float

    def held_by(self, psnr_drop_db: float | None, lpips_rise: float | None, update_db: float) -> bool:
        """Whether pictures so much worse than float are within the budget; what is not known is not."""
        if self.min_update_db is not None and not update_db >= self.min_update_db:
            return False
        limits = ((psnr_drop_db, self.psnr_drop_db), (lpips_rise, self.lpips_rise))
        return all(most is None or (value is not None and value <= most) for value, most in limits)

    @property
    def of_pictures(self) -> dict[str, float]:
        """As a manifest has it; what is not limited is as where nothing was asked for."""
        asked = {
            "psnr_drop_db": self.psnr_drop_db,
            "lpips_rise": self.lpips_rise,
            "update_sqnr_db": self.min_update_db,
        }
        return BUDGET | {name: most for name, most in asked.items() if most is not None}

    def __str__(self) -> str:
        parts = []
        if self.psnr_drop_db is not None:
            parts.append(f"PSNR drop at most {self.psnr_drop_db} dB")
        if self.lpips_rise is not None:
            parts.append(f"LPIPS rise at most {self.lpips_rise}")
        if self.min_update_db is not None:
            parts.append(f"SQNR of the update at least {self.min_update_db} dB")
        if self.max_bytes is not None:
            parts.append(f"at most {self.max_bytes} bytes")
        return ", ".join(parts)


@dataclass(frozen=True)
class Attempt:
    """One recipe that was tried: how many layers fall back to float, and what that gave and costs."""

    fallbacks: int
    recipe: Recipe
    verdict: Verdict
    milliseconds: float
    bytes: int
    holds: bool


def layer_costs(programs: Programs) -> dict[str, Cost]:
    """Work of every layer; a step's layer runs K times, sums of one name are added up."""
    costs: dict[str, Cost] = {}
    for name, module in programs.modules.items():
        graph = trace(module)
        with torch.no_grad():
            ShapeProp(graph).propagate(*programs.example_inputs[name])
        calls = programs.steps if name == "step" else 1
        for layer in find_layers(graph):
            n_in, n_out = (prod(node.meta["tensor_meta"].shape) for node in (layer.inputs[0], layer.node))
            if layer.module is None:
                before = costs.get(layer.name, Cost())
                costs[layer.name] = Cost(added=before.added + calls * n_out)
                continue
            shape = tuple(layer.module.get_parameter("weight").shape)
            # Each weight meets every output position once, or every input position if transposed.
            transposed = isinstance(layer.module, nn.ConvTranspose2d)
            positions = (n_in if transposed else n_out) / shape[0]
            costs[layer.name] = Cost(calls * prod(shape) * positions, 0.0, shape, transposed)
    return costs


def damages(judge: Judge, advance: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Relative error energy of the restored image with one layer alone in int8, for every layer."""
    found = {}
    fastest = FASTEST.on(judge.programs.roles)
    for layers in judge.layers.values():
        for layer in layers:
            if fastest.precision_of(layer) == W8A8:
                verdict = judge.judge(Recipe("alone", (Rule(layer, W8A8),)), programs=False)
                found[layer] = 10 ** (-verdict.image_db / 10)
            advance()
    return found


def fallback_order(damage: dict[str, float], costs: dict[str, Cost]) -> list[str]:
    """Layers by the damage they do for each millisecond that int8 saves, worst first."""

    def gain(layer: str) -> float:
        saved = costs[layer].milliseconds(FP32) - costs[layer].milliseconds(W8A8)
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

    Doubles the number of float fallbacks until the budget holds, then halves the interval: the budget
    is taken to hold with more layers in float if it holds with fewer.

    Args:
        judge: simulates a recipe on held-out pairs.
        order: layers, the first to fall back first.
        costs: of every layer.
        budget: what must hold.
        say: told of every recipe that is tried.

    Returns:
        An attempt whose ``holds`` is False if the budget cannot be held within its bytes: it is then
        the largest one that fits, or all of int8 if not even that does.
    """

    def on_layers(recipe: Recipe) -> tuple[dict[str, Precision], int]:
        bound = recipe.on(judge.programs.roles)
        precisions = {layer: bound.precision_of(layer) for layer in costs}
        return precisions, sum(cost.bytes(precisions[layer]) for layer, cost in costs.items())

    def attempt(fallbacks: int) -> Attempt:
        rules = tuple(Rule(layer, FP32) for layer in order[:fallbacks])
        recipe = Recipe(FASTEST.name, (*rules, *FASTEST.rules))
        precisions, size = on_layers(recipe)
        verdict = judge.judge(recipe, programs=False)
        tried = Attempt(
            fallbacks,
            recipe,
            verdict,
            sum(cost.milliseconds(precisions[layer]) for layer, cost in costs.items()),
            size,
            budget.held_by(verdict.psnr_drop_db_high, verdict.lpips_rise_high, verdict.update_db)
            and (budget.max_bytes is None or size <= budget.max_bytes),
        )
        say(tried)
        return tried

    most = len(order)
    if budget.max_bytes is not None:
        added = (costs[layer].bytes(FP32) - costs[layer].bytes(W8A8) for layer in order)
        sizes = list(accumulate(added, initial=on_layers(FASTEST)[1]))
        most = max(bisect_right(sizes, budget.max_bytes) - 1, 0)
    best = attempt(0)
    failed, fallbacks = 0, 1
    while not best.holds and failed < most:
        best = attempt(min(fallbacks, most))
        if not best.holds:
            failed, fallbacks = best.fallbacks, 2 * fallbacks
    if not best.holds:
        return best
    while best.fallbacks - failed > 1:
        tried = attempt((failed + best.fallbacks) // 2)
        if tried.holds:
            best = tried
        else:
            failed = tried.fallbacks
    return best
