"""The process that runs artifacts: ``python -m elir_mobile.devices.worker job.json result.json [PARENT]``.

Given a job file it runs every file of it, one restoration of each in turn so that a slow spell of the
machine hits all of them, and writes the result file and, beside it, the raw outputs. It needs NumPy
and the one runtime of the files, nothing else.

``--serve PID`` keeps the process alive for one artifact, as long as its parent PID lives, and takes requests
on stdin, one reply each on stdout (``core/pipes.py``). The host backend runs one such process an artifact and
lets them take turns; memory and load time are then each artifact's own. A command that restores lets one such
process call the programs (``devices/process.py``).
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np

from elir_mobile.core.errors import NO_MEMORY, UserError, exits_with_2, wants_memory
from elir_mobile.core.golden import (
    check_finite,
    check_output,
    golden_outputs,
    golden_parity_db,
    output_bytes,
    output_sha256,
)
from elir_mobile.core.jobs import DeviceFacts, Job, Result, Row, Times, read_job, write_json
from elir_mobile.core.machine import cpu_name, peak_bytes
from elir_mobile.core.manifest import GoldenArrays, read_golden, read_manifest, read_table
from elir_mobile.core.pipes import receive, send
from elir_mobile.core.processes import end_with
from elir_mobile.core.sampling import PROGRAMS, Loop
from elir_mobile.core.timing import Milliseconds, take_turns, timed_restore
from elir_mobile.runtimes.executorch import leave_exporter_out
from elir_mobile.runtimes.programs import Program, open_programs
from elir_mobile.runtimes.table import (
    EAGER,
    RUNTIMES,
    file_stem,
    get_runtime,
    installed_versions,
    runtime_name,
)


@dataclass
class Artifact:
    """A loaded file and what was measured of it so far.

    Attributes:
        entry: of the manifest.
        loop: its programs.
        timed: whether their speed is the file's.
        load_ms: to open it, a file that the page cache holds; the runtime was imported before.
        base_bytes: largest resident size of the process before it was opened.
        first_ms: of the first restoration.
    """

    entry: dict
    loop: Loop
    timed: bool
    load_ms: float
    base_bytes: int
    first_ms: float | None = None

    def run(self, golden: GoldenArrays) -> Milliseconds:
        """One restoration of the golden input."""
        spent = timed_restore(self.loop, golden["input"], golden["noise"])
        if self.first_ms is None:
            self.first_ms = spent["total"]
        return spent


def open_artifact(bundle: Path, manifest: dict, path: str, threads: int) -> Artifact:
    """Load the artifact at ``path`` of the manifest.

    Raises:
        UserError: the manifest has no such file, or it cannot be loaded.
    """
    entry = find_entry(manifest, path)
    table = read_table(bundle, manifest)
    runtime = get_runtime(entry["target"])
    runtime.load()  # not part of loading the file
    base = peak_bytes()
    start = time.perf_counter()
    run = open_programs(entry["target"], bundle / path, threads)
    load_ms = 1e3 * (time.perf_counter() - start)
    loop = Loop(
        run["encode"],
        lambda z, k: run["step"](z, table[k].reshape(1, -1, 1, 1)),
        run["decode"],
        manifest["steps"],
        manifest["sigma_s"],
    )
    return Artifact(entry, loop, not runtime.stand_in, load_ms, base)


def find_entry(manifest: dict, path: str) -> dict:
    """The manifest's entry of the file at ``path``.

    Raises:
        UserError: there is none.
    """
    found: list[dict] = [entry for entry in manifest["files"] if entry["path"] == path]
    if not found:
        raise UserError(f"the bundle has no file {path}")
    return found[0]


def open_float(manifest: dict, weights: str, threads: int) -> Artifact:
    """The float network itself in PyTorch eager, as an artifact: on this machine only.

    Args:
        weights: a file of them.

    Raises:
        UserError: they cannot be read.
    """
    eager = import_module("elir_mobile.runtimes.eager")
    base = peak_bytes()
    start = time.perf_counter()
    facts = {key: manifest[key] for key in ("task", "steps", "sigma_s")}
    entry, loop = eager.open_weights(weights, threads=threads, **facts)
    return Artifact(entry, loop, True, 1e3 * (time.perf_counter() - start), base)


def write_outputs(artifact: Artifact, golden: GoldenArrays, folder: Path) -> dict[str, dict]:
    """Run the golden vectors and write the raw outputs into ``folder``: ``parity``, ``output_sha256`` and
    ``outputs`` of the result's row."""
    outputs = golden_outputs(artifact.loop, golden)
    stem = file_stem(artifact.entry["target"], artifact.entry["precision"])
    names = {name: f"{stem}-{name}.f32" for name in outputs}
    for name, values in outputs.items():
        (folder / names[name]).write_bytes(output_bytes(values))
    return {
        "parity": golden_parity_db(outputs, golden),
        "output_sha256": {name: output_sha256(values) for name, values in outputs.items()},
        "outputs": names,
    }


def run_job(job: Job, bundle: Path, folder: Path) -> Result:
    """Run every file of ``job`` in this process.

    Args:
        bundle: where its manifest is.
        folder: of the raw outputs.

    Returns:
        A row for each file; of one that fails, with its error.

    Raises:
        UserError: the bundle is damaged.
    """
    manifest = read_manifest(bundle, job.files)
    golden = read_golden(bundle, manifest["golden"])
    rows: dict[str, Row] = {}
    opened: dict[str, tuple[Artifact, dict[str, Any]]] = {}
    for path in job.files:
        try:
            artifact = open_artifact(bundle, manifest, path, job.threads)
            facts: dict[str, Any] = write_outputs(artifact, golden, folder) if job.parity else {}
            if job.runs and artifact.timed:
                artifact.run(golden)
                opened[path] = artifact, facts
            else:
                rows[path] = result_row(artifact.entry, job.threads, [], artifact.load_ms, None, **facts)
        except Exception as error:  # whatever a runtime raises is this file's result
            rows[path] = failed_row(manifest, path, job.threads, sentence(error))
    turns = [partial(artifact.run, golden) for artifact, _ in opened.values()]
    times = take_turns(turns, warmup=job.warmup, count=job.runs)
    for (path, (artifact, facts)), runs in zip(opened.items(), times, strict=True):
        load_ms, first_ms = artifact.load_ms, artifact.first_ms
        rows[path] = result_row(artifact.entry, job.threads, runs, load_ms, first_ms, **facts)
    targets = {row.target for row in rows.values()}
    return Result(host_facts(targets), tuple(rows[path] for path in job.files))


def result_row(
    entry: dict, threads: int, runs: list[Milliseconds], load_ms: float, first_ms: float | None, **facts: Any
) -> Row:
    """The row of the file of ``entry``; without latency where there are no runs."""
    times = {name: Times.of([run[name] for run in runs]) for name in (*PROGRAMS, "total") if runs}
    return Row(
        **{key: entry[key] for key in ("path", "sha256", "target", "precision")},
        threads=threads,
        load_ms=load_ms if runs else None,
        first_ms=first_ms if runs else None,
        total=times.pop("total", None),
        programs=times,
        **facts,
    )


def failed_row(manifest: dict, path: str, threads: int, error: str) -> Row:
    """The row of a file that does not run."""
    entry: dict = next((e for e in manifest["files"] if e["path"] == path), {})
    sha256, target, precision = (str(entry.get(key, "")) for key in ("sha256", "target", "precision"))
    return Row(path, sha256, target, precision, threads, error=error)


def sentence(error: BaseException) -> str:
    """The first line of what an exception says."""
    if wants_memory(error):
        return NO_MEMORY
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def host_facts(targets: set[str]) -> DeviceFacts:
    """This machine, and the versions of the runtimes of ``targets``."""
    names = {runtime_name(target) for target in targets}
    packages = [runtime.package for runtime in RUNTIMES.values() if runtime.name in names]
    packages += ["torch"] if EAGER in names else []
    return DeviceFacts(
        name="host",
        kind="host",
        system=f"{platform.system()} {platform.release()}",
        arch=platform.machine(),
        cpu=cpu_name(),
        emulated=False,
        runtimes=installed_versions(packages),
    )


class Server:
    """Answers requests about one artifact; each is an object with ``do`` and its arguments."""

    def __init__(self) -> None:
        self.artifact: Artifact | None = None
        self.programs: Mapping[str, Program] = {}  # of a file that is not measured
        self.golden: GoldenArrays = {}
        self.float: Callable[[int], Artifact] | None = None  # opens the float network with another K

    def answer(self, request: dict) -> dict:
        """The reply to ``request``."""
        if request["do"] == "open":
            return self.open(Path(request["bundle"]), request)
        if request["do"] == "load":
            self.programs = open_programs(request["target"], Path(request["path"]), request["threads"])
            return {}
        if self.artifact is None:
            raise UserError("no artifact is open")
        if request["do"] == "run":
            return self.artifact.run(self.golden)
        if request["do"] == "golden":
            return write_outputs(self.artifact, self.golden, Path(request["folder"]))
        if request["do"] == "restore":
            return self.restore(request)
        if request["do"] == "memory":
            return {"peak_bytes": peak_bytes(), "base_bytes": self.artifact.base_bytes}
        raise UserError(f"unknown request {request['do']!r}")

    def open(self, bundle: Path, request: dict) -> dict:
        """Open ``file`` of the bundle, or the float network from ``weights``; and restore once."""
        manifest = read_manifest(bundle, (request["file"],))
        self.golden = read_golden(bundle, manifest["golden"])
        if "weights" in request:
            weights, threads = request["weights"], request["threads"]
            self.float = lambda steps: open_float({**manifest, "steps": steps}, weights, threads)
            self.artifact = self.float(manifest["steps"])
        else:
            self.artifact = open_artifact(bundle, manifest, request["file"], request["threads"])
        artifact = self.artifact
        artifact.run(self.golden)
        keys = ("path", "sha256", "target", "precision", "bytes")
        return {
            **{key: artifact.entry[key] for key in keys},
            "load_ms": artifact.load_ms,
            "first_ms": artifact.first_ms,
            "timed": artifact.timed,
        }

    def restore(self, request: dict) -> dict:
        """Restore every image of the file ``inputs`` (``x`` (N, 3, H, W), ``noise`` (N, C, h, w)) into the
        file ``outputs``: ``image`` (N, 3, H, W) and ``trajectory`` (N, K+1, C, h, w).

        With ``steps`` by the float network with that K. With ``starts`` also ``coarse`` and ``identity``, the
        decoded latents before and after the noise: what a flow that does nothing gives.
        """
        assert self.artifact is not None
        loop = self.artifact.loop
        if request["steps"] is not None:
            assert self.float is not None
            loop = self.float(request["steps"]).loop
        with np.load(request["inputs"]) as arrays:
            x, noise = arrays["x"], arrays["noise"]
        done = [loop.restore(x[i : i + 1], noise[i : i + 1]) for i in range(len(x))]
        made: dict[str, Any] = {
            "image": np.concatenate([image for image, _ in done]),
            "trajectory": np.stack([np.concatenate(latents) for _, latents in done]),
        }
        check_output("image", made["image"])
        # A clipped picture can be finite where the latents before it are not.
        check_finite("step", made["trajectory"])
        if request["starts"]:
            starts = [latents[0] for _, latents in done]
            made["identity"] = np.concatenate([loop.decode(z) for z in starts])
            coarse = [z - loop.sigma_s * noise[i : i + 1] for i, z in enumerate(starts)]
            made["coarse"] = np.concatenate([loop.decode(z) for z in coarse])
        np.savez(request["outputs"], **made)
        return {}


@contextmanager
def _private_stdout() -> Iterator[IO[bytes]]:
    """A stream on the real stdout, while everything that runtimes print goes to stderr."""
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        yield stream


def serve() -> None:
    """Answer the requests on stdin until it ends."""
    server = Server()
    with _private_stdout() as replies:
        while (asked := receive(sys.stdin.buffer)) is not None:
            request, arrays = asked
            try:
                if request["do"] == "call":
                    reply, made = {}, [server.programs[request["program"]](*arrays)]
                else:
                    reply, made = server.answer(request), []
            except Exception as error:  # whatever a runtime raises is the reply
                reply, made = {"error": sentence(error)}, []
            send(replies, reply, *made)


@exits_with_2
def main(arguments: list[str]) -> None:
    """Write the result of a job, or serve; exits with 2 for a bad job file or bundle.

    Raises:
        UserError: a bad command line, job file or bundle.
    """
    if len(arguments) not in (2, 3):
        raise UserError("usage: python -m elir_mobile.devices.worker job.json result.json")
    if arguments[0] == "--serve" or arguments[2:]:
        end_with(int(arguments[-1]))
    if arguments[0] == "--serve":
        serve()
        return
    job_path, result_path = map(Path, arguments[:2])
    job = read_job(job_path)
    write_json(result_path, run_job(job, job_path.parent / job.bundle, result_path.parent))


if __name__ == "__main__":
    leave_exporter_out()
    main(sys.argv[1:])
