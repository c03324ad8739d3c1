"""How far a picture is from its ground truth, pixel by pixel: PSNR and SSIM."""

from __future__ import annotations

import torch
from torch import Tensor

from elir_mobile.core.errors import BLAS_BYTES, check_memory

SSIM_RADIUS = 5  # of the window


def psnr(out: Tensor, ref: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: (N,). Infinite for equal images."""
    return -10 * torch.log10(((out - ref) ** 2).mean((1, 2, 3)))


def ssim(out: Tensor, ref: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004, Gaussian window of 11 pixels): (N,).

    As in the paper's own program, the mean is over the windows that lie wholly inside the image;
    torchmetrics' own mean counts those that hang over its border too.
    """
    check_memory(BLAS_BYTES)
    from torchmetrics.functional.image import structural_similarity_index_measure  # 2 s: of all its metrics

    _, similarity = structural_similarity_index_measure(
        out, ref, data_range=1.0, reduction="none", return_full_image=True
    )
    inside = slice(SSIM_RADIUS, -SSIM_RADIUS)
    return similarity[..., inside, inside].mean((1, 2, 3))
