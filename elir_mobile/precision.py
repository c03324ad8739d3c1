"""What a precision is, the integer grid it gives a layer's weight, and recipes: which layer has which.

A precision is data. Simulation, reconstruction, training, the search's costs, the roof and every
exporter read its fields, so that a row in ``PRECISIONS`` is all that a new one needs here; which target
has kernels for it is in ``export/targets.py``.

A recipe is data too: ordered rules, the first match wins, and it knows nothing of any runtime. A
pattern is a layer's name or its role. A convolution or linear layer is called by its module path in the
reference network (``enc.layers.3.conv.0``); an addition by the path of the module it stands in, plus
``.add`` (``enc.layers.3.add``). ``role:latent`` is whatever layer has that role in the network at hand
(``elir_mobile/models/roles.py``).

A recipe of one's own is a TOML file::

    name = "mine"

    [[rule]]
    pattern = "role:image-end"
    precision = "fp32"

    [[rule]]
    pattern = "*"
    precision = "w8a8"
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from elir_mobile.core.errors import UserError, shortened
from elir_mobile.tables import load_toml


@dataclass(frozen=True)
class Precision:
    """How a layer stores its weight and computes.

    Attributes:
        name: as recipes, files and commands call it.
        weight_bits: of integer weights, symmetric; None: the weight is of ``float_type``.
        weight_group: input channels that share a scale; None: each output channel has one.
        activation_bits: of integer inputs and outputs, affine for a whole tensor; None: in float.
        float_type: of whatever is no integer, where the runtime has it.
    """

    name: str
    weight_bits: int | None = None
    weight_group: int | None = None
    activation_bits: int | None = None
    float_type: str = "float32"

    @property
    def half(self) -> bool:
        """Whether what is no integer is float16."""
        return self.float_type == "float16"

    @property
    def float_bits(self) -> int:
        """Of a weight or activation that is no integer."""
        return 16 if self.half else 32

    @property
    def integer(self) -> bool:
        """Whether the layer multiplies integers: its activations are, and so its weight."""
        return self.activation_bits is not None


FP32 = Precision("fp32")
FP16 = Precision("fp16", float_type="float16")
W8 = Precision("w8", weight_bits=8)
W4 = Precision("w4", weight_bits=4)
# Finer, and not for Apple's Neural Engine, which mistakes the scales of blocks (docs/coreml.md).
W4G32 = Precision("w4g32", weight_bits=4, weight_group=32)
W8A8 = Precision("w8a8", weight_bits=8, activation_bits=8)
W8A16 = Precision("w8a16", weight_bits=8, activation_bits=16)
PRECISIONS = {precision.name: precision for precision in (FP32, FP16, W8, W4, W4G32, W8A8, W8A16)}


def get_precision(name: object) -> Precision:
    """The precision called ``name``.

    Raises:
        UserError: there is none.
    """
    if not isinstance(name, str) or name not in PRECISIONS:
        raise UserError(f"unknown precision {shortened(name)}: choose from {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


@dataclass(frozen=True)
class Grid:
    """The integers that a layer's weight is stored as, symmetric about zero.

    Attributes:
        bits: of an integer.
        scales: shape of the scales: the weight's, with 1 where an axis shares one, and with the number of
            groups for the input channels.
    """

    bits: int
    scales: tuple[int, ...]

    @property
    def top(self) -> int:
        """The largest level; the least is its negative."""
        return 2 ** (self.bits - 1) - 1


def integer_grid(precision: Precision, shape: tuple[int, ...], *, transposed: bool = False) -> Grid | None:
    """The grid of a weight, the same in simulation, reconstruction, training and every exported file.

    Where the group does not divide the input channels, half of it is taken; where that does not either,
    int8 for each output channel, which every runtime has. A layer of so few channels is small.

    Args:
        shape: of the weight: (out, in, …), or (in, out, …) if ``transposed``.

    Returns:
        None where the precision leaves weights in float.
    """
    if precision.weight_bits is None:
        return None
    n_out, n_in = (shape[1], shape[0]) if transposed else shape[:2]
    bits, groups = precision.weight_bits, 1
    if precision.weight_group is not None:
        sizes = (precision.weight_group, precision.weight_group // 2)
        size = next((size for size in sizes if n_in % size == 0), None)
        bits, groups = (8, 1) if size is None else (bits, n_in // size)
    ones = (1,) * (len(shape) - 2)
    return Grid(bits, (groups, n_out, *ones) if transposed else (n_out, groups, *ones))


ROLE = "role:"  # before a pattern that is matched against the layers' roles


@dataclass(frozen=True)
class Rule:
    """Layers whose name, or role, matches the shell-style ``pattern`` get ``precision``."""

    pattern: str
    precision: Precision

    def matches(self, layer: str, role: str) -> bool:
        """Whether this rule speaks of the layer called ``layer``."""
        if self.pattern.startswith(ROLE):
            return fnmatchcase(role, self.pattern.removeprefix(ROLE))
        return fnmatchcase(layer, self.pattern)


@dataclass(frozen=True)
class Recipe:
    """A name and ordered rules; a layer that none matches stays in float32."""

    name: str
    rules: tuple[Rule, ...]

    def on(self, roles: Mapping[str, str]) -> Recipe:
        """The recipe for one network: rules by role become rules by name.

        Args:
            roles: of every layer (``Programs.roles``).
        """
        rules: list[Rule] = []
        for rule in self.rules:
            if rule.pattern.startswith(ROLE):
                rules += [
                    Rule(name, rule.precision) for name, role in roles.items() if rule.matches(name, role)
                ]
            else:
                rules.append(rule)
        return Recipe(self.name, tuple(rules))

    def precision_of(self, layer: str) -> Precision:
        """Precision of the layer called ``layer``.

        Raises:
            ValueError: a rule speaks of roles: only :meth:`on` a network is it known what it means.
        """
        for rule in self.rules:
            if rule.pattern.startswith(ROLE):
                raise ValueError(f"recipe '{self.name}' speaks of '{rule.pattern}': take it on(roles) first")
            if fnmatchcase(layer, rule.pattern):
                return rule.precision
        return FP32

    @property
    def precisions(self) -> frozenset[Precision]:
        """Every precision that a rule names."""
        return frozenset(rule.precision for rule in self.rules)

    @property
    def needs_calibration(self) -> bool:
        """Whether any activation range has to be measured."""
        return any(precision.integer for precision in self.precisions)

    @property
    def half(self) -> bool:
        """Whether any layer is in float16."""
        return any(precision.half for precision in self.precisions)

    @property
    def rounds_weights(self) -> bool:
        """Whether any weight becomes integers."""
        return any(precision.weight_bits is not None for precision in self.precisions)

    def to_json(self) -> dict:
        """As plain data for the manifest."""
        rules = [{"pattern": rule.pattern, "precision": rule.precision.name} for rule in self.rules]
        return {"name": self.name, "rules": rules}


_W8A8 = (
    # Residual sums carry the signal past every block and stay in float, which costs no time where they
    # are small; in the autoencoder at the image's own side and at half of it, it would
    # (docs/decisions.md).
    Rule("role:residual@1/[12]", W8A8),
    Rule("*add", FP32),
    Rule("role:latent", FP32),
    Rule("*", W8A8),
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("fp32", ()),
        Recipe("fp16", (Rule("*", FP16),)),
        Recipe("w8", (Rule("*", W8),)),
        # Four fifths of the weights are the velocity field's.
        Recipe("w4", (Rule("fmir.*", W4), Rule("*", W8))),
        Recipe("w4g32", (Rule("fmir.*", W4G32), Rule("*", W8))),
        Recipe("w8a8", _W8A8),
        # Convolutions alone: the NPU that it is for computes quantized norms and sums badly
        # (docs/chips.md), and has float16 beside.
        Recipe("w8a16", (Rule("*add", FP32), Rule("*", W8A16))),
        # The ends are half a percent of the released network's multiplications.
        Recipe("mixed", (Rule("role:*-end", FP32), *_W8A8)),
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
    if not path.exists():
        raise UserError(f"no recipe at {path}: check the path")
    content = load_toml(path)
    name = content.pop("name", path.stem)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RECIPES:
        raise UserError(
            f"{path}: the name {shortened(name)} cannot be used: take letters, digits, dots, dashes and "
            "underscores, and none of the built-in recipes' names"
        )
    rules = content.pop("rule", None)
    if content:
        raise UserError(f"{path} has an unknown key '{min(content)}': only 'name' and [[rule]] are known")
    if not isinstance(rules, list) or not rules:
        raise UserError(f"{path} has no [[rule]]: give each a pattern and a precision")
    return Recipe(name, tuple(_read_rule(rule, f"{path}, rule {n}") for n, rule in enumerate(rules, 1)))


def recipe_of(content: Mapping) -> Recipe:
    """The recipe that :meth:`Recipe.to_json` wrote into a manifest.

    Raises:
        UserError: a rule that says nothing, or names an unknown precision.
    """
    where = "the manifest's recipe, rule"
    rules = (_read_rule(rule, f"{where} {n}") for n, rule in enumerate(content["rules"], 1))
    return Recipe(content["name"], tuple(rules))


def _read_rule(rule: object, where: str) -> Rule:
    if not isinstance(rule, dict) or rule.keys() != {"pattern", "precision"}:
        raise UserError(f"{where} must have a pattern and a precision, and nothing else")
    pattern = rule["pattern"]
    if not isinstance(pattern, str) or not pattern:
        raise UserError(f"{where} needs a layer's name or a pattern like 'enc.*', not {shortened(pattern)}")
    try:
        return Rule(pattern, get_precision(rule["precision"]))
    except UserError as error:
        raise UserError(f"{where} ('{pattern}') has {error}") from error


def recipe_toml(recipe: Recipe) -> str:
    """The text that :func:`read_recipe` reads back."""
    lines = [f'name = "{recipe.name}"']
    for rule in recipe.rules:
        lines += ["", "[[rule]]", f'pattern = "{rule.pattern}"', f'precision = "{rule.precision.name}"']
    return "\n".join(lines) + "\n"


def check_rules(recipe: Recipe, roles: Mapping[str, str]) -> None:
    """Refuse a recipe with a rule that no layer of the network at hand can ever come to.

    Args:
        roles: of every layer (``Programs.roles``).

    Raises:
        UserError: names the first such rule.
    """
    left = dict(roles)
    for number, rule in enumerate(recipe.rules, 1):
        matched = [name for name, role in left.items() if rule.matches(name, role)]
        if not matched:
            raise UserError(
                f"recipe '{recipe.name}', rule {number} ('{rule.pattern}') matches no layer that is left; "
                f"layers are called like {min(roles, default='enc.layers.0')}, "
                f"roles {', '.join(sorted(set(roles.values())))}"
            )
        for name in matched:
            del left[name]
