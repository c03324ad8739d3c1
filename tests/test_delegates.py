"""Files for ExecuTorch's delegates on phones, which nothing here can run: what they hold, read back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from torch import nn

from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import RECIPES
from elir_mobile.runtimes.coreml import Function, coremltools, mil_program, read_package
from export import delegates
from export.coreml import convolutions, stored_grid, wanted_grid
from export.delegates import lower_for_vulkan
from export.executorch import coreml_package, read_graphs
from export.forms import GroupNormConv
from export.programs import Delegation, Programs, build_programs
from export.samples import collect_samples
from export.targets import TARGETS
from tests.conftest import SIGMA_S, SIZE, STEPS, micro_programs

pytestmark = pytest.mark.lowering

FILES = [
    (target, precision)
    for target in ("executorch/vulkan", "executorch/coreml")
    for precision in TARGETS[target].precisions
]
WHOLE = {("executorch/vulkan", "fp16"), ("executorch/vulkan", "w8a8"), ("executorch/coreml", "fp16")}
LEAST_DB = {"fp32": 90, "fp16": 45, "w8": 25}  # of a program's output, against float


@dataclass(frozen=True)
class Lowered:
    programs: Programs
    path: Path
    delegation: dict[str, Delegation]


@pytest.fixture(scope="module")
def lowered(restorer, samples, tmp_path_factory) -> dict[tuple[str, str], Lowered]:
    """By target and precision: of ``WHOLE`` the tiny network, of the others the handful of layers."""
    folder = tmp_path_factory.mktemp("delegates")
    found = {}
    for name, precision in FILES:
        target = TARGETS[name]
        own = micro_programs(target.form.clip)
        if (name, precision) in WHOLE:
            own = build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=target.form)
        path = folder / f"{name.replace('/', '-')}-{precision}.pte"
        found[name, precision] = Lowered(own, path, target.lower(own, RECIPES[precision], samples, path))
    return found


def layers(module: nn.Module) -> dict[str, nn.Module]:
    """Convolutions of a program that are not of its norms."""
    norms = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, GroupNormConv))
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d) and not name.startswith(norms)
    }


@pytest.mark.parametrize(("target", "precision"), FILES)
def test_each_program_is_one_delegate_with_nothing_outside(lowered, target: str, precision: str) -> None:
    file = lowered[target, precision]
    assert file.delegation.keys() == file.programs.modules.keys()
    for name, delegation in file.delegation.items():
        assert (delegation.delegates, delegation.ops_outside) == (1, ()), name


@pytest.mark.parametrize(("target", "precision"), FILES)
def test_the_operators_are_those_of_the_written_file(lowered, target: str, precision: str) -> None:
    file = lowered[target, precision]
    graphs = {graph.program: graph for graph in read_graphs(file.path)}
    assert graphs.keys() == file.delegation.keys()
    for name, graph in graphs.items():
        assert not [operator for operator in graph.operators if operator.outside], name
        assert file.delegation[name].ops_inside == Counter(operator.kind for operator in graph.operators)
        # Every convolution of the network is there, and nothing that is left of a quantized float graph.
        count = sum(n for kind, n in file.delegation[name].ops_inside.items() if "conv" in kind)
        module = file.programs.modules[name]
        norms = sum(isinstance(part, GroupNormConv) for part in module.modules())
        assert count == len(layers(module)) + 4 * norms  # gathered and spread, mean and variance


@pytest.mark.parametrize(("precision", "most"), [("fp16", 2.6), ("w8a8", 2.2)])
def test_vulkan_stores_weights_in_fewer_bytes(lowered, precision: str, most: float) -> None:
    """Bytes a value; the graph is a tenth of this network, and w8a8 keeps norms and biases in float32."""
    file = lowered["executorch/vulkan", precision]
    values = sum(p.numel() for module in file.programs.modules.values() for p in module.parameters())
    assert file.path.stat().st_size < most * values


def test_vulkan_multiplies_integers_wherever_the_recipe_does(lowered) -> None:
    file = lowered["executorch/vulkan", "w8a8"]
    recipe = RECIPES["w8a8"].on(file.programs.roles)
    for name, module in file.programs.modules.items():
        inside = file.delegation[name].ops_inside
        wanted = sum(recipe.precision_of(layer).integer for layer in layers(module))
        assert wanted > 0.9 * len(layers(module))
        assert sum(n for kind, n in inside.items() if kind.startswith("et_vk.q8ta_conv2d")) == wanted, name
        norms = sum(isinstance(part, GroupNormConv) for part in module.modules())
        left = inside.get("aten.convolution.default", 0) + inside.get("et_vk.conv_with_clamp.default", 0)
        assert left == len(layers(module)) - wanted + 4 * norms
        assert not [kind for kind in inside if "per_channel" in kind]  # a weight made float again


@pytest.mark.parametrize("precision", TARGETS["executorch/coreml"].precisions)
def test_our_interpreter_computes_the_network_from_the_blobs_of_core_ml(
    lowered, degraded, precision: str, tmp_path: Path
) -> None:
    file = lowered["executorch/coreml", precision]
    samples = collect_samples(file.programs, degraded[:1], seed=0)
    for name, package in packages(file.path, tmp_path).items():
        (function,) = read_package(package).values()
        inputs = samples[name][-1]
        (out,) = run(function, inputs)
        with torch.no_grad():
            wanted = file.programs.modules[name](*inputs)
        found = sqnr_db(wanted.numpy(), out.numpy())
        assert found > LEAST_DB[precision], (name, found)
        assert precision == "fp32" or found < 90, (name, found)


def packages(path: Path, folder: Path) -> dict[str, Path]:
    """The Core ML package of each method of a ``.pte``, unpacked into ``folder``."""
    program = deserialize_pte_binary(path.read_bytes()).program
    found = {}
    for plan in program.execution_plan:
        (delegate,) = plan.delegates
        (folder / plan.name).mkdir()
        blob = bytes(program.backend_delegate_data[delegate.processed.index].data)
        found[plan.name] = coreml_package(blob, folder / plan.name)
    return found


def run(function: Function, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return function(dict(zip(function.inputs, inputs, strict=True)))


def test_core_ml_stores_every_weight_on_the_recipes_grid(lowered, tmp_path: Path) -> None:
    file = lowered["executorch/coreml", "w8"]
    (w8,) = RECIPES["w8"].precisions
    for name, package in packages(file.path, tmp_path).items():
        with coremltools() as ct:
            model = ct.models.MLModel(str(package), skip_model_load=True)
            (function,) = mil_program(model.get_spec(), model.weights_dir).functions.values()
        stored = convolutions(function)
        assert len(stored) == len(layers(file.programs.modules[name]))
        assert all(stored_grid(op) == wanted_grid(op, w8) for op in stored), name


def test_a_grid_that_core_ml_does_not_have_is_refused(tmp_path: Path) -> None:
    target = TARGETS["executorch/coreml"]
    with pytest.raises(ValueError, match=r"int8 weights alone: 'fmir\.\w+' is w4"):
        target.lower(micro_programs(target.form.clip), RECIPES["w4"], {}, tmp_path / "file.pte")
    assert not list(tmp_path.iterdir())


def test_vulkans_patterns_are_exported_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from executorch.backends.vulkan import patterns

    made: list[list[object]] = []

    def graphs() -> list[object]:
        made.append([])
        return made[-1]

    own = {"slow": SimpleNamespace(get_graphs_fn=graphs), "none": SimpleNamespace(get_graphs_fn=None)}
    monkeypatch.setattr(patterns, "fusable_patterns", own)
    delegates._build_patterns_once.__wrapped__()
    assert own["slow"].get_graphs_fn() is own["slow"].get_graphs_fn()
    assert len(made) == 1 and own["none"].get_graphs_fn is None


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_vulkan_files_are_the_same_bytes_twice(precision: str, tmp_path: Path) -> None:
    written = []
    for name in ("first.pte", "second.pte"):
        programs = micro_programs(TARGETS["executorch/vulkan"].form.clip)
        lower_for_vulkan(programs, RECIPES[precision], {}, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
