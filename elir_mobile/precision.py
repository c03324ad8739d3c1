"""The vocabulary of precisions, and recipes: which layer runs in which.

A recipe is data: ordered rules over layer names, the first match wins, and it knows nothing of
any runtime. A convolution or linear layer is called by its module path in the reference network
(``enc.layers.3.conv.0``); an addition by the path of the module it stands in, plus ``.add``
(``enc.layers.3.add``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from elir_mobile.errors import UserError

FP32 = "fp32"  # float32 weights and arithmetic
FP16 = "fp16"  # float16 weights; arithmetic in float16 where the runtime has it
W8 = "w8"  # int8 weights, symmetric per output channel; float activations
W4 = "w4"  # int4 weights, symmetric per block of input channels; float activations
W8A8 = "w8a8"  # int8 weights, symmetric per output channel; int8 activations, affine per tensor


@dataclass(frozen=True)
class Rule:
    """Layers whose name matches the shell-style ``pattern`` get ``precision``."""

    pattern: str
    precision: str


@dataclass(frozen=True)
class Recipe:
    """A name and ordered rules; a layer that none matches stays in float32."""

    name: str
    rules: tuple[Rule, ...]

    def precision_of(self, layer: str) -> str:
        """Precision of the layer called ``layer``."""
        return next((r.precision for r in self.rules if fnmatchcase(layer, r.pattern)), FP32)

    @property
    def needs_calibration(self) -> bool:
        """Whether any activation range has to be measured."""
        return any(rule.precision == W8A8 for rule in self.rules)

    def to_json(self) -> dict:
        """As plain data for the manifest."""
        return asdict(self)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("fp32", ()),
        Recipe("fp16", (Rule("*", FP16),)),
        Recipe("w8", (Rule("*", W8),)),
        # Four fifths of the weights are the velocity field's.
        Recipe("w4", (Rule("fmir.*", W4), Rule("*", W8))),
        Recipe(
            "w8a8",
            (
                # Residual sums inside the autoencoder join two ReLU outputs and are cheap to
                # quantize; those of the coarse estimator and the velocity field carry the signal
                # itself past every block, and stay in float (docs/decisions.md).
                Rule("mmse.*add", FP32),
                Rule("fmir.*add", FP32),
                Rule("add", FP32),
                Rule("*", W8A8),
            ),
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The built-in recipe called ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in RECIPES:
        raise UserError(f"unknown precision '{name}': choose from {', '.join(RECIPES)}")
    return RECIPES[name]
