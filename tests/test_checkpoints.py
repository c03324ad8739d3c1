"""Every checkpoint format gives the same network, and no bad file gets through."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from elir_mobile.checkpoints import (
    PARTS,
    build_restorer,
    collapse_state_dict,
    infer_architecture,
    load_weights,
    random_weights,
    save_weights,
)
from elir_mobile.errors import UserError
from elir_mobile.models.restorer import Restorer
from elir_mobile.tasks import get_task
from tests.conftest import SIGMA_S, STEPS, TINY

BFR = get_task("bfr")


def restored(restorer: Restorer, degraded, noise) -> torch.Tensor:
    return restorer(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)


def test_collapsed_network_equals_overparametrized(overparametrized, restorer, degraded, noise) -> None:
    wide = sum(p.numel() for p in overparametrized.parameters())
    assert sum(p.numel() for p in restorer.parameters()) < wide
    difference = restored(restorer, degraded, noise) - restored(overparametrized, degraded, noise)
    assert difference.abs().max() < 1e-5


def test_collapsing_twice_changes_nothing(restorer) -> None:
    state = restorer.state_dict()
    again = collapse_state_dict(state)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_architecture_is_read_from_shapes(restorer) -> None:
    assert infer_architecture(restorer.state_dict()) == TINY
    with torch.device("meta"):
        released = Restorer(BFR.arch).state_dict()
    assert infer_architecture(released) == BFR.arch


def test_pth_ckpt_and_safetensors_load_alike(
    overparametrized, restorer, degraded, noise, tmp_path: Path
) -> None:
    torch.save(restorer.state_dict(), tmp_path / "a.pth")
    parts = {f"state_dict_{part}": getattr(overparametrized, part).state_dict() for part in PARTS}
    torch.save({**parts, "epoch": 3, "optimizer_states": [{"lr": 1e-4}]}, tmp_path / "a.ckpt")
    save_file(restorer.state_dict(), tmp_path / "a.safetensors")
    expected = restored(restorer, degraded, noise)
    for name in ("a.pth", "a.ckpt", "a.safetensors"):
        loaded, info = load_weights(str(tmp_path / name), BFR)
        assert (restored(loaded, degraded, noise) - expected).abs().max() < 1e-5
        assert (info.size, info.steps, info.sigma_s, info.trained) == (512, 5, 0.1, True)


def test_saved_weights_state_their_own_facts(restorer, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_weights(restorer, path, task="bfr", size=96, steps=4, sigma_s=0.2)
    loaded, info = load_weights(str(path), BFR)
    assert (info.name, info.size, info.steps, info.sigma_s) == ("mine", 96, 4, 0.2)
    for name, tensor in restorer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())


def test_demo_weights_are_bundled_and_small() -> None:
    restorer, info = load_weights("demo", BFR)
    path = Path(__file__).parents[1] / "elir_mobile" / "weights" / "demo-bfr.safetensors"
    assert path.stat().st_size <= 6_000_000
    assert info.trained
    assert 128 <= info.size <= 160
    assert restorer.arch.latent_channels == 16


def test_random_weights_are_seeded_and_say_so() -> None:
    with torch.random.fork_rng():
        first, info = random_weights(BFR, 1)
        second, _ = random_weights(BFR, 1)
    assert not info.trained
    assert torch.equal(
        first.mmse.lrm[0].RDB1.conv1.block[0].weight, second.mmse.lrm[0].RDB1.conv1.block[0].weight
    )


class Hostile:
    """Its pickle would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickle_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"fmir": Hostile(marker)}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(marker)))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(UserError, match=r"execute code|not a PyTorch checkpoint"):
            load_weights(str(tmp_path / name), BFR)
    assert not marker.exists()


def test_truncated_pth_is_refused(restorer, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save(restorer.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="truncated, damaged or not a PyTorch checkpoint"):
        load_weights(str(path), BFR)


def test_text_called_pth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("these are not weights\n")
    with pytest.raises(UserError, match="not a PyTorch checkpoint"):
        load_weights(str(path), BFR)


def test_text_called_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("these are not weights\n")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_weights(str(path), BFR)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights file at"):
        load_weights(str(tmp_path / "absent.pth"), BFR)


def test_another_architecture_is_refused(restorer, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(UserError, match="not an ELIR network"):
        load_weights(str(tmp_path / "linear.pth"), BFR)
    state = restorer.state_dict()
    state["mmse.lrm.0.RDB2.conv1.block.0.weight"] = torch.zeros(8, 16, 5, 5)
    with pytest.raises(UserError, match="another architecture"):
        build_restorer(state)
    del state["mmse.lrm.0.RDB2.conv1.block.0.weight"]
    with pytest.raises(UserError, match="another architecture"):
        build_restorer(state)


def test_half_a_ckpt_is_refused(restorer, tmp_path: Path) -> None:
    torch.save({"state_dict_fmir": restorer.fmir.state_dict()}, tmp_path / "half.ckpt")
    with pytest.raises(UserError, match="lacks state_dict_mmse"):
        load_weights(str(tmp_path / "half.ckpt"), BFR)


def test_weights_of_another_task_are_refused(restorer, tmp_path: Path) -> None:
    path = tmp_path / "sr.safetensors"
    save_file(
        restorer.state_dict(), path, metadata={"elir": '{"task": "sr", "size": 1, "steps": 1, "sigma_s": 1}'}
    )
    with pytest.raises(UserError, match="trained for task 'sr'"):
        load_weights(str(path), BFR)
