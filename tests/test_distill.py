"""Distillation: the student comes nearer to its teacher in every stage, and is an ordinary checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from elir_mobile.checkpoints import load_weights, save_weights
from elir_mobile.cli.distill import main
from elir_mobile.cli.options import alone
from elir_mobile.images import list_images, read_image, square, to_tensor
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.tasks import get_task
from elir_mobile.training import distill, stage
from elir_mobile.training.distill import at_time, student_of
from tests.conftest import SIGMA_S, SIZE, STEPS, write_pictures

app = alone(main)


@pytest.fixture(scope="module")
def teacher(restorer: Restorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_weights(restorer, path, task="bfr", size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    return path


MINUTES = 1.0
TRAINED = 160  # optimizer steps of all stages, whatever the processor does in a minute


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """A clock that ticks at every look, and what suits a network that learns in so few steps."""
    looks = count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "busy_seconds", lambda: next(looks) * 60 * MINUTES / TRAINED)
        patch.setattr(distill, "LR", 2e-2)
        patch.setattr(distill, "BATCH", 4)
        patch.setattr(distill, "POOL", (32, 64))
        patch.setattr(distill, "lpips_available", lambda: False)
        yield


@pytest.fixture(scope="module")
def distilled(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of some steps of each stage."""
    folder = tmp_path_factory.mktemp("distill")
    write_pictures(folder / "pictures", 12)
    said = call(teacher, folder, "--minutes", MINUTES, "--steps", 1)
    assert "distilled.safetensors" in said
    return folder


def call(teacher: Path, folder: Path, *options: object, code: int = 0) -> str:
    arguments = (
        "--task",
        "bfr",
        "--weights",
        teacher,
        "--data",
        folder / "pictures",
        "--out",
        folder / "run",
    )
    result = CliRunner().invoke(app, [str(x) for x in (*arguments, "--threads", 1, *options)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


@torch.no_grad()
def distances(student: Restorer, teacher: Restorer, folder: Path) -> dict[str, float]:
    """Mean squared error of each part against the teacher's, on the held-out picture and its mirror image."""
    x = to_tensor(square(read_image(list_images(folder / "pictures")[1]), SIZE))[None]
    x = torch.cat([x, x.flip(-1)])
    z = teacher.encode(x)
    noise = seeded_noise(tuple(z.shape), 0)
    path = teacher.trajectory(z, noise, steps=STEPS, sigma_s=SIGMA_S)
    landed = student.trajectory(student.encode(x), noise, steps=1, sigma_s=SIGMA_S)[-1]
    pairs = {
        "encoder": (student.enc(x), teacher.enc(x)),
        "decoder": (student.decode(path[-1]), teacher.decode(path[-1])),
        "flow": (landed, path[-1]),
    }
    return {name: float((ours - theirs).square().mean()) for name, (ours, theirs) in pairs.items()}


def test_the_student_is_an_ordinary_checkpoint_nearer_to_its_teacher(distilled: Path, teacher: Path) -> None:
    network, info = load_weights(str(distilled / "run" / "distilled.safetensors"), get_task("bfr"))
    assert (network.arch.autoencoder, info.steps, info.size, info.sigma_s) == ("half", 1, SIZE, SIGMA_S)
    reference, _ = load_weights(str(teacher), get_task("bfr"))
    torch.manual_seed(0)
    before = distances(student_of(reference, "half"), reference, distilled)
    after = distances(network, reference, distilled)
    for part, factor in (("encoder", 0.7), ("decoder", 0.3), ("flow", 0.5)):
        assert after[part] < factor * before[part], (part, before, after)
        assert list((distilled / "run" / part).glob("strip-*.png"))
        assert "student against teacher" in (distilled / "run" / part / "figures.txt").read_text()


def test_what_is_done_is_not_done_again(distilled: Path, teacher: Path) -> None:
    weights = distilled / "run" / "distilled.safetensors"
    content = weights.read_bytes()
    call(teacher, distilled, "--minutes", MINUTES, "--steps", 1)
    assert weights.read_bytes() == content


def test_the_same_form_keeps_the_autoencoder(teacher: Path) -> None:
    reference, _ = load_weights(str(teacher), get_task("bfr"))
    student = student_of(reference, "taesd")
    for name, tensor in reference.state_dict().items():
        assert torch.equal(student.state_dict()[name], tensor), name


def test_points_between_steps_lie_on_the_line() -> None:
    path = [torch.tensor([float(value)]) for value in (0, 1, 4, 5, 3, 2)]
    assert [at_time(path, k / 5).item() for k in range(6)] == [0, 1, 4, 5, 3, 2]
    assert at_time(path, 0.5).item() == pytest.approx(4.5)
    assert at_time(path, 0.1).item() == pytest.approx(0.5)


def test_what_cannot_be_distilled_is_one_sentence(teacher: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 2)
    said = call(teacher, tmp_path, "--autoencoder", "taesd", "--steps", STEPS, code=2)
    assert "the student would be the teacher" in said
    (tmp_path / "pictures" / "1.png").write_bytes(b"cut")
    said = call(teacher, tmp_path, code=2)
    assert "1.png is not an image" in said and "none of the images" in said
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    assert "no image folder" in call(teacher, tmp_path, code=2)
    write_pictures(tmp_path / "pictures", 1)
    assert "one of ten is held out" in call(teacher, tmp_path, code=2)
