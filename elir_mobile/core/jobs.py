"""The job file that a device is given and the result file that it gives back.

One format for every device: the Python worker, the browser page and the Android app speak it. Both are
JSON objects with ``schema_version`` 1. What comes back from a device is validated like anything from
outside (``reader.py``): a missing or mistyped field is one sentence that names it.

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

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np

from elir_mobile.core import files
from elir_mobile.core.reader import (
    OPTIONAL,
    Count,
    Inside,
    Limit,
    NotNegative,
    Positive,
    Sha256,
    load_object,
    one_of,
    read,
)
from elir_mobile.core.sampling import PROGRAMS

SCHEMA_VERSION = 1
OUTPUTS = (*PROGRAMS, "image")  # "image": the whole loop from the golden input and noise
KINDS = ("host", "arm64", "adb", "browser", "android", "ios")
Program = Annotated[str, one_of(*PROGRAMS)]
Output = Annotated[str, one_of(*OUTPUTS)]


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
    files: Annotated[
        tuple[Inside, ...],
        Limit("a list of at least one path", len),
        Limit("a list of different paths", lambda paths: len({*paths}) == len(paths)),
    ]
    threads: Positive = 2
    warmup: Count = 3
    runs: Count = 20
    parity: bool = True


@dataclass(frozen=True)
class Times:
    """Milliseconds of each run, with their median and 90th percentile."""

    median_ms: NotNegative
    p90_ms: NotNegative
    runs_ms: Annotated[tuple[NotNegative, ...], Limit("a list of times", len)]

    @classmethod
    def of(cls, runs_ms: Sequence[float]) -> Times:
        """The statistics of at least one run."""
        median, p90 = np.percentile(runs_ms, [50, 90])
        return cls(float(median), float(p90), tuple(runs_ms))


@dataclass(frozen=True)
class DeviceFacts:
    """What ran the job; ``emulated``: its latency says nothing of a device."""

    name: str
    kind: Annotated[str, one_of(*KINDS)]
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
    threads: Positive
    load_ms: NotNegative | None = None
    first_ms: NotNegative | None = None
    programs: dict[Program, Times] = field(default_factory=dict)
    total: Times | None = None
    peak_bytes: Count | None = None
    base_bytes: Count | None = field(default=None, metadata=OPTIONAL)
    parity: dict[Output, float | None] = field(default_factory=dict)
    output_sha256: dict[Output, Sha256] = field(default_factory=dict)
    outputs: dict[Output, Inside] = field(default_factory=dict, metadata=OPTIONAL)
    error: str | None = None


@dataclass(frozen=True)
class Result:
    """What a device gives back."""

    device: DeviceFacts
    rows: tuple[Row, ...]


def write_json(path: Path, value: Job | Result) -> None:
    """Write a job or a result, whole."""
    files.write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(value)})


def read_job(path: Path) -> Job:
    """The job in ``path``.

    Raises:
        UserError: it cannot be read, or a field is missing, mistyped or out of range.
    """
    return read(Job, load_object(path, SCHEMA_VERSION), path)


def read_result(path: Path) -> Result:
    """The result in ``path``; raises as :func:`read_job`."""
    return read(Result, load_object(path, SCHEMA_VERSION), path)
