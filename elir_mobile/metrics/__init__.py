"""Picture quality, on batches (N, 3, H, W) in [0, 1].

Against a ground truth: PSNR, SSIM (``fidelity``), LPIPS (``perceptual``), identity of faces
(``identity``). Of a picture alone: NIQE (``naturalness``). Of two sets of pictures: Fréchet distance
(``frechet``). All but the first two need weights or statistics that other packages ship; where one is
not installed, a ``UserError`` names the command that installs it.
"""

from elir_mobile.metrics.fidelity import psnr, ssim
from elir_mobile.metrics.frechet import efficientnet_features, frechet_distance
from elir_mobile.metrics.identity import identity_similarity
from elir_mobile.metrics.naturalness import niqe
from elir_mobile.metrics.perceptual import LPIPS_INSTALL, lpips, lpips_available

__all__ = [
    "LPIPS_INSTALL",
    "efficientnet_features",
    "frechet_distance",
    "identity_similarity",
    "lpips",
    "lpips_available",
    "niqe",
    "psnr",
    "ssim",
]
