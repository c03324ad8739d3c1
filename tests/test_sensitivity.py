"""Sensitivity ranks layers by damage and goes on where it was stopped."""

from __future__ import annotations

import json
from functools import partial

import pytest
from rich.console import Console
from typer.testing import CliRunner

from elir_mobile.checkpoints import save_weights
from elir_mobile.cli.options import alone
from elir_mobile.cli.sensitivity import main
from elir_mobile.data.pairs import PairCounts
from elir_mobile.precision import W8A8, Recipe, Rule
from quant import sensitivity
from quant.sensitivity import measure_all, rounded_layers
from tests.conftest import SIZE, STEPS
from tests.test_judge import judge  # noqa: F401 - a fixture

app = alone(main)


FEW = Recipe("few", (Rule("dec.layers.[01]*", W8A8), Rule("enc.layers.0", W8A8)))
QUIET = Console(quiet=True)


def test_every_rounded_layer_gets_a_row_and_the_worst_is_first(judge, tmp_path) -> None:  # noqa: F811
    rows = measure_all(judge, FEW, tmp_path / "partial", {"a": 1}, QUIET)
    assert {row["layer"] for row in rows} == {layer for _, layer in rounded_layers(judge, FEW)}
    values = [row["alone"]["image_db"] for row in rows]
    assert values == sorted(values)
    whole = judge.judge(FEW)
    for row in rows:
        assert row["alone"]["image_db"] >= whole.image_db - 0.5  # one layer is no worse than all
        assert row["others"]["program_db"].keys() == {"encode", "step", "decode"}


def test_a_stopped_run_goes_on(judge, tmp_path, monkeypatch) -> None:  # noqa: F811
    partial = tmp_path / "partial"
    real, calls = sensitivity.measure_layer, []

    def stops_after_two(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(sensitivity, "measure_layer", stops_after_two)
    with pytest.raises(KeyboardInterrupt):
        measure_all(judge, FEW, partial, {"a": 1}, QUIET)
    partial.write_text(partial.read_text() + '{"half a li')
    done = calls.copy()
    monkeypatch.setattr(sensitivity, "measure_layer", lambda *a: calls.append(a) or real(*a))
    rows = measure_all(judge, FEW, partial, {"a": 1}, QUIET)
    assert len(calls) == len(rows) == len(rounded_layers(judge, FEW))
    assert len({a[2:] for a in calls}) == len(calls)
    assert calls[:2] == done
    calls.clear()
    measure_all(judge, Recipe("one", (Rule("enc.layers.0", W8A8),)), partial, {"a": 2}, QUIET)
    assert len(calls) == 1  # other facts: nothing is taken over


def test_the_command_writes_json_and_plot(restorer, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sensitivity, "PairCounts", partial(PairCounts, calibration=1))
    weights = tmp_path / "tiny.safetensors"
    save_weights(restorer, weights, task="bfr", size=SIZE, steps=STEPS, sigma_s=0.1)
    recipe = tmp_path / "few.toml"
    recipe.write_text('name = "few"\n[[rule]]\npattern = "dec.layers.0"\nprecision = "w8a8"\n')
    arguments = ["--task", "bfr", "--weights", weights, "--recipe", recipe, "--count", 1, "--out", tmp_path]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert "dec.layers.0" in result.output
    found = json.loads((tmp_path / "sensitivity-bfr-tiny-few.json").read_text())
    assert "fake quantization" in found["protocol"]
    assert [row["layer"] for row in found["rows"]] == ["dec.layers.0"]
    assert found["rows"][0]["alone"]["image_db"] == pytest.approx(found["whole"]["image_db"])
    assert found["rows"][0]["others"]["image_db"] is None
    assert (tmp_path / "sensitivity-bfr-tiny-few.png").stat().st_size > 1000
    assert not list(tmp_path.glob(".*"))


def test_a_recipe_that_rounds_nothing_is_refused(tmp_path) -> None:
    arguments = ["--task", "bfr", "--precision", "fp32", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "rounds no layer" in result.output
    assert not (tmp_path / "out").exists()
