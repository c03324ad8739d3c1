"""Every built-in recipe gives every layer the precision that is written out here."""

from __future__ import annotations

import pytest

from elir_mobile.checkpoints import load_weights
from elir_mobile.precision import RECIPES
from elir_mobile.tasks import get_task
from export.programs import Programs, build_programs
from quant.fakequant import layer_names


@pytest.fixture(scope="module")
def demo() -> Programs:
    restorer, info = load_weights("demo", get_task("bfr"))
    return build_programs(restorer, size=info.size, steps=info.steps, sigma_s=info.sigma_s)


ENDS = {"enc.layers.0", "fmir.first_proj", "fmir.final_proj", "dec.layers.0", "dec.layers.18"}
BLOCKS = [f"fmir.{side}_blocks.{i}" for side, count in (("down", 4), ("mid", 2), ("up", 4)) for i in range(count)]
INNER = {"fmir.down_blocks": ".0", "fmir.mid_blocks": "", "fmir.up_blocks": ".1"}
FLOW_BLOCKS = [block + INNER[block.rpartition(".")[0]] for block in BLOCKS]
NORM_SUMS = {f"{block}.block{i}.block.0.add" for block in FLOW_BLOCKS for i in (1, 2)} | {
    "fmir.final_block.block.0.add"
}
FLOW_CONVS = (
    {f"{block}.{conv}" for block in FLOW_BLOCKS for conv in ("block1.block.2", "block2.block.2", "conv2d")}
    | {"fmir.first_proj", "fmir.final_block.block.2", "fmir.final_proj"}
    | {"fmir.down_blocks.1.1.conv", "fmir.down_blocks.3.1.conv"}
    | {"fmir.up_blocks.0.0.convtr", "fmir.up_blocks.2.0.convtr"}
)
LATENT_SUMS = (
    {f"mmse.lrm.{i}.{rdb}add" for i in range(3) for rdb in ("RDB1.", "RDB2.", "RDB3.", "")}
    | {f"enc.layers.{i}.add" for i in (7, 8, 9, 11, 12, 13)}
    | {f"dec.layers.{i}.add" for i in (2, 3, 4, 7, 8, 9)}
    | {"mmse.add", "fmir.add", "add"}
)
# Of each recipe, the precision of most layers, and those that have another.
TABLE = {
    "fp32": ("fp32", {}),
    "fp16": ("fp16", {}),
    "w8": ("w8", {}),
    "w4": ("w8", {"w4": FLOW_CONVS | NORM_SUMS | {"fmir.add"}}),
    "w8a8": ("w8a8", {"fp32": LATENT_SUMS | NORM_SUMS | {"enc.layers.14"}}),
    "mixed": ("w8a8", {"fp32": LATENT_SUMS | NORM_SUMS | ENDS | {"enc.layers.14"}}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_built_in_recipes_on_the_demo_network(demo: Programs, name: str) -> None:
    names = {layer for layers in layer_names(demo).values() for layer in layers}
    assert len(names) == 208
    most, others = TABLE[name]
    expected = dict.fromkeys(names, most) | {n: p for p, layers in others.items() for n in layers}
    assert {layer: RECIPES[name].precision_of(layer) for layer in names} == expected
