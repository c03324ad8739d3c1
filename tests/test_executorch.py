"""The exported files: structure, execution, and agreement with float."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.fx.traceback import NodeSource

from elir_mobile.core.errors import UserError
from elir_mobile.core.sampling import sample
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import FP16, RECIPES, Recipe, Rule
from elir_mobile.runtimes.runner import Runner, open_runner
from export import executorch
from export.executorch import layer_name, lower, write
from export.programs import Delegation
from export.targets import TARGETS, realizes
from tests.conftest import SIGMA_S, STEPS

pytestmark = pytest.mark.lowering

PRECISIONS = TARGETS["executorch"].precisions


@dataclass(frozen=True)
class Exported:
    path: Path
    delegation: dict[str, Delegation]


@pytest.fixture(scope="module")
def exported(programs, samples, tmp_path_factory) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("pte")
    found = {}
    for name in PRECISIONS:
        path = folder / f"{name}.pte"
        found[name] = Exported(path, TARGETS["executorch"].lower(programs, RECIPES[name], samples, path))
    return found


@pytest.fixture(scope="module")
def runners(exported, programs) -> dict[str, Runner]:
    return {name: open_runner("executorch", file.path, programs.table) for name, file in exported.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_program_is_one_delegate_with_nothing_outside(exported, precision: str) -> None:
    for name, delegation in exported[precision].delegation.items():
        assert delegation.delegates == 1, name
        # Between float32 and float16 inputs, output and constants are cast.
        outside = {"dim_order_ops._to_dim_order_copy.out"} if precision == "fp16" else set()
        assert set(delegation.ops_outside) == outside, name


def test_a_lowering_shares_provenance_and_leaves_pytorch_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its files are the same to the byte; a copy of a node's history for each pass is a fifth of its time."""
    program = torch.nn.Conv2d(3, 4, 3)
    graph = torch.export.export(program, (torch.zeros(1, 3, 8, 8),))
    node = next(iter(graph.graph.nodes))
    histories = []

    def partitioners() -> list:
        history = NodeSource(node)
        histories.append(copy.deepcopy(history) is history)
        return []

    write({"encode": graph}, partitioners, tmp_path / "shared.pte")
    assert histories == [True]
    assert copy.deepcopy(history := NodeSource(node)) is not history
    monkeypatch.setattr(executorch, "_shared_provenance", contextlib.nullcontext)
    write({"encode": graph}, list, tmp_path / "copied.pte")
    assert (tmp_path / "shared.pte").read_bytes() == (tmp_path / "copied.pte").read_bytes()


def test_a_picture_in_another_memory_layout_is_the_same_picture(runners, degraded) -> None:
    permuted = degraded[0].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not permuted.is_contiguous()
    assert torch.equal(runners["fp32"].encode(permuted), runners["fp32"].encode(degraded[0]))


def test_fp32_file_restores_as_eager_does(runners, restorer, degraded, noise) -> None:
    for image in degraded:
        out, _ = runners["fp32"].restore(image, noise, steps=STEPS, sigma_s=SIGMA_S)
        expected = restorer(image, noise, steps=STEPS, sigma_s=SIGMA_S)
        assert sqnr_db(expected, out) > 90


def test_fp16_file_restores_nearly_as_eager_does(runners, restorer, degraded, noise) -> None:
    out, _ = runners["fp16"].restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    expected = restorer(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    assert 45 < sqnr_db(expected, out) < 90  # float16 throughout, not float32 under another name


def test_float16_is_for_all_layers_or_none() -> None:
    some = Recipe("some", (Rule("fmir.*", FP16),))
    assert not realizes(TARGETS["executorch"], some)
    assert realizes(TARGETS["litert"], some)


def test_w8a8_programs_stay_near_float(runners, programs, samples) -> None:
    runner = runners["w8a8"]
    calls = {"encode": runner.encode, "decode": runner.decode}
    for name, call in calls.items():
        for (inputs,) in samples[name]:
            assert sqnr_db(programs.modules[name](inputs), call(inputs)) > 20, name
    for index, (z, row) in enumerate(samples["step"]):
        assert sqnr_db(programs.modules["step"](z, row), runner.step(z, index % STEPS)) > 20


@pytest.mark.parametrize("precision", PRECISIONS)
def test_decoded_images_are_clipped_whatever_the_latent(runners, programs, precision: str) -> None:
    latent = 20 * torch.randn(programs.latent_shape, generator=torch.Generator().manual_seed(0))
    image = runners[precision].decode(latent)
    assert image.min() == 0
    assert image.max() == 1


def test_w8a8_differs_from_float_and_is_smaller(exported, runners, degraded, noise) -> None:
    outs = [runners[n].restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)[0] for n in ("fp32", "w8a8")]
    assert not torch.equal(*outs)
    fp32, w8a8 = (exported[name].path.stat().st_size for name in ("fp32", "w8a8"))
    assert w8a8 < 0.5 * fp32


def test_outputs_are_not_overwritten_by_the_next_call(runners, degraded) -> None:
    first = runners["fp32"].encode(degraded[0])
    kept = first.clone()
    runners["fp32"].encode(degraded[1])
    assert torch.equal(first, kept)


def test_same_input_gives_the_same_bits(runners, degraded, noise) -> None:
    outs = [runners["w8a8"].restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)[0] for _ in range(2)]
    assert torch.equal(*outs)


def test_lowering_twice_gives_the_same_bytes(exported, programs, tmp_path: Path) -> None:
    lower(programs, RECIPES["fp32"], {}, tmp_path / "again.pte")
    assert (tmp_path / "again.pte").read_bytes() == exported["fp32"].path.read_bytes()


def test_w8a8_without_samples_is_refused(programs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calibration"):
        lower(programs, RECIPES["w8a8"], {}, tmp_path / "no.pte")
    assert not list(tmp_path.iterdir())


def test_layers_are_called_by_their_path_in_the_reference_network(programs, restorer) -> None:
    modules = dict(restorer.named_modules())
    for name, module in programs.modules.items():
        graph = torch.export.export(module, programs.example_inputs[name]).graph
        convs = [n for n in graph.nodes if n.op == "call_function" and "conv" in str(n.target)]
        assert convs
        assert all(layer_name(node) in modules for node in convs)


def test_only_patterns_of_batch_norms_are_left_out() -> None:
    """Of those that the quantizer knows: the network has none."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer

    names = {pattern.name for pattern in XNNPACKQuantizer.SUPPORTED_PATTERNS if pattern.is_qat}
    assert names == {"conv_bn", "conv_bn_relu", "conv_transpose_bn", "conv_transpose_bn_relu"}


def test_runner_uses_the_same_loop_as_the_reference(runners, degraded, noise) -> None:
    runner = runners["fp32"]
    out, trajectory = runner.restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    again, _ = sample(
        runner.encode, runner.step, runner.decode, degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S
    )
    assert torch.equal(out, again)
    assert len(trajectory) == STEPS + 1


def test_damaged_file_is_one_clear_error(programs, tmp_path: Path) -> None:
    path = tmp_path / "bad.pte"
    path.write_bytes(b"not a program" * 100)
    with pytest.raises(UserError, match="not an ExecuTorch program"):
        open_runner("executorch", path, programs.table)
