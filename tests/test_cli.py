"""The console command as a stranger meets it: help, completion, wrong input, missing packages."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from inspect import signature
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from elir_mobile.checkpoints import load_weights
from elir_mobile.cli.main import COMMANDS, app
from elir_mobile.core.errors import exits_with_2
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.precision import Recipe
from elir_mobile.runtimes.eager import eager_runner
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.tasks import get_task
from export.programs import Programs, Samples
from export.targets import TARGETS
from tests.conftest import SIZE

SCREEN = {"COLUMNS": "80", "LINES": "24"}
EXPORT = ("export", "a.pte", "--task", "bfr", "--target", "executorch")
# Every constant of the paper is an option; what restores, and how pictures are read, are options of two.
LONG = {"train", "restore", "evaluate"}


def call(*arguments: object, code: int = 0) -> str:
    result: Result = CliRunner(env=SCREEN).invoke(app, [str(a) for a in arguments], prog_name="elir-mobile")
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize("name", [(), *((name,) for name in COMMANDS)])
def test_help_fits_a_screen(name: tuple[str, ...]) -> None:
    lines = call(*name, "--help").splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24 or set(name) & LONG
    assert call(*name, "-h").splitlines() == lines


def test_help_and_completion_import_nothing_heavy() -> None:
    code = (
        "import sys, typer.testing\n"
        "from elir_mobile.cli.main import COMMANDS, app\n"
        "for name in ('', *COMMANDS):\n"
        "    typer.testing.CliRunner().invoke(app, [*name.split(), '--help'])\n"
        "print(*sys.modules)\n"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "PIL", "rich.progress", "lightning"} & set(loaded.split())


def test_the_version_is_the_packages() -> None:
    assert call("--version") == f"elir-mobile {version('elir-mobile')}\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", "restore"),
        ("re", "restore"),
        ("restore --over", "--overwrite"),
        ("restore --weights ", "released"),
        ("export --precision w8", "w8a8"),
        ("export --task b", "bsr"),
        ("export --target lit", "litert"),
        ("quantize --precision fp32,w8", "fp32,w8a8"),
        ("restore --engine ", "ray"),
    ],
)
def test_the_shell_completes(words: str, found: str) -> None:
    environment = {
        "_ELIR_MOBILE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"elir-mobile {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    result = CliRunner(env=environment).invoke(app, [], prog_name="elir-mobile")
    assert found in result.output.split(), result.output


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("quantize", "quant.ptq", ()),
        ("sensitivity", "quant.sensitivity", ()),
        ("qat", "quant.qat", ()),
        ("export", "export", ()),
        ("measure", "elir_mobile.harness", ()),
        ("restore", "elir_mobile.restore", ()),
        ("evaluate", "elir_mobile.evaluate", ()),
        ("train", "elir_mobile.train", ()),
        ("push", "elir_mobile.bundle", ("push",)),
    ],
)
def test_python_m_runs_the_same_command(
    name: str, module: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(sys, "argv", [module, *words, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    shown, expected = (
        text.partition("[OPTIONS]")[2] for text in (capsys.readouterr().out, call(name, "--help"))
    )
    assert "".join(shown.split()) == "".join(expected.split())


def test_wrong_commands_and_options_name_what_is_near() -> None:
    assert "Did you mean 'restore'" in call("restroe", code=2)
    assert "No such option: --taks" in call("restore", "a.png", "b.png", "--taks", "bfr", code=2)
    assert "Missing option '--task'" in call("restore", "a.png", "b.png", code=2)
    assert "unknown task 'x': choose one of bfr" in call("restore", "a", "b", "--task", "x", code=2)
    assert "a search needs a budget" in call("search", "--task", "bfr", code=2)
    assert "name the bundle folder" in call("measure", code=2)
    assert "cannot be read" in call("compare", "a.json", "b.json", code=2)
    assert "say where to" in call("push", "out", code=2)
    assert "unknown precision 'x'" in call(*EXPORT, "--precision", "x", code=2)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("export out.pte --task bfr --target executorch --precision fp32", "executorch", "executorch"),
        ("train --task bfr --data .", "lightning", "train"),
        ("sensitivity --task bfr", "matplotlib", "evaluate"),
        (
            "restore elir_mobile/data/evaluation_set/faces/evaluation out --task bfr --engine ray",
            "ray",
            "ray",
        ),
    ],
)
def test_a_missing_extra_is_one_sentence(command: str, module: str, extra: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['{module}'] = None; from elir_mobile.cli.main import app; app()"
    words = [str(tmp_path / word) if word.startswith("out") else word for word in command.split()]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"pip install 'elir-mobile[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.processes
def test_training_as_a_module_without_its_extra_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['lightning'] = None; "
        "runpy.run_module('quant.qat', run_name='__main__', alter_sys=True)"
    )
    words = ["--task", "bfr", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: lightning is not installed: pip install 'elir-mobile[train]'\n"
    assert not list(tmp_path.iterdir())


# Of every command, what it needs to begin.
ASKED = {
    "quantize": ("--task", "bfr"),
    "search": ("--task", "bfr", "--max-psnr-drop", "1"),
    "sensitivity": ("--task", "bfr"),
    "qat": ("--task", "bfr"),
    "export": (*EXPORT[1:], "--precision", "fp32"),
    "lint": ("pyproject.toml",),
    "measure": ("bundle",),
    "compare": ("one.json", "other.json"),
    "restore": ("in", "out", "--task", "bfr"),
    "evaluate": ("in", "--task", "bfr"),
    "train": ("--task", "bfr", "--data", "in", "--out", "out"),
    "distill": ("--task", "bfr", "--data", "in", "--out", "out"),
    "push": ("bundle", "--android-folder", "out"),
}


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
@pytest.mark.parametrize("megabytes", [300, 540])
def test_no_command_needs_much_memory_to_say_that_there_is_too_little(tmp_path: Path, megabytes: int) -> None:
    """Each is started with less than PyTorch takes up, or just as much."""
    assert ASKED.keys() == COMMANDS.keys()
    code = "from elir_mobile.cli.main import app; app(prog_name='elir-mobile')"
    said = {}
    for name, words in ASKED.items():
        command = ["prlimit", f"--as={megabytes << 20}", sys.executable, "-c", code, name, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2, (name, done.stderr)
        (said[name],) = done.stderr.splitlines()
    assert {line.partition(": ")[0] for line in said.values()} == {"error"}
    assert sum("not enough memory" in line for line in said.values()) > len(said) // 2
    assert not list(tmp_path.iterdir())


def test_a_missing_module_that_no_extra_brings_is_a_fault_of_ours() -> None:
    @exits_with_2
    def main() -> None:
        import elir_mobile.nowhere  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        main()


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, int]]:
    """Lowering replaced by an empty file; the recipe and the number of calibrated images of each call."""
    calls: list[tuple[Recipe, int]] = []

    def lower(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict:
        calls.append((recipe, len(samples.get("encode", ()))))
        path.write_text("program")
        return {}

    monkeypatch.setitem(TARGETS, "executorch", replace(TARGETS["executorch"], lower=lower))
    return calls


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('[[rule]]\npattern = "enc.layers.0"\nprecision = "fp32"\n')
    with path.open("a") as file:
        file.write('[[rule]]\npattern = "*"\nprecision = "w8a8"\n')
    return path


def test_export_takes_what_the_target_realizes_and_one_image(
    lowered: list, recipe_file: Path, tiny_weights: Path, picture_folder: Path, tmp_path: Path
) -> None:
    for name in ("1.png", "2.png"):
        (picture_folder / name).unlink()
    out = tmp_path / "new" / "a.pte"
    command = ("export", out, "--task", "bfr", "--target", "executorch", "--weights", tiny_weights)
    for how in (("--precision", "mixed"), ("--recipe", recipe_file), ("--precision", "fp32")):
        assert "wrote" in call(*command, *how, "--images", picture_folder)
        assert json.loads((tmp_path / "new" / "a.pte.json").read_text())["size"] == SIZE
    assert [(recipe.name, images > 0) for recipe, images in lowered] == [
        ("mixed", True),
        ("mine", True),
        ("fp32", False),
    ]
    assert sorted(path.name for path in out.parent.iterdir()) == ["a.pte", "a.pte.json"]


def test_export_refuses_in_one_sentence(
    lowered: list, recipe_file: Path, tiny_weights: Path, tmp_path
) -> None:
    command = ("export", tmp_path / "a.pte", "--task", "bfr", "--target", "executorch")
    assert "executorch has no w4" in call(*command, "--precision", "w4", code=2)
    both = ("--precision", "w8a8", "--recipe", recipe_file)
    assert "--precision and --recipe name two recipes" in call(*command, *both, code=2)
    recipe_file.write_text('[[rule]]\npattern = "nothing"\nprecision = "w8a8"\n')
    own = ("--recipe", recipe_file, "--weights", tiny_weights)
    assert "matches no layer" in call(*command, *own, code=2)
    assert "end it in .pte" in call(*EXPORT[:1], tmp_path / "a.bin", *EXPORT[2:], code=2)
    assert not lowered
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml"]


def test_export_replaces_nothing_but_its_own(lowered: list, tiny_weights: Path, tmp_path: Path) -> None:
    out, beside = tmp_path / "a.pte", tmp_path / "a.pte.json"
    command = ("export", out, "--task", "bfr", "--target", "executorch", "--precision", "fp32")
    own = (*command, "--weights", tiny_weights)
    for content in ('{"notes": "mine"}', "no JSON", "[1]"):
        beside.write_text(content)
        assert "a.pte.json is not what export wrote there" in call(*own, code=2)
        assert beside.read_text() == content
    beside.unlink()
    call(*own)
    call(*own)
    out.unlink()
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert "a.pte is not what export wrote there" in call(*own, code=2)
    assert (out / "thesis.txt").read_text() == "years of work"


@pytest.mark.lowering
def test_an_exported_file_runs(tiny_weights: Path, degraded, noise, tmp_path: Path) -> None:
    out = tmp_path / "a.pte"
    command = ("export", out, "--task", "bfr", "--target", "executorch", "--weights", tiny_weights)
    call(*command, "--precision", "fp32")
    facts = json.loads((tmp_path / "a.pte.json").read_text())
    assert facts["delegation"]["step"] == {"delegates": 1, "ops_outside": [], "ops_inside": None}
    runner = open_runner("executorch", out, torch.tensor(facts["table"]))
    loop = {"steps": facts["steps"], "sigma_s": facts["sigma_s"]}
    restored, _ = runner.restore(degraded[0], noise, **loop)
    restorer = load_weights(str(tiny_weights), get_task("bfr"))[0]
    expected, _ = eager_runner(restorer, facts["steps"]).restore(degraded[0], noise, **loop)
    assert sqnr_db(expected, restored) > 90


@pytest.mark.parametrize(
    "name", [name for name, command in COMMANDS.items() if "seed" in signature(command).parameters]
)
@pytest.mark.parametrize("digits", ["9" * 20, "9" * 5000, "-1", "4294967296"])
def test_a_seed_that_no_generator_takes_is_refused(name: str, digits: str) -> None:
    said = call(name, f"--seed={digits}", code=2)
    assert "Invalid value for '--seed'" in said


@pytest.mark.parametrize(
    "options",
    [
        ("restore", "in", "out", "--task", "bfr", "--threads", "9" * 20),
        ("restore", "in", "out", "--task", "bfr", "--steps", "9" * 20),
        ("restore", "in", "out", "--task", "bfr", "--tile", "9" * 20),
        ("quantize", "--task", "bfr", "--size", "9" * 20),
        ("quantize", "--task", "bfr", "--steps", "9" * 5000),
        ("quantize", "--task", "bfr", "--steps", "٣٣٣٣٣"),
        ("measure", "bundle", "--runs", "9" * 20),
        ("evaluate", "clean", "--task", "bfr", "--resamples", "9" * 20),
        ("train", "--task", "bfr", "--data", "data", "--batch", "9" * 20),
        ("train", "--task", "bfr", "--data", "data", "--steps", "15", "--save-every", "10"),
        ("distill", "--task", "bfr", "--data", "data", "--steps", "9" * 20),
    ],
)
def test_numbers_have_an_end(options: tuple[str, ...]) -> None:
    said = call(*options, code=2)
    assert "rror" in said.splitlines()[-1]
    assert len(said.splitlines()[-1]) < 200


def test_a_short_training_saves_once_at_its_end(tmp_path: Path) -> None:
    """Fewer steps than --save-every by default are no mistake; the folder without pictures is."""
    said = call("train", "--task", "bfr", "--data", tmp_path, "--steps", 10, code=2)
    assert "has no images" in said
