"""Training on a folder of pictures: what a batch is made of, the teacher, the student before and after.

Item ``i`` of a batch is an image, whether it is mirrored, and a seed, from which its crop, its
degradation and the noise of its loss are drawn: nothing of it depends on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from elir_mobile.checkpoints import (
    DEMO_AUTOENCODER,
    DEMO_WEIGHTS,
    build_autoencoder,
    build_restorer,
    load_taesd,
    read_state_dict,
)
from elir_mobile.data.pairs import make_pairs
from elir_mobile.images import read_image, square, to_tensor
from elir_mobile.models.autoencoder import Decoder, Encoder
from elir_mobile.models.coarse import RESIDUAL_SCALE, RRDBNet
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.tasks import Task
from elir_mobile.training.lcfm import LcfmConfig, LcfmTraining


class Item(NamedTuple):
    """One image of a batch."""

    image: int
    mirrored: bool
    seed: int


class Batch(NamedTuple):
    """Degraded and clean images (N, 3, H, W) in [0, 1]; (N,) keys of the clean ones; (N,) seeds."""

    x_lq: Tensor
    x_hq: Tensor
    keys: Tensor
    seeds: Tensor


@dataclass(frozen=True)
class Pictures:
    """Batches from image files.

    Attributes:
        crops: random squares of images that are larger than ``size``; otherwise the central square
            of each, resized, as for aligned faces.
    """

    paths: list[Path]
    task: Task
    size: int
    batch: int
    crops: bool

    def draw(self, generator: torch.Generator) -> list[Item]:
        """What is in a whole batch."""
        columns = (
            torch.randint(high, (self.batch,), generator=generator).tolist()
            for high in (len(self.paths), 2, 2**31)
        )
        return [Item(image, bool(flip), seed) for image, flip, seed in zip(*columns, strict=True)]

    def prepare(self, items: list[Item]) -> Batch:
        """The tensors of these items."""
        pairs = [self._pair(item) for item in items]
        return Batch(
            torch.stack([x_lq for x_lq, _ in pairs]),
            torch.stack([x_hq for _, x_hq in pairs]),
            torch.tensor([2 * item.image + item.mirrored for item in items]),
            torch.tensor([item.seed for item in items]),
        )

    def _pair(self, item: Item) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(item.seed)
        image = read_image(self.paths[item.image])
        clean = random_square(image, self.size, rng) if self.crops else square(image, self.size)
        if item.mirrored:
            clean = ImageOps.mirror(clean)
        return to_tensor(self.task.degrade(clean, rng)), to_tensor(clean)

    def strip(self, count: int) -> tuple[Tensor, Tensor]:
        """The first images, degraded and clean, always the same."""
        pairs = make_pairs(self.paths, self.task, self.size, min(count, len(self.paths)), 0)
        return torch.cat([pair.degraded for pair in pairs]), torch.cat([pair.clean for pair in pairs])


def random_square(image: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """A square of ``image`` at a random place; where it is too small, its central square, enlarged."""
    if min(image.size) < side:
        return square(image, side)
    left, top = (int(rng.integers(extent - side + 1)) for extent in image.size)
    return image.crop((left, top, left + side, top + side))


def load_autoencoder(weights: list[str]) -> tuple[Encoder, Decoder]:
    """Frozen encoder and decoder.

    Args:
        weights: ``demo``, the bundled one; the path of an ELIR checkpoint of any task, or of such an
            autoencoder alone; or the one or two files of TAESD, see
            :func:`~elir_mobile.checkpoints.load_taesd`.

    Raises:
        UserError: a file is missing, damaged, or holds neither.
    """
    bundled = DEMO_WEIGHTS / DEMO_AUTOENCODER
    if not bundled.is_file():
        bundled = DEMO_WEIGHTS / "demo-bfr.safetensors"
    paths = [bundled if name == "demo" else Path(name) for name in weights]
    if len(paths) == 1:
        state, _ = read_state_dict(paths[0])
        if "fmir.first_proj.weight" in state:
            restorer = build_restorer(state)
            return restorer.enc, restorer.dec
        if "enc.layers.0.weight" in state:
            return build_autoencoder(state)
    return load_taesd(*paths)


def latent_channels(encoder: Encoder) -> int:
    """Channels of what the encoder makes."""
    return next(encoder.layers[-1].parameters()).shape[0]


def new_student(arch: Architecture, teacher: Encoder, decoder: Decoder, seed: int) -> Restorer:
    """Overparametrized network with the teacher's autoencoder; all else is random, of ``arch``'s widths."""
    stem = next(teacher.layers[0].parameters())
    arch = replace(
        arch,
        autoencoder="half" if stem.shape[-1] == 6 else "taesd",
        enc_width=stem.shape[0],
        dec_width=next(decoder.layers[0].parameters()).shape[0],
        latent_channels=latent_channels(teacher),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Restorer(arch, overparametrized=True)
    student.enc.load_state_dict(teacher.state_dict())
    student.dec.load_state_dict(decoder.state_dict())
    return student


def remove_coarse(student: Restorer) -> None:
    """Let the flow start from the encoder's own latent: the ablation without coarse estimator."""
    student.mmse = nn.Identity()  # type: ignore[assignment]


def finished(student: Restorer) -> Restorer:
    """The collapsed network that computes the same.

    Where the coarse estimator was removed, one is put in that only scales, by ``1 + 1.2^RRDBs``: its
    last convolutions are zero. The encoder's last layer is divided by that.
    """
    state = dict(student.state_dict())
    if isinstance(student.mmse, nn.Identity):
        arch = student.arch
        coarse = RRDBNet(arch.latent_channels, arch.coarse_width, arch.n_rrdb).state_dict()
        scale = 1 + (1 + RESIDUAL_SCALE) ** arch.n_rrdb
        for name, tensor in coarse.items():
            state[f"mmse.{name}"] = torch.zeros_like(tensor) if ".conv5." in name else tensor
        last = len(student.enc.layers) - 1
        for name in (f"enc.layers.{last}.weight", f"enc.layers.{last}.bias"):
            state[name] = state[name] / scale
    return build_restorer(state)


class TaughtTraining(LcfmTraining):
    """LCFM on batches of :class:`Pictures`, with the teacher's latents computed on the way.

    Args:
        teacher: frozen.
        cache_bytes: how much memory latents may take that were computed once; 0 where clean images
            are cropped anew each time, so that their keys do not say what is in them.
        student, config, steps, lr, trained: see :class:`LcfmTraining`.
    """

    def __init__(
        self,
        student: Restorer,
        teacher: Encoder,
        config: LcfmConfig,
        *,
        steps: int,
        lr: float,
        trained: tuple[str, ...],
        cache_bytes: int,
    ) -> None:
        super().__init__(student, config, steps=steps, lr=lr, trained=trained)
        self.teacher = teacher.requires_grad_(False)
        self.cache_bytes = cache_bytes
        self.cached: dict[int, Tensor] = {}  # on the CPU

    @torch.no_grad()
    def latents(self, x_hq: Tensor, keys: Tensor) -> Tensor:
        """The teacher's latents of clean images (N, 3, H, W) with these (N,) keys."""
        names = keys.tolist()
        missing = [i for i, name in enumerate(names) if name not in self.cached]
        if not missing:
            return torch.stack([self.cached[name] for name in names]).to(x_hq)
        computed = dict(zip(missing, self.teacher(x_hq[missing]).float(), strict=True))
        z_hq = torch.stack(
            [computed[i] if i in computed else self.cached[name].to(x_hq) for i, name in enumerate(names)]
        )
        size = z_hq[0].numel() * z_hq.element_size()
        for i in missing:
            if (len(self.cached) + 1) * size <= self.cache_bytes:
                self.cached[names[i]] = z_hq[i].cpu()
        return z_hq

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # type: ignore[override]
        z_hq = self.latents(batch.x_hq, batch.keys)
        return super().training_step((batch.x_lq, batch.x_hq, z_hq, batch.seeds), batch_idx)
