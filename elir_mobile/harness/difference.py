"""What changed between two reports.

Figures that a file computes (sizes, parity, quality) repeat exactly on one machine, so any difference is a
change; another processor has other kernels, which round differently. Times do not repeat: a median has
changed where the 95 % bootstrap intervals of the two medians do not overlap. Speed-ups are compared with the
interval of the ratio, resampled over the turns, since the k-th runs of two artifacts are neighbours in time:
they hold on a machine that is slow today where milliseconds do not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import bootstrap
from elir_mobile.harness.charts import label, named_devices, value_at
from elir_mobile.harness.protocol import latency_facts

MACHINE = ("system", "cpu", "cores", "cpu_flags")
# Figures that repeat exactly: path in a row, heading, and what is too small to speak of (rounding of sums).
EXACT = (
    ("bytes", "bytes", 0.0),
    ("golden.encode.db", "encode, dB", 0.005),
    ("golden.step.db", "step, dB", 0.005),
    ("golden.decode.db", "decode, dB", 0.005),
    ("golden.image.db", "image, dB", 0.005),
    ("image.psnr_db", "PSNR, dB", 5e-4),
    ("image.ssim", "SSIM", 5e-6),
    ("image.lpips", "LPIPS", 5e-6),
)
CHANGED, NOISE, SAME_VALUE, ELSEWHERE = "changed", "within noise", "equal", "another machine"


@dataclass(frozen=True)
class Difference:
    """One figure of an artifact in two reports, and whether it changed beyond the noise."""

    artifact: str
    figure: str
    before: str
    after: str
    verdict: str


def read_report(path: Path) -> dict:
    """A ``report.json``.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        report: dict = json.loads(path.read_text(encoding="utf-8"))
        report["bundle"]["sha256"], report["machine"]["cpu"], report["protocol"]["threads"]
        for row in report["rows"]:
            row["device"], row["target"], row["precision"], row["latency_ms"]["runs"]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give two report.json") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no report.json of a measured bundle: measure one first") from error
    return report


def compare(before: dict, after: dict) -> list[Difference]:
    """What the two reports say of each artifact that both have, and which are in one only.

    Raises:
        UserError: they were measured by different protocols.
    """
    for name in ("threads", "warmups", "runs", "cold_starts"):
        first, second = (report["protocol"].get(name) for report in (before, after))
        if first != second:
            raise UserError(
                f"the reports differ in {name} ({first} and {second}): measure both by one protocol"
            )
    old, new = ({_key(row): row for row in report["rows"]} for report in (before, after))
    machines = [{key: report["machine"][key] for key in MACHINE} for report in (before, after)]
    same_machine = machines[0] == machines[1]
    several = named_devices([*before["rows"], *after["rows"]])
    found: list[Difference] = []
    for key in {**old, **new}:
        name = label((old.get(key) or new[key]), several)
        if key not in old or key not in new:
            before_has, after_has = ("yes" if key in rows else "no" for rows in (old, new))
            found.append(Difference(name, "row", before_has, after_has, "only in one report"))
            continue
        found += _exact(name, old[key], new[key], same_machine)
        found += _times(name, old[key], new[key], old, new, same_machine)
    return found


def _key(row: dict) -> tuple[str, str, str]:
    return row["device"], row["target"], row["precision"]


def _exact(name: str, old: dict, new: dict, same_machine: bool) -> list[Difference]:
    found = []
    if old.get("sha256") != new.get("sha256"):
        before, after = ((row.get("sha256") or "–")[:12] for row in (old, new))
        found.append(Difference(name, "sha256", before, after, CHANGED))
    for path, title, small in EXACT:
        first, second = value_at(old, path), value_at(new, path)
        if first is None and second is None:
            continue
        same = first is not None and second is not None and abs(first - second) <= small
        before, after = ("–" if value is None else f"{value:,.6g}" for value in (first, second))
        computed = path != "bytes"
        changed = ELSEWHERE if computed and not same_machine else CHANGED
        found.append(Difference(name, title, before, after, SAME_VALUE if same else changed))
    return found


def _times(
    name: str, old: dict, new: dict, all_old: dict, all_new: dict, same_machine: bool
) -> list[Difference]:
    ratios = [speedup_interval(row, rows) for row, rows in ((old, all_old), (new, all_new))]
    medians = [median_interval(row["latency_ms"]["runs"]) for row in (old, new)]
    found = []
    for title, (first, second), digits, words in (
        ("median ms", medians, 1, ("slower", "faster")),
        ("× eager", ratios, 3, ("higher", "lower")),
    ):
        if first and second:
            said = _verdict(first, second, *words) if same_machine else ELSEWHERE
            found.append(Difference(name, title, _span(first, digits), _span(second, digits), said))
    return found


Interval = tuple[float, float, float]  # low, value, high


def median_interval(runs: list[float]) -> Interval | None:
    """The median of ``runs`` with its 95 % interval; None for fewer than two."""
    facts = latency_facts(runs)
    return None if facts["low"] is None else (facts["low"], facts["median"], facts["high"])


def speedup_interval(row: dict, rows: dict) -> Interval | None:
    """How many times faster than PyTorch eager on the same device, with the 95 % interval over the turns.

    None for the eager row itself, or where the two were not timed in turn.
    """
    eager = rows.get((row["device"], "eager", "fp32"))
    if eager is None or row is eager:
        return None
    base, values = (np.array(r["latency_ms"]["runs"], float) for r in (eager, row))
    if len(base) != len(values):
        return None

    def speedup(chosen: np.ndarray) -> float:
        return float(np.median(base[chosen]) / np.median(values[chosen]))

    found = bootstrap(speedup, len(values))
    return found and (found[0], speedup(np.arange(len(values))), found[1])


def _verdict(first: Interval, second: Interval, more: str, less: str) -> str:
    if first[0] <= second[2] and second[0] <= first[2]:
        return NOISE
    return more if second[1] > first[1] else less


def _span(interval: Interval, digits: int) -> str:
    low, value, high = interval
    return f"{value:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def difference_table(before: dict, after: dict) -> Table:
    """:func:`compare` for the terminal, without what is equal."""
    table = Table("artifact", "figure", "before", "after", "verdict", title="what changed")
    differences = compare(before, after)
    for item in differences:
        if item.verdict != SAME_VALUE:
            table.add_row(item.artifact, item.figure, item.before, item.after, item.verdict)
    equal = sum(item.verdict == SAME_VALUE for item in differences)
    bundles = (
        "the same bundle" if before["bundle"]["sha256"] == after["bundle"]["sha256"] else "another bundle"
    )
    table.caption = f"{bundles}; {equal} figures are equal; in brackets 95 % intervals"
    return table
