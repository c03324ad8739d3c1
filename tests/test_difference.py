"""Comparing reports: what is beyond the noise, on reports whose truth is known."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elir_mobile.core.errors import UserError
from elir_mobile.harness.difference import (
    CHANGED,
    ELSEWHERE,
    NOISE,
    SAME_VALUE,
    compare,
    difference_table,
    median_interval,
    read_report,
    speedup_interval,
)
from elir_mobile.harness.protocol import latency_facts

MACHINE = {"system": "Linux", "cpu": "Zen", "cores": 2, "cpu_flags": ["avx2"], "versions": {"torch": "2"}}


PROTOCOL = {"threads": 2, "warmups": 3, "runs": 20, "cold_starts": 1}


def runs(median: float, seed: int, spread: float = 0.03) -> list[float]:
    return (median * np.random.default_rng(seed).normal(1, spread, 20)).tolist()


def row(target: str, precision: str, times: list[float], **facts: object) -> dict:
    return {
        "device": "host", "target": target, "precision": precision, "sha256": "a" * 64, "bytes": 100,
        "latency_ms": latency_facts(times), "golden": {"image": {"db": 40.0}},
        "image": {"psnr_db": 24.0, "ssim": 0.7, "lpips": None}, **facts,
    }  # fmt: skip


def report(eager: float, file: float, seed: int, **facts: object) -> dict:
    rows = [
        row("eager", "fp32", runs(eager, seed)),
        row("litert", "w8a8", runs(file, seed + 1), **facts),
    ]
    return {"bundle": {"sha256": "b" * 64}, "machine": MACHINE, "protocol": PROTOCOL, "rows": rows}


def verdicts(before: dict, after: dict) -> dict[tuple[str, str], str]:
    return {(d.artifact, d.figure): d.verdict for d in compare(before, after)}


def test_two_runs_of_one_thing_differ_by_noise_alone() -> None:
    said = verdicts(report(90, 40, seed=0), report(90, 40, seed=100))
    assert {v for (_, figure), v in said.items() if figure in ("median ms", "× eager")} == {NOISE}
    assert {v for (_, figure), v in said.items() if figure not in ("median ms", "× eager")} == {SAME_VALUE}


def test_a_slower_file_is_seen_in_milliseconds_and_in_the_ratio() -> None:
    said = verdicts(report(90, 40, seed=0), report(90, 48, seed=100))
    assert said["litert w8a8", "median ms"] == "slower"
    assert said["litert w8a8", "× eager"] == "lower"
    assert said["eager fp32", "median ms"] == NOISE
    assert verdicts(report(90, 48, 0), report(90, 40, 9))["litert w8a8", "median ms"] == "faster"


def test_a_slow_day_changes_milliseconds_but_not_the_ratio() -> None:
    said = verdicts(report(90, 40, seed=0), report(180, 80, seed=100))
    assert said["litert w8a8", "median ms"] == "slower"
    assert said["litert w8a8", "× eager"] == NOISE


def test_what_a_file_computes_has_no_noise() -> None:
    said = verdicts(
        report(90, 40, 0),
        report(90, 40, 0, bytes=101, sha256="c" * 64, golden={"image": {"db": 39.0}}),
    )
    for figure in ("bytes", "sha256", "image, dB"):
        assert said["litert w8a8", figure] == CHANGED
    assert said["litert w8a8", "PSNR, dB"] == SAME_VALUE


def test_a_figure_or_a_row_that_only_one_report_has() -> None:
    before, after = report(90, 40, 0), report(90, 40, 0, image={"psnr_db": None})
    after["rows"].append(row("litert", "fp32", runs(50, 3)))
    said = verdicts(before, after)
    assert said["litert w8a8", "PSNR, dB"] == CHANGED
    assert said["litert fp32", "row"] == "only in one report"
    assert verdicts(after, before)["litert fp32", "row"] == "only in one report"


def test_times_of_another_machine_get_no_verdict() -> None:
    other = report(30, 10, 0) | {"machine": MACHINE | {"cpu": "Zen 5"}}
    said = verdicts(report(90, 40, 0), other)
    assert said["litert w8a8", "median ms"] == said["litert w8a8", "× eager"] == ELSEWHERE


def test_other_kernels_round_differently_without_a_change() -> None:
    other = report(90, 40, 0, golden={"image": {"db": 39.0}}, bytes=101)
    said = verdicts(report(90, 40, 0), other | {"machine": MACHINE | {"cpu_flags": ["avx512"]}})
    assert said["litert w8a8", "image, dB"] == ELSEWHERE
    assert said["litert w8a8", "bytes"] == CHANGED


def test_rows_without_latency_are_compared_in_the_rest() -> None:
    said = verdicts(report(90, 40, 0), report(90, 40, 0, latency_ms=latency_facts([])))
    assert ("litert w8a8", "median ms") not in said
    assert said["litert w8a8", "bytes"] == SAME_VALUE


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(1, 1e4), min_size=2, max_size=40))
def test_the_median_lies_in_its_interval(times: list[float]) -> None:
    interval = median_interval(times)
    assert interval is not None
    assert interval[1] == np.median(times)
    assert interval[0] <= interval[1] <= interval[2]


def test_intervals_need_two_runs_and_turns_taken_together() -> None:
    assert median_interval([]) is None
    assert median_interval([1.0]) is None
    eager, other = row("eager", "fp32", runs(90, 0)), row("litert", "fp32", runs(40, 1)[:5])
    rows = {("host", "eager", "fp32"): eager}
    assert speedup_interval(eager, rows) is None
    assert speedup_interval(other, rows) is None
    assert speedup_interval(other, {}) is None


def test_turns_that_were_slow_together_do_not_widen_the_ratio() -> None:
    """Times that rise and fall together: the ratio is exact, however far the medians spread."""
    times = np.array(runs(90, 0, spread=0.3))
    eager, file = row("eager", "fp32", times.tolist()), row("litert", "fp32", (times / 2).tolist())
    interval = speedup_interval(file, {("host", "eager", "fp32"): eager})
    assert interval == pytest.approx((2, 2, 2))


def test_the_table_leaves_out_what_is_equal() -> None:
    before, after = report(90, 40, 0), report(90, 48, 100)
    table = difference_table(before, after)
    assert table.row_count == sum(d.verdict != SAME_VALUE for d in compare(before, after))
    assert "the same bundle" in str(table.caption)
    after["bundle"]["sha256"] = "d" * 64
    assert "another bundle" in str(difference_table(before, after).caption)


def test_reports_of_two_protocols_are_refused() -> None:
    other = report(90, 40, 0) | {"protocol": PROTOCOL | {"threads": 4}}
    with pytest.raises(UserError, match=r"differ in threads \(2 and 4\)"):
        compare(report(90, 40, 0), other)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report(90, 40, 0)))
    assert read_report(path) == report(90, 40, 0)


def test_damaged_reports_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(UserError, match="cannot be read"):
        read_report(path)
    good = report(90, 40, 0)
    bad: list[object] = [{}, [], 3, {**good, "rows": [{}]}, {**good, "rows": 3}, {**good, "machine": None}]
    contents = [json.dumps(value).encode() for value in bad] + [b"{\n", b"\xff\n", b"[" * 100_000]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match="is no report.json"):
            read_report(path)


@settings(deadline=None)
@given(st.data())
def test_a_report_with_anything_missing_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    record = copy.deepcopy(report(90, 40, 0))
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(st.none() | st.integers() | st.text(max_size=3) | st.just({}) | st.just([]))
    path = tmp_path_factory.mktemp("any") / "report.json"
    path.write_text(json.dumps(record))
    try:
        read_report(path)
    except UserError as error:
        assert "\n" not in str(error)
