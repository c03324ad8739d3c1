"""Training on a folder of pictures: what a batch is made of, the teacher, the student before and after.

Item ``i`` of a batch is an image, whether it is mirrored, and a seed, from which its crop, its
degradation and the noise of its loss are drawn: nothing of it depends on its neighbours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
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
from elir_mobile.core.errors import UserError, say
from elir_mobile.core.files import write_json
from elir_mobile.data.pairs import make_pairs
from elir_mobile.images import Source, readable, square, to_tensor
from elir_mobile.models.autoencoder import Decoder, Encoder
from elir_mobile.models.coarse import RESIDUAL_SCALE, RRDBNet
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.tasks import ALIGNED_FACE, PHOTO, Task
from elir_mobile.training.lcfm import Batch


class Item(NamedTuple):
    """One image of a batch."""

    image: int
    mirrored: bool
    seed: int


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

    @cached_property
    def images(self) -> Source:
        """Those of ``paths``."""
        return Source(self.paths)

    @property
    def domain(self) -> str:
        """Of what is trained on these."""
        return PHOTO if self.crops else ALIGNED_FACE

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
        image = self.images[item.image]
        clean = random_square(image, self.size, rng) if self.crops else square(image, self.size)
        if item.mirrored:
            clean = ImageOps.mirror(clean)
        return to_tensor(self.task.degradation(self.domain)(clean, rng)), to_tensor(clean)

    def strip(self, count: int) -> tuple[Tensor, Tensor]:
        """The first images, degraded and clean, always the same."""
        paths = list(islice(readable(self.paths, say), count))
        if not paths:
            raise UserError(f"{self.paths[0].parent} has no image that can be read: put others into it")
        pairs = make_pairs(paths, self.task, self.size, len(paths), 0, self.domain)
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


@rank_zero_only
def keep_options(run_dir: Path, options: dict[str, Any]) -> None:
    """Write the options that a run's result depends on, or see that they are what it began with.

    Raises:
        UserError: the folder is of a run with other options.
    """
    path = run_dir / "options.json"
    if not path.exists():
        write_json(path, options)
        return
    try:
        began: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        began.get("seed")
    except (ValueError, RecursionError, AttributeError) as error:
        raise UserError(f"{path} is damaged: name another --out") from error
    for name, value in options.items():
        if began.get(name) != value:
            raise UserError(
                f"{run_dir} is of a run with {name} = {began.get(name)}, not {value}: "
                "give the same options to resume it, or another --out"
            )
