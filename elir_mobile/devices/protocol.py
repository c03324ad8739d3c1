"""Where artifacts are measured: one small protocol, one module a kind of device.

A device is asked to run a :class:`~elir_mobile.core.jobs.Job` on a bundle and gives back a
:class:`~elir_mobile.core.jobs.Result`. How it gets the files there (a copy, a push, a web server) is
its own business. Backends are imported when they are asked for, so that one whose tools are missing
does not hinder the others.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from elir_mobile.core.errors import UserError

if TYPE_CHECKING:  # the measure command names the devices in its help, and NumPy would delay that
    from elir_mobile.core.jobs import Job, Result

# Called with how much is done, of how much, and what is being done.
Progress = Callable[[int, int, str], None]

# Kind of device → module with ``connect(spec) -> Device``.
BACKENDS = {
    "host": "elir_mobile.devices.host",
    "arm64": "elir_mobile.devices.arm64",
    "adb": "elir_mobile.devices.adb",
    "browser": "elir_mobile.devices.browser",
}
SPECS = "host, arm64, adb:SERIAL, browser"


class Device(Protocol):
    """Something that can run a bundle's files.

    Attributes:
        name: for people, in tables: ``host``, ``Pixel 8 (adb)``.
        kind: one of ``jobs.KINDS``.
        runtimes: names of those whose files it can run; others are not asked of it.
    """

    name: str
    kind: str
    runtimes: tuple[str, ...]

    def run(self, bundle: Path, job: Job, folder: Path, progress: Progress) -> Result:
        """Run ``job``.

        Args:
            bundle: the verified bundle on this machine; the device fills in ``job.bundle`` as it sees it.
            job: ``files`` are of ``runtimes`` only.
            folder: an existing empty folder on this machine; raw outputs that ``Row.outputs`` names are
                put into it, together with ``result.json``.
            progress: to be called now and then.

        Returns:
            A row for each file, in the order of ``job.files``. A file that does not run has its row too,
            with ``error`` set.

        Raises:
            UserError: the device is not there or does not answer.
        """


def device(spec: str) -> Device:
    """The device called ``host``, ``arm64``, ``adb:SERIAL`` or ``browser``.

    Raises:
        UserError: unknown, or what it needs is not installed or connected.
    """
    kind, _, serial = spec.partition(":")
    if kind not in BACKENDS or bool(serial) != (kind == "adb") or spec.endswith(":"):
        raise UserError(f"unknown device '{spec}': choose from {SPECS}")
    try:
        backend = import_module(BACKENDS[kind])
    except ImportError as error:
        raise UserError(f"the device '{kind}' cannot be used here: {error}") from error
    found: Device = backend.connect(spec)
    return found
