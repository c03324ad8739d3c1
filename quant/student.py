"""The quantized student of :mod:`quant.qat`, and how its weights and those of its programs are the same ones.

What is trained are the parameters of the reference network: the exact rewrites (``export.forms``) are
applied to them anew at every step, with gradients, so that the result is an ordinary checkpoint that every
exporter takes. It learns to follow the float network, each latent of the trajectory and the picture at its
end, with the consistency term of LCFM beside that. It never sees a clean picture: what is regained is what
rounding took, not what more training would have given the float network too.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from elir_mobile.images import image_rows
from elir_mobile.models.restorer import Restorer, sample, seeded_noise
from elir_mobile.precision import Recipe
from elir_mobile.training.lcfm import LcfmConfig, consistency_loss
from elir_mobile.training.loop import one_cycle
from export.forms import time_biases, transposed_kernel
from export.gptq import Adjusted
from export.programs import Programs
from export.simulate import Ranges, set_ranges, simulate

# Of the loss, beside 1 for the picture.
TRAJECTORY_WEIGHT = 0.5
LCFM_WEIGHT = 0.1

_ROUNDED = ".parametrizations.weight.original"  # what a rounded weight is called in a simulation


def program_weights(restorer: Restorer, program: nn.Module, steps: int) -> dict[str, Tensor]:
    """The float weights of a simulated program as differentiable functions of the reference network's.

    Args:
        restorer: the reference network, collapsed.
        program: a simulated program of it (``simulate(…, trainable=True)``).
        steps: K.

    Returns:
        A tensor for every parameter of ``program`` that is no activation range.
    """
    weights = {}
    for name, parameter in program.named_parameters():
        owner = name.removesuffix(_ROUNDED) if name.endswith(_ROUNDED) else name.rpartition(".")[0]
        module = program.get_submodule(owner)
        value: Tensor = restorer.get_parameter(name.replace(_ROUNDED, ".weight"))
        if _rewritten(restorer, owner, module):
            value = transposed_kernel(value)
        if owner == "fmir.final_proj":
            value = value / steps
        weights[name] = value.view(parameter.shape)  # a rewritten GroupNorm's are (1, C, 1, 1)
    return weights


@torch.no_grad()
def starting_point(restorer: Restorer, adjusted: Adjusted, steps: int) -> Restorer:
    """A copy of the reference network with what post-training quantization does to its weights.

    Args:
        restorer: the float network, collapsed.
        adjusted: see :func:`export.gptq.adjusted_weights`, weights alone: corrected biases make sense
            together with those of layers that have none in the reference network. Training has them all.
        steps: K.
    """
    start = copy.deepcopy(restorer)
    parameters = dict(start.named_parameters())
    for tensors in adjusted.values():
        for name, value in tensors.items():
            parameters[name].copy_(value * _factor(name, steps))
    return start


@torch.no_grad()
def on_grid(student: Restorer, programs: nn.ModuleDict, steps: int) -> Restorer:
    """A copy of the student whose convolution weights are the rounded ones that it was trained with."""
    rounded = copy.deepcopy(student)
    for program in programs.values():
        for name, value in program_weights(student, program, steps).items():
            owner = name.removesuffix(_ROUNDED)
            if owner == name or _rewritten(student, owner, program.get_submodule(owner)):
                continue
            rounding = program.get_submodule(f"{owner}.parametrizations.weight.0")
            weight = f"{owner}.weight"
            rounded.get_parameter(weight).copy_(rounding(value) * _factor(weight, steps))
    return rounded.requires_grad_(False)


def _rewritten(restorer: Restorer, owner: str, module: nn.Module) -> bool:
    """Whether a program's layer is a transposed convolution that stands for a nearest upsampling and a
    convolution without bias, as the head of the half form does not: it is one in the reference network."""
    return isinstance(module, nn.ConvTranspose2d) and not isinstance(
        restorer.get_submodule(owner), nn.ConvTranspose2d
    )


def _factor(parameter: str, steps: int) -> int:
    """From the exported programs, whose last convolution has 1/K in it, back to the reference network."""
    return steps if parameter.startswith("fmir.final_proj.") else 1


def log_mse(out: Tensor, ref: Tensor) -> Tensor:
    """Mean over (N, C, H, W) of the logarithm of each one's mean squared error: -0.23 × PSNR in dB.

    NAFNet's PSNRLoss (https://arxiv.org/abs/2204.04676, upstream ``basicsr/models/losses/losses.py``).
    """
    return (out - ref).square().mean((1, 2, 3)).add(1e-6).log().mean()


class QatTraining(L.LightningModule):
    """Trains a quantized student after its float self on batches ``(x_lq, seed)``.

    Args:
        restorer: the collapsed float network.
        start: what the student starts as; both stay as they are.
        programs: of ``start``.
        recipe: what is rounded.
        ranges: activation ranges from several sets of images; every batch is rounded to one of them.
        steps, lr: length and peak of the one-cycle schedule.
    """

    def __init__(
        self,
        restorer: Restorer,
        start: Restorer,
        programs: Programs,
        recipe: Recipe,
        ranges: list[Ranges],
        *,
        steps: int,
        lr: float,
    ) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(restorer).requires_grad_(False)
        self.student = copy.deepcopy(start).requires_grad_(True)
        self.ranges = ranges
        simulated = simulate(programs, recipe, ranges[0], trainable=True).modules
        self.programs = nn.ModuleDict(simulated).requires_grad_(
            False
        )  # its weights are replaced at every call
        self.sampling_steps = programs.steps
        self.sigma_s = programs.sigma_s
        self.lcfm = LcfmConfig(steps=programs.steps, sigma_s=programs.sigma_s)
        self.steps = steps
        self.lr = lr
        self.cpu_seconds = 0.0

    def run_program(self, name: str, *inputs: Tensor) -> Tensor:
        """A quantized program with the student's present weights."""
        program = self.programs[name]
        return functional_call(program, program_weights(self.student, program, self.sampling_steps), inputs)

    def step(self, z: Tensor, t: Tensor) -> Tensor:
        """One Euler step of the quantized student from latent ``z`` (N, C, h, w) at times ``t`` (N,)."""
        return self.run_program("step", z, time_biases(self.student.fmir, t)[:, :, None, None])

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """The quantized student's velocity, arguments as of :meth:`step`."""
        return (self.step(z, t) - z) * self.sampling_steps

    def restored(self, x_lq: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images and trajectory of the quantized student."""
        return sample(
            lambda x: self.run_program("encode", x),
            lambda z, k: self.step(z, torch.full((len(z),), k / self.sampling_steps, device=z.device)),
            lambda z: self.run_program("decode", z),
            x_lq,
            noise,
            steps=self.sampling_steps,
            sigma_s=self.sigma_s,
        )

    @torch.no_grad()
    def goals(self, x_lq: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images and trajectory of the float teacher."""
        coarse, steps = self.teacher.encode(x_lq), self.sampling_steps
        path = self.teacher.trajectory(coarse, noise, steps=steps, sigma_s=self.sigma_s)
        return self.teacher.decode(path[-1]), path

    def _noise(self, x_lq: Tensor, seed: int) -> Tensor:
        shape = self.student.arch.latent_shape(*x_lq.shape[2:])
        return seeded_noise((len(x_lq), *shape[1:]), seed).to(x_lq)

    def losses(self, x_lq: Tensor, seed: int) -> dict[str, Tensor]:
        """The loss and its terms.

        ``image`` is the logarithm of the squared error of the picture against the float one (that
        is, their PSNR), ``trajectory`` that of every latent, averaged; ``lcfm`` is the logarithm
        of the consistency loss of the quantized velocity between the student's own start and the
        latent that float ends at. Logarithms make the three comparable whatever the model.
        """
        ranges = self.ranges[seed % len(self.ranges)]
        for name, program in self.programs.items():
            set_ranges(program, ranges.get(name, {}))
        noise = self._noise(x_lq, seed)
        goal_image, goals = self.goals(x_lq, noise)
        image, path = self.restored(x_lq, noise)
        times = torch.rand((len(x_lq), 1, 1, 1), generator=torch.Generator().manual_seed(seed)).to(x_lq)
        lcfm, _, _ = consistency_loss(
            self.velocity, path[0].detach(), goals[-1], (1 - self.lcfm.dt) * times, self.lcfm
        )
        image_term, trajectory = log_mse(image, goal_image), log_mse(torch.cat(path), torch.cat(goals))
        loss = image_term + TRAJECTORY_WEIGHT * trajectory + LCFM_WEIGHT * lcfm.log()
        return {"loss": loss, "image": image_term, "trajectory": trajectory, "lcfm": lcfm.log()}

    def training_step(self, batch: tuple[Tensor, int], batch_idx: int) -> Tensor:
        terms = self.losses(*batch)
        self.log_dict(terms, prog_bar=True)
        return terms["loss"]

    def configure_optimizers(self):
        return one_cycle(self.student.parameters(), self.lr, self.steps)

    def on_train_start(self) -> None:
        self.started = time.process_time() - self.cpu_seconds

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cpu_seconds"] = time.process_time() - self.started

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.cpu_seconds = checkpoint["cpu_seconds"]

    @torch.no_grad()
    def draw(self, x_lq: Tensor) -> Image.Image:
        """Rows of degraded, restored in float, and restored quantized image."""
        x_lq = x_lq.to(self.device)
        noise = self._noise(x_lq, 0)
        return image_rows([x_lq, self.goals(x_lq, noise)[0], self.restored(x_lq, noise)[0]])
