"""The tables of runtimes and targets, and what a new row of each costs: the places that a toy had to name."""

from __future__ import annotations

import copy
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

from elir_mobile.bundle import copy_bundle, read_bundle, write_golden
from elir_mobile.checkpoints import ModelInfo, load_weights
from elir_mobile.cli.options import alone
from elir_mobile.core.errors import UserError
from elir_mobile.core.jobs import KINDS, Job
from elir_mobile.core.manifest import read_golden
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.data.pairs import load_pair_sets
from elir_mobile.devices import adb, worker
from elir_mobile.harness import __main__ as harness
from elir_mobile.harness.protocol import Protocol
from elir_mobile.precision import PRECISIONS, RECIPES, Precision, check_rules, read_recipe
from elir_mobile.recommendation import RECOMMENDED
from elir_mobile.restore import load_artifact
from elir_mobile.runtimes import table
from elir_mobile.runtimes.programs import open_programs
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.runtimes.table import (
    RUNTIMES,
    Runtime,
    can_run,
    get_runtime,
    package_versions,
    runtimes_on,
)
from elir_mobile.tasks import TASKS, Task, get_task
from elir_mobile.terminal import Stages
from export import __main__ as export_command
from export.artifacts import export
from export.forms import CPU, Form, GroupNormConv, clip_by_minimum
from export.job import Job as ExportJob
from export.job import select_artifacts
from export.programs import build_programs
from export.reached import reached_db
from export.samples import collect_samples
from export.simulate import simulate
from export.targets import TARGETS, Target, get_target, realizes, writer
from quant.ptq import run
from quant.search import layer_costs
from tests.conftest import (
    SIGMA_S,
    SIZE,
    STEPS,
    eager_of,
    micro_programs,
    write_micro_bundle,
    write_pictures,
)

pytestmark = pytest.mark.lowering

VENDORS = {"onnx/qnn", "litert/qnn", "coreai"}  # whose packages make test does without
# The toys, each a module of a few lines.
PORTABLE = '''
import torch
from export.executorch import write

def lower(programs, recipe, samples, path):
    """A .pte that is given to no delegate."""
    modules, inputs = programs.modules, programs.example_inputs
    return write({name: torch.export.export(modules[name], inputs[name]) for name in modules}, list, path)
'''
BROKEN = PORTABLE.replace(
    "    modules, inputs", "    programs.modules['decode'].dec.layers[0].weight.neg_()\n    modules, inputs"
)
SAVED = '''
import torch
from export.programs import Delegation

def lower(programs, recipe, samples, path):
    """The exported graphs as PyTorch saves them."""
    path.mkdir()
    for name, module in programs.modules.items():
        torch.export.save(torch.export.export(module, programs.example_inputs[name]), path / f"{name}.pt2")
    return {name: Delegation(0, ()) for name in programs.modules}
'''
OPENED = """
import torch

def open_programs(path, threads, names):
    torch.set_num_threads(threads)
    graphs = {name: torch.export.load(path / f"{name}.pt2").module() for name in names}
    def program(name):
        return lambda *inputs: graphs[name](*map(torch.from_numpy, inputs)).numpy()
    return {name: program(name) for name in names}
"""


ROUNDED = '''
import copy
import torch
from export.programs import Delegation

def lower(programs, recipe, samples, path):
    """Graphs whose weights are rounded to the grid of each layer's precision."""
    from export.simulate import simulate_program
    path.mkdir()
    for name, module in programs.modules.items():
        rounded, _ = simulate_program(module, recipe, {}, programs.roles)
        torch.export.save(torch.export.export(rounded, programs.example_inputs[name]), path / f"{name}.pt2")
    return {name: Delegation(0, ()) for name in programs.modules}
'''
DEEP = """
from torch import nn
from elir_mobile.models.autoencoder import Block, Encoder

class DeepEncoder(Encoder):
    def __init__(self, width, latent_channels):
        super().__init__(width, latent_channels)
        layers = list(self.layers)
        self.layers = nn.Sequential(layers[0], Block(width), Block(width), *layers[1:])
"""


def keep_upsampling(layers: torch.nn.Sequential) -> None:
    """Nearest upsampling and a convolution, as the network has them."""


NEAREST = Form(GroupNormConv, clip_by_minimum, keep_upsampling)


class Places:
    """Puts a toy in and notes every place that had to name it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.named = folder, monkeypatch, []
        (folder / "toys").mkdir()
        (folder / "toys" / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(folder))

    def module(self, name: str, text: str) -> Any:
        (self.folder / "toys" / f"{name}.py").write_text(text)
        self.named.append(f"a module: {name}")
        importlib.invalidate_caches()
        for known in [known for known in sys.modules if known.partition(".")[0] == "toys"]:
            self.patch.delitem(sys.modules, known)
        return importlib.import_module(f"toys.{name}")

    def row(self, rows: dict, value: Runtime | Target | Task | Precision) -> None:
        self.patch.setitem(rows, value.name, value)
        self.named.append(f"a row: {type(value).__name__}")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    (tmp_path / "package").mkdir()
    return Places(tmp_path / "package", monkeypatch)


def invoke(app: Any, *arguments: object) -> Any:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(a) for a in arguments])


def test_a_new_delegate_is_a_row_and_a_lowering_function(
    places: Places, degraded, tiny_weights: Path, tmp_path: Path
) -> None:
    lower = places.module("portable", PORTABLE).lower
    kinds = ("host", "android")  # which have it, though iPhones have the runtime
    places.row(TARGETS, Target("executorch", "portable", NEAREST, ("fp32",), lower, devices=kinds))
    assert places.named == ["a module: portable", "a row: Target"]

    name, path = "executorch/portable", "executorch/bfr-fp32-portable.pte"
    assert [t.name for t, _ in select_artifacts(f"executorch,{name}", "fp32", Console(quiet=True))] == [
        "executorch", name,
    ]  # fmt: skip
    folder = tmp_path / "bfr-micro"
    write_micro_bundle(folder, (("executorch", "fp32"), (name, "fp32")), degraded, tiny_weights)
    bundle = read_bundle(folder)
    own, other = bundle.manifest["files"]
    assert own["path"] == "executorch/bfr-fp32.pte"
    assert (own["target"], own["runtime"], own["delegate"]) == ("executorch", "executorch", "xnnpack")
    assert other["path"] == path
    assert (other["target"], other["runtime"], other["delegate"]) == (name, "executorch", "portable")
    assert other["form"] == {
        "group_norm": "GroupNormConv", "clip": "clip_by_minimum", "upsampling": "keep_upsampling"
    }  # fmt: skip
    assert [split["delegates"] for split in own["delegation"].values()] == [1, 1, 1]
    assert [split["delegates"] for split in other["delegation"].values()] == [0, 0, 0]
    assert bundle.file(name, "fp32") == folder / path
    for kind, targets in (("android", ["executorch", name]), ("ios", ["executorch"])):
        copied = read_bundle(copy_bundle(bundle, tmp_path / kind / "bfr-micro", kind))
        assert [entry["target"] for entry in copied.manifest["files"]] == targets

    # In worker processes, which know the table as it is in the repository.
    pictures, out = write_pictures(tmp_path / "pictures", 2), tmp_path / "report"
    said = invoke(
        alone(harness.main),
        *(folder, "--targets", name, "--images", pictures, "--runs", 2, "--warmups", 0, "--out", out),
    )
    assert said.exit_code == 0, said.output
    (found,) = out.rglob("report.json")
    report = json.loads(found.read_text())
    (row,) = report["rows"]
    assert (row["target"], row["path"], row["error"]) == (name, path, None)
    assert row["latency_ms"]["median"] > 0
    assert min(row["golden"][output]["db"] or 999 for output in ("encode", "step")) > 90
    assert row["image"]["psnr_db"] is not None
    assert "executorch" in report["devices"][0]["runtimes"]


def test_a_file_for_a_delegate_that_this_machine_lacks_is_exported_and_not_run_here(
    places: Places, picture_folder: Path, restorer, tmp_path: Path
) -> None:
    lower = places.module("saved", SAVED).lower
    places.row(
        RUNTIMES, Runtime("toy", "Toy", "toys.absent", (), "numpy", (), ".pt2", ("host", "ios"), "cpu")
    )
    places.row(TARGETS, Target("toy", "npu", CPU, ("fp32",), lower, devices=("ios",)))
    task = get_task("bfr")
    info = ModelInfo("tiny", "tiny", "0", False, SIZE, STEPS, SIGMA_S, task.domain)
    quick = Protocol(warmups=0, runs=0, cold_starts=1)
    artifacts = select_artifacts("toy/npu", "fp32", Console(quiet=True))
    job = ExportJob(task, restorer, info, SIZE, artifacts, picture_folder, tmp_path, 0, quick)
    folder, report = run(job, Console(quiet=True))
    (entry,) = read_bundle(folder).manifest["files"]
    assert (entry["path"], entry["devices"]) == ("toy/bfr-fp32-npu.pt2", ["ios"])
    assert [row["target"] for row in report["rows"]] == ["eager", "toy/npu"]
    row = report["rows"][1]
    assert (row["device"], row["executed_by"], row["error"]) == ("nobody", "nobody", None)
    assert row["against"] == {"run": "not executed here: it runs on ios"}
    assert row["latency_ms"]["median"] is None
    assert entry["parity"].keys() == {"encode", "step", "decode", "image"}  # by simulation
    assert all(budget.keys() == {"budget_db"} for budget in entry["parity"].values())
    assert all(10 < budget["budget_db"] < 90 for budget in entry["parity"].values())
    assert not {"executed_by", "quality"} & entry.keys()
    with pytest.raises(UserError, match=r"npu\.pt2 is not executed here: it runs on ios: choose another"):
        load_artifact(task, folder, None, None)


def test_a_file_that_computes_something_else_stops_the_export(
    places: Places, picture_folder: Path, restorer, tmp_path: Path
) -> None:
    lower = places.module("broken", BROKEN).lower
    places.row(TARGETS, Target("executorch", "portable", NEAREST, ("fp32",), lower))
    task = get_task("bfr")
    info = ModelInfo("tiny", "tiny", "0", False, SIZE, STEPS, SIGMA_S, task.domain)
    quick = Protocol(warmups=0, runs=0, cold_starts=1)
    artifacts = select_artifacts("executorch/portable", "fp32", Console(quiet=True))
    job = ExportJob(task, restorer, info, SIZE, artifacts, picture_folder, tmp_path / "out", 0, quick)
    said = (
        r"executorch/portable fp32 was exported but computes something else: decode is -?\d+\.\d dB from "
        r"float, 50\.0 in simulation: leave it out, or choose another precision"
    )
    with pytest.raises(UserError, match=said):
        run(job, Console(quiet=True))
    assert not (tmp_path / "out" / "bfr-tiny").exists()


def test_weights_that_lie_on_their_grid_are_not_asked_for_more_than_float16_gives(
    degraded: list[Tensor], tmp_path: Path
) -> None:
    """As training leaves them: in simulation nothing is lost, in Core ML's float16 60 dB are left."""
    programs = simulate(micro_programs(TARGETS["coreml"].form.clip), RECIPES["w8"], {})
    picture = (degraded[0] * 255).round() / 255
    entry = write_golden(tmp_path, eager_of(programs), picture, STEPS, SIGMA_S)
    vectors = read_golden(tmp_path, entry)
    asked = {
        name: reached_db(programs, RECIPES[name], vectors, entry["seed"]) for name in ("fp32", "w8", "w4")
    }
    assert {name: said["encode"] for name, said in asked.items()} == {"fp32": 90, "w8": 55, "w4": 55}
    assert (asked["fp32"]["step"], asked["w8"]["step"]) == (90, 55)
    assert 10 < asked["w4"]["step"] < 45  # which rounds it anew


def test_a_new_runtime_is_a_row_and_a_module_more(
    places: Places, degraded, tiny_weights: Path, tmp_path: Path
) -> None:
    places.module("opened", OPENED)
    lower = places.module("saved", SAVED).lower
    places.row(
        RUNTIMES,
        Runtime("toy", "Toy", "toys.opened", ("toys.opened",), "numpy", (), ".pt2", ("host", "adb"), "cpu"),
    )
    places.row(TARGETS, Target("toy", "cpu", CPU, ("fp32",), lower))
    assert places.named == ["a module: opened", "a module: saved", "a row: Runtime", "a row: Target"]

    folder = write_micro_bundle(tmp_path / "bfr-micro", (("toy", "fp32"),), degraded, tiny_weights)
    job, path = Job("", ("toy/bfr-fp32.pt2",), threads=1, warmup=0, runs=1), tmp_path / "raw"
    path.mkdir()
    result = worker.run_job(job, folder, path)
    assert [row.error for row in result.rows] == [None]
    assert min(result.rows[0].parity[name] or 999 for name in ("encode", "step")) > 90
    assert result.device.runtimes == {"numpy": np.__version__}
    assert "toy" in runtimes_on("adb") and "toy" not in runtimes_on("android")
    assert "numpy" in package_versions()

    # The whole tiny network by the command.
    file = tmp_path / "tiny.pt2"
    asked = ("--task", "bfr", "--target", "toy/cpu", "--precision", "fp32", "--weights", tiny_weights, file)
    said = invoke(alone(export_command.main), *asked)
    assert said.exit_code == 0, said.output
    facts = json.loads(file.with_name("tiny.pt2.json").read_text())
    assert (facts["target"], facts["runtime"], facts["form"]) == ("toy", "toy", CPU.to_json())
    x = degraded[0]
    encoded = torch.from_numpy(open_programs("toy", file, 1)["encode"](x.numpy()))
    assert (encoded - load_weights(str(tiny_weights), get_task("bfr"))[0].encode(x)).abs().max() < 1e-4


def test_one_of_each_names_its_own_place_alone(
    places: Places, restorer, degraded, picture_folder: Path, tmp_path: Path
) -> None:
    """A toy target, precision, task and encoder meet; nothing else had to hear of any of them."""
    places.row(PRECISIONS, Precision("w6", weight_bits=6))
    places.row(TASKS, replace(get_task("sr"), name="toy", title="toy", steps=3))
    places.module("opened", OPENED)
    places.row(RUNTIMES, Runtime("toy", "Toy", "toys.opened", (), "numpy", (), ".pt2", ("host",), "cpu"))
    lower = places.module("rounded", ROUNDED).lower
    places.row(TARGETS, Target("toy", "npu", NEAREST, ("fp32", "w6"), lower))
    network = copy.deepcopy(restorer)
    network.enc = places.module("deep", DEEP).DeepEncoder(8, 16).eval().requires_grad_(False)
    assert places.named == [
        "a row: Precision", "a row: Task",
        "a module: opened", "a row: Runtime", "a module: rounded", "a row: Target", "a module: deep",
    ]  # fmt: skip

    task, target = get_task("toy"), get_target("toy/npu")
    written = tmp_path / "mine.toml"
    written.write_text(
        'name = "mine"\n[[rule]]\npattern = "role:image-end"\nprecision = "fp32"\n'
        '[[rule]]\npattern = "*"\nprecision = "w6"\n'
    )
    recipe = read_recipe(written)
    assert realizes(target, recipe)
    programs = build_programs(network, size=SIZE, steps=task.steps, sigma_s=task.sigma_s, form=target.form)
    for known in (*RECIPES.values(), recipe):
        check_rules(known, programs.roles)
    assert programs.roles["enc.layers.3.add"] == programs.roles["enc.layers.2.add"] == "residual@1/1"
    pairs = load_pair_sets(picture_folder, task, SIZE, 0)
    samples = collect_samples(programs, [pairs.calibration[0].degraded], 0)
    assert len(samples["step"]) == task.steps
    path = tmp_path / "file.pt2"
    target.lower(programs, recipe, samples, path)
    opened = open_programs("toy/npu", path, 1)
    for name, want in simulate(programs, recipe.on(programs.roles)).modules.items():
        inputs = samples[name][0]
        found = torch.from_numpy(opened[name](*(x.numpy() for x in inputs)))
        assert torch.allclose(found, want(*inputs), atol=1e-5)
        assert 20 < sqnr_db(programs.modules[name](*inputs), found) < 60
    assert layer_costs(programs)["enc.layers.3.conv.0"].bytes(recipe.rules[1].precision) > 0


def test_a_runtimes_own_delegate_may_be_named() -> None:
    assert get_target("executorch/xnnpack") is get_target("executorch") is TARGETS["executorch"]
    assert get_target("litert/xnnpack") is TARGETS["litert"]
    for name in (
        "executorch/",
        "executorch/qnn",
        "coreml/xnnpack",
        "coreml/None",
        "toy/cpu",
        "onnx/cpu",
        "",
    ):
        with pytest.raises(UserError, match=f"choose from {', '.join(TARGETS)}"):
            get_target(name)


def test_every_target_has_its_runtime_and_files_of_two_delegates_do_not_meet() -> None:
    assert {target.runtime for target in TARGETS.values()} == RUNTIMES.keys()
    assert get_runtime("executorch/vulkan") is RUNTIMES["executorch"]
    vulkan = TARGETS["executorch/vulkan"]
    assert vulkan.path("bfr-fp32") == "executorch/bfr-fp32-vulkan.pte"
    assert TARGETS["executorch"].path("bfr-fp32") == "executorch/bfr-fp32.pte"
    assert table.file_stem(vulkan.name, "fp32") == "executorch-vulkan-fp32"


def test_runtimes_run_on_known_devices_of_which_the_host_is_one() -> None:
    for runtime in RUNTIMES.values():
        assert set(runtime.devices) <= set(KINDS)
        assert "host" in runtime.devices
    assert runtimes_on("arm64") == ("executorch", "litert")
    assert runtimes_on("android") == ("executorch", "litert", "litert/gpu")
    assert runtimes_on("ios") == ("executorch", "coreml")
    assert runtimes_on("browser") == ("litert", "litert/gpu")
    for kind, advice in RECOMMENDED.items():
        device = kind.removesuffix("-gpu")  # of an NPU's files the demo apps open none
        for target in advice.targets:
            assert can_run(device, TARGETS[target].to_json()) or kind == "android-npu", kind
            assert can_run("host", TARGETS[target].to_json()), "nobody is advised to run what nobody has run"


class Here:
    """This machine's shell in place of a phone's."""

    serial = "here"

    def shell(self, command: str) -> adb.Said:
        return subprocess.run(
            ["sh", "-c", command.replace("python3", sys.executable, 1)], capture_output=True, text=True
        )


def test_a_python_at_the_other_end_is_asked_for_every_runtime_it_may_have(monkeypatch) -> None:
    assert adb.python_runtimes(Here()) == runtimes_on("adb") == ("executorch", "litert")
    monkeypatch.setitem(
        RUNTIMES, "executorch", replace(RUNTIMES["executorch"], imports=("torch", "absent.module"))
    )
    assert adb.python_runtimes(Here()) == ("litert",)
    monkeypatch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], imports=("absent.module",)))
    with pytest.raises(UserError, match="nor a python3 with NumPy and ExecuTorch or LiteRT: install the app"):
        adb.python_runtimes(Here())


def test_each_runtime_is_an_extra_of_its_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for runtime in RUNTIMES.values():
        named = {re.split("[=<>]", requirement)[0] for requirement in extras[runtime.extra]}
        assert named == set(runtime.packages), runtime.name
        fetched = runtime.name in VENDORS  # by make npu, make coreai
        assert (runtime.extra in re.split("[^a-z-]", extras["all"][0])) != fetched


def test_versions_name_every_package_that_shapes_a_file_and_this_one() -> None:
    found = package_versions()
    assert {"elir-mobile", "torch"} < found.keys()
    ours = [runtime for runtime in RUNTIMES.values() if runtime.name not in VENDORS]
    assert {package for runtime in ours for package in runtime.packages} < found.keys()


@pytest.mark.parametrize(
    "name", ["executorch", "litert", "coreml", "coreai", "onnx", "onnx/qnn", "litert/qnn"]
)
def test_a_runtime_that_is_not_installed_is_one_sentence(name: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, RUNTIMES[name].imports[-1], None)
    extra = name.replace("/", "-")
    with pytest.raises(UserError, match=rf"is not installed: pip install 'elir-mobile\[{extra}\]'"):
        open_programs(name, tmp_path / "any")


def test_all_is_every_target_whose_runtime_is_installed(monkeypatch) -> None:
    monkeypatch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], package="no-such-package"))
    chosen = select_artifacts("all", "w8a8,w8a16", Console(quiet=True))
    names = {target.name for target, _ in chosen}
    assert {"executorch", "executorch/vulkan", "coreml", "onnx"} <= names
    assert "litert" not in names
    assert {target.name for target, recipe in chosen if recipe.name == "w8a16"} == names & {
        "onnx",
        "onnx/qnn",
    }


@pytest.mark.parametrize(
    ("target", "lacks", "how"),
    [
        ("litert", {"package": "absent"}, r"absent: pip install 'elir-mobile\[litert\]'$"),
        ("coreml", {"exporters": ("gone", "lost")}, r"gone, lost: pip install 'elir-mobile\[coreml\]'$"),
        ("litert/gpu", {"driver": Path("no/driver")}, "no/driver: make gpu$"),
        ("onnx/qnn", {"package": "absent"}, r"absent: pip install 'elir-mobile\[onnx-qnn\]' or make npu$"),
    ],
)
def test_files_that_could_not_be_run_are_refused_before_anything_is_done(
    monkeypatch, target: str, lacks: dict, how: str
) -> None:
    for runtime in RUNTIMES.values():  # whatever this machine has
        monkeypatch.setitem(
            RUNTIMES, runtime.name, replace(runtime, package="numpy", exporters=(), driver=None)
        )
    chosen = select_artifacts(target, "fp32,fp16", Console(quiet=True))
    assert {t.name for t, _ in chosen} == {target}
    monkeypatch.setitem(RUNTIMES, target, replace(RUNTIMES[target], **lacks))
    with pytest.raises(UserError, match=f"^{target} files cannot be made and run here without .*{how}"):
        select_artifacts(f"executorch,{target}", "fp32,fp16", Console(quiet=True))
    assert target not in {t.name for t, _ in select_artifacts("all", "fp32,fp16", Console(quiet=True))}


def test_targets_that_write_alike_share_one_lowering(
    restorer, picture_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    assert writer(TARGETS["onnx/qnn"]) is TARGETS["onnx"]
    assert all(writer(target) is target for name, target in TARGETS.items() if name != "onnx/qnn")
    calls = []

    def lower(programs: Any, recipe: Any, samples: Any, path: Path) -> dict:
        calls.append(recipe.name)
        path.mkdir()
        (path / "a.onnx").write_bytes(len(calls).to_bytes())
        return {}

    for name in ("onnx", "onnx/qnn"):
        monkeypatch.setitem(TARGETS, name, replace(TARGETS[name], lower=lower))
    info = ModelInfo("tiny", "tiny", "0", False, SIZE, STEPS, SIGMA_S, get_task("bfr").domain)
    artifacts = tuple((TARGETS[name], RECIPES[p]) for p in ("fp16", "w8") for name in ("onnx", "onnx/qnn"))
    job = ExportJob(get_task("bfr"), restorer, info, SIZE, artifacts, picture_folder, tmp_path, 0)
    bundle = tmp_path / "bundle"
    with Stages(Console(quiet=True)) as stages:
        made = export(job, {}, "", tmp_path / "exports", bundle, stages)
    assert sorted(calls) == ["fp16", "w8"]
    assert [entry["path"] for entry in made] == [
        "onnx/bfr-fp16", "onnx/qnn/bfr-fp16", "onnx/bfr-w8", "onnx/qnn/bfr-w8"
    ]  # fmt: skip
    contents = [(bundle / entry["path"] / "a.onnx").read_bytes() for entry in made]
    assert contents[0] == contents[1] != contents[2] == contents[3]


def _threads_of_executorch() -> int:
    from executorch.extension.pybindings import portable_lib

    return portable_lib._threadpool_get_thread_count()


@pytest.mark.parametrize(
    ("name", "counts"),
    [("executorch", (_threads_of_executorch, torch.get_num_threads)), ("coreml", (torch.get_num_threads,))],
)
def test_threads_reach_the_runtime(
    micro_bundle: Path, name: str, counts: tuple[Callable[[], int], ...]
) -> None:
    bundle, before = read_bundle(micro_bundle), torch.get_num_threads()
    try:
        for threads in (2, 1):
            open_runner(name, bundle.file(name, "fp32"), bundle.table, threads)
            assert [count() for count in counts] == [threads] * len(counts)
    finally:
        torch.set_num_threads(before)


def test_a_file_for_a_delegate_that_is_not_here_is_one_sentence(micro_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.pte"
    content = read_bundle(micro_bundle).file("executorch", "fp32").read_bytes()
    assert b"XnnpackBackend" in content
    path.write_bytes(content.replace(b"XnnpackBackend", b"UnknownBackend"))
    with pytest.raises(UserError, match="lacks the delegate of .*elsewhere.pte: run it on a device that has"):
        open_programs("executorch", path, 1)


def test_threads_reach_litert(micro_bundle: Path, monkeypatch) -> None:
    from ai_edge_litert import interpreter

    class Recording(interpreter.Interpreter):
        def __init__(self, **options: Any) -> None:
            asked.append(options["num_threads"])
            super().__init__(**options)

    asked: list[int] = []
    monkeypatch.setattr(interpreter, "Interpreter", Recording)
    bundle = read_bundle(micro_bundle)
    open_runner("litert", bundle.file("litert", "fp32"), bundle.table, 1)
    assert asked == [1]


@pytest.mark.parametrize("target", TARGETS)
def test_programs_are_written_in_their_targets_form(restorer, target: str) -> None:
    form = TARGETS[target].form
    programs = build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=form)
    parts = [part for module in programs.modules.values() for part in module.modules()]
    assert form.group_norm in map(type, parts)
    assert not any(isinstance(part, torch.nn.GroupNorm | torch.nn.Upsample) for part in parts)
    assert programs.modules["decode"].clip is form.clip
