"""The three programs that every target runs: ``encode``, ``step``, ``decode``.

The sampling loop stays with the host (``elir_mobile.core.sampling.sample``); a program is a
pure function of fixed-shape float32 tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from elir_mobile.core.sampling import sample
from elir_mobile.models.restorer import Restorer
from elir_mobile.models.roles import layer_roles
from elir_mobile.precision import Recipe
from export.forms import CPU, Form, TableUnet, rewrite_group_norms, timestep_table

PROGRAM_NAMES = ("encode", "step", "decode")

Samples = dict[str, list[tuple[Tensor, ...]]]  # program name → inputs seen on real trajectories


def check_samples(recipe: Recipe, samples: Samples) -> None:
    """Refuse to lower by a recipe that needs calibration without calibration inputs.

    Raises:
        ValueError: it does, and there are none.
    """
    if recipe.needs_calibration and not samples:
        raise ValueError(f"recipe '{recipe.name}' needs calibration samples")


@dataclass(frozen=True)
class Delegation:
    """How an exported program is split.

    Attributes:
        delegates: how many there are.
        ops_outside: operators that run outside of them, in order.
        ops_inside: what the delegates run, read back from the written file: how many of each operator, by the
            delegate's own names. None where the file does not tell.
    """

    delegates: int
    ops_outside: tuple[str, ...]
    ops_inside: dict[str, int] | None = None


class Encode(nn.Module):
    """Degraded image (1, 3, H, W) in [0, 1] → coarse latent (1, C, H/8, W/8)."""

    def __init__(self, restorer: Restorer) -> None:
        super().__init__()
        self.enc = restorer.enc
        self.mmse = restorer.mmse

    def forward(self, image: Tensor) -> Tensor:
        return self.mmse(self.enc(image))


class Step(nn.Module):
    """Latent and this step's table row (1, ΣC, 1, 1) → latent after one Euler step."""

    def __init__(self, restorer: Restorer, steps: int) -> None:
        super().__init__()
        self.fmir = TableUnet(restorer.fmir)
        # The step width 1/K goes into the last convolution.
        self.fmir.final_proj.weight.data /= steps
        self.fmir.final_proj.bias.data /= steps  # type: ignore[union-attr]  # it has a bias

    def forward(self, latent: Tensor, row: Tensor) -> Tensor:
        return latent + self.fmir(latent, row)


class Decode(nn.Module):
    """Latent (1, C, h, w) → image (1, 3, 8h, 8w) clipped to [0, 1] by ``clip``."""

    def __init__(self, restorer: Restorer, clip: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dec = restorer.dec
        self.clip = clip

    def forward(self, latent: Tensor) -> Tensor:
        return self.clip(self.dec(latent))


@dataclass(frozen=True, eq=False)  # one is like no other: targets remember the last they converted
class Programs:
    """The rewritten modules, the table of time biases, and example inputs of the exported shapes.

    ``roles`` are those of the layers, which keep their names when they are rewritten.
    """

    modules: dict[str, nn.Module]
    example_inputs: dict[str, tuple[Tensor, ...]]
    table: Tensor  # (K, ΣC)
    steps: int
    sigma_s: float
    roles: dict[str, str] = field(default_factory=dict)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return tuple(self.example_inputs["decode"][0].shape)

    def row(self, k: int) -> Tensor:
        """Table row of step ``k`` as the step program takes it: (1, ΣC, 1, 1)."""
        return self.table[k].view(1, -1, 1, 1)

    def restore(
        self, run: Callable[..., Tensor], image: Tensor, noise: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """:func:`elir_mobile.core.sampling.sample`, each program called as ``run(name, *inputs)``."""
        return sample(
            lambda x: run("encode", x),
            lambda z, k: run("step", z, self.row(k)),
            lambda z: run("decode", z),
            image,
            noise,
            steps=self.steps,
            sigma_s=self.sigma_s,
        )


def build_programs(
    restorer: Restorer, *, size: int, steps: int, sigma_s: float, form: Form = CPU
) -> Programs:
    """Copy and rewrite ``restorer`` for square images of ``size`` pixels and K = ``steps``.

    Args:
        form: the rewrites that the target takes best.

    Raises:
        ValueError: ``size`` does not suit the network.
    """
    multiple = restorer.arch.size_multiple
    if size <= 0 or size % multiple:
        raise ValueError(f"the image side must be a positive multiple of {multiple}, got {size}")
    copied = copy.deepcopy(restorer).eval().requires_grad_(False)
    rewrite_group_norms(copied, form.group_norm)
    form.upsampling(copied.dec.layers)
    modules = {"encode": Encode(copied), "step": Step(copied, steps), "decode": Decode(copied, form.clip)}
    latent = torch.zeros(restorer.arch.latent_shape(size, size))
    table = timestep_table(restorer.fmir, steps)
    return Programs(
        modules=modules,
        example_inputs={
            "encode": (torch.zeros(1, 3, size, size),),
            "step": (latent, table[0].view(1, -1, 1, 1)),
            "decode": (latent,),
        },
        table=table,
        steps=steps,
        sigma_s=sigma_s,
        roles=layer_roles(restorer),
    )
