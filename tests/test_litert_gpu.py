"""LiteRT files for a phone's GPU: what makes them whole there, and a GPU in software that runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from elir_mobile.core.errors import UserError
from elir_mobile.core.golden import check_output
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import RECIPES
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.runtimes.table import RUNTIMES, SWIFTSHADER
from export.forms import CPU_CHANNELS_LAST, GPU
from export.litert import convert, gpu_delegation
from export.programs import Programs, build_programs
from export.targets import TARGETS
from tests.conftest import SIGMA_S, SIZE, STEPS

pytestmark = pytest.mark.lowering
LACKING = ", ".join(RUNTIMES["litert/gpu"].lacking)
needs_a_driver = pytest.mark.skipif(bool(LACKING), reason=f"without {LACKING}: make gpu")
LEAST_DB = {"fp32": 90, "fp16": 55}  # of the image, against float


@pytest.fixture(scope="module")
def gpu_programs(restorer) -> Programs:
    return build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=GPU)


@pytest.fixture(scope="module")
def content(gpu_programs: Programs) -> bytes:
    return convert(gpu_programs)


def test_the_gpu_form_leaves_nothing_and_the_form_for_processors_does(restorer, content: bytes) -> None:
    for delegation in gpu_delegation(content).values():
        assert (delegation.delegates, delegation.ops_outside) == (1, ())
    programs = build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=CPU_CHANNELS_LAST)
    other = gpu_delegation(convert(programs))
    assert set(other["step"].ops_outside) == {"CONV_2D", "DEPTHWISE_CONV_2D"}  # grouped ones, of the norms
    assert not other["encode"].ops_outside


class Head(nn.Module):
    """A transposed convolution with a ReLU behind it, which the converter fuses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(8, 3, 6, stride=2, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x))


class Ranks(nn.Module):
    """A sum over five dimensions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(1, 2, 4, 8, 8).sum(2) * 2.0


@pytest.mark.parametrize(("module", "operator"), [(Head(), "TRANSPOSE_CONV"), (Ranks(), "RESHAPE")])
def test_what_the_gpu_does_not_take_is_named(module: nn.Module, operator: str) -> None:
    programs = Programs({"head": module}, {"head": (torch.zeros(1, 8, 8, 8),)}, torch.zeros(1, 1), 1, 0.1)
    assert operator in gpu_delegation(convert(programs))["head"].ops_outside


def test_zeros_are_no_output() -> None:
    with pytest.raises(UserError, match="step gives 0 everywhere"):
        check_output("step", torch.zeros(1, 16, 4, 4).numpy())
    with pytest.raises(UserError, match="decode gives values that are not finite"):
        check_output("decode", torch.full((1, 3, 4, 4), torch.nan).numpy())
    check_output("image", torch.arange(4.0).numpy())


@needs_a_driver
@pytest.mark.parametrize("precision", TARGETS["litert/gpu"].precisions)
def test_a_gpu_takes_the_programs_whole_and_computes_the_network(
    precision: str, restorer, gpu_programs: Programs, degraded, noise, tmp_path: Path
) -> None:
    path = tmp_path / "file.tflite"
    TARGETS["litert/gpu"].lower(gpu_programs, RECIPES[precision], {}, path)
    runner = open_runner("litert/gpu", path, gpu_programs.table)
    out, trajectory = runner.restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    wanted = restorer.trajectory(restorer.encode(degraded[0]), noise, steps=STEPS, sigma_s=SIGMA_S)
    assert sqnr_db(restorer.decode(wanted[-1]).numpy(), out.numpy()) > LEAST_DB[precision]
    update, computed = wanted[-1] - wanted[0], trajectory[-1] - trajectory[0]
    assert sqnr_db(update.numpy(), computed.numpy()) > LEAST_DB[precision] - 20


@needs_a_driver
def test_a_process_that_a_gpu_runner_started_has_the_gpu_too(monkeypatch) -> None:
    """The driver's name is inherited, the loader that was loaded is not."""
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER))
    code = (
        "import ctypes, elir_mobile.runtimes.litert_gpu as gpu; "
        "gpu._load_vulkan(); ctypes.CDLL('libvulkan.so.1')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_a_driver
def test_what_the_gpu_does_not_take_ends_the_run(tmp_path: Path) -> None:
    programs = Programs({"head": Head()}, {"head": (torch.zeros(1, 8, 8, 8),)}, torch.zeros(1, 1), 1, 0.1)
    path = tmp_path / "head.tflite"
    path.write_bytes(convert(programs))
    with pytest.raises(UserError, match=r"GPU accelerator does not take .*head\.tflite as a whole"):
        open_runner("litert/gpu", path, torch.zeros(1, 1))
