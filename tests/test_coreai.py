"""Core AI models: the integers that are in the file, and what Apple's own runtime computes from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import RECIPES
from elir_mobile.runtimes.programs import open_programs
from elir_mobile.runtimes.runner import open_runner
from export.simulate import find_layers, restore_batch, simulate, trace
from export.targets import TARGETS
from tests.conftest import SIGMA_S, STEPS

pytest.importorskip("coreai_torch", reason="coreai-core and coreai-torch are not installed: make coreai")
pytestmark = pytest.mark.lowering

LEAST_DB = {"fp32": 90, "fp16": 45, "w8": 40}  # of the image, against the simulation


@pytest.fixture(scope="module")
def files(programs, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("coreai")
    written = {name: folder / f"{name}.aimodel" for name in TARGETS["coreai"].precisions}
    for name, path in written.items():
        TARGETS["coreai"].lower(programs, RECIPES[name], {}, path)
    return written


@pytest.mark.parametrize("precision", TARGETS["coreai"].precisions)
def test_apples_runtime_computes_what_is_simulated(
    precision: str, files: dict[str, Path], programs, degraded, noise
) -> None:
    runner = open_runner("coreai", files[precision], programs.table)
    wanted, path = restore_batch(simulate(programs, RECIPES[precision]), degraded[0], noise)
    out, trajectory = runner.restore(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)
    assert sqnr_db(wanted, out) > LEAST_DB[precision]
    assert sqnr_db(path[-1] - path[0], trajectory[-1] - trajectory[0]) > LEAST_DB[precision] - 10


def test_functions_are_called_as_in_the_core_ml_package(files: dict[str, Path]) -> None:
    from coreai.authoring import AIModelAsset

    summary = AIModelAsset.load(files["w8"]).summary()
    signatures = {
        name: (summary.function_inputs(name), summary.function_outputs(name))
        for name in summary.function_names
    }
    assert {
        name: ([n for n, _ in inputs], [n for n, _ in outputs])
        for name, (inputs, outputs) in signatures.items()
    } == {
        "encode": (["image"], ["coarse"]),
        "step": (["latent", "row"], ["next_latent"]),
        "decode": (["latent"], ["restored"]),
    }


def test_all_weights_of_convolutions_and_nothing_else_are_stored_as_int8(
    files: dict[str, Path], programs
) -> None:
    from coreai.authoring import AIModelAsset

    wanted = 0
    for module in programs.modules.values():
        layers = find_layers(trace(module), RECIPES["w8"].on(programs.roles))
        wanted += sum(layer.module.weight.numel() for layer in layers if layer.grid is not None)
    stored = {name: dict(AIModelAsset.load(path).summary().storage_types) for name, path in files.items()}
    assert wanted <= stored["w8"]["Int8"] < 1.01 * wanted  # and an offset of zero for each channel
    assert stored["fp16"]["Float16"] - stored["w8"]["Float16"] == pytest.approx(wanted, rel=0.05)
    assert "Int8" not in stored["fp16"] and "Float16" not in stored["fp32"]


def test_the_same_command_twice_gives_the_same_bytes(files: dict[str, Path], programs, tmp_path) -> None:
    again = tmp_path / "again.aimodel"
    TARGETS["coreai"].lower(programs, RECIPES["w8"], {}, again)
    names = sorted(path.relative_to(again) for path in again.rglob("*"))
    assert names == sorted(path.relative_to(files["w8"]) for path in files["w8"].rglob("*"))
    for name in names:
        assert (again / name).is_dir() or (again / name).read_bytes() == (files["w8"] / name).read_bytes()


@pytest.mark.parametrize("recipe", ["w4", "w8a8"])
def test_integers_that_it_is_not_given_are_refused(recipe: str, programs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Core AI cannot give"):
        TARGETS["coreai"].lower(programs, RECIPES[recipe], {}, tmp_path / "file.aimodel")


def test_a_file_that_is_none_is_one_sentence(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.aimodel is damaged or not a Core AI model"):
        open_programs("coreai", tmp_path / "absent.aimodel")
    damaged = tmp_path / "damaged.aimodel"
    damaged.mkdir()
    for file in files["w8"].iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"damaged\.aimodel is damaged or not a Core AI model"):
        open_programs("coreai", damaged)
    with pytest.raises(UserError, match=r"w8\.aimodel has no function 'absent': export it again"):
        open_programs("coreai", files["w8"], names=("absent",))
