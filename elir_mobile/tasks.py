"""The restoration tasks: what each one degrades, at which size and with how many steps it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from elir_mobile.core.errors import UserError
from elir_mobile.degradations import (
    SR_FACTOR,
    degrade_bfr,
    degrade_box,
    degrade_colorization,
    degrade_denoising,
    degrade_inpainting,
    degrade_photo_noise,
    degrade_sr,
)
from elir_mobile.models.restorer import Architecture
from elir_mobile.realesrgan import FACTOR as BSR_FACTOR
from elir_mobile.realesrgan import degrade_bsr

Degradation = Callable[[Image.Image, np.random.Generator], Image.Image]

ALIGNED_FACE = "aligned-face"  # one face that fills the square, cropped and turned upright as in FFHQ
PHOTO = "photo"  # any photograph


SMALL = Architecture(n_mid_blocks=1)  # upstream configs/elir_infer_{sr,denoising,inpainting}.yaml


@dataclass(frozen=True)
class Task:
    """One row of the task table; sizes and constants are the released model's (upstream configs)."""

    name: str
    title: str
    degrade: Degradation
    photo_degrade: Degradation | None = None  # what networks for photographs are given instead
    size: int = 256  # side of the square the released network restores, pixels
    steps: int = 3  # K, Euler steps
    sigma_s: float = 0.1  # spread of the noise added to the coarse latent
    arch: Architecture = SMALL
    domain: str = ALIGNED_FACE  # what the network was trained on, where its weights do not say
    finds_faces: bool = False  # whether its networks of aligned faces restore those of whole photographs
    keeps_colors: bool = True  # whether the degradation leaves the low frequencies of colour alone
    adds_colors: bool = False  # whether a grey picture is to come back in colour
    upscale: int = 1  # how many times larger the restored image is than the user's
    enlarge: Image.Resampling = Image.Resampling.NEAREST  # how the user's image gets that large
    release: str | None = None  # file name on the upstream release page, where there is one

    def degradation(self, domain: str) -> Degradation:
        """What networks of ``domain`` are trained and measured on."""
        return self.photo_degrade if self.photo_degrade and domain == PHOTO else self.degrade


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "bfr",
            "blind face restoration",
            degrade_bfr,
            size=512,
            steps=5,
            arch=Architecture(),
            finds_faces=True,
            release="elir_bfr.pth",
        ),
        Task("sr", "super-resolution ×8", degrade_sr, upscale=SR_FACTOR, release="elir_sr.pth"),
        Task(
            "denoising",
            "denoising",
            degrade_denoising,
            degrade_photo_noise,
            sigma_s=0.025,
            release="elir_denoising.pth",
        ),
        Task(
            "inpainting",
            "inpainting of scattered pixels",
            degrade_inpainting,
            keeps_colors=False,
            release="elir_inpainting.pth",
        ),
        Task(
            "bsr",
            "blind super-resolution ×4",
            degrade_bsr,
            sigma_s=0.04,
            arch=Architecture(hid_channels=96, n_mid_blocks=1),
            domain=PHOTO,
            upscale=BSR_FACTOR,
            enlarge=Image.Resampling.BICUBIC,
            release="elir_bsr.pth",
        ),
        Task(
            "colorization",
            "colorization of noisy grey images",
            degrade_colorization,
            keeps_colors=False,
            adds_colors=True,
        ),
        Task("mask", "inpainting of a box", degrade_box, keeps_colors=False),
    )
}


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in TASKS:
        raise UserError(f"unknown task '{name}': choose one of {', '.join(TASKS)}")
    return TASKS[name]
