"""Recipes are ordered rules; the first match decides."""

from __future__ import annotations

import pytest

from elir_mobile.errors import UserError
from elir_mobile.precision import FP32, RECIPES, W8A8, Recipe, Rule, get_recipe


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
