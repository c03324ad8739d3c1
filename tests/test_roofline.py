"""Counting a program's work, and the sweep of plain convolutions through the real runtimes."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import roofline as sweeping
from elir_mobile.harness.protocol import Protocol
from elir_mobile.harness.roofline import cache_path, furthest, layer_macs, read_roof, roof_facts, work_of
from elir_mobile.precision import RECIPES, W8A8, Recipe, Rule
from export.targets import TARGETS
from tests.conftest import SIZE, TINY

FP32_RULES = RECIPES["fp32"].to_json()


def test_macs_are_those_of_the_rewritten_programs(programs, restorer) -> None:
    """Counted on the float network, they are what PyTorch counts on the programs that are exported."""
    macs = layer_macs(restorer_on_meta(restorer), SIZE)
    for name, module in programs.modules.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(*programs.example_inputs[name])
        assert sum(macs[name].values()) == pytest.approx(counter.get_total_flops() / 2, rel=1e-6), name


def restorer_on_meta(restorer):
    return copy.deepcopy(restorer).to("meta")


def test_an_architecture_is_counted_without_weights(restorer) -> None:
    text = json.dumps(asdict(TINY))
    macs, roles = work_of(text, SIZE)
    assert macs == layer_macs(restorer_on_meta(restorer), SIZE)
    assert {layer for layers in macs.values() for layer in layers} <= set(roles)
    twice, _ = work_of(text, 2 * SIZE)
    assert sum(twice["encode"].values()) == pytest.approx(4 * sum(macs["encode"].values()))


def test_a_roof_is_the_best_of_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path))
    manifest = {"model": {"architecture": asdict(TINY)}, "size": SIZE}
    assert roof_facts(manifest, 2).of("litert", FP32_RULES, "step", 1.0)["roof_share"] is None
    rows = [
        {"target": "litert", "precision": p, "gmacs_per_s": speed}
        for p, speed in (("fp32", 20.0), ("fp32", 40.0), ("w8a8", 100.0))
    ]
    path = cache_path(2)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"rows": rows}))
    assert read_roof(path) == {("litert", "fp32"): 40.0, ("litert", "w8a8"): 100.0}
    roof = roof_facts(manifest, 2)
    gmacs = sum(roof.macs["encode"].values()) / 1e9

    def at_10_gmacs_a_second(recipe: Recipe) -> dict:
        return roof.of("litert", recipe.to_json(), "encode", 1e3 * gmacs / 10)

    facts = at_10_gmacs_a_second(RECIPES["w8"])  # computed in float32
    assert facts["gmacs_per_s"] == pytest.approx(10)
    assert facts["roof_share"] == pytest.approx(0.25)
    assert at_10_gmacs_a_second(RECIPES["w8a8"])["roof_share"] == pytest.approx(0.1)
    assert at_10_gmacs_a_second(RECIPES["mixed"])["roof_share"] == pytest.approx(0.1)  # most of it is int8
    # What the layers do decides, not what the recipe is called.
    elsewhere = Recipe("w8a8", (Rule("dec.*", W8A8),))
    assert at_10_gmacs_a_second(elsewhere)["roof_share"] == pytest.approx(0.25)
    assert roof.of("litert", elsewhere.to_json(), "decode", 1.0)["roof_gmacs_per_s"] == 100
    assert roof.of("litert", None, "decode", 1.0)["roof_share"] is None
    assert roof.of("coreml", FP32_RULES, "encode", None)["gmacs_per_s"] is None
    assert roof_facts(manifest, 3).best == {}  # another number of threads is another roof


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"rows": [{}]}', '{"rows": [{"target": 1}]}', "\x00"])
def test_a_damaged_cache_is_no_roof(tmp_path: Path, content: str) -> None:
    path = tmp_path / "roof.json"
    path.write_text(content)
    assert read_roof(path) == {}


def test_the_program_furthest_from_its_roof() -> None:
    def row(precision: str, **shares: float | None) -> dict:
        programs = {name: {"roof_share": share} for name, share in shares.items()}
        return {"target": "litert", "precision": precision, "programs": programs}

    found = furthest([row("fp32", encode=0.9, step=0.4), row("w8", encode=0.3, step=None)])
    assert found is not None
    assert (found["precision"], found["program"], found["roof_share"]) == ("w8", "encode", 0.3)
    assert furthest([row("fp32", encode=None)]) is None


@pytest.mark.lowering
def test_the_sweep_runs_every_chain_in_every_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = Protocol(warmups=1, runs=2, threads=1)
    rows = sweeping.sweep(((8, 8),), protocol, Console(quiet=True))
    assert len(rows) == 2 * 2 * len(sweeping.DEPTHS)
    assert {(r["target"], r["precision"]) for r in rows} == {
        (t, p) for t in ("executorch", "litert") for p in ("fp32", "w8a8")
    }
    for r in rows:
        assert r["gmacs"] == r["depth"] * r["channels"] ** 2 * 9 * r["side"] ** 2 / 1e9
        assert r["gmacs_per_s"] == pytest.approx(r["gmacs"] / (r["median_ms"] / 1e3))
        assert np.isfinite(r["gmacs_per_s"])


@pytest.mark.lowering
@pytest.mark.parametrize("name", ["executorch", "litert"])
def test_the_int8_chains_are_int8(name: str, tmp_path: Path) -> None:
    single = {key: facts for key, facts in sweeping.chains(((64, 8),)).items() if facts["depth"] == 1}
    programs = sweeping.chain_programs(single)
    samples = {program: [inputs] for program, inputs in programs.example_inputs.items()}
    sizes = {}
    for precision in ("fp32", "w8a8"):
        path = tmp_path / precision
        split = TARGETS[name].lower(programs, RECIPES[precision], samples, path)
        assert {(found.delegates, found.ops_outside) for found in split.values()} == {(1, ())}
        sizes[precision] = path.stat().st_size
    assert sizes["w8a8"] < 0.4 * sizes["fp32"]
