"""Job and result files: what is written is read, and everything else is one sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elir_mobile.core.errors import UserError
from elir_mobile.core.jobs import (
    DeviceFacts,
    Job,
    Result,
    Row,
    Times,
    read_job,
    read_result,
    write_json,
)
from elir_mobile.core.reader import read
from elir_mobile.devices.protocol import device

JOB = {
    "schema_version": 1, "bundle": "b", "files": ["litert/a.tflite"], "threads": 2, "warmup": 3, "runs": 20,
    "parity": True,
}  # fmt: skip
FACTS = DeviceFacts("phone", "adb", "Android 14", "aarch64", "Tensor", False, {"litert": "2.2.0"})
TIMES = Times.of([1.0, 3.0, 2.0])
ROW = Row(
    path="litert/a.tflite",
    sha256="0" * 64,
    target="litert",
    precision="w8a8",
    threads=2,
    load_ms=1.5,
    first_ms=9.0,
    programs={"encode": TIMES, "step": TIMES, "decode": TIMES},
    total=TIMES,
    peak_bytes=10**8,
    parity={"encode": 40.5, "step": None, "decode": -3.0, "image": 30.0},
    output_sha256={"encode": "a" * 64},
    outputs={"encode": "litert-w8a8-encode.f32"},
)
RESULT = Result(FACTS, (ROW, Row("x.pte", "1" * 64, "executorch", "fp32", 1, error="it does not load")))


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", RESULT)
    assert read_result(tmp_path / "result.json") == RESULT
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    job = Job("/data/b", ("a.pte", "b.tflite"), threads=4, warmup=0, runs=0, parity=False)
    write_json(tmp_path / "job.json", job)
    assert read_job(tmp_path / "job.json") == job


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_percentiles_are_numpys(values: list[float]) -> None:
    times = Times.of(values)
    assert (times.median_ms, times.p90_ms) == (np.percentile(values, 50), np.percentile(values, 90))
    assert times.runs_ms == tuple(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "newer elir-mobile .*has schema 2, .*: update"),
        ({"schema_version": 0}, "damaged: it has schema 0, this version reads 1"),
        ({"schema_version": True}, "has schema True"),
        ({"schema_version": None}, "has schema None"),
        ({"bundle": 7}, "bundle is not text"),
        ({"files": []}, "files is not a list of at least one"),
        ({"files": "a.pte"}, "files is not a list"),
        ({"files": ["a.pte", "a.pte"]}, "different paths"),
        ({"files": ["../../etc/passwd"]}, "stays inside"),
        ({"files": ["/etc/passwd"]}, "stays inside"),
        ({"files": ["a\\..\\b"]}, "relative path"),
        ({"files": [None]}, "relative path"),
        ({"threads": 0}, "threads is not a whole number of at least 1"),
        ({"threads": True}, "threads is not a whole number"),
        ({"runs": -1}, "runs is not a whole number"),
        ({"runs": 1.5}, "runs is not a whole number"),
        ({"parity": 1}, "parity is not true or false"),
    ],
)
def test_bad_jobs_are_one_sentence(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(JOB | change))
    with pytest.raises(UserError, match=message) as error:
        read_job(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", sorted(JOB))
def test_a_job_without_a_field_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({k: v for k, v in JOB.items() if k != key}))
    with pytest.raises(UserError, match=key.removesuffix("_version")):
        read_job(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"a": 1e999}'])
def test_files_that_are_no_job_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "job.json").write_bytes(content)
    with pytest.raises(UserError):
        read_job(tmp_path / "job.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_job(tmp_path / "none.json")


def written() -> dict:
    from dataclasses import asdict

    value: dict = json.loads(json.dumps({"schema_version": 1, **asdict(RESULT)}))
    return value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("device", "kind"), "toaster", "kind is not one of"),
        (("device", "emulated"), "no", "emulated is not true or false"),
        (("device", "runtimes"), [], "runtimes is not an object"),
        (("rows",), {}, "rows is not a list"),
        (("rows", 0), [], r"rows\[0\] is not an object"),
        (
            ("rows", 0, "total"),
            {"median_ms": 1, "p90_ms": 2, "runs_ms": []},
            "runs_ms is not a list of times",
        ),
        (("rows", 0, "total"), {"median_ms": 1, "p90_ms": 2, "runs_ms": [-1]}, "at least 0"),
        (("rows", 0, "total"), {"median_ms": 10**400, "p90_ms": 2, "runs_ms": [1]}, "finite"),
        (("rows", 0, "programs"), {"train": {}}, "train is not one of"),
        (("rows", 0, "output_sha256"), {"encode": "A" * 64}, "64 hexadecimal digits"),
        (("rows", 0, "outputs"), {"encode": "../../../etc/passwd"}, "stays inside"),
        (("rows", 0, "outputs"), {"encode": "/etc/passwd"}, "stays inside"),
        (("rows", 0, "peak_bytes"), -5, "at least 0"),
        (("rows", 0, "parity"), {"image": "good"}, "image is not a number"),
        (("rows", 0, "error"), 7, "error is not text"),
    ],
)
def test_bad_results_are_one_sentence(path: tuple, value: object, message: str) -> None:
    whole = written()
    place = whole
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(UserError, match=message):
        read(Result, whole, "result.json")


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


@settings(deadline=None)
@given(st.data())
def test_a_result_with_any_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands in the place of any part: a result or a UserError, never another exception."""
    whole = copy.deepcopy(written())
    place: dict | list = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(anything)
            break
        place = inner
    try:
        read(Result, whole, "result.json")
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("spec", ["", "phone", "adb", "adb:", "host:1", "browser:", "arm64:x", "HOST"])
def test_unknown_devices_are_one_sentence(spec: str) -> None:
    with pytest.raises(UserError, match="choose from host, arm64, adb:SERIAL, browser"):
        device(spec)


def test_a_backend_that_cannot_be_imported_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "elir_mobile.devices.browser", None)
    with pytest.raises(UserError, match="'browser' cannot be used here"):
        device("browser")


def test_the_host_is_always_there() -> None:
    assert (device("host").name, device("host").kind) == ("host", "host")
