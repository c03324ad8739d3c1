"""The chain that trains the demo, on a handful of made-up pictures and for a step or two a stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from elir_mobile.checkpoints import DEMO_AUTOENCODER, load_weights
from elir_mobile.tasks import TASKS, get_task
from elir_mobile.training import demo
from elir_mobile.training.autoencoder import Autoencoder, autoencoder_loss
from elir_mobile.training.demo import RECIPES, Machine, assemble

MEGABYTE = 1_000_000


class FewPictures(demo.Pictures):
    """As many as it takes."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.faces = [rng.integers(0, 255, (218, 178, 3), dtype=np.uint8) for _ in range(3)]
        self.photos = [rng.integers(0, 255, (150, 200, 3), dtype=np.uint8) for _ in range(3)]
        self.heldout_faces = torch.randint(255, (2, 3, 128, 128), dtype=torch.uint8)
        self.heldout_photos = torch.randint(255, (2, 3, 64, 64), dtype=torch.uint8)


@pytest.fixture
def small(monkeypatch) -> None:
    """Narrow networks, small pools, stages of a step."""
    arch = replace(RECIPES["bfr"].arch, enc_width=8, dec_width=8, coarse_width=8, n_rrdb=1, hid_channels=32)
    minutes = 1e-5
    for task in ("bfr", "bsr"):
        recipe = replace(RECIPES[task], arch=arch, coarse_minutes=minutes, flow_minutes=minutes)
        monkeypatch.setitem(demo.RECIPES, task, recipe)
    monkeypatch.setattr(demo, "AUTOENCODER", replace(demo.AUTOENCODER, minutes=minutes))
    for name, value in (("ENC_WIDTH", 8), ("DEC_WIDTH", 8), ("POOL", (16, 32))):
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(demo, "Pictures", FewPictures)


def invoke(*args: object) -> None:
    result = CliRunner().invoke(demo.app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_all_bundled_weights_fit_into_30_megabytes() -> None:
    with torch.device("meta"):
        nets = [demo.Restorer(recipe.arch) for recipe in RECIPES.values()]
        shared = Autoencoder(demo.ENC_WIDTH, demo.DEC_WIDTH)
    apart = [p for net in nets for name, p in net.named_parameters() if not name.startswith("dec.")]
    assert 2 * sum(p.numel() for p in (*apart, *shared.parameters())) <= 30 * MEGABYTE


def test_every_recipe_is_a_task_with_widths_that_the_velocity_field_takes() -> None:
    for name, recipe in RECIPES.items():
        assert name in TASKS
        assert recipe.arch.hid_channels % 32 == 0
        assert recipe.use_side % recipe.arch.size_multiple == 0
        assert recipe.side % recipe.arch.size_multiple == 0


def test_the_chain_trains_resumes_elsewhere_and_becomes_weights_files(small, tmp_path: Path) -> None:
    run, state, weights = tmp_path / "run", tmp_path / "state", tmp_path / "weights"
    invoke("train", run, "--tasks", "bfr,bsr", "--no-bf16")
    invoke("export", run, state)
    stages = ["autoencoder", "bfr-coarse", "bfr-flow", "bsr-coarse", "bsr-flow"]
    assert sorted(path.stem for path in state.iterdir()) == stages
    invoke("train", tmp_path / "again", "--tasks", "bfr", "--resume-from", state, "--no-bf16")
    assert (tmp_path / "again" / "bfr-flow").is_dir()
    invoke("bundle", run, weights, "--tasks", "bfr,bsr")
    assert (weights / DEMO_AUTOENCODER).is_file()
    for task, domain in (("bfr", "aligned-face"), ("bsr", "photo")):
        loaded, info = load_weights(str(weights / f"demo-{task}.safetensors"), get_task(task))
        expected = assemble(run, task).state_dict()
        assert info.domain == domain
        assert loaded.arch == RECIPES[task].arch
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, expected[name].half().float()), name
    strips = list((run / "bfr-flow").glob("strip-*.png"))
    assert strips


def test_stages_train_their_own_parts_alone(small, tmp_path: Path) -> None:
    run = demo.Run(tmp_path, None, Machine(torch.device("cpu"), False))
    teacher = run.autoencoder(demo.AUTOENCODER)
    recipe = demo.RECIPES["bfr"]
    student = run.student(recipe, teacher)

    def changed(before: dict[str, torch.Tensor]) -> set[str]:
        return {n.split(".")[0] for n, x in student.state_dict().items() if not torch.equal(x, before[n])}

    before = {name: x.clone() for name, x in student.state_dict().items()}
    run.coarse("bfr", recipe, teacher, student, demo.Plan(1e-5, 1e-3, 0))
    assert changed(before) == {"enc", "mmse"}
    before = {name: x.clone() for name, x in student.state_dict().items()}
    run.flow("bfr", recipe, teacher, student, demo.Plan(1e-5, 1e-3, 0))
    assert changed(before) == {"fmir"}


def test_vgg_looks_only_after_its_share_of_the_training(monkeypatch) -> None:
    seen = []

    def distance(out: torch.Tensor, ref: torch.Tensor, backbone: str) -> torch.Tensor:
        seen.append((tuple(out.shape), backbone))
        return (out - ref).abs().mean((1, 2, 3))

    monkeypatch.setattr("elir_mobile.training.autoencoder.lpips", distance)
    net, images = Autoencoder(8, 8), torch.rand(6, 3, 112, 112)
    plain = torch.autocast("cpu", enabled=False)
    for progress in (0.1, 0.9):
        terms = autoencoder_loss(net, images, progress, np.random.default_rng(0), plain)
        assert ("lpips_vgg" in terms) == (progress > 0.5)
    assert seen == [((3, 3, 80, 80), "vgg16")]
