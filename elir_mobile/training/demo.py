"""Train the bundled demo model from nothing: ``python -m elir_mobile.training.demo RUN_DIR``.

Six stages on the training identities of the face set: the autoencoder that stands in for TAESD3;
encoder, coarse estimator and velocity field with the LCFM loss; all but the velocity field against
pixels; the velocity field alone with the LCFM loss, between the latents that this left; velocity
field and decoder, and at last everything, against pixels through the sampling loop. Every stage
resumes where it was stopped. The result, collapsed and in float16, is ``RUN_DIR/demo-bfr.safetensors``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from elir_mobile.checkpoints import build_restorer, save_weights
from elir_mobile.core.errors import exits_with_2
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.models.autoencoder import Encoder
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.tasks import ALIGNED_FACE, get_task
from elir_mobile.training.autoencoder import AutoencoderTraining, random_crops
from elir_mobile.training.drawing import Draw, degrade, draw_batch
from elir_mobile.training.lcfm import LcfmConfig, LcfmTraining
from elir_mobile.training.loop import draw_seed, fit
from elir_mobile.training.pixels import PixelTraining, SampledTraining

TASK = "bfr"
SIZE = 128
ARCH = Architecture(
    enc_width=32,
    dec_width=32,
    coarse_width=32,
    n_rrdb=3,
    hid_channels=32,
    n_mid_blocks=2,
    t_emb_dim=32,
)
AUTOENCODER_STEPS, AUTOENCODER_BATCH, AUTOENCODER_CROP, AUTOENCODER_LR = 1800, 32, 64, 2e-3
RESTORER_BATCH = 8
EMA_DECAY = 0.995
STRIP_FACES = 6
RESTORER_STEPS, RESTORER_LR = 1600, 1e-3
PIXEL_STEPS, PIXEL_LR = 1600, 5e-4
FLOW_STEPS, FLOW_LR = 1200, 5e-4
SAMPLED_STEPS, SAMPLED_LR = 900, 4e-4
WHOLE_STEPS, WHOLE_LR = 900, 5e-4
FLOW = LcfmConfig(sigma_s=0.1, flow_repeats=4, decoded_images=2)


def train_autoencoder(images: Tensor, samples: Tensor, run_dir: Path) -> AutoencoderTraining:
    """Stage one on uint8 ``images`` (N, 3, SIZE, SIZE)."""
    torch.manual_seed(0)
    module = AutoencoderTraining(ARCH.enc_width, AUTOENCODER_STEPS, AUTOENCODER_LR)

    def batch(generator: torch.Generator) -> tuple[Tensor, int]:
        crops = random_crops(images, AUTOENCODER_BATCH, AUTOENCODER_CROP, generator)
        return crops, draw_seed(generator)

    fit(
        module,
        batch,
        lambda: module.draw(samples),
        run_dir,
        steps=AUTOENCODER_STEPS,
        seed=1,
        ema_decay=EMA_DECAY,
    )
    return module.eval().requires_grad_(False)


@torch.no_grad()
def teacher_latents(encoder: Encoder, images: Tensor) -> Tensor:
    """Latents of uint8 images and of their mirrors: (2, N, C, h, w)."""
    parts = [(part.float() / 255) for part in images.split(32)]
    return torch.stack(
        [torch.cat([encoder(part) for part in parts]), torch.cat([encoder(part.flip(-1)) for part in parts])]
    )


def train_restorer(
    autoencoder: AutoencoderTraining, images: Tensor, samples: Tensor, run_dir: Path
) -> Restorer:
    """The later stages: the student starts from the teacher's encoder and decoder."""
    torch.manual_seed(0)
    student = Restorer(ARCH, overparametrized=True)
    teacher, decoder = autoencoder.encoder, autoencoder.decoder
    student.enc.load_state_dict(teacher.state_dict())
    student.dec.load_state_dict(decoder.state_dict())
    task, rng = get_task(TASK), np.random.default_rng(0)
    strip = torch.stack([degrade(image, task, rng) for image in samples]), samples.float() / 255

    def draw_pairs(generator: torch.Generator) -> Draw:
        return draw_batch(images, task, RESTORER_BATCH, generator)

    def train_flow(name: str, config: LcfmConfig, steps: int, lr: float, trained: tuple[str, ...], seed: int):
        latents = teacher_latents(teacher, images)

        def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
            drawn = draw_pairs(generator)
            goals = torch.stack([latents[mirror, i] for i, mirror in drawn.picks])
            return drawn.degraded, drawn.clean, goals, drawn.seed

        module = LcfmTraining(student, config, steps=steps, lr=lr, trained=trained)
        draw = partial(module.draw, *strip)
        fit(module, batch, draw, run_dir / name, steps=steps, seed=seed, ema_decay=EMA_DECAY)

    def train_sampled(
        name: str, trained: tuple[str, ...], coarse_images: int, steps: int, lr: float, seed: int
    ):
        module = SampledTraining(
            student,
            trained=trained,
            coarse_images=coarse_images,
            sampling_steps=FLOW.steps,
            sigma_s=FLOW.sigma_s,
            steps=steps,
            lr=lr,
        )
        draw = partial(module.draw, *strip)

        def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
            drawn = draw_pairs(generator)
            return drawn.degraded, drawn.clean, drawn.seed

        fit(module, batch, draw, run_dir / name, steps=steps, seed=seed, ema_decay=EMA_DECAY)

    everything = replace(FLOW, sigma_s=0.3)
    train_flow("restorer", everything, RESTORER_STEPS, RESTORER_LR, ("enc", "mmse", "fmir"), 2)
    student = build_restorer(student.state_dict())
    module = PixelTraining(teacher, student, steps=PIXEL_STEPS, lr=PIXEL_LR)
    draw = partial(module.draw, *strip)

    def pixel_batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = draw_pairs(generator)
        return drawn.degraded, drawn.clean

    fit(
        module,
        pixel_batch,
        draw,
        run_dir / "pixels",
        steps=PIXEL_STEPS,
        seed=4,
        ema_decay=EMA_DECAY,
    )
    train_flow("flow", FLOW, FLOW_STEPS, FLOW_LR, ("fmir",), 5)
    train_sampled("sampled", ("fmir", "dec"), 0, SAMPLED_STEPS, SAMPLED_LR, 6)
    train_sampled("whole", ("enc", "mmse", "fmir", "dec"), 2, WHOLE_STEPS, WHOLE_LR, 7)
    return student.eval().requires_grad_(False)


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    run_dir: Annotated[
        Path, typer.Argument(help="Folder of checkpoints and strips; give it again to resume.")
    ],
) -> None:
    """Train autoencoder and restorer, then write the weights file."""
    train_names, heldout_names = face_split()
    images, samples = load_faces(train_names, SIZE), load_faces(heldout_names[:STRIP_FACES], SIZE)
    autoencoder = train_autoencoder(images, samples.float() / 255, run_dir / "autoencoder")
    restorer = train_restorer(autoencoder, images, samples, run_dir)
    path = run_dir / f"demo-{TASK}.safetensors"
    save_weights(
        restorer, path, task=TASK, size=SIZE, steps=FLOW.steps, sigma_s=FLOW.sigma_s, domain=ALIGNED_FACE
    )
    typer.echo(
        f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB: copy it to elir_mobile/weights/ to bundle it"
    )


if __name__ == "__main__":
    app()
