"""The vocabulary of precisions, and recipes: which layer runs in which.

A recipe is data: ordered rules over layer names, the first match wins, and it knows nothing of
any runtime. A convolution or linear layer is called by its module path in the reference network
(``enc.layers.3.conv.0``); an addition by the path of the module it stands in, plus ``.add``
(``enc.layers.3.add``).

A recipe of one's own is a TOML file::

    name = "mine"

    [[rule]]
    pattern = "enc.layers.0"
    precision = "fp32"

    [[rule]]
    pattern = "*"
    precision = "w8a8"
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from elir_mobile.core.errors import UserError

FP32 = "fp32"  # float32 weights and arithmetic
FP16 = "fp16"  # float16 weights; arithmetic in float16 where the runtime has it
W8 = "w8"  # int8 weights, symmetric per output channel; float activations
W4 = "w4"  # int4 weights, symmetric per block of 32 input channels (else w8); float activations
W8A8 = "w8a8"  # int8 weights, symmetric per output channel; int8 activations, affine per tensor
PRECISIONS = (FP32, FP16, W8, W4, W8A8)


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

    @property
    def precisions(self) -> frozenset[str]:
        """Every precision that a rule names."""
        return frozenset(rule.precision for rule in self.rules)

    def to_json(self) -> dict:
        """As plain data for the manifest."""
        return asdict(self)


_W8A8 = (
    # Residual sums carry the signal past every block and stay in float, which costs no time where they
    # are small; in the autoencoder at the image's own side and at half of it, it would. The last
    # convolution of the encoder makes the latent (docs/decisions.md).
    Rule("enc.layers.[1345].add", W8A8),
    Rule("dec.layers.1[2347].add", W8A8),
    Rule("*add", FP32),
    Rule("enc.layers.14", FP32),
    Rule("*", W8A8),
)
# The other layers through which image and latent enter and leave the parts: half a percent of the
# released network's multiplications.
_ENDS = (
    "enc.layers.0",
    "fmir.first_proj",
    "fmir.final_proj",
    "dec.layers.0",
    "dec.layers.18",
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("fp32", ()),
        Recipe("fp16", (Rule("*", FP16),)),
        Recipe("w8", (Rule("*", W8),)),
        # Four fifths of the weights are the velocity field's.
        Recipe("w4", (Rule("fmir.*", W4), Rule("*", W8))),
        Recipe("w8a8", _W8A8),
        Recipe("mixed", (*(Rule(layer, FP32) for layer in _ENDS), *_W8A8)),
    )
}


def recipe_digest(content: dict) -> str:
    """SHA-256 of a recipe as plain data: figures of a file are remembered with it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def get_recipe(name: str) -> Recipe:
    """The built-in recipe called ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in RECIPES:
        raise UserError(f"unknown precision '{name}': choose from {', '.join(RECIPES)}")
    return RECIPES[name]


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file.

    Raises:
        UserError: no such file, not TOML, or a rule that says nothing; the message names the rule.
    """
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"no recipe at {path}: check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TOML file: {error}") from error
    name = content.pop("name", path.stem)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RECIPES:
        raise UserError(
            f"{path}: the name {name!r} cannot be used: take letters, digits, dots, dashes and underscores, "
            "and none of the built-in recipes' names"
        )
    rules = content.pop("rule", None)
    if content:
        raise UserError(f"{path} has an unknown key '{min(content)}': only 'name' and [[rule]] are known")
    if not isinstance(rules, list) or not rules:
        raise UserError(f"{path} has no [[rule]]: give each a pattern and a precision")
    return Recipe(name, tuple(_read_rule(rule, f"{path}, rule {n}") for n, rule in enumerate(rules, 1)))


def _read_rule(rule: object, where: str) -> Rule:
    if not isinstance(rule, dict) or rule.keys() != {"pattern", "precision"}:
        raise UserError(f"{where} must have a pattern and a precision, and nothing else")
    pattern, precision = rule["pattern"], rule["precision"]
    if not isinstance(pattern, str) or not pattern:
        raise UserError(f"{where} needs a layer's name or a pattern like 'enc.*', not {pattern!r}")
    if precision not in PRECISIONS:
        raise UserError(
            f"{where} ('{pattern}') has unknown precision {precision!r}: choose from {', '.join(PRECISIONS)}"
        )
    return Rule(pattern, precision)


def recipe_toml(recipe: Recipe) -> str:
    """The text that :func:`read_recipe` reads back."""
    lines = [f'name = "{recipe.name}"']
    for rule in recipe.rules:
        lines += ["", "[[rule]]", f'pattern = "{rule.pattern}"', f'precision = "{rule.precision}"']
    return "\n".join(lines) + "\n"


def check_rules(recipe: Recipe, layers: Iterable[str]) -> None:
    """Refuse a recipe with a rule that no layer can ever come to.

    Raises:
        UserError: names the first such rule.
    """
    names = set(layers)
    for number, rule in enumerate(recipe.rules, 1):
        matched = {name for name in names if fnmatchcase(name, rule.pattern)}
        if not matched:
            raise UserError(
                f"recipe '{recipe.name}', rule {number} ('{rule.pattern}') matches no layer that is left; "
                f"layers are called like {min(layers, default='enc.layers.0')}"
            )
        names -= matched
