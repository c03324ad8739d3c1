"""Agreement with upstream's own numbers, recorded by ``benchmarks.upstream_parity --fixture``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.upstream_parity import BUDGET, FIXTURE_STEPS, FIXTURE_WIDTH, toeplitz
from elir_mobile.checkpoints import load_weights, read_state_dict
from elir_mobile.tasks import get_task

FIXTURES = Path(__file__).with_name("fixtures")


@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_a_checkpoint_of_upstream_restores_as_it_does_there(suffix: str) -> None:
    recorded = load_file(FIXTURES / "upstream-tiny.safetensors")
    image, expected = recorded["image"].float() / 255, recorded[f"restored{suffix}"]
    restorer, _ = load_weights(str(FIXTURES / f"upstream-tiny{suffix}"), get_task("bfr"))
    assert restorer.arch.enc_width == FIXTURE_WIDTH
    noise = torch.zeros(restorer.arch.latent_shape(*image.shape[2:]))
    ours = restorer(image, noise, steps=FIXTURE_STEPS, sigma_s=0.0)
    assert (ours - expected).abs().max() <= BUDGET
    # What was recorded can tell a wrong network: it is no flat picture, and hardly clipped.
    assert expected.std() > 0.05
    assert ((expected > 0) & (expected < 1)).float().mean() > 0.9
    for part in ("enc", "mmse", "fmir", "dec"):
        state = {
            name: t.roll(1, 0) if name.startswith(part) else t for name, t in restorer.state_dict().items()
        }
        other = type(restorer)(restorer.arch)
        other.load_state_dict(state)
        assert (other(image, noise, steps=FIXTURE_STEPS, sigma_s=0.0) - expected).abs().max() > 10 * BUDGET


def test_the_recorded_training_checkpoint_is_overparametrized() -> None:
    state, _ = read_state_dict(FIXTURES / "upstream-tiny.ckpt")
    assert state["fmir.final_block.block.2.weight"].shape == (128, 32, 3, 3)
    assert state["fmir.final_block.block.3.weight"].shape == (32, 128, 1, 1)
    assert sum(path.stat().st_size for path in FIXTURES.glob("upstream-tiny.*")) <= 300_000


def test_toeplitz_tensors_keep_their_shapes_in_one_storage() -> None:
    state = {"a": torch.randn(4, 3, 2, 2), "b": torch.randn(5)}
    packed = toeplitz(state)
    assert [t.shape for t in packed.values()] == [t.shape for t in state.values()]
    assert len({t.untyped_storage().data_ptr() for t in packed.values()}) == 1
    assert torch.equal(packed["a"][0], state["a"][0])
    assert torch.equal(packed["a"][1].flatten()[:-1], packed["a"][0].flatten()[1:])
    assert torch.equal(packed["b"], state["b"])
