"""Train the bundled demo model from nothing: ``python -m elir_mobile.training.demo RUN_DIR``.

Three stages on the training identities of the face set: the autoencoder that stands in for TAESD3;
encoder, coarse estimator and velocity field with the LCFM loss; the same with the decoded-image term
turned up and the decoder trained along, which mends the colours. Every stage resumes where it was
stopped. The result, collapsed and in float16, is ``RUN_DIR/demo-bfr.safetensors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from elir_mobile.checkpoints import build_restorer, save_weights
from elir_mobile.data.faces import face_split, load_faces
from elir_mobile.errors import exits_with_2
from elir_mobile.images import to_image, to_tensor
from elir_mobile.models.autoencoder import Encoder
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.tasks import get_task
from elir_mobile.training.autoencoder import AutoencoderTraining, random_crops
from elir_mobile.training.lcfm import LcfmConfig, LcfmTraining
from elir_mobile.training.loop import draw_seed, fit

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


@dataclass(frozen=True)
class Stage:
    """One run of the restorer's training; a later one starts from the weights of the one before."""

    name: str
    config: LcfmConfig
    steps: int
    lr: float
    seed: int
    train_decoder: bool = False


STAGES = (
    Stage("restorer", LcfmConfig(sigma_s=0.3, flow_repeats=4, decoded_images=2), 1600, 1e-3, seed=2),
    Stage("joint", LcfmConfig(sigma_s=0.1, flow_repeats=4, beta=0.5), 1500, 5e-4, seed=3, train_decoder=True),
)


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


def degraded(image: Tensor, rng: np.random.Generator) -> Tensor:
    """The task's degradation of a uint8 image (3, H, W): float (3, H, W) in [0, 1]."""
    return to_tensor(get_task(TASK).degrade(to_image(image.float() / 255), rng))


def train_restorer(
    autoencoder: AutoencoderTraining, images: Tensor, samples: Tensor, run_dir: Path
) -> Restorer:
    """The later stages: the student starts from the teacher's encoder and decoder."""
    torch.manual_seed(0)
    student = Restorer(ARCH, overparametrized=True)
    student.enc.load_state_dict(autoencoder.encoder.state_dict())
    student.dec.load_state_dict(autoencoder.decoder.state_dict())
    latents = teacher_latents(autoencoder.encoder, images)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
        def draw(high: int, count: int) -> list[int]:
            return torch.randint(high, (count,), generator=generator).tolist()

        picks = list(zip(draw(len(images), RESTORER_BATCH), draw(2, RESTORER_BATCH), strict=True))
        seed = draw_seed(generator)
        rng = np.random.default_rng(seed)
        clean = [images[i].flip(-1) if mirror else images[i] for i, mirror in picks]
        return (
            torch.stack([degraded(image, rng) for image in clean]),
            torch.stack(clean).float() / 255,
            torch.stack([latents[mirror, i] for i, mirror in picks]),
            seed,
        )

    rng = np.random.default_rng(0)
    x_lq = torch.stack([degraded(image, rng) for image in samples])
    for stage in STAGES:
        module = LcfmTraining(
            student, stage.config, steps=stage.steps, lr=stage.lr, train_decoder=stage.train_decoder
        )
        fit(
            module,
            batch,
            partial(module.draw, x_lq, samples.float() / 255),
            run_dir / stage.name,
            steps=stage.steps,
            seed=stage.seed,
            ema_decay=EMA_DECAY,
        )
    return build_restorer(student.state_dict())


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
        restorer, path, task=TASK, size=SIZE, steps=STAGES[-1].config.steps, sigma_s=STAGES[-1].config.sigma_s
    )
    typer.echo(
        f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB: copy it to elir_mobile/weights/ to bundle it"
    )


if __name__ == "__main__":
    app()
