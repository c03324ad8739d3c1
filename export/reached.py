"""What a recipe makes of the golden vectors in simulation: a file far below it computes something else."""

from __future__ import annotations

import math

import torch

from elir_mobile.core.golden import golden_outputs, golden_parity_db
from elir_mobile.core.manifest import GoldenArrays
from elir_mobile.harness.compare import ENOUGH_HALF_SQNR_DB, ENOUGH_PSNR_DB, ENOUGH_SQNR_DB
from elir_mobile.precision import Recipe
from elir_mobile.runtimes.runner import Runner
from export.calibrate import calibrate
from export.observers import activation_bits
from export.programs import Programs
from export.samples import collect_samples
from export.simulate import Ranges, simulate


def reached_db(programs: Programs, recipe: Recipe, golden: GoldenArrays, seed: int) -> dict[str, float]:
    """How near float the golden outputs of ``recipe`` come in simulation, in dB; what is enough is enough.

    Activation ranges are those of the golden picture itself: it is the gross fault that this finds.

    Args:
        programs: float programs.
        seed: of the golden noise.
    """
    ranges: Ranges = {}
    if recipe.needs_calibration:
        samples = collect_samples(programs, [torch.from_numpy(golden["input"])], seed)
        ranges = calibrate(programs, samples, bits=activation_bits(recipe) or 8)
    encode, step, decode = simulate(programs, recipe, ranges).modules.values()
    runner = Runner(encode, lambda z, k: step(z, programs.row(k)), decode)
    outputs = golden_outputs(runner.loop(programs.steps, programs.sigma_s), golden)
    # Beside integers a target may compute in float16, as Core ML does, and keep their scales in it: weights
    # that training left on their grid lose nothing in simulation, and that much in the file.
    half = recipe.half or recipe.rounds_weights
    enough = dict.fromkeys(("encode", "step"), ENOUGH_HALF_SQNR_DB if half else ENOUGH_SQNR_DB)
    return {
        name: min(math.inf if value is None else value, enough.get(name, ENOUGH_PSNR_DB))
        for name, value in golden_parity_db(outputs, golden).items()
    }
