"""Every built-in recipe gives every layer the precision that is written out here, whatever the encoder."""

from __future__ import annotations

import copy

import pytest
from torch import nn

from elir_mobile.models.autoencoder import Block
from elir_mobile.models.restorer import Architecture, Restorer
from elir_mobile.precision import FP32, RECIPES, check_rules
from export.programs import Programs, build_programs
from export.simulate import layer_names
from tests.conftest import SIGMA_S, SIZE, STEPS


@pytest.fixture(scope="module")
def network() -> Programs:
    arch = Architecture(
        enc_width=32,
        dec_width=32,
        coarse_width=32,
        n_rrdb=3,
        hid_channels=32,
        n_mid_blocks=2,
        ch_mult=(1, 2, 1, 2),
        t_emb_dim=32,
    )
    return build_programs(Restorer(arch), size=128, steps=3, sigma_s=SIGMA_S)


ENDS = {"enc.layers.0", "fmir.first_proj", "fmir.final_proj", "dec.layers.0", "dec.layers.18"}
BLOCKS = [
    f"fmir.{side}_blocks.{i}" for side, count in (("down", 4), ("mid", 2), ("up", 4)) for i in range(count)
]
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
IMAGE_SUMS = {f"enc.layers.{i}.add" for i in (1, 3, 4, 5)} | {f"dec.layers.{i}.add" for i in (12, 13, 14, 17)}
# Of each recipe, the precision of most layers, and those that have another.
TABLE = {
    "fp32": ("fp32", {}),
    "fp16": ("fp16", {}),
    "w8": ("w8", {}),
    "w4": ("w8", {"w4": FLOW_CONVS | NORM_SUMS | {"fmir.add"}}),
    "w4g32": ("w8", {"w4g32": FLOW_CONVS | NORM_SUMS | {"fmir.add"}}),
    "w8a8": ("w8a8", {"fp32": LATENT_SUMS | NORM_SUMS | {"enc.layers.14"}}),
    "w8a16": ("w8a16", {"fp32": LATENT_SUMS | NORM_SUMS | IMAGE_SUMS}),
    "mixed": ("w8a8", {"fp32": LATENT_SUMS | NORM_SUMS | ENDS | {"enc.layers.14"}}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_built_in_recipes_on_a_network_in_the_taesd_form(network: Programs, name: str) -> None:
    names = {layer for layers in layer_names(network).values() for layer in layers}
    assert len(names) == 208
    most, others = TABLE[name]
    recipe = RECIPES[name].on(network.roles)
    expected = dict.fromkeys(names, most) | {n: p for p, layers in others.items() for n in layers}
    assert {layer: recipe.precision_of(layer).name for layer in names} == expected


def half_form(restorer: Restorer, extra: int) -> Restorer:
    """The tiny network with nothing at the image's own side, and ``extra`` more blocks at an eighth of it."""
    other = copy.deepcopy(restorer)
    enc, dec = list(other.enc.layers), list(other.dec.layers)
    deeper = [Block(8) for _ in range(extra)]
    other.enc.layers = nn.Sequential(nn.Conv2d(3, 8, 6, stride=2, padding=2), *enc[3:-1], *deeper, enc[-1])
    other.dec.layers = nn.Sequential(*dec[:-4], nn.ConvTranspose2d(8, 3, 6, stride=2, padding=2))
    return other.eval().requires_grad_(False)


@pytest.mark.parametrize("name", RECIPES)
def test_built_in_recipes_on_an_encoder_of_another_shape(restorer: Restorer, name: str) -> None:
    programs = build_programs(half_form(restorer, 2), size=SIZE, steps=STEPS, sigma_s=SIGMA_S)
    layers = [layer for names in layer_names(programs).values() for layer in names]
    assert set(programs.roles) == set(layers)
    check_rules(RECIPES[name], programs.roles)
    recipe = RECIPES[name].on(programs.roles)
    floats = {layer for layer in layers if recipe.precision_of(layer) == FP32}
    # Stem; blocks 1 to 3 at a half, 5 to 7 at a quarter, 9 to 13 at an eighth; the latent's convolution.
    small = {f"enc.layers.{i}.add" for i in (5, 6, 7, 9, 10, 11, 12, 13)}
    small |= {f"dec.layers.{i}.add" for i in (2, 3, 4, 7, 8, 9)}
    ends = {"enc.layers.0", "dec.layers.15", "dec.layers.0", "fmir.first_proj", "fmir.final_proj"}
    if name == "fp32":
        assert floats == set(layers)
    elif name in ("w8a8", "mixed"):
        others = small | {"enc.layers.14"} | (ends if name == "mixed" else set())
        assert {layer for layer in floats if layer.startswith(("enc.", "dec."))} == {
            layer for layer in others if layer.startswith(("enc.", "dec."))
        }
        assert (ends <= floats) == (name == "mixed")
        assert {"mmse.add", "fmir.add", "add"} <= floats
    elif name == "w8a16":
        assert floats == {layer for layer in layers if layer.endswith("add")}
    else:
        assert not floats
