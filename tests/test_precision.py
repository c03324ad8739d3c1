"""Recipes are ordered rules; the first match decides."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from elir_mobile import precision as precisions
from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.harness.roofline import Roof, work_of
from elir_mobile.precision import (
    FP16,
    FP32,
    RECIPES,
    W8,
    W8A8,
    Precision,
    Recipe,
    Rule,
    check_rules,
    get_recipe,
    read_recipe,
    recipe_of,
    recipe_toml,
)
from export.calibrate import calibrate
from export.gptq import adjusted_weights, with_weights
from export.observers import activation_bits
from export.programs import Programs
from export.samples import collect_samples
from export.simulate import simulate
from quant.search import layer_costs
from tests.conftest import SIZE, TINY


def test_first_matching_rule_wins_and_unmatched_layers_stay_float() -> None:
    recipe = Recipe("r", (Rule("a.b.*", FP32), Rule("a.*", W8A8)))
    assert recipe.precision_of("a.b.c") == FP32
    assert recipe.precision_of("a.c") == W8A8
    assert recipe.precision_of("z") == FP32


def test_only_recipes_with_int8_activations_need_calibration() -> None:
    assert not RECIPES["fp32"].needs_calibration
    assert RECIPES["w8a8"].needs_calibration


def test_w8a8_keeps_the_signal_path_of_flow_and_coarse_in_float(programs) -> None:
    recipe = RECIPES["w8a8"].on(programs.roles)
    assert recipe.precision_of("enc.layers.3.conv.0") == W8A8
    assert recipe.precision_of("fmir.up_blocks.0.1.block1.block.2") == W8A8
    assert recipe.precision_of("mmse.lrm.0.RDB1.add") == FP32
    assert recipe.precision_of("fmir.add") == FP32
    assert recipe.precision_of("add") == FP32


def test_unknown_precision_lists_the_known() -> None:
    with pytest.raises(UserError, match="fp32, fp16, w8, w4, w4g32, w8a8"):
        get_recipe("int8")


TEXT = """
name = "mine"

[[rule]]
pattern = "enc.*"
precision = "fp16"

[[rule]]
pattern = "*"
precision = "w8a8"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_file_is_read_and_written_back(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, TEXT))
    assert recipe == Recipe("mine", (Rule("enc.*", FP16), Rule("*", W8A8)))
    assert read_recipe(written(tmp_path, recipe_toml(recipe))) == recipe


def test_a_recipe_without_a_name_is_called_as_its_file(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path, TEXT.replace('name = "mine"', ""))).name == "recipe"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"w8a8"', '"int9"', r"rule 2 \('\*'\) has unknown precision 'int9'"),
        ('precision = "fp16"', "", "rule 1 must have a pattern and a precision"),
        ('pattern = "enc.*"', 'pattern = ""', "rule 1 needs a layer's name"),
        ('pattern = "enc.*"', "pattern = 3", "rule 1 needs a layer's name"),
        ('"w8a8"', '["w8a8"]', r"rule 2 \('\*'\) has unknown precision"),
        ('"mine"', '"w8a8"', "built-in"),
        ('"mine"', '"../up"', "cannot be used"),
        ('name = "mine"', "colour = 3", "unknown key 'colour'"),
        ("[[rule]]", "[[", "not a TOML file"),
        ("[[rule]]", "[[rules]]", "unknown key 'rules'"),
        ('"mine"', "9" * 5000, "is not a TOML file: Exceeds the limit"),
        ('"mine"', "9" * 4000, r"the name 9+\.\.\.9+ cannot be used"),
        ('"w8a8"', "9" * 4000, r"has unknown precision 9+\.\.\.9+: choose"),
        ('"mine"', "[" * 100_000, "nested deeper than 8 levels"),
        ('name = "mine"', f"name{'.a' * 20_000} = 1", "nested deeper than 8 levels"),
        ('pattern = "enc.*"', "pattern" + ' . "a"' * 20_000 + " = 1", "nested deeper than 8 levels"),
    ],
)
def test_a_bad_recipe_is_one_sentence_that_names_the_rule(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_recipe(written(tmp_path, TEXT.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_dots_in_a_pattern_or_a_comment_are_no_levels(tmp_path: Path) -> None:
    pattern = "enc.layers.0.conv.1.block.2.3.weight"
    written_as = TEXT.replace('"enc.*"', f'"{pattern}"  # {pattern}')
    assert read_recipe(written(tmp_path, written_as)).rules[0].pattern == pattern


def test_missing_and_empty_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe at"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(UserError, match=r"no \[\[rule\]\]"):
        read_recipe(written(tmp_path, ""))


def test_a_rule_that_no_layer_comes_to_is_refused() -> None:
    layers = {"enc.layers.0": "image-end", "dec.layers.0": "latent-end"}
    check_rules(Recipe("good", (Rule("enc.*", W8A8), Rule("*", FP16))), layers)
    with pytest.raises(UserError, match=r"rule 2 \('encoder.\*'\) matches no layer"):
        check_rules(Recipe("typo", (Rule("enc.*", W8A8), Rule("encoder.*", FP16))), layers)
    with pytest.raises(UserError, match=r"rule 2 \('enc.layers.0'\)"):
        check_rules(Recipe("shadowed", (Rule("*", W8A8), Rule("enc.layers.0", FP16))), layers)
    check_rules(Recipe("by role", (Rule("role:image-*", FP16), Rule("*", W8A8))), layers)
    with pytest.raises(UserError, match=r"rule 1 \('role:head'\) .* roles image-end, latent-end"):
        check_rules(Recipe("role", (Rule("role:head", FP16),)), layers)


def test_roles_become_names_and_nothing_is_guessed_before() -> None:
    recipe = Recipe("r", (Rule("role:*-end", FP32), Rule("*", W8A8)))
    with pytest.raises(ValueError, match=r"role:\*-end"):
        recipe.precision_of("enc.layers.0")
    known = recipe.on({"a": "image-end", "b": "block", "c": "latent-end"})
    assert [known.precision_of(layer) for layer in "abc"] == [FP32, W8A8, FP32]
    assert known.on({}) == known


def test_a_manifest_keeps_the_recipe() -> None:
    for recipe in RECIPES.values():
        assert recipe_of(json.loads(json.dumps(recipe.to_json()))) == recipe
    with pytest.raises(UserError, match="unknown precision 'w3'"):
        recipe_of({"name": "r", "rules": [{"pattern": "*", "precision": "w3"}]})


W8A12 = Precision("w8a12", weight_bits=8, activation_bits=12)
W6 = Precision("w6", weight_bits=6, weight_group=16, float_type="float16")


@pytest.fixture
def two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two precisions that the project does not have, each as its one row."""
    for precision in (W8A12, W6):
        monkeypatch.setitem(precisions.PRECISIONS, precision.name, precision)


def test_a_new_precision_is_one_row(two_more, programs, degraded, tmp_path: Path) -> None:
    """Reading, calibration, simulation, reconstruction, costs and the roof know it by its fields."""
    recipes = {
        name: read_recipe(
            written(tmp_path, f'name = "{name}"\n[[rule]]\npattern = "*"\nprecision = "{name}"\n')
        )
        for name in ("w8a12", "w6")
    }
    samples = collect_samples(programs, degraded[:2], seed=0)
    inputs = samples["step"][0]
    want = programs.modules["step"](*inputs)

    def db(simulated: Programs) -> float:
        return sqnr_db(want, simulated.modules["step"](*inputs))

    ranges = {bits: calibrate(programs, samples, bits=bits) for bits in (8, 12)}
    found = {
        recipe.name: db(simulate(programs, recipe, ranges[activation_bits(recipe) or 8]))
        for recipe in (RECIPES["w8a8"], RECIPES["w8"], RECIPES["w4"], *recipes.values())
    }
    assert found["w4"] + 6 < found["w6"] < found["w8"]
    assert found["w8a8"] + 3 < found["w8a12"] <= found["w8"] + 0.1
    better = with_weights(programs, adjusted_weights(programs, recipes["w6"], samples))
    assert db(simulate(better, recipes["w6"])) > found["w6"] + 0.5

    costs = layer_costs(programs)
    cost = costs["enc.layers.0"]  # 3 to 8 channels: too few for a group
    assert cost.bytes(W6) == cost.bytes(W8)
    inner = costs["fmir.mid_blocks.0.block2.block.2"]  # 64 to 64
    assert inner.bytes(W6) == 64 * 64 * 9 * 6 // 8 + 4 * 64 * 4 + 4 * 64
    assert inner.milliseconds(W8A8) < inner.milliseconds(W8A12) <= inner.milliseconds(FP32)
    assert inner.milliseconds(W6) == inner.milliseconds(FP32)
    total = costs["fmir.add"]
    assert total.milliseconds(W8A8) * 1.5 == pytest.approx(total.milliseconds(W8A12))
    assert total.milliseconds(W8A8) * 2 == pytest.approx(total.milliseconds(W6))

    macs, roles = work_of(json.dumps(asdict(TINY)), SIZE)
    roof = Roof(macs, roles, {("litert", "fp32"): 1.0, ("litert", "w8a8"): 2.0})
    reached = {
        name: roof.of("litert", recipe.to_json(), "step", 1.0)["roof_gmacs_per_s"]
        for name, recipe in recipes.items()
    }
    assert reached == {"w8a12": 2.0, "w6": 1.0}
