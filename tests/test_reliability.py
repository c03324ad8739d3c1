"""docs/reliability.md promises nothing that no test shows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_every_test_that_is_named_is_there_once() -> None:
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) > 50
    sources = [path.read_text() for path in (ROOT / "tests").glob("test_*.py")]
    there = [name for source in sources for name in re.findall(r"^def (test_\w+)\(", source, re.MULTILINE)]
    assert {name: there.count(name) for name in named} == dict.fromkeys(named, 1)


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.partition("## Limits")[0].splitlines() if line.startswith("| ")]
    promises = [row for row in rows if "shown by" not in row]
    assert len(promises) > 30
    assert [row for row in promises if "`test_" not in row.rsplit("|", 2)[1]] == []


def test_every_limit_is_the_codes() -> None:
    from elir_mobile import checkpoints
    from elir_mobile.cli import lint
    from elir_mobile.devices import adb, browser, host, process
    from export import contexts

    rows = [
        line.split("|")[2].strip() for line in PAGE.partition("## Limits")[2].splitlines() if line[:2] == "| "
    ]
    slow = f"{process.REPLY_LIMIT_S:g} s"
    assert rows[1:] == [
        f"{process.PROGRAM_LIMIT_S:g} s; {slow} in an emulator or an interpreter",
        f"{host.OPEN_LIMIT_S:g} s; {slow}",
        f"{contexts.COMPILE_LIMIT_S / 3600:g} h; {lint.LIMIT_S:g} s",
        f"{browser.SILENCE_LIMIT_S:g} s",
        f"{adb.ANSWER_LIMIT_S:g} s; {adb.COPY_LIMIT_S / 60:g} min; {adb.JOB_LIMIT_S / 3600:g} h",
        f"{browser.MOST_BYTES >> 30} GiB; {browser.Handler.timeout:g} s",
        f"{checkpoints.MOST_BYTES >> 30} GiB",
    ]


def test_the_packages_of_the_metrics_are_pinned_by_digest() -> None:
    text = (ROOT / "metrics.lock").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == 6
    assert all(re.fullmatch(r"[\w-]+==[\w.]+( +--hash=sha256:[0-9a-f]{64})+", line) for line in lines)
    assert "--require-hashes -r metrics.lock" in (ROOT / "Makefile").read_text()
