"""What a recipe does to the pictures, judged by simulation on a few held-out pairs.

Sensitivity and search ask about hundreds of recipes that differ in one layer. Programs come one
after another, so whatever comes before the first changed layer's program is taken from memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from elir_mobile.core.statistics import sqnr_db
from elir_mobile.data.pairs import Pair
from elir_mobile.harness.compare import damage, measured
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.precision import FP32, Precision, Recipe
from export.gptq import Adjusted, module_with_weights
from export.programs import PROGRAM_NAMES, Programs
from export.simulate import Ranges, in_parts, layer_names, restore_batch, simulate_program

Key = tuple[Precision, ...]  # the precision of every layer of a program


@dataclass(frozen=True)
class Verdict:
    """A recipe against float on the judged pairs.

    Attributes:
        program_db: SQNR of each program on the float programs' inputs; infinite where nothing is rounded,
            empty where not asked for.
        trajectory_db: SQNR of the latent after each step.
        update_db: SQNR of the update z_K - z_0, what the flow itself does.
        image_db: SQNR of the restored image.
        psnr_drop_db, lpips_rise: how much further from ground truth than float, the mean over the
            pairs; the second None where LPIPS is not installed.
        psnr_drop_db_high, lpips_rise_high: what the mean over as many other pairs stays below, 39 times
            in 40; None for a single pair.
    """

    program_db: dict[str, float]
    trajectory_db: list[float]
    update_db: float
    image_db: float
    psnr_drop_db: float
    lpips_rise: float | None
    psnr_drop_db_high: float | None
    lpips_rise_high: float | None


@dataclass
class Judge:
    """Float programs, the pairs, and what float makes of them.

    Args:
        programs: float programs.
        ranges: activation ranges of them, from other images than ``pairs``.
        pairs: what recipes are judged on; image ``i`` gets the noise of ``seed + i``.
        adjusted: weights and biases for the layers that a recipe rounds, see
            :func:`export.gptq.adjusted_weights`; those it leaves in float keep their own.
    """

    programs: Programs
    ranges: Ranges
    pairs: list[Pair]
    seed: int = 0
    adjusted: Adjusted = field(default_factory=dict)
    layers: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = layer_names(self.programs)
        self.degraded = torch.cat([pair.degraded for pair in self.pairs])
        shape = self.programs.latent_shape
        self.noise = torch.cat([seeded_noise(shape, self.seed + i) for i in range(len(self.pairs))])
        with torch.no_grad():
            self.coarse = in_parts(self.programs.modules["encode"], self.degraded)
        self.restored, self.trajectory = restore_batch(self.programs, self.degraded, self.noise)
        self.quality = measured([self.restored], self.pairs)
        self._modules: dict[str, tuple[Key, nn.Module]] = {}
        self._starts: dict[Key, Tensor] = {}
        self._paths: dict[Key, list[Tensor]] = {}
        self._program_db: dict[tuple[str, Key], float] = {}
        self._verdicts: dict[tuple[Key, bool], Verdict] = {}

    def _module(self, name: str, recipe: Recipe, key: Key) -> nn.Module:
        """The simulated program; of each the last one asked for is kept."""
        if set(key) == {FP32}:
            return self.programs.modules[name]
        if self._modules.get(name, ((), None))[0] != key:
            adjusted = {
                parameter: value
                for parameter, value in self.adjusted.get(name, {}).items()
                if recipe.precision_of(parameter.rpartition(".")[0]) != FP32
            }
            module = self.programs.modules[name]
            if adjusted:
                module = module_with_weights(module, adjusted)
            self._modules[name] = key, simulate_program(module, recipe, self.ranges.get(name, {}))[0]
        return self._modules[name][1]

    @torch.no_grad()
    def judge(self, recipe: Recipe, *, programs: bool = True) -> Verdict:
        """Restore the pairs under ``recipe``, or remember what it did before.

        Args:
            programs: hold each program against float by itself too, which takes as long again.
        """
        recipe = recipe.on(self.programs.roles)
        keys = {
            name: tuple(recipe.precision_of(layer) for layer in self.layers[name]) for name in PROGRAM_NAMES
        }
        asked = keys["encode"] + keys["step"] + keys["decode"], programs
        if asked not in self._verdicts:
            self._verdicts[asked] = self._restore(recipe, keys, programs)
        return self._verdicts[asked]

    def _restore(self, recipe: Recipe, keys: dict[str, Key], alone: bool) -> Verdict:
        encode, step, decode = (self._module(name, recipe, keys[name]) for name in PROGRAM_NAMES)
        programs = self.programs

        started = keys["encode"]
        if started not in self._starts:
            self._starts[started] = in_parts(encode, self.degraded) + programs.sigma_s * self.noise
        stepped = keys["encode"] + keys["step"]
        if stepped not in self._paths:
            path = [self._starts[started]]
            for k in range(programs.steps):
                path.append(in_parts(step, path[-1], programs.row(k)))
            self._paths[stepped] = path
        path = self._paths[stepped]
        image = in_parts(decode, path[-1])

        program_db = {}
        for name, module in (("encode", encode), ("step", step), ("decode", decode)) if alone else ():
            if (name, keys[name]) not in self._program_db:
                self._program_db[name, keys[name]] = self._program_sqnr(name, module)
            program_db[name] = self._program_db[name, keys[name]]
        return self._verdict(program_db, path, image)

    @torch.no_grad()
    def judge_programs(self, simulated: Programs) -> Verdict:
        """Restore the pairs with programs whatever, which are held against the float ones."""
        image, path = restore_batch(simulated, self.degraded, self.noise)
        program_db = {name: self._program_sqnr(name, simulated.modules[name]) for name in PROGRAM_NAMES}
        return self._verdict(program_db, path, image)

    def _verdict(self, program_db: dict[str, float], path: list[Tensor], image: Tensor) -> Verdict:
        worse = damage(measured([image], self.pairs), self.quality, [pair.source for pair in self.pairs])
        return Verdict(
            program_db=program_db,
            trajectory_db=[
                sqnr_db(want, got) for want, got in zip(self.trajectory[1:], path[1:], strict=True)
            ],
            update_db=sqnr_db(self.trajectory[-1] - self.trajectory[0], path[-1] - path[0]),
            image_db=sqnr_db(self.restored, image),
            psnr_drop_db=worse["psnr_drop_db"],  # type: ignore[arg-type]  # PSNR can always be measured
            lpips_rise=worse["lpips_rise"],
            psnr_drop_db_high=_for_others(worse, "psnr_drop_db"),
            lpips_rise_high=_for_others(worse, "lpips_rise"),
        )

    def _program_sqnr(self, name: str, module: nn.Module) -> float:
        if name == "encode":
            return sqnr_db(self.coarse, in_parts(module, self.degraded))
        if name == "decode":
            return sqnr_db(self.restored, in_parts(module, self.trajectory[-1]))
        outs = [in_parts(module, z, self.programs.row(k)) for k, z in enumerate(self.trajectory[:-1])]
        return sqnr_db(torch.cat(self.trajectory[1:]), torch.cat(outs))


def _for_others(worse: dict[str, float | None], name: str) -> float | None:
    """Upper end of a prediction interval: the mean of other pairs varies as much as that of these."""
    mean, high = worse[name], worse[f"{name}_high"]
    return None if mean is None or high is None else mean + math.sqrt(2) * (high - mean)
