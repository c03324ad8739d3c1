"""Recipes are ordered rules; the first match decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from elir_mobile.core.errors import UserError
from elir_mobile.precision import (
    FP16,
    FP32,
    RECIPES,
    W8A8,
    Recipe,
    Rule,
    check_rules,
    get_recipe,
    read_recipe,
    recipe_toml,
)


def test_first_matching_rule_wins_and_unmatched_layers_stay_float() -> None:
    recipe = Recipe("r", (Rule("a.b.*", FP32), Rule("a.*", W8A8)))
    assert recipe.precision_of("a.b.c") == FP32
    assert recipe.precision_of("a.c") == W8A8
    assert recipe.precision_of("z") == FP32


def test_only_recipes_with_int8_activations_need_calibration() -> None:
    assert not RECIPES["fp32"].needs_calibration
    assert RECIPES["w8a8"].needs_calibration


def test_w8a8_keeps_the_signal_path_of_flow_and_coarse_in_float() -> None:
    recipe = RECIPES["w8a8"]
    assert recipe.precision_of("enc.layers.3.conv.0") == W8A8
    assert recipe.precision_of("fmir.up_blocks.0.1.block1.block.2") == W8A8
    assert recipe.precision_of("mmse.lrm.0.RDB1.add") == FP32
    assert recipe.precision_of("fmir.add") == FP32
    assert recipe.precision_of("add") == FP32


def test_unknown_precision_lists_the_known() -> None:
    with pytest.raises(UserError, match="fp32, fp16, w8, w4, w8a8"):
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
    ],
)
def test_a_bad_recipe_is_one_sentence_that_names_the_rule(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_recipe(written(tmp_path, TEXT.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_missing_and_empty_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe at"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(UserError, match=r"no \[\[rule\]\]"):
        read_recipe(written(tmp_path, ""))


def test_a_rule_that_no_layer_comes_to_is_refused() -> None:
    layers = ["enc.layers.0", "dec.layers.0"]
    check_rules(Recipe("good", (Rule("enc.*", W8A8), Rule("*", FP16))), layers)
    with pytest.raises(UserError, match=r"rule 2 \('encoder.\*'\) matches no layer"):
        check_rules(Recipe("typo", (Rule("enc.*", W8A8), Rule("encoder.*", FP16))), layers)
    with pytest.raises(UserError, match=r"rule 2 \('enc.layers.0'\)"):
        check_rules(Recipe("shadowed", (Rule("*", W8A8), Rule("enc.layers.0", FP16))), layers)
