"""What the layers of a network are for, so that a recipe need not know where they stand.

A module class declares the roles of its own layers as ``roles``: names relative to itself → role. Names
are a recipe's: a module path, or ``add`` for the sum in the module's own forward.
"""

from __future__ import annotations

from torch import nn

IMAGE_END = "image-end"  # the image's own three channels come in or go out
LATENT_END = "latent-end"  # reads a latent, or makes what is added to one
LATENT = "latent"  # makes the latent itself
BLOCK = "block"  # a convolution of a residual or dense block
RESAMPLE = "resample"  # halves or doubles the side, or follows what doubles it
NORM = "norm"  # the sum at the end of a rewritten group norm


def residual(shrunk: int) -> str:
    """Role of a residual sum whose side is one in ``shrunk`` of the image's: ``residual@1/8``."""
    return f"residual@1/{shrunk}"


def layer_roles(network: nn.Module) -> dict[str, str]:
    """Role of every layer and sum of ``network``, by name."""
    return {
        f"{path}.{name}".removeprefix("."): role
        for path, module in network.named_modules()
        for name, role in getattr(module, "roles", {}).items()
    }
