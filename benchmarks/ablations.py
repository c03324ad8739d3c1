"""The paper's ablations at demo scale: ``python -m benchmarks.ablations RUN_DIR``.

The demo network on whole faces of 64 pixels, task bfr, every variant with the same budget, batches
and noise, once for each seed: the loss (flow matching, consistency without segments, multi-segment
LCFM), the coarse estimator, the encoder. Each is sampled with K = 1 to 8 steps on held-out identities.

The teacher is made first: the bundled demo decoder stays as it is, and an encoder is fitted that
inverts it on clean faces, since the demo's own encoder was trained to see degraded ones. Stopped
runs are resumed. Writes ``benchmarks/results/ablations.json`` and the plots in ``docs/images``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import lightning as L
import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from benchmarks.released import RESULTS
from elir_mobile import metrics
from elir_mobile.checkpoints import load_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.images import hstack_images, to_image, to_tensor, vstack_images
from elir_mobile.models.autoencoder import Decoder, Encoder
from elir_mobile.models.restorer import Restorer, sample, seeded_noise
from elir_mobile.tasks import get_task
from elir_mobile.training.drawing import draw_batch, draw_clean
from elir_mobile.training.lcfm import LcfmConfig, LcfmTraining
from elir_mobile.training.loop import fit, one_cycle
from elir_mobile.training.pixels import log_mse

PICTURES = RESULTS.parents[1] / "docs" / "images"
TASK, SIZE = "bfr", 64
TEACHER_STEPS, TEACHER_LR = 200, 1e-3
STEPS, BATCH, LR, EMA_DECAY, SAVE_EVERY = 250, 8, 1e-3, 0.98, 50
SAMPLING_STEPS = range(1, 9)
STRIP_FACES = 4
FLOW = LcfmConfig(flow_repeats=4, decoded_images=2)
METRICS = {"psnr_db": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS"}


@dataclass(frozen=True)
class Variant:
    """One trained configuration: what differs from ELIR as published."""

    title: str
    objective: Literal["consistency", "flow"] = "consistency"
    segments: int = 5
    coarse: bool = True
    encoder: bool = True  # fine-tuned

    @property
    def config(self) -> LcfmConfig:
        """The loss."""
        return replace(FLOW, objective=self.objective, steps=self.segments)

    @property
    def trained(self) -> tuple[str, ...]:
        """Parts of the student that learn."""
        return (*(("enc",) if self.encoder else ()), *(("mmse",) if self.coarse else ()), "fmir")


VARIANTS = {
    "lcfm": Variant("LCFM, 5 segments (ELIR)"),
    "flow": Variant("flow matching", objective="flow"),
    "consistency": Variant("consistency, no segments", segments=1),
    "no-coarse": Variant("no coarse estimator", coarse=False),
    "frozen": Variant("encoder frozen", encoder=False),
    "no-coarse-frozen": Variant("no coarse estimator, encoder frozen", coarse=False, encoder=False),
}


class TeacherTraining(L.LightningModule):
    """Fits an encoder to a fixed decoder on batches (N, 3, H, W) of clean images, by their PSNR."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        self.decoder = decoder.requires_grad_(False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = log_mse(self.decoder(self.encoder(batch)), batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return one_cycle(self.encoder.parameters(), TEACHER_LR, TEACHER_STEPS)

    @torch.no_grad()
    def draw(self, images: Tensor) -> Image.Image:
        """A row of ``images`` above their reconstructions."""
        rows = images, self.decoder(self.encoder(images))
        return vstack_images([hstack_images([to_image(image) for image in row]) for row in rows])


def train_teacher(images: Tensor, samples: Tensor, run_dir: Path) -> Restorer:
    """The demo with an encoder that inverts its decoder, on uint8 ``images`` (N, 3, SIZE, SIZE)."""
    demo, _ = load_weights("demo", get_task(TASK))
    module = TeacherTraining(demo.enc, demo.dec)
    fit(
        module,
        lambda generator: draw_clean(images, BATCH, generator)[1].float() / 255,
        lambda: module.draw(samples.float() / 255),
        run_dir,
        steps=TEACHER_STEPS,
        seed=100,
        ema_decay=EMA_DECAY,
        save_every=SAVE_EVERY,
    )
    return demo.requires_grad_(False)


@torch.no_grad()
def teacher_latents(encoder: Encoder, images: Tensor) -> Tensor:
    """Latents of uint8 images and of their mirrors: (2, N, C, h, w)."""
    parts = [(part.float() / 255) for part in images.split(32)]
    return torch.stack(
        [torch.cat([encoder(part) for part in parts]), torch.cat([encoder(part.flip(-1)) for part in parts])]
    )


def new_student(variant: Variant, teacher: Restorer, seed: int) -> Restorer:
    """Teacher's encoder and decoder, the rest at its random initialization of this seed."""
    torch.manual_seed(seed)
    student = Restorer(teacher.arch)  # collapsed: merging pairs costs a third of a step at this size
    student.enc.load_state_dict(teacher.enc.state_dict())
    student.dec.load_state_dict(teacher.dec.state_dict())
    if not variant.coarse:
        student.mmse = nn.Identity()  # type: ignore[assignment]
    return student


def train_variant(
    variant: Variant,
    student: Restorer,
    latents: Tensor,
    images: Tensor,
    strip: tuple[Tensor, Tensor],
    run_dir: Path,
    seed: int,
) -> None:
    """Train ``student`` in place; ``latents`` are the teacher's (2, N, C, h, w), plain and mirrored."""

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
        drawn = draw_batch(images, get_task(TASK), BATCH, generator)
        goals = torch.stack([latents[mirror, i] for i, mirror in drawn.picks])
        return drawn.degraded, drawn.clean, goals, drawn.seed

    module = LcfmTraining(student, variant.config, steps=STEPS, lr=LR, trained=variant.trained)
    fit(
        module,
        batch,
        lambda: module.draw(*strip),
        run_dir,
        steps=STEPS,
        seed=seed + 1,
        ema_decay=EMA_DECAY,
        save_every=SAVE_EVERY,
    )


def quality(out: Tensor, clean: Tensor) -> dict[str, float]:
    """Means over the faces."""
    measured = (
        metrics.psnr(out, clean),
        metrics.ssim(out, clean),
        metrics.lpips(out, clean),
    )
    return {name: values.mean().item() for name, values in zip(METRICS, measured, strict=True)}


@torch.no_grad()
def evaluate(student: Restorer, x_lq: Tensor, clean: Tensor) -> dict:
    """Quality of the coarse estimate and of the restorations with every number of steps."""
    student.eval()
    coarse = student.encode(x_lq)
    noise = torch.cat([seeded_noise((1, *coarse.shape[1:]), index) for index in range(len(coarse))])
    sampled = {}
    for steps in SAMPLING_STEPS:

        def step(z: Tensor, k: int, steps: int = steps) -> Tensor:
            return z + student.velocity(z, torch.full((len(z),), k / steps)) / steps

        out, _ = sample(
            lambda _: coarse, step, student.decode, x_lq, noise, steps=steps, sigma_s=FLOW.sigma_s
        )
        sampled[str(steps)] = quality(out, clean)
    return {"coarse": quality(student.decode(coarse), clean), "sampled": sampled}


def plot(result: dict, folder: Path) -> None:
    """Each metric over K: a line for each variant, its band from the worst seed to the best."""
    groups = {
        "loss": ("lcfm", "flow", "consistency"),
        "parts": ("lcfm", "no-coarse", "frozen", "no-coarse-frozen"),
    }
    for name, variants in groups.items():
        figure, axes = plt.subplots(1, len(METRICS), figsize=(12, 3.6), layout="constrained")
        for axis, (metric, label) in zip(axes, METRICS.items(), strict=True):
            for variant in variants:
                runs = [run for run in result["runs"] if run["variant"] == variant]
                values = np.array([[run["sampled"][str(k)][metric] for k in SAMPLING_STEPS] for run in runs])
                (line,) = axis.plot(
                    SAMPLING_STEPS, values.mean(0), marker="o", markersize=3, label=VARIANTS[variant].title
                )
                axis.fill_between(
                    SAMPLING_STEPS, values.min(0), values.max(0), alpha=0.2, color=line.get_color()
                )
            axis.set(xlabel="K, sampling steps", title=label, xticks=list(SAMPLING_STEPS))
            axis.grid(alpha=0.3)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(variants))
        figure.savefig(folder / f"ablations-{name}.png", dpi=110)
        plt.close(figure)


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    run_dir: Annotated[Path, typer.Argument(help="Folder of checkpoints; give it again to resume.")],
    seed: Annotated[list[int] | None, typer.Option(help="Seeds to train with.  [default: 0 and 1]")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help=f"Some of {', '.join(VARIANTS)}.  [default: all]")
    ] = None,
    threads: Annotated[int, typer.Option(help="Processor threads.", min=1)] = 1,
) -> None:
    """Train the teacher and every variant, evaluate, write the JSON and the plots."""
    torch.set_num_threads(threads)
    console = Console()
    seeds, variants = seed or [0, 1], variant or list(VARIANTS)
    if unknown := set(variants) - set(VARIANTS):
        raise UserError(f"no variant '{min(unknown)}': choose among {', '.join(VARIANTS)}")
    train_names, heldout_names = face_split()
    images, heldout = load_faces(train_names, SIZE), load_faces(heldout_names, SIZE)
    clean = heldout.float() / 255
    task = get_task(TASK)
    x_lq = torch.stack(
        [
            to_tensor(task.degrade(to_image(face), np.random.default_rng([0, index])))
            for index, face in enumerate(track(clean, "degrading held-out faces", console=console))
        ]
    )
    strip = x_lq[:STRIP_FACES], clean[:STRIP_FACES]
    teacher = train_teacher(images, heldout[:STRIP_FACES], run_dir / "teacher")
    with torch.no_grad():
        z_clean = teacher.enc(clean)
        reconstructed = quality(teacher.decode(z_clean), clean)
    latents = None
    runs = []
    for number in seeds:
        for name in variants:
            folder = run_dir / f"{name}-{number}"
            measured = folder / "quality.json"
            if not measured.exists():
                latents = teacher_latents(teacher.enc, images) if latents is None else latents
                student = new_student(VARIANTS[name], teacher, number)
                train_variant(VARIANTS[name], student, latents, images, strip, folder, number)
                facts = {"variant": name, "seed": number, **evaluate(student, x_lq, clean)}
                write_json(measured, facts)
            runs.append(json.loads(measured.read_text()))
            console.print(f"{name:18} seed {number}", runs[-1]["coarse"], runs[-1]["sampled"]["5"])
    if set(variants) != set(VARIANTS):
        return  # a part of the runs: the whole table is written when all are there
    result = {
        "kind": "ablations",
        "setting": {
            "task": TASK,
            "size": SIZE,
            "faces": len(clean),
            "training_faces": len(images),
            "seeds": seeds,
            "steps": STEPS,
            "batch": BATCH,
            "lr": LR,
            "ema_decay": EMA_DECAY,
            "loss": asdict(FLOW),
        },
        "variants": {name: asdict(facts) for name, facts in VARIANTS.items()},
        "degraded": quality(x_lq, clean),
        "teacher": {
            "steps": TEACHER_STEPS,
            "latent_std": z_clean.std().item(),
            "reconstructed": reconstructed,
        },
        "runs": runs,
    }
    write_json(RESULTS / "ablations.json", result)
    plot(result, PICTURES)


if __name__ == "__main__":
    app()
