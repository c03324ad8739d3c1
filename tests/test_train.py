"""The training command: the same result on one process and two, resumed or not; what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from elir_mobile.checkpoints import load_weights, save_autoencoder, save_weights
from elir_mobile.cli.options import alone
from elir_mobile.cli.train import main
from elir_mobile.core.files import locked
from elir_mobile.models.autoencoder import Decoder, Encoder
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.tasks import ALIGNED_FACE, PHOTO, get_task
from elir_mobile.training.folder import (
    Pictures,
    finished,
    load_autoencoder,
    new_student,
    random_square,
    remove_coarse,
)
from elir_mobile.training.lcfm import LcfmConfig, LcfmTraining
from elir_mobile.training.loop import fit
from tests.conftest import TINY

app = alone(main)


SIDE = 32


@pytest.fixture
def weights(tmp_path: Path, restorer: Restorer) -> str:
    path = tmp_path / "tiny.safetensors"
    save_weights(restorer, path, task="denoising", size=SIDE, steps=2, sigma_s=0.1)
    return str(path)


def options(data: Path, weights: str, out: Path, *more: str) -> list[str]:
    """The tiny network, six images a step, twenty steps, plain weights instead of their average."""
    given = {
        "--task": "denoising",
        "--data": str(data),
        "--out": str(out),
        "--teacher": weights,
        "--init": weights,
        "--size": str(SIDE),
        "--batch": "4",
        "--steps": "20",
        "--save-every": "10",
        "--ema-decay": "0",
        "--workers": "0",
    }
    return [*(part for pair in given.items() for part in pair), *more]


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def trained(out: Path) -> dict[str, Tensor]:
    return torch.load(out / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.processes
def test_two_processes_end_where_one_ends_with_the_doubled_batch(
    tmp_path: Path, picture_folder: Path, weights: str
) -> None:
    more = ("--flow-repeats", "2", "--decoded-images", "2")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "elir_mobile.train", *options(picture_folder, weights, tmp_path / "two", *more)]
    two = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert two.returncode == 0, two.stderr
    assert "distributed_backend=gloo" in two.stdout + two.stderr
    assert run(*options(picture_folder, weights, tmp_path / "one", *more)).exit_code == 0
    one, two_weights = trained(tmp_path / "one"), trained(tmp_path / "two")
    assert one.keys() == two_weights.keys()
    for name in one:
        assert torch.allclose(one[name], two_weights[name], rtol=0, atol=1e-5), name
    before = load_weights(weights, get_task("denoising"))[0].state_dict()
    moved = max((one[f"student.{name}"] - before[name]).abs().max().item() for name in before)
    assert moved > 1e-3


def test_a_stopped_run_resumes_and_its_weights_can_be_loaded(
    tmp_path: Path, picture_folder: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("--steps", "4", "--save-every", "2", "--precision", "bf16-mixed")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*options(picture_folder, weights, whole, *short)).exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr(
            "elir_mobile.training.loop.fit", lambda *args, **kinds: fit(*args, **{**kinds, "steps": 2})
        )
        run(*options(picture_folder, weights, parts, *short))
    assert run(*options(picture_folder, weights, parts, *short)).exit_code == 0
    assert (parts / "logs" / "from-2").is_dir()
    resumed = trained(parts)
    for name, tensor in trained(whole).items():
        assert torch.allclose(tensor, resumed[name], atol=1e-6), name
    restorer, info = load_weights(str(whole / "denoising.safetensors"), get_task("denoising"))
    assert (info.size, info.steps, restorer.arch) == (SIDE, get_task("denoising").steps, TINY)
    assert info.domain == ALIGNED_FACE
    assert list((whole / "tensorboard" / "from-0").glob("events.*"))
    with Image.open(whole / "strip-000004.png") as strip:
        assert strip.size == (4 * SIDE + 6, 3 * SIDE + 4)
    other = run(*options(picture_folder, weights, whole, *short, "--alpha", "0.5"))
    assert other.exit_code == 2
    assert "alpha = 0.001, not 0.5" in other.output
    assert json.loads((whole / "options.json").read_text())["alpha"] == 0.001


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_damaged_picture_is_left_out_and_a_folder_of_them_is_one_sentence(
    tmp_path: Path, picture_folder: Path, weights: str, workers: str, capfd
) -> None:
    short = ("--steps", "2", "--save-every", "1", "--workers", workers)
    (picture_folder / "1.png").write_bytes(b"cut")
    assert run(*options(picture_folder, weights, tmp_path / "some", *short)).exit_code == 0
    (picture_folder / "1.png").rename(picture_folder / "3.png")
    for name in ("0.png", "2.png"):
        (picture_folder / name).write_bytes(b"cut")
    result = run(*options(picture_folder, weights, tmp_path / "none", *short))
    assert result.exit_code == 2
    assert "has no image that can be read" in result.output
    assert "Traceback" not in result.output


def test_what_no_process_that_prepares_batches_can_read_is_one_sentence(
    tmp_path: Path, picture_folder: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that go while it trains: the sentence comes from another process, with its traceback."""
    strip = Pictures.strip

    def last_look(self: Pictures, count: int):
        found = strip(self, count)
        for path in self.paths:
            path.unlink()
        return found

    monkeypatch.setattr(Pictures, "strip", last_look)
    short = ("--steps", "2", "--save-every", "1", "--workers", "1")
    result = run(*options(picture_folder, weights, tmp_path / "out", *short))
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"error: {picture_folder} has no image that can be read")


def test_two_trainings_into_one_folder_are_refused(
    tmp_path: Path, picture_folder: Path, weights: str
) -> None:
    out = tmp_path / "out"
    with locked(out, "busy"):
        result = run(*options(picture_folder, weights, out, "--steps", "4", "--save-every", "2"))
    assert result.exit_code == 2, result.output
    assert f"another run is in {out}: wait until it ends, or name another --out" in result.stderr
    assert not out.exists()


@pytest.mark.processes
def test_a_run_that_is_told_to_end_says_so_and_leaves_whole_checkpoints(
    tmp_path: Path, picture_folder: Path, weights: str
) -> None:
    out = tmp_path / "out"
    many = options(picture_folder, weights, out, "--steps", "100000", "--save-every", "2")
    with subprocess.Popen(
        [sys.executable, "-m", "elir_mobile.train", *many],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": "/dev/shm"},  # another file system
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 120
        while not (out / "previous.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"Traceback" not in said
    last = torch.load(out / "last.ckpt", weights_only=True)["global_step"]
    assert torch.load(out / "previous.ckpt", weights_only=True)["global_step"] == last - 2


def test_a_damaged_checkpoint_goes_on_from_the_one_before(
    tmp_path: Path, picture_folder: Path, weights: str
) -> None:
    given = options(picture_folder, weights, tmp_path / "out", "--steps", "4", "--save-every", "2")
    last = tmp_path / "out" / "last.ckpt"
    assert run(*given).exit_code == 0
    whole = trained(tmp_path / "out")
    last.write_bytes(last.read_bytes()[:1000])  # the disk was full
    result = run(*given)
    assert result.exit_code == 0, result.output
    assert "last.ckpt is damaged: going on from previous.ckpt" in result.output
    assert (tmp_path / "out" / "logs" / "from-2").is_dir()
    for name, tensor in trained(tmp_path / "out").items():
        assert torch.allclose(tensor, whole[name], atol=1e-6), name
    for path in (last, last.with_name("previous.ckpt")):
        path.write_bytes(b"")
    result = run(*given)
    assert result.exit_code == 2
    assert "is damaged, and no earlier one is whole: remove it to begin anew" in result.output


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--task", "flying"), "unknown task"),
        (("--data", "nowhere"), "no image folder"),
        (("--teacher", "nowhere.pth"), "no weights file"),
        (("--size", "40"), "multiple of 16"),
        (("--steps", "15"), "multiple of --save-every 10"),
        (("--devices", "3"), "multiple of the 3 processes"),
        (("--devices", "2", "--decoded-images", "3"), "multiple of the 2 processes"),
    ],
)
def test_bad_options_exit_with_2_and_write_nothing(
    tmp_path: Path, picture_folder: Path, weights: str, more: tuple[str, ...], sentence: str
) -> None:
    result = run(*options(picture_folder, weights, tmp_path / "out", *more))
    assert result.exit_code == 2
    assert sentence in result.output
    assert not (tmp_path / "out").exists()


def test_the_network_without_coarse_estimator_is_saved_as_one_that_computes_the_same() -> None:
    torch.manual_seed(0)
    student = Restorer(TINY, overparametrized=True)
    remove_coarse(student)
    x, noise = torch.rand(1, 3, SIDE, SIDE), seeded_noise((1, 16, SIDE // 8, SIDE // 8), 0)
    with torch.no_grad():
        expected = student(x, noise, steps=2, sigma_s=0.1)
        saved = finished(student)
        assert torch.allclose(saved(x, noise, steps=2, sigma_s=0.1), expected, atol=1e-5)
        assert torch.allclose(saved.encode(x), student.enc(x), atol=1e-5)


def test_batches_hold_degraded_and_clean_images_whoever_prepares_them(picture_folder: Path) -> None:
    paths = sorted(picture_folder.iterdir())
    pictures = Pictures(paths, get_task("denoising"), SIDE, 6, crops=False)
    assert pictures.domain == ALIGNED_FACE
    assert replace(pictures, crops=True).domain == PHOTO
    items = pictures.draw(torch.Generator().manual_seed(0))
    whole = pictures.prepare(items)
    assert whole.x_lq.shape == whole.x_hq.shape == (6, 3, SIDE, SIDE)
    for rank in range(2):
        for mine, ours in zip(pictures.prepare(items[rank::2]), whole, strict=True):
            assert torch.equal(mine, ours[rank::2])
    assert len(set(whole.seeds.tolist())) == 6
    for a in range(6):
        for b in range(6):
            same = whole.keys[a] == whole.keys[b]
            assert torch.equal(whole.x_hq[a], whole.x_hq[b]) == same


def test_the_teacher_is_an_elir_checkpoint_or_taesd(tmp_path: Path, weights: str, restorer: Restorer) -> None:
    halves = {"encoder": restorer.enc, "decoder": restorer.dec}
    state = {f"{half}.{name}": t for half, part in halves.items() for name, t in part.state_dict().items()}
    save_file(state, tmp_path / "taesd.safetensors")
    x = torch.rand(1, 3, SIDE, SIDE)
    for path, tolerance in ((str(tmp_path / "taesd.safetensors"), 0.0), (weights, 1e-2)):
        encoder, decoder = load_autoencoder([path])
        assert torch.allclose(encoder(x), restorer.enc(x), rtol=0, atol=tolerance)
        assert torch.allclose(decoder(encoder(x)), restorer.dec(restorer.enc(x)), rtol=0, atol=tolerance)
        student = new_student(TINY, encoder, decoder, 0)
        assert torch.equal(student.enc(x), encoder(x))
        assert student.arch == TINY


def test_the_teacher_can_be_the_half_form_stored_apart(tmp_path: Path) -> None:
    encoder, decoder = Encoder(8, form="half"), Decoder(8, form="half")
    save_autoencoder(encoder, decoder, tmp_path / "apart.safetensors")
    found, other = load_autoencoder([str(tmp_path / "apart.safetensors")])
    x = torch.rand(1, 3, SIDE, SIDE)
    assert torch.allclose(other(found(x)), decoder(encoder(x)), rtol=0, atol=1e-2)
    assert new_student(TINY, found, other, 0).arch == replace(TINY, autoencoder="half")


def test_a_random_square_lies_within_the_image() -> None:
    values = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) % 251
    image = Image.fromarray(values.astype(np.uint8)).convert("RGB")
    rng = np.random.default_rng(0)
    places = {random_square(image, 16, rng).tobytes() for _ in range(20)}
    windows = {image.crop((x, y, x + 16, y + 16)).tobytes() for x in range(15) for y in range(5)}
    assert len(places) > 5
    assert places <= windows
    assert random_square(image, 24, rng).size == (24, 24)


def test_cached_latents_are_the_teachers_within_the_memory_given() -> None:
    torch.manual_seed(0)
    student, source = Restorer(TINY), Restorer(TINY).enc
    size = 4 * 16 * (SIDE // 8) ** 2
    module = LcfmTraining(
        student, source, LcfmConfig(), steps=2, lr=1e-3, trained=("fmir",), cache_bytes=2 * size
    )
    images, keys = torch.rand(3, 3, SIDE, SIDE), torch.tensor([4, 0, 9])
    expected = source(images)
    for _ in range(2):
        assert torch.allclose(module.latents(images, keys), expected, atol=1e-6)
    assert set(module.cached) == {4, 0}
    again = module.latents(torch.zeros(2, 3, SIDE, SIDE), torch.tensor([0, 4]))
    assert torch.allclose(again, expected[[1, 0]], atol=1e-6)
