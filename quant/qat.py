"""Quantization-aware training; the command is :mod:`elir_mobile.cli.qat`.

The collapsed float network goes on training while every layer that the recipe names computes with
rounded weights and activations, in the rewritten form that targets run. What is trained are the
parameters of the reference network: the exact rewrites (``export.forms``) are applied to them anew
at every step, with gradients, so that the result is an ordinary checkpoint that every exporter takes.
It learns to follow the float network, each latent of the trajectory and the picture at its end, with
the consistency term of LCFM beside that. It never sees a clean picture: what is regained is what
rounding took, not what more training would have given the float network too.
Activation ranges are calibrated, not learned, on several sets of pictures that take turns, since an
exporter calibrates anew on pictures of its own.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call

from elir_mobile.checkpoints import ModelInfo, save_weights
from elir_mobile.core.errors import UserError
from elir_mobile.core.files import write_text
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.data.pairs import PairSets
from elir_mobile.harness.compare import quality
from elir_mobile.harness.report import number
from elir_mobile.images import (
    hstack_images,
    list_images,
    read_image,
    square,
    to_image,
    to_tensor,
    vstack_images,
)
from elir_mobile.models.restorer import Restorer, sample, seeded_noise
from elir_mobile.precision import Recipe
from elir_mobile.tasks import Task
from elir_mobile.training.drawing import draw_batch
from elir_mobile.training.lcfm import LcfmConfig, consistency_loss
from elir_mobile.training.loop import fit, one_cycle
from elir_mobile.training.pixels import log_mse
from export.forms import time_biases, transposed_kernel
from export.programs import Programs, build_programs
from export.samples import collect_samples
from quant.calibrate import calibrate
from quant.gptq import Adjusted, adjusted_weights
from quant.simulate import Ranges, restore_batch, set_ranges, simulate

EMA_DECAY = 0.98
# An exporter calibrates on a dozen pictures that training does not know, so it trains for several dozens.
CALIBRATION_IMAGES = 12
CALIBRATION_SETS = 4
STRIP_IMAGES = 4
SAVE_EVERY = 50
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
        if isinstance(module, nn.ConvTranspose2d) and owner.startswith("dec."):
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
        adjusted: see :func:`quant.gptq.adjusted_weights`. A bias for a layer that has none in the
            reference network is left out, and so is a transposed convolution's weight, which is none of
            its parameters.
        steps: K.
    """
    start = copy.deepcopy(restorer)
    parameters = dict(start.named_parameters())
    for tensors in adjusted.values():
        for name, value in tensors.items():
            if name in parameters:
                parameters[name].copy_(value * _factor(name, steps))
    return start


@torch.no_grad()
def on_grid(student: Restorer, programs: nn.ModuleDict, steps: int) -> Restorer:
    """A copy of the student whose convolution weights are the rounded ones that it was trained with."""
    rounded = copy.deepcopy(student)
    for program in programs.values():
        for name, value in program_weights(student, program, steps).items():
            owner = name.removesuffix(_ROUNDED)
            if owner == name or isinstance(program.get_submodule(owner), nn.ConvTranspose2d):
                continue
            rounding = program.get_submodule(f"{owner}.parametrizations.weight.0")
            weight = f"{owner}.weight"
            rounded.get_parameter(weight).copy_(rounding(value) * _factor(weight, steps))
    return rounded.requires_grad_(False)


def _factor(parameter: str, steps: int) -> int:
    """From the exported programs, whose last convolution has 1/K in it, back to the reference network."""
    return steps if parameter.startswith("fmir.final_proj.") else 1


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
            lambda z, k: self.step(z, self._times(z, k)),
            lambda z: self.run_program("decode", z),
            x_lq,
            noise,
            steps=self.sampling_steps,
            sigma_s=self.sigma_s,
        )

    @torch.no_grad()
    def goals(self, x_lq: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images and trajectory of the float teacher."""
        return sample(
            self.teacher.encode,
            lambda z, k: z + self.teacher.velocity(z, self._times(z, k)) / self.sampling_steps,
            self.teacher.decode,
            x_lq,
            noise,
            steps=self.sampling_steps,
            sigma_s=self.sigma_s,
        )

    def _times(self, z: Tensor, k: int) -> Tensor:
        return torch.full((len(z),), k / self.sampling_steps, device=z.device)

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
        errors = [(z - goal).square().mean((1, 2, 3)) for z, goal in zip(path, goals, strict=True)]
        trajectory = torch.stack(errors).add(1e-6).log().mean()
        times = torch.rand((len(x_lq), 1, 1, 1), generator=torch.Generator().manual_seed(seed)).to(x_lq)
        lcfm, _, _ = consistency_loss(
            self.velocity, path[0].detach(), goals[-1], (1 - self.lcfm.dt) * times, self.lcfm
        )
        terms = {
            "image": log_mse(image, goal_image),
            "trajectory": trajectory,
            "lcfm": lcfm.log(),
        }
        loss = terms["image"] + TRAJECTORY_WEIGHT * trajectory + LCFM_WEIGHT * terms["lcfm"]
        return {"loss": loss, **terms}

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
        columns = x_lq, self.goals(x_lq, noise)[0], self.restored(x_lq, noise)[0]
        return vstack_images(
            [hstack_images([to_image(x.cpu()) for x in row]) for row in zip(*columns, strict=True)]
        )


@dataclass(frozen=True)
class QatConfig:
    """What a training run is, besides its model and its pictures."""

    recipe: Recipe
    steps: int = 200
    batch: int = 4
    lr: float = 1e-5
    seed: int = 0


def run_folder(out: Path, task: str, config: QatConfig) -> Path:
    """Where a run keeps its checkpoints."""
    return out / f"qat-{task}-{config.recipe.name}-{config.seed}"


def training_images(folder: Path | None, size: int) -> Tensor:
    """Clean images (N, 3, size, size) uint8 of a folder, or the face set's training identities.

    Raises:
        UserError: the folder has no images, or the face set cannot be downloaded.
    """
    if folder is None:
        return load_faces(face_split()[0], size)
    tensors = [to_tensor(square(read_image(path), size)) for path in list_images(folder)]
    return (torch.stack(tensors) * 255).round().byte()


def train(
    restorer: Restorer, info: ModelInfo, task: Task, config: QatConfig, images: Tensor, run_dir: Path
) -> tuple[Restorer, float]:
    """Train in ``run_dir``, going on from what is there; nothing is trained twice.

    Args:
        restorer, info: the float model.
        images: clean (N, 3, S, S) uint8.

    Returns:
        The trained network, float, and the CPU minutes that training took.

    Raises:
        UserError: the folder holds another run.
    """
    facts = {"task": task.name, "weights": info.sha256, "images": len(images), **asdict(config)}
    facts["recipe"] = config.recipe.to_json()
    record = run_dir / "run.json"
    if record.exists() and record.read_text() != json.dumps(facts, default=list):
        raise UserError(f"{run_dir} holds another run, see {record}: name another folder or delete it")
    write_text(record, json.dumps(facts, default=list))

    size = images.shape[-1]

    def batch(generator: torch.Generator, count: int = config.batch) -> tuple[Tensor, int]:
        drawn = draw_batch(images, task, count, generator)
        return drawn.degraded, drawn.seed

    generator = torch.Generator().manual_seed(config.seed)
    seen = [batch(generator, CALIBRATION_IMAGES)[0] for _ in range(CALIBRATION_SETS)]
    programs = build_programs(restorer, size=size, steps=info.steps, sigma_s=info.sigma_s)
    samples = collect_samples(programs, torch.cat(seen).split(1), config.seed)
    start = starting_point(restorer, adjusted_weights(programs, config.recipe, samples), info.steps)
    programs = build_programs(start, size=size, steps=info.steps, sigma_s=info.sigma_s)
    ranges: list[Ranges] = [{}]
    bits = config.recipe.activation_bits
    if bits is not None:
        ranges = [
            calibrate(programs, collect_samples(programs, dozen.split(1), config.seed), bits=bits)
            for dozen in seen
        ]
    module = QatTraining(restorer, start, programs, config.recipe, ranges, steps=config.steps, lr=config.lr)
    fit(
        module,
        batch,
        lambda: module.draw(seen[0][:STRIP_IMAGES]),
        run_dir,
        steps=config.steps,
        seed=config.seed + 1,
        ema_decay=EMA_DECAY,
        save_every=min(SAVE_EVERY, config.steps),
    )
    finished = torch.load(run_dir / "last.ckpt", map_location="cpu", weights_only=True)
    trained = on_grid(module.student.cpu().eval(), module.programs, info.steps)
    return trained, finished["cpu_seconds"] / 60


def save_trained(trained: Restorer, info: ModelInfo, task: Task, recipe: Recipe, folder: Path) -> Path:
    """Write the trained network beside its run, in float32: an exporter then rounds as training did.

    Returns:
        The file; ``info`` is the float model's.
    """
    path = folder / f"qat-{task.name}-{recipe.name}.safetensors"
    save_weights(
        trained,
        path,
        task=task.name,
        size=info.size,
        steps=info.steps,
        sigma_s=info.sigma_s,
        domain=info.domain,
        dtype=torch.float32,
    )
    return path


@torch.no_grad()
def simulated_quality(
    restorer: Restorer, info: ModelInfo, recipe: Recipe, data: PairSets, seed: int
) -> dict[str, float | None]:
    """PSNR, SSIM and LPIPS against ground truth of ``restorer`` quantized as an exporter would.

    That is, with activation ranges calibrated along its own float trajectories on
    ``data.calibration``. Image ``i`` gets the noise of ``seed + i``, as in ``quant.ptq``.
    """
    size = data.evaluation[0].degraded.shape[-1]
    programs = build_programs(restorer, size=size, steps=info.steps, sigma_s=info.sigma_s)
    ranges: Ranges = {}
    if recipe.activation_bits is not None:
        samples = collect_samples(programs, (pair.degraded for pair in data.calibration), seed)
        ranges = calibrate(programs, samples, bits=recipe.activation_bits)
    simulated = simulate(programs, recipe, ranges)
    degraded = torch.cat([pair.degraded for pair in data.evaluation])
    shape = programs.latent_shape
    noise = torch.cat([seeded_noise(shape, seed + i) for i in range(len(degraded))])
    restored, _ = restore_batch(simulated, degraded, noise)
    return quality(list(restored.split(1)), data.evaluation)


def make_row(
    recipe: str,
    method: str,
    measured: dict[str, float | None],
    reference: dict[str, float | None],
    **facts: object,
) -> dict[str, object]:
    """One line of a report: quality, and how far it is from the float model's, ``reference``."""

    def difference(key: str, sign: int) -> float | None:
        ours, float_ = measured[key], reference[key]
        return None if ours is None or float_ is None else sign * (ours - float_)

    return {
        "recipe": recipe,
        "method": method,
        **facts,
        **measured,
        "drop_psnr_db": difference("psnr_db", -1),
        "rise_lpips": difference("lpips", 1),
    }


def show_rows(rows: list[dict]) -> Table:
    """Rows of :func:`make_row` for the terminal."""
    table = Table()
    names = ("recipe", "method", "run by")
    for title in (*names, "seed", "PSNR, dB", "SSIM", "LPIPS", "drop, dB", "LPIPS rise", "CPU min"):
        table.add_column(title, justify="left" if title in names else "right")
    for row in rows:
        table.add_row(
            row["recipe"],
            row["method"],
            row["run_by"],
            str(row.get("seed", "")),
            number(row["psnr_db"], 2),
            number(row["ssim"], 4),
            number(row["lpips"], 4),
            number(row["drop_psnr_db"], 3),
            number(row["rise_lpips"], 4),
            number(row.get("minutes"), 1),
        )
    return table


if __name__ == "__main__":
    from elir_mobile.cli.qat import app

    app()
