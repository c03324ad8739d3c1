"""The job file that a device is given and the result file that it gives back.

One format for every device: the Python worker, the browser page and the Android app speak it. Both are
JSON objects with ``schema_version`` 1. What comes back from a device is validated like anything from
outside: a missing or mistyped field is one sentence that names it. Nothing but NumPy is needed, since
the worker runs where little else is installed.

``job.json``::

    {"schema_version": 1, "bundle": "folder with manifest.json, absolute or relative to the job file",
     "files": ["executorch/bfr-w8a8.pte"], "threads": 2, "warmup": 3, "runs": 20, "parity": true}

``result.json``::

    {"schema_version": 1,
     "device": {"name", "kind", "system", "arch", "cpu", "emulated", "runtimes": {"executorch": "1.4.1"}},
     "rows": [{"path", "sha256", "target", "precision", "threads",
               "load_ms", "first_ms",                            milliseconds or null
               "programs": {"encode" | "step" | "decode": TIMES}, "total": TIMES or null,
               "peak_bytes",                                     of the whole process, or null
               "base_bytes",                                     optional: before the file was opened
               "parity": {"encode", "step", "decode", "image"}   dB or null (equal), see golden.py
               "output_sha256": {the same four},                 of the little-endian float32 outputs
               "outputs": {the same four: "file beside result.json"},   optional
               "error": null or a sentence}]}

``TIMES`` is ``{"median_ms", "p90_ms", "runs_ms": [...]}``. A device on which no latency is claimed
leaves ``load_ms``, ``first_ms`` and ``total`` null and ``programs`` empty.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.programs import PROGRAMS

SCHEMA_VERSION = 1
OUTPUTS = (*PROGRAMS, "image")  # "image": the whole loop from the golden input and noise
KINDS = ("host", "arm64", "adb", "browser", "android", "ios")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Job:
    """What a device is asked to do.

    Attributes:
        bundle: folder that holds ``manifest.json``, as the device sees it.
        files: artifacts, by their paths in the manifest.
        threads: that each runtime may use.
        warmup: restorations before those that count.
        runs: restorations that are timed; 0: none, for a device whose speed says nothing.
        parity: whether to run the golden vectors and compare.
    """

    bundle: str
    files: tuple[str, ...]
    threads: int = 2
    warmup: int = 3
    runs: int = 20
    parity: bool = True


@dataclass(frozen=True)
class Times:
    """Milliseconds of each run, with their median and 90th percentile."""

    median_ms: float
    p90_ms: float
    runs_ms: tuple[float, ...]

    @classmethod
    def of(cls, runs_ms: list[float]) -> Times:
        """The statistics of at least one run; percentiles are interpolated as NumPy does."""
        return cls(percentile(runs_ms, 50), percentile(runs_ms, 90), tuple(runs_ms))


def percentile(values: list[float], percent: float) -> float:
    """The interpolated percentile (NumPy's default, "linear")."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class DeviceFacts:
    """What ran the job; ``emulated``: its latency says nothing of a device."""

    name: str
    kind: str
    system: str
    arch: str
    cpu: str
    emulated: bool
    runtimes: dict[str, str]


@dataclass(frozen=True)
class Row:
    """What a device measured of one artifact; see the module's text for the fields."""

    path: str
    sha256: str
    target: str
    precision: str
    threads: int
    load_ms: float | None = None
    first_ms: float | None = None
    programs: dict[str, Times] = field(default_factory=dict)
    total: Times | None = None
    peak_bytes: int | None = None
    base_bytes: int | None = None
    parity: dict[str, float | None] = field(default_factory=dict)
    output_sha256: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Result:
    """What a device gives back."""

    device: DeviceFacts
    rows: tuple[Row, ...]


def write_json(path: Path, value: Job | Result) -> None:
    """Write a job or a result under a temporary name, then rename it."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(value)}, indent=1, allow_nan=False)
    staged = path.with_name(f".{path.name}.part")
    staged.write_text(text + "\n")
    staged.replace(path)


def read_job(path: Path) -> Job:
    """The job in ``path``.

    Raises:
        UserError: it cannot be read, or a field is missing, mistyped or out of range.
    """
    value = _Reader(path, _load(path), "")
    files = value.items("files")
    if not files:
        raise value.wrong("files", "a list of at least one path")
    job = Job(
        bundle=value.text("bundle"),
        files=tuple(_inside(value, "files", name) for name in files),
        threads=value.whole("threads", 1),
        warmup=value.whole("warmup", 0),
        runs=value.whole("runs", 0),
        parity=value.flag("parity"),
    )
    if len(set(job.files)) != len(job.files):
        raise value.wrong("files", "a list of different paths")
    return job


def read_result(path: Path) -> Result:
    """The result in ``path``.

    Raises:
        UserError: it cannot be read, or a field is missing, mistyped or out of range.
    """
    return parse_result(_load(path), path)


def parse_result(value: Any, source: Path | str) -> Result:
    """The result that decoded JSON holds, as :func:`read_result`; ``source`` is named in errors."""
    top = _Reader(source, value, "")
    device = top.part("device")
    kind = device.text("kind")
    if kind not in KINDS:
        raise device.wrong("kind", f"one of {', '.join(KINDS)}")
    facts = DeviceFacts(
        name=device.text("name"),
        kind=kind,
        system=device.text("system"),
        arch=device.text("arch"),
        cpu=device.text("cpu"),
        emulated=device.flag("emulated"),
        runtimes={name: device.part("runtimes").text(name) for name in device.part("runtimes").value},
    )
    rows = tuple(_row(_Reader(source, row, f"rows[{index}].")) for index, row in enumerate(top.items("rows")))
    return Result(facts, rows)


def _row(row: _Reader) -> Row:
    programs = row.part("programs")
    hashes = {}
    for name in row.part("output_sha256").keys_among(OUTPUTS):
        hashes[name] = row.part("output_sha256").text(name)
        if not SHA256.fullmatch(hashes[name]):
            raise row.part("output_sha256").wrong(name, "64 hexadecimal digits")
    outputs = {}
    if "outputs" in row.value:
        pulled = row.part("outputs")
        outputs = {n: _inside(pulled, n, pulled.text(n)) for n in pulled.keys_among(OUTPUTS)}
    return Row(
        path=row.text("path"),
        sha256=row.text("sha256"),
        target=row.text("target"),
        precision=row.text("precision"),
        threads=row.whole("threads", 1),
        load_ms=row.number("load_ms"),
        first_ms=row.number("first_ms"),
        programs={name: _times(programs.part(name)) for name in programs.keys_among(PROGRAMS)},
        total=None if row.get("total") is None else _times(row.part("total")),
        peak_bytes=None if row.get("peak_bytes") is None else row.whole("peak_bytes", 0),
        base_bytes=None if row.value.get("base_bytes") is None else row.whole("base_bytes", 0),
        parity={n: row.part("parity").number(n, signed=True) for n in row.part("parity").keys_among(OUTPUTS)},
        output_sha256=hashes,
        outputs=outputs,
        error=None if row.get("error") is None else row.text("error"),
    )


def _times(value: _Reader) -> Times:
    median, p90 = value.number("median_ms"), value.number("p90_ms")
    runs = [
        _Reader(value.source, {"runs_ms": item}, value.where).number("runs_ms")
        for item in value.items("runs_ms")
    ]
    if median is None or p90 is None or not runs or None in runs:
        raise value.wrong("runs_ms", "a list of times, with their median_ms and p90_ms")
    return Times(median, p90, tuple(run for run in runs if run is not None))


def _inside(value: _Reader, key: str, name: object) -> str:
    """A relative path that stays below its folder."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        raise value.wrong(key, "a relative path")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise value.wrong(key, "a path that stays inside its folder")
    return name


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise UserError(f"{path} is damaged: it is not a JSON file") from error


class _Reader:
    """A JSON object whose fields are taken by name and type, each failure one sentence."""

    def __init__(self, source: Path | str, value: Any, where: str) -> None:
        self.source, self.where = source, where
        if not isinstance(value, dict):
            raise UserError(f"{source} is damaged: {where.rstrip('.') or 'it'} is not an object")
        self.value: dict[str, Any] = value
        if not where and value.get("schema_version") != SCHEMA_VERSION:
            raise UserError(
                f"{source} has schema {value.get('schema_version')!r}, this version reads {SCHEMA_VERSION}"
            )

    def wrong(self, key: str, what: str) -> UserError:
        return UserError(f"{self.source} is damaged: {self.where}{key} is not {what}")

    def get(self, key: str) -> Any:
        if key not in self.value:
            raise UserError(f"{self.source} is damaged: it has no {self.where}{key}")
        return self.value[key]

    def keys_among(self, names: tuple[str, ...]) -> list[str]:
        for key in self.value:
            if key not in names:
                raise self.wrong(str(key), f"one of {', '.join(names)}")
        return [name for name in names if name in self.value]

    def part(self, key: str) -> _Reader:
        return _Reader(self.source, self.get(key), f"{self.where}{key}.")

    def items(self, key: str) -> list[Any]:
        found = self.get(key)
        if not isinstance(found, list):
            raise self.wrong(key, "a list")
        return found

    def text(self, key: str) -> str:
        found = self.get(key)
        if not isinstance(found, str):
            raise self.wrong(key, "text")
        return found

    def flag(self, key: str) -> bool:
        found = self.get(key)
        if not isinstance(found, bool):
            raise self.wrong(key, "true or false")
        return found

    def whole(self, key: str, least: int) -> int:
        found = self.get(key)
        if not isinstance(found, int) or isinstance(found, bool) or found < least:
            raise self.wrong(key, f"a whole number of at least {least}")
        return found

    def number(self, key: str, *, signed: bool = False) -> float | None:
        """A finite number or null; not negative unless ``signed``."""
        found = self.get(key)
        if found is None:
            return None
        if not isinstance(found, (int, float)) or isinstance(found, bool):
            raise self.wrong(key, "a number")
        try:
            value = float(found)
        except OverflowError:
            raise self.wrong(key, "a finite number") from None
        if not math.isfinite(value) or (value < 0 and not signed):
            raise self.wrong(key, "a finite number" if signed else "a number of at least 0")
        return value
