"""Files for a Snapdragon's NPU in Qualcomm's emulator of it: whole, and as they are simulated."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from elir_mobile.bundle import read_bundle
from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import RECIPES
from elir_mobile.runtimes.programs import open_programs
from elir_mobile.runtimes.runner import open_runner
from export import contexts
from export.calibrate import calibrate
from export.litert import npu_delegation
from export.observers import activation_bits
from export.programs import Delegation, build_programs
from export.samples import collect_samples
from export.simulate import restore_batch, simulate
from export.targets import TARGETS
from tests.conftest import SIGMA_S, SIZE, STEPS

pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed: make npu")
pytestmark = pytest.mark.lowering

LEAST_DB = {"fp16": 40, "w8a8": 20, "w8a16": 35}  # of the image, against the simulation


@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, p) for name in ("onnx/qnn", "litert/qnn") for p in TARGETS[name].precisions],
)
def test_the_npu_takes_the_programs_whole_and_computes_what_is_simulated(
    name: str, precision: str, restorer, degraded, noise, tmp_path: Path
) -> None:
    target, recipe = TARGETS[name], RECIPES[precision]
    programs = build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=target.form)
    samples, path = collect_samples(programs, degraded, seed=0), tmp_path / f"file{target.suffix}"
    target.lower(programs, recipe, samples, path)
    runner = open_runner(name, path, programs.table)
    bits = activation_bits(recipe)
    simulated = simulate(programs, recipe, calibrate(programs, samples, bits=bits) if bits else {})
    wanted, states = restore_batch(simulated, degraded[0], noise)
    out, trajectory = runner.restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    assert sqnr_db(wanted, out) > LEAST_DB[precision]
    assert sqnr_db(states[-1] - states[0], trajectory[-1] - trajectory[0]) > LEAST_DB[precision] - 10


def test_a_program_is_compiled_for_the_chip_that_was_asked_for(
    programs, degraded, tmp_path: Path, monkeypatch
) -> None:
    samples = collect_samples(programs, degraded, seed=0)
    TARGETS["onnx/qnn"].lower(programs, RECIPES["w8a16"], samples, tmp_path / "file")
    source, versions = tmp_path / "file" / "encode.onnx", set()
    for chip in contexts.CHIPS:
        made = contexts.compile_program(source, chip, tmp_path / f"{chip}.onnx")
        assert (made.chip, made.delegation) == (chip, {"encode": Delegation(1, ())})
        versions.add(made.version)
    assert versions == {73, 75, 79}
    compiler = contexts.npu_options  # one that takes no notice of the chip
    monkeypatch.setattr(contexts, "npu_options", lambda chip, threads: compiler("SM8750", threads))
    with pytest.raises(UserError, match=r"asked for SM8550, .* wrote other.onnx for SM8750 \(v79\): do not"):
        contexts.compile_program(source, "SM8550", tmp_path / "other.onnx")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8a8"])
def test_a_tflite_is_compiled_for_the_chip_that_was_asked_for(
    precision: str, restorer, degraded, tmp_path: Path, monkeypatch
) -> None:
    from ai_edge_litert.aot.core import apply_plugin

    target = TARGETS["litert"]
    programs = build_programs(restorer, size=SIZE, steps=STEPS, sigma_s=SIGMA_S, form=target.form)
    source, versions = tmp_path / "file.tflite", set()
    target.lower(programs, RECIPES[precision], collect_samples(programs, degraded, seed=0), source)
    for chip in contexts.CHIPS:
        made = contexts.compile_tflite(source, chip, tmp_path / f"{chip}.tflite")
        assert made.delegation == {name: Delegation(1, ()) for name in programs.modules}
        versions.add(made.version)
    assert versions == {73, 75, 79}
    assert npu_delegation(source.read_bytes())["step"].delegates == 0

    class Deaf(apply_plugin.ApplyPlugin):
        def __call__(self, source, made, maker, chip, *rest, **named):
            return super().__call__(source, made, maker, "SM8750", *rest, **named)

    monkeypatch.setattr(apply_plugin, "ApplyPlugin", Deaf)
    with pytest.raises(UserError, match=r"asked for SM8650, .* wrote other.tflite for SM8750 \(v79\)"):
        contexts.compile_tflite(source, "SM8650", tmp_path / "other.tflite")


def test_a_file_that_is_not_compiled_as_a_whole_is_one_sentence(micro_bundle: Path) -> None:
    path = read_bundle(micro_bundle).file("litert", "fp32")
    with pytest.raises(UserError, match="leaves operators to the processor"):
        open_programs("litert/qnn", path)
    with pytest.raises(UserError, match="is damaged or not a LiteRT model: export it again"):
        open_programs("litert/qnn", micro_bundle / "steps.bin")


def test_a_tflite_that_the_compiler_does_not_take_is_one_sentence(tmp_path: Path) -> None:
    source = tmp_path / "damaged.tflite"
    source.write_bytes(b"no flatbuffer")
    with pytest.raises(UserError, match=r"LiteRT's compiler for SM8750 does not take .*damaged.tflite"):
        contexts.compile_tflite(source, "SM8750", tmp_path / "out.tflite")


def test_an_operator_that_the_npu_does_not_take_is_one_sentence(programs, tmp_path: Path) -> None:
    import onnx

    TARGETS["onnx/qnn"].lower(programs, RECIPES["fp16"], {}, tmp_path / "file")
    path = tmp_path / "file" / "encode.onnx"
    model = onnx.load(path)
    last = model.graph.node[-1]
    out = last.output[0]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Det", ["before"], [out]))  # no chip has determinants
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="has operators that the chip does not take"):
        open_runner("onnx/qnn", tmp_path / "file", programs.table)
