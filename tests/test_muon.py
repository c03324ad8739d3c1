"""Muon's updates are orthogonal, and it learns what AdamW does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from elir_mobile.training.muon import SCALE, Muon, optimizers, orthogonal


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16)])
def test_singular_values_come_near_1_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out = orthogonal(matrices)
    assert out.shape == shape
    values = torch.linalg.svdvals(out)
    assert 0.6 < values.min() < values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    exact = u @ v
    assert ((out * exact).sum((1, 2)) / (out.norm(dim=(1, 2)) * exact.norm(dim=(1, 2))) > 0.97).all()


def test_an_update_has_the_size_of_adamws() -> None:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(32, 16, 3, 3)), nn.Parameter(torch.randn(8, 24))]
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    Muon(weights, lr=0.1).step()
    for weight, old in zip(weights, before, strict=True):
        assert (weight - old).square().mean().sqrt().item() == pytest.approx(0.1 * SCALE, rel=0.35)


def test_a_network_is_divided_between_the_two_and_learns() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    x = torch.randn(8, 3, 8, 8)
    muon, adamw = optimizers(list(net.parameters()), 0.02)
    assert [len(o.param_groups[0]["params"]) for o in (muon, adamw)] == [2, 2]

    def error() -> torch.Tensor:
        return (net(x) - 2 * x).square().mean()

    first = error().item()
    for _ in range(60):
        for optimizer in (muon, adamw):
            optimizer.zero_grad()
        error().backward()
        for optimizer in (muon, adamw):
            optimizer.step()
    assert error().item() < first / 5
