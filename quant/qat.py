"""Quantization-aware training; the command is :mod:`elir_mobile.cli.qat`.

The collapsed float network goes on training while every layer that the recipe names computes with
rounded weights and activations, in the rewritten form that targets run (``quant/student.py``).
Activation ranges are calibrated, not learned, on several sets of pictures that take turns, since an
exporter calibrates anew on pictures of its own.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import, so that Ctrl-C is no traceback
    from elir_mobile.cli.options import alone
    from elir_mobile.cli.qat import main

    alone(main)()

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from elir_mobile.checkpoints import ModelInfo, save_weights
from elir_mobile.core.errors import UserError, say
from elir_mobile.core.files import locked, write_text
from elir_mobile.core.statistics import sqnr_db, unless_equal
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.data.pairs import Pair, PairCounts, PairSets
from elir_mobile.harness.compare import damage, means, measured
from elir_mobile.harness.report import number
from elir_mobile.images import list_images, read_image, readable, square, to_image, to_tensor
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.precision import Recipe
from elir_mobile.tasks import Degradation, Task
from export.calibrate import calibrate
from export.gptq import adjusted_weights
from export.observers import activation_bits
from export.programs import build_programs
from export.samples import collect_samples
from export.simulate import Ranges, restore_batch, simulate

EMA_DECAY = 0.98
# An exporter calibrates on pictures that training does not know, so it trains for several sets of as many.
CALIBRATION_IMAGES = PairCounts().calibration
CALIBRATION_SETS = 4
STRIP_IMAGES = 4
SAVE_EVERY = 50


@dataclass(frozen=True)
class QatConfig:
    """What a training run is, besides its model and its pictures."""

    recipe: Recipe
    steps: int = 200
    batch: int = 4
    lr: float = 1e-5
    seed: int = 0


def training_images(folder: Path | None, size: int) -> Tensor:
    """Clean images (N, 3, size, size) uint8 of a folder, or the face set's training identities.

    Raises:
        UserError: the folder has no images that can be read, or the face set cannot be downloaded.
    """
    if folder is None:
        return load_faces(face_split()[0], size)
    paths = readable(list_images(folder, say), say)
    tensors = [to_tensor(square(read_image(path), size)) for path in paths]
    if not tensors:
        raise UserError(f"{folder} has no image that can be read: put others into it")
    return (torch.stack(tensors) * 255).round().byte()


def draw_batch(
    images: Tensor, degrade: Degradation, count: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Some of ``images`` (N, 3, S, S) uint8, with replacement, mirrored or not, and degraded.

    Returns:
        (count, 3, S, S) in [0, 1], and a seed for the noise, which the degradations had too.
    """
    picks, mirrored, (seed,) = (
        torch.randint(most, (number,), generator=generator).tolist()
        for most, number in ((len(images), count), (2, count), (2**31, 1))
    )
    rng = np.random.default_rng(seed)
    clean = [images[i].flip(-1) if mirror else images[i] for i, mirror in zip(picks, mirrored, strict=True)]
    degraded = [to_tensor(degrade(to_image(image.float() / 255), rng)) for image in clean]
    return torch.stack(degraded), seed


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
    from elir_mobile.training.loop import fit
    from quant.student import QatTraining, on_grid, starting_point

    facts = {"task": task.name, "weights": info.sha256, "images": len(images), **asdict(config)}
    facts["recipe"] = config.recipe.to_json()
    record = run_dir / "run.json"
    if record.exists() and record.read_text() != json.dumps(facts, default=list):
        raise UserError(f"{run_dir} holds another run, see {record}: name another folder or delete it")
    write_text(record, json.dumps(facts, default=list))

    size = images.shape[-1]

    def batch(generator: torch.Generator, count: int = config.batch) -> tuple[Tensor, int]:
        return draw_batch(images, task.degradation(info.domain), count, generator)

    generator = torch.Generator().manual_seed(config.seed)
    seen = [batch(generator, CALIBRATION_IMAGES)[0] for _ in range(CALIBRATION_SETS)]
    programs = build_programs(restorer, size=size, steps=info.steps, sigma_s=info.sigma_s)
    samples = collect_samples(programs, torch.cat(seen).split(1), config.seed)
    start = starting_point(
        restorer, adjusted_weights(programs, config.recipe, samples, biases=False), info.steps
    )
    programs = build_programs(start, size=size, steps=info.steps, sigma_s=info.sigma_s)
    ranges: list[Ranges] = [{}]
    bits = activation_bits(config.recipe)
    if bits is not None:
        ranges = [
            calibrate(programs, collect_samples(programs, pictures.split(1), config.seed), bits=bits)
            for pictures in seen
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


def trained(
    restorer: Restorer, info: ModelInfo, task: Task, config: QatConfig, images: Tensor, out: Path
) -> tuple[Restorer, float, Path]:
    """:func:`train` in the run's own folder below ``out``, and write the network there.

    Returns:
        What :func:`train` does, and the file, in float32: an exporter then rounds as training did.
    """
    folder = out / f"qat-{task.name}-{config.recipe.name}-{config.seed}"
    with locked(folder, f"another run is in {folder}: wait until it ends, or name another --out"):
        network, minutes = train(restorer, info, task, config, images, folder)
    path = folder / f"qat-{task.name}-{config.recipe.name}.safetensors"
    save_weights(
        network,
        path,
        task=task.name,
        size=info.size,
        steps=info.steps,
        sigma_s=info.sigma_s,
        domain=info.domain,
        dtype=torch.float32,
    )
    return network, minutes, path


@dataclass(frozen=True)
class Made:
    """What a network makes of the pairs that it is measured on.

    Attributes:
        values: PSNR, SSIM and LPIPS of each picture, see :func:`elir_mobile.harness.compare.measured`.
        update: z_K - z_0, (N, C, S/8, S/8).
        sources: the photograph of each pair.
    """

    values: dict[str, np.ndarray]
    update: Tensor
    sources: list[str]

    @classmethod
    def of(cls, images: Tensor, trajectory: list[Tensor], pairs: list[Pair]) -> Made:
        """Of restored pictures (N, 3, S, S) in [0, 1] and the latents z_0 to z_K on their way."""
        update = trajectory[-1] - trajectory[0]
        return cls(measured([images], pairs), update, [pair.source for pair in pairs])


@torch.no_grad()
def simulated(restorer: Restorer, info: ModelInfo, recipe: Recipe, data: PairSets, seed: int) -> Made:
    """What ``restorer`` makes of ``data.evaluation``, quantized as an exporter would.

    That is, with activation ranges calibrated along its own float trajectories on
    ``data.calibration``. Image ``i`` gets the noise of ``seed + i``, as in ``quant.ptq``.
    """
    size = data.evaluation[0].degraded.shape[-1]
    programs = build_programs(restorer, size=size, steps=info.steps, sigma_s=info.sigma_s)
    ranges: Ranges = {}
    if (bits := activation_bits(recipe)) is not None:
        samples = collect_samples(programs, (pair.degraded for pair in data.calibration), seed)
        ranges = calibrate(programs, samples, bits=bits)
    degraded = torch.cat([pair.degraded for pair in data.evaluation])
    noise = torch.cat([seeded_noise(programs.latent_shape, seed + i) for i in range(len(degraded))])
    return Made.of(*restore_batch(simulate(programs, recipe, ranges), degraded, noise), data.evaluation)


def make_row(recipe: str, method: str, ours: Made, reference: Made, **facts: object) -> dict[str, object]:
    """One line of a report: quality, and how far it is from the float model's, ``reference``."""
    return {
        "recipe": recipe,
        "method": method,
        **facts,
        **means(ours.values),
        **damage(ours.values, reference.values, ours.sources),
        "update_sqnr_db": unless_equal(sqnr_db(reference.update, ours.update)),
    }


def show_rows(rows: list[dict]) -> Table:
    """Rows of :func:`make_row` for the terminal."""
    table = Table()
    names = ("recipe", "method", "run by")
    figures = ("PSNR, dB", "SSIM", "LPIPS", "drop, dB", "LPIPS rise", "update, dB", "CPU min")
    for title in (*names, "seed", *figures):
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
            number(row["psnr_drop_db"], 3),
            number(row["lpips_rise"], 4),
            number(row["update_sqnr_db"], 1),
            number(row.get("minutes"), 1),
        )
    return table
