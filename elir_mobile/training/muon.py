"""Muon: momentum whose every matrix is made orthogonal before it moves the weights.

Keller Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the scale of Moonlight (Liu et
al. 2025, https://arxiv.org/abs/2502.16982), under which the learning rates of AdamW hold. A convolution's
kernel is taken as the matrix (outputs, inputs × taps). It is for weights; biases and norms stay with AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ROUNDS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that draws singular values towards 1
SCALE = 0.2  # root mean square of an update of AdamW, about


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, R, C) with the singular vectors they had and all singular values about 1.

    Newton-Schulz iterations in bfloat16, since they need no more precision than that, but in float32 on
    processors, of which most take bfloat16 apart: with AVX2 it takes 16 times as long.
    """
    x = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """The optimizer, for weights of two or more dimensions."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for shape, weights in alike.items():
                updates = torch.stack([self._momentum(weight).flatten(1) for weight in weights])
                scale = SCALE * max(updates.shape[1:]) ** 0.5
                for weight, update in zip(weights, orthogonal(updates), strict=True):
                    weight.add_(update.view(shape), alpha=-group["lr"] * scale)

    def _momentum(self, weight: nn.Parameter) -> Tensor:
        """Nesterov's, of the gradients so far."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(state["momentum"], MOMENTUM)


def optimizers(parameters: list[nn.Parameter], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the weights, AdamW for the rest."""
    weights = [p for p in parameters if p.dim() > 1]
    rest = [p for p in parameters if p.dim() <= 1]
    return [Muon(weights, lr), torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0)]
