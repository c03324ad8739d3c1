"""docs/reliability.md promises nothing that no test shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
WRITTEN = re.sub("<!-- table .*?<!-- end -->", "", PAGE, flags=re.DOTALL)  # by hand


def test_every_test_that_is_named_is_there_once() -> None:
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) > 50
    sources = [path.read_text() for path in (ROOT / "tests").glob("test_*.py")]
    there = [name for source in sources for name in re.findall(r"^def (test_\w+)\(", source, re.MULTILINE)]
    assert {name: there.count(name) for name in named} == dict.fromkeys(named, 1)


def test_every_promise_names_a_test() -> None:
    rows = [line for line in WRITTEN.partition("## Limits")[0].splitlines() if line.startswith("| ")]
    promises = [row for row in rows if "shown by" not in row]
    assert len(promises) > 30
    assert [row for row in promises if "`test_" not in row.rsplit("|", 2)[1]] == []


def test_every_limit_is_the_codes() -> None:
    from elir_mobile import checkpoints
    from elir_mobile.cli import lint
    from elir_mobile.core import errors
    from elir_mobile.devices import adb, browser, host, process
    from export import contexts

    rows = [
        line.split("|")[2].strip() for line in PAGE.partition("## Limits")[2].splitlines() if line[:2] == "| "
    ]
    slow = f"{process.REPLY_LIMIT_S:g} s"
    assert rows[1:] == [
        f"{errors.COMMAND_BYTES >> 30} GiB",
        f"{process.PROGRAM_LIMIT_S:g} s; {slow} in an emulator or an interpreter",
        f"{host.OPEN_LIMIT_S:g} s; {slow}",
        f"{contexts.COMPILE_LIMIT_S / 3600:g} h; {lint.LIMIT_S:g} s",
        f"{browser.SILENCE_LIMIT_S:g} s",
        f"{adb.ANSWER_LIMIT_S:g} s; {adb.COPY_LIMIT_S / 60:g} min; {adb.JOB_LIMIT_S / 3600:g} h",
        f"{browser.MOST_BYTES >> 30} GiB; {browser.Handler.timeout:g} s",
        f"{checkpoints.MOST_BYTES >> 30} GiB",
    ]


def pinned(lock: str) -> list[str]:
    """What a lock names, if it has a digest each and the Makefile insists on them."""
    text = (ROOT / lock).read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pattern = r"([\w.-]+)==[\w.]+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+"
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert f"--no-deps --require-hashes -r {lock}" in (ROOT / "Makefile").read_text()
    return [line.partition("==")[0] for line in lines]


def test_the_packages_of_the_metrics_are_pinned_by_digest() -> None:
    assert len(pinned("metrics.lock")) == 6


def test_the_packages_of_chips_are_pinned_by_digest() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert pinned("npu.lock") == ["onnxruntime-qnn"]
    assert {"coreai-core", "coreai-torch"} < {*pinned("coreai.lock")}
    locked = [line for name in ("npu", "coreai") for line in (ROOT / f"{name}.lock").read_text().splitlines()]
    asked = [*extras["coreai"], *(one for one in extras["onnx-qnn"] if one.startswith("onnxruntime-qnn"))]
    assert [f"{one} \\" in locked for one in asked] == [True] * 3


def test_the_packages_of_the_environment_are_pinned_by_digest() -> None:
    """All but PyTorch, of which a machine may take another build."""
    there = pinned("requirements.lock")
    assert len(there) == len({*there}) > 140
    assert "torch" not in there


def test_every_digest_that_is_listed_is_the_codes() -> None:
    from android_demo import toolchain
    from elir_mobile.faces import detect

    archives = [value for value in vars(toolchain).values() if isinstance(value, toolchain.Package)]
    assert sorted(re.findall(r"`([0-9a-f]{64})`", PAGE)) == sorted(
        [*detect.SHA256.values(), *(archive.sha256 for archive in archives)]
    )
    assert all(f"`{archive.name}`" in PAGE for archive in archives)
