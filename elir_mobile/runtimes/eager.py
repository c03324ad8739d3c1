"""The float reference itself as a runtime: PyTorch eager, the network as it was loaded."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from elir_mobile.checkpoints import load_weights
from elir_mobile.core.sampling import Loop
from elir_mobile.models.restorer import Restorer
from elir_mobile.precision import FP32
from elir_mobile.runtimes.runner import Runner
from elir_mobile.runtimes.table import EAGER
from elir_mobile.tasks import get_task


def eager_runner(restorer: Restorer, steps: int) -> Runner:
    """The three programs of the reference network with K = ``steps``."""
    return Runner(restorer.encode, partial(restorer.step, steps=steps), restorer.decode)


def open_weights(
    weights: str, *, task: str, steps: int, sigma_s: float, threads: int
) -> tuple[dict[str, Any], Loop]:
    """A file of weights, opened: what a manifest would say of it, and its loop.

    Raises:
        UserError: it cannot be read.
    """
    torch.set_num_threads(threads)
    restorer, info = load_weights(weights, get_task(task))
    size = 4 * sum(p.numel() for p in restorer.parameters())
    entry = {"path": "", "sha256": info.sha256, "target": EAGER, "precision": FP32.name, "bytes": size}
    return entry, eager_runner(restorer, steps).loop(steps, sigma_s)
