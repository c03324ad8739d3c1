"""Runs of the harness one after another, and what changed between two of them.

The history is a file of JSON lines, one a run, each with the bundle's sha256 and the machine. Figures that a
file computes (sizes, parity, quality) repeat exactly, so any difference is a change. Times do not: a median
has changed where the 95 % bootstrap intervals of the two medians do not overlap. Speed-ups are compared
with the interval of the ratio, resampled over the turns, since the k-th runs of two artifacts are
neighbours in time: they hold on a machine that is slow today where milliseconds do not.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.table import Table

from elir_mobile.core.errors import UserError
from elir_mobile.core.statistics import bootstrap
from elir_mobile.harness.charts import label

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
CHANGED, NOISE, SAME_VALUE = "changed", "within noise", "equal"


@dataclass(frozen=True)
class Difference:
    """One figure of an artifact in two runs, and whether it changed beyond the noise."""

    artifact: str
    figure: str
    before: str
    after: str
    verdict: str


def run_record(report: dict) -> dict:
    """What the history keeps of a report: everything but the pictures' facts."""
    return {
        "id": secrets.token_hex(4),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": report["bundle"],
        "machine": {key: report["machine"][key] for key in MACHINE},
        "protocol": report["protocol"],
        "rows": report["rows"],
    }


def append(path: Path, record: dict) -> None:
    """Add a run to the history, which is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read(path: Path) -> list[dict]:
    """All runs, the oldest first.

    Raises:
        UserError: there is no history, or a line of it is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"there is no history at {path}: run the harness on a bundle first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a history") from error
    records = []
    for index, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            str(record["id"]), record["bundle"]["sha256"], record["machine"]["cpu"]
            for row in record["rows"]:
                row["device"], row["target"], row["precision"], row["latency_ms"]["runs"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"line {index} of {path} is damaged: remove it") from error
        records.append(record)
    return records


def find(records: list[dict], name: str) -> dict:
    """The run called ``name``: its id, or its index, 0 the oldest and -1 the newest.

    Raises:
        UserError: there is none.
    """
    for record in records:
        if record["id"] == name:
            return record
    try:
        return records[int(name)]
    except (ValueError, IndexError):
        ids = ", ".join(record["id"] for record in records[-5:])
        raise UserError(
            f"the history has no run '{name}': give an id ({ids}) or an index, -1 for the newest"
        ) from None


def compare(before: dict, after: dict) -> list[Difference]:
    """What the two runs say of each artifact that both have, and which are in one only."""
    old, new = ({_key(row): row for row in record["rows"]} for record in (before, after))
    same_machine = before["machine"] == after["machine"]
    several = len({key[0] for key in old | new}) > 1
    found: list[Difference] = []
    for key in {**old, **new}:
        name = label((old.get(key) or new[key]), several)
        if key not in old or key not in new:
            found.append(Difference(name, "row", *_presence(key in old), "only in one run"))
            continue
        found += _exact(name, old[key], new[key])
        found += _times(name, old[key], new[key], old, new, same_machine)
    return found


def _key(row: dict) -> tuple[str, str, str]:
    return row["device"], row["target"], row["precision"]


def _presence(in_old: bool) -> tuple[str, str]:
    return ("yes", "no") if in_old else ("no", "yes")


def _at(row: dict, path: str) -> float | None:
    value: object = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def _exact(name: str, old: dict, new: dict) -> list[Difference]:
    found = []
    if old.get("sha256") != new.get("sha256"):
        before, after = ((row.get("sha256") or "–")[:12] for row in (old, new))
        found.append(Difference(name, "sha256", before, after, CHANGED))
    for path, title, small in EXACT:
        first, second = _at(old, path), _at(new, path)
        if first is None and second is None:
            continue
        same = first is not None and second is not None and abs(first - second) <= small
        before, after = ("–" if value is None else f"{value:,.6g}" for value in (first, second))
        found.append(Difference(name, title, before, after, SAME_VALUE if same else CHANGED))
    return found


def _times(
    name: str, old: dict, new: dict, all_old: dict, all_new: dict, same_machine: bool
) -> list[Difference]:
    found = []
    first, second = (median_interval(row["latency_ms"]["runs"]) for row in (old, new))
    if first and second:
        said = _verdict(first, second, "slower", "faster") if same_machine else "another machine"
        found.append(Difference(name, "median ms", _span(first, 1), _span(second, 1), said))
    ratios = (speedup_interval(row, rows) for row, rows in ((old, all_old), (new, all_new)))
    first, second = ratios
    if first and second:
        said = _verdict(first, second, "higher", "lower") if same_machine else "another machine"
        found.append(Difference(name, "× eager", _span(first, 3), _span(second, 3), said))
    return found


Interval = tuple[float, float, float]  # low, value, high


def median_interval(runs: list[float]) -> Interval | None:
    """The median of ``runs`` with its 95 % interval; None for fewer than two."""
    values = np.array(runs, float)
    found = bootstrap(lambda chosen: float(np.median(values[chosen])), len(values))
    return found and (found[0], float(np.median(values)), found[1])


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
    title = f"{before['id']} ({before['time']}) → {after['id']} ({after['time']})"
    table = Table("artifact", "figure", "before", "after", "verdict", title=title)
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
