"""The float reference itself as a runtime: PyTorch eager, the network as it was loaded."""

from __future__ import annotations

import torch
from torch import Tensor

from elir_mobile.models.restorer import Restorer
from elir_mobile.precision import FP32
from elir_mobile.runtimes.runner import Runner


def eager_runner(restorer: Restorer, steps: int) -> Runner:
    """The three programs of the reference network with K = ``steps``."""

    def step(z: Tensor, k: int) -> Tensor:
        return z + restorer.velocity(z, torch.tensor([k / steps])) / steps

    return Runner("eager", FP32.name, restorer.encode, step, restorer.decode)
