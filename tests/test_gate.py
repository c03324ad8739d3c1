"""Limits: which rows they choose, what does not hold, and what is no budget file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elir_mobile.core.errors import UserError
from elir_mobile.harness.gate import PATTERNS, Limit, check, read_limits, shortfall_table


def row(target: str, precision: str, median: float | None, *, holds: bool | None = True) -> dict:
    return {
        "device": "host",
        "target": target,
        "precision": precision,
        "bytes": 1000,
        "latency_ms": {"median": median},
        "golden": {"image": {"holds": holds}} if target != "eager" else {},
    }


ROWS = [
    row("eager", "fp32", 90.0),
    row("litert", "fp32", 50.0),
    row("litert", "w8a8", 20.0, holds=False),
    row("coreml", "w8a8", None),
]


def limits(tmp_path: Path, text: str) -> list[Limit]:
    path = tmp_path / "budget.toml"
    path.write_text(text)
    return read_limits(path)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ('field = "latency_ms.median"\nmax = 60\ntarget = "litert"', []),
        ('field = "latency_ms.median"\nmax = 30\ntarget = "litert"', [("litert fp32", 50.0)]),
        ('field = "latency_ms.median"\nmin = 30\ntarget = "litert"', [("litert w8a8", 20.0)]),
        ('field = "latency_ms.median"\nmax = 50\nmin = 20\ntarget = "lite*"', []),
        ('field = "latency_ms.median"\nmax = 60', [("coreml w8a8", None)]),  # not measured is not held
        ('field = "latency_ms.median"\nmax = 60\ntarget = "eager"', [("eager fp32", 90.0)]),
        ('field = "bytes"\nmax = 999\nprecision = "w8*"', [("litert w8a8", 1000.0), ("coreml w8a8", 1000.0)]),
        ('field = "golden.image.holds"\nmin = 1', [("litert w8a8", 0.0)]),
        ('field = "bytes"\nmax = 1\ntarget = "executorch"', [("executorch *: no such row", None)]),
        ('field = "bytes"\nmax = 1\ndevice = "adb*"', [("* * @ adb*: no such row", None)]),
    ],
)
def test_what_falls_short(tmp_path: Path, text: str, short: list) -> None:
    found = check(ROWS, limits(tmp_path, f"[[limit]]\n{text}\n"))
    assert [(item.artifact, item.value) for item in found] == short
    assert shortfall_table(found).row_count == len(short)


@pytest.mark.parametrize("value", [float("nan"), None])
@pytest.mark.parametrize("bound", ["max = 60", "min = -1e9", "min = -1e9\nmax = 1e9"])
def test_what_is_no_number_never_holds(tmp_path: Path, value: float | None, bound: str) -> None:
    rows = [*ROWS, row("onnx", "fp32", value)]
    text = f'[[limit]]\nfield = "latency_ms.median"\ntarget = "onnx"\n{bound}\n'
    assert [item.artifact for item in check(rows, limits(tmp_path, text))] == ["onnx fp32"]


def test_a_limit_on_a_file_that_nobody_executed_is_not_held_and_says_so(tmp_path: Path) -> None:
    left = {**row("executorch/vulkan", "fp16", None), "device": "nobody", "golden": {}}
    asked = limits(
        tmp_path,
        '[[limit]]\nfield = "golden.image.holds"\nmin = 1\ntarget = "executorch*"\n'
        '[[limit]]\nfield = "latency_ms.median"\nmax = 60\ntarget = "executorch*"\n'
        '[[limit]]\nfield = "bytes"\nmax = 1000\ntarget = "executorch*"\n',
    )
    for rows in ([*ROWS, left], [left]):
        found = check(rows, asked)
        assert [(item.artifact, item.value, item.executed) for item in found] == [
            ("executorch/vulkan fp16", None, False)
        ] * 2
        assert list(shortfall_table(found).columns[2].cells) == ["nobody executed it"] * 2


def test_a_field_that_no_row_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row has a field 'latency.median'"):
        check(ROWS, limits(tmp_path, '[[limit]]\nfield = "latency.median"\nmax = 1\n'))


def test_a_field_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'precision' is not a number"):
        check(ROWS, limits(tmp_path, '[[limit]]\nfield = "precision"\nmax = 1\n'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold"),
        ("limit = 3", "must hold"),
        ("limit = []", "must hold"),
        ("limit = [3]", "limit 1 is not a table"),
        ("[[limits]]\nfield = 'bytes'\nmax = 1", "must hold"),
        ("[[limit]]\nmax = 1", "has no field"),
        ("[[limit]]\nfield = 'bytes'", "neither min nor max"),
        ("[[limit]]\nfield = 'bytes'\nmax = '1'", "max must be a finite number"),
        ("[[limit]]\nfield = 'bytes'\nmax = nan", "max must be a finite number"),
        ("[[limit]]\nfield = 'bytes'\nmax = true", "max must be a finite number"),
        ("[[limit]]\nfield = 3\nmax = 1", "field must be text"),
        ("[[limit]]\nfield = 'bytes'\nmax = 1\ntarget = 3", "target must be text"),
        ("[[limit]]\nfield = 'bytes'\nmaximum = 1", "unknown key 'maximum'"),
        ("[[limit", "is not a TOML file"),
        (f"[[limit]]\nfield = 'bytes'\nmax = {'9' * 5000}", "is not a TOML file: Exceeds the limit"),
        (f"[[limit]]\nfield = 'bytes'\nmax = {'9' * 4000}", "max must be a finite number"),
        (f"limit = {'[' * 100_000}", "nested deeper than 8 levels"),
        (f"[[limit]]\nfield{'.a' * 20_000} = 1", "nested deeper than 8 levels"),
    ],
)
def test_bad_budget_files_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        limits(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_budget_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_limits(tmp_path / "none.toml")


leaves = st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["bytes", "min", "*", "eager"])
values = leaves | st.lists(leaves, max_size=2) | st.booleans()
keys = st.sampled_from(["field", "min", "max", *PATTERNS]) | st.text(max_size=5)
tables = st.lists(st.dictionaries(keys, values, max_size=5), max_size=3)


def as_toml(tables: list[dict]) -> bytes:
    """``[[limit]]`` tables; JSON's texts, numbers and lists are TOML's, but for what is not finite."""
    lines = [
        line
        for table in tables
        for line in (
            "[[limit]]",
            *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items()),
        )
    ]
    return "\n".join(lines).replace("NaN", "nan").replace("Infinity", "inf").encode()


@settings(deadline=None)
@given(st.binary(max_size=60) | tables.map(as_toml))
def test_anything_is_limits_or_a_sentence(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "budget.toml"
        path.write_bytes(content)
        try:
            shortfall_table(check(ROWS, read_limits(path)))
        except UserError as error:
            assert "\n" not in str(error)
