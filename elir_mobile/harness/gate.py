"""Limits on the rows of a report, for use in CI: what falls short, and an exit code.

A TOML file of ``[[limit]]`` tables. ``field`` is the dotted path of a value in a row of ``report.json``;
``min`` and ``max`` bound it (true counts as 1, false as 0); ``target``, ``precision`` and ``device`` are
shell patterns that choose rows, all by default. The float network's own row is only chosen by its name,
``eager``. A limit that finds no row, or no value in one, is not held: a gate that measured nothing must
not pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, FiniteFloat
from rich.table import Table

from elir_mobile.core.errors import UserError
from elir_mobile.harness.charts import executed, label, named_devices, value_at
from elir_mobile.tables import Entry, checked, load_toml

PATTERNS = ("target", "precision", "device")


class Limit(Entry):
    """One ``[[limit]]``."""

    field: str = Field(min_length=1)
    low: FiniteFloat | None = Field(None, alias="min")
    high: FiniteFloat | None = Field(None, alias="max")
    target: str = "*"
    precision: str = "*"
    device: str = "*"

    def __str__(self) -> str:
        parts = [f"≥ {self.low:g}"] if self.low is not None else []
        parts += [f"≤ {self.high:g}"] if self.high is not None else []
        return " and ".join(parts)

    @property
    def where(self) -> str:
        """The rows that it chooses."""
        named = f"{self.target} {self.precision}"
        return named if self.device == "*" else f"{named} @ {self.device}"

    def chooses(self, row: dict) -> bool:
        """Whether it is about ``row``."""
        if row["target"] == "eager" and self.target != "eager":
            return False
        return all(fnmatchcase(row[key], getattr(self, key)) for key in PATTERNS)

    def holds(self, value: float) -> bool:
        """Whether ``value`` is within it."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class Shortfall:
    """A limit that is not held: by which row, with which value (None: there is none), and whether it ran."""

    limit: Limit
    artifact: str
    value: float | None
    executed: bool = True


def read_limits(path: Path) -> list[Limit]:
    """The limits in a TOML file.

    Raises:
        UserError: it cannot be read, or something in it is not as the module says.
    """
    facts = load_toml(path)
    if set(facts) != {"limit"} or not isinstance(facts["limit"], list) or not facts["limit"]:
        raise UserError(f"{path} must hold [[limit]] tables and nothing else")
    limits = [checked(Limit, entry, f"{path}: limit {n}") for n, entry in enumerate(facts["limit"], 1)]
    for index, limit in enumerate(limits, 1):
        if limit.low is None and limit.high is None:
            raise UserError(f"{path}: limit {index} has neither min nor max")
    return limits


_MISSING = object()


def check(rows: list[dict], limits: list[Limit]) -> list[Shortfall]:
    """What falls short.

    Raises:
        UserError: no row of a file that ran has a limit's field, or it is no number.
    """
    short: list[Shortfall] = []
    several = named_devices(rows)
    ran = [row for row in rows if executed(row)]
    for limit in limits:
        if ran and all(value_at(row, limit.field, _MISSING) is _MISSING for row in ran):
            raise UserError(f"no row has a field '{limit.field}': see report.json for their names")
        chosen = [row for row in rows if limit.chooses(row)]
        if not chosen:
            short.append(Shortfall(limit, f"{limit.where}: no such row", None))
        short += _shortfalls(limit, chosen, several)
    return short


def _shortfalls(limit: Limit, rows: list[dict], several: bool) -> Iterator[Shortfall]:
    for row in rows:
        value = value_at(row, limit.field, _MISSING)
        if value is _MISSING or value is None:
            yield Shortfall(limit, label(row, several), None, executed(row))
        elif not isinstance(value, (int, float)):
            raise UserError(f"'{limit.field}' is not a number: see report.json")
        elif not limit.holds(float(value)):
            yield Shortfall(limit, label(row, several), float(value))


def shortfall_table(short: list[Shortfall]) -> Table:
    """What fell short, for the terminal."""
    table = Table("artifact", "field", "value", "limit", title="fell short of the budget")
    for item in short:
        absent = "none" if item.executed else "nobody executed it"
        value = absent if item.value is None else f"{item.value:,.6g}"
        table.add_row(item.artifact, item.limit.field, value, str(item.limit))
    return table
