"""An artifact opened with the runtime of its target: three programs on NumPy arrays.

The least that measuring an artifact needs. Only NumPy and that one runtime are imported, so that a
worker runs where nothing else is installed (on an arm64 device LiteRT files need no PyTorch).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.runtimes.table import get_runtime

# Names of each program's inputs, in files that name them.
INPUTS = {"encode": ("image",), "step": ("latent", "row"), "decode": ("latent",)}
# ``encode``: image (1, 3, H, W) in [0, 1] → coarse latent (1, C, H/8, W/8). ``step``: latent and its row
# (1, ΣC, 1, 1) of the table → latent. ``decode``: latent → image in [0, 1]. All float32; an output is not
# overwritten by the next call.
Program = Callable[..., np.ndarray]


def open_programs(
    target: str, path: Path, threads: int | None = None, names: tuple[str, ...] = PROGRAMS
) -> Mapping[str, Program]:
    """Load the programs ``names`` of the artifact at ``path``.

    Args:
        threads: that the runtime may use; None: one for each core.

    Raises:
        UserError: no such target, its runtime is not installed, or the file cannot be loaded.
    """
    runtime = get_runtime(target)
    runtime.load()
    programs: Mapping[str, Program] = import_module(runtime.module).open_programs(
        path, threads or os.cpu_count() or 1, names
    )
    return programs
