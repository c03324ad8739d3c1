"""Files that end, hang or confuse their runtime: the command says which, and goes on living."""

from __future__ import annotations

import errno
import gc
import inspect
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from elir_mobile.bundle import building, file_entry, task_facts, write_golden, write_manifest, write_table
from elir_mobile.cli import qat
from elir_mobile.cli.main import COMMANDS
from elir_mobile.cli.options import alone
from elir_mobile.cli.restore import main
from elir_mobile.core import errors
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.jobs import Job
from elir_mobile.devices import host, process
from elir_mobile.devices.worker import sentence
from elir_mobile.images import list_images
from elir_mobile.tasks import ALIGNED_FACE, get_task
from export.targets import TARGETS
from tests.conftest import SIGMA_S, SIZE, STEPS, eager_of, micro_programs

app = alone(main)
NAMES = ("encode", "step", "decode")
SHAPES = {"encode": (1, 16, 8, 8), "step": (1, 16, 8, 8), "decode": (1, 3, SIZE, SIZE)}

# In the place of LiteRT's interpreter: a model is a text that says what it does to its process.
INTERPRETER = """
import os, signal, time
import numpy as np

SHAPES = {"encode": (1, 16, 8, 8), "step": (1, 16, 8, 8), "decode": (1, 3, 64, 64)}

class Interpreter:
    def __init__(self, model_path, num_threads):
        with open(model_path) as file:
            self.does = file.read()
        with open(model_path + ".pids", "a") as file:
            file.write(f"{os.getpid()}\\n")
        self.act("load")

    def act(self, when):
        if self.does == f"{when}: ends":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.does == f"{when}: hangs":
            while True:
                pass
        if self.does == f"{when}: raises":
            raise LookupError("tensor 7 of 3")

    def get_signature_list(self):
        return dict.fromkeys(SHAPES)

    def get_signature_runner(self, name):
        def run(**inputs):
            self.act("run")
            shape = (1, 2) if self.does == "run: confuses" else SHAPES[name]
            return {"output_0": np.full(shape, 0.5, np.float32) + np.arange(shape[-1]) / 1000}
        return run
"""

Make = Callable[[str], Path]


@pytest.fixture
def bundle_that(tmp_path: Path, degraded: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a bundle whose one file, for LiteRT, does what it is told to its process."""
    package = tmp_path / "fake" / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(INTERPRETER)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))  # of workers
    monkeypatch.setattr(process, "PROGRAM_LIMIT_S", 5.0)
    monkeypatch.setattr(host, "OPEN_LIMIT_S", 5.0)

    def make(does: str) -> Path:
        folder, target = tmp_path / "bfr-micro", TARGETS["litert"]
        programs = micro_programs(target.form.clip)
        with building(folder) as staging:
            path = staging / target.path("bfr-fp32")
            path.parent.mkdir()
            path.write_text(does)
            image = (degraded[0] * 255).round() / 255
            golden = write_golden(staging, eager_of(programs), image, STEPS, SIGMA_S)
            manifest = task_facts(get_task("bfr"), ALIGNED_FACE) | {"size": SIZE, "steps": STEPS}
            files = [file_entry(staging, path, **target.to_json(), precision="fp32")]
            table = write_table(staging, programs.table)
            manifest |= {"sigma_s": SIGMA_S, "table": table, "golden": golden, "files": files}
            write_manifest(staging, manifest)
        return folder

    return make


def children() -> list[str]:
    """Command lines of this process's children."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{os.getpid()}\n" in status.read_text():
                found.append(status.with_name("cmdline").read_text())
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("load: ends", "the worker ended with signal 11 (Segmentation fault)"),
        ("load: hangs", "the worker did not answer within 5 s"),
        ("load: raises", "does not run: tensor 7 of 3"),
        ("run: ends", "the worker ended with signal 11 (Segmentation fault)"),
        ("run: hangs", "the worker did not answer within 5 s"),
        ("run: raises", "does not run: tensor 7 of 3"),
        ("run: confuses", "gives 1×2 values for encode, not 1×16×8×8"),
    ],
)
def test_a_file_that_ends_its_runtime_is_one_sentence(
    bundle_that: Make, picture_folder: Path, tmp_path: Path, does: str, said: str
) -> None:
    folder, out = bundle_that(does), tmp_path / "out"
    arguments = [picture_folder / "0.png", out / "0.png", "--task", "bfr", "--anyway", "--bundle", folder]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2, result.output
    line = result.output.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert said in line
    assert "litert/bfr-fp32.tflite" in line
    assert "Traceback" not in result.output
    assert not out.exists() or not list(out.iterdir())
    gc.collect()
    assert [line for line in children() if "--serve" in line] == []


@pytest.mark.parametrize("does", ["load: ends", "load: hangs", "run: raises"])
def test_a_file_that_ends_its_runtime_has_a_row_of_its_own(
    bundle_that: Make, tmp_path: Path, does: str
) -> None:
    folder, out = bundle_that(does), tmp_path / "out"
    out.mkdir()
    job = Job("", ("litert/bfr-fp32.tflite",), threads=1, warmup=0, runs=1)
    (row,) = host.Host().run(folder, job, out, lambda done, total, text: None).rows
    assert row.error is not None
    assert row.total is None
    assert {"ends": "signal 11", "hangs": "within 5 s", "raises": "tensor 7"}[does.split()[-1]] in row.error


def test_one_worker_restores_all_pictures_and_ends_with_the_command(
    bundle_that: Make, picture_folder: Path, tmp_path: Path
) -> None:
    folder, out = bundle_that("works"), tmp_path / "out"
    arguments = [picture_folder, out, "--task", "bfr", "--anyway", "--bundle", folder]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert [path.name for path in list_images(out)] == ["0.png", "1.png", "2.png"]
    pids = (folder / "litert" / "bfr-fp32.tflite.pids").read_text().split()
    assert len(pids) == 1
    gc.collect()
    assert [line for line in children() if "--serve" in line] == []


def test_what_a_worker_did_not_survive_it_is_not_asked_again(bundle_that: Make) -> None:
    path = bundle_that("run: ends") / "litert" / "bfr-fp32.tflite"
    programs = process.open_programs("litert", path, SHAPES, 1)
    for _ in range(2):
        with pytest.raises(UserError, match="bfr-fp32.tflite is damaged, or .* signal 11"):
            programs["encode"](np.zeros((1, 3, SIZE, SIZE), np.float32))
    assert len(path.with_name(f"{path.name}.pids").read_text().split()) == 1


def test_arrays_come_back_as_they_were_sent(bundle_that: Make) -> None:
    path = bundle_that("works") / "litert" / "bfr-fp32.tflite"
    programs = process.open_programs("litert", path, SHAPES, 1)
    for name in NAMES:
        shape = SHAPES[name]
        expected = np.full(shape, 0.5, np.float32) + np.arange(shape[-1]) / 1000
        given = [np.zeros(SHAPES["step"], np.float32), np.zeros((1, 16, 1, 1), np.float32)]
        out = programs[name](*given[: 1 + (name == "step")])
        assert out.dtype == np.float32
        assert np.array_equal(out, expected.astype(np.float32))


def started(*command: object) -> subprocess.Popen[str]:
    """A Python command in a session of its own, with the environment of workers."""
    root = str(Path(process.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell that runs the tests behind itself has them ignore it, which their children would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(what: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until ``what`` is true, while ``process`` lives."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" in status.read_text()
    except OSError:
        return True


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def test_what_a_file_does_to_a_process_that_looks_into_it_is_one_sentence(tmp_path: Path) -> None:
    """Programs that a fresh process finds at once, run by a function of the standard library."""

    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    with process.Apart(limit_s=5) as apart:
        for name, text in (("ends", "import os; os.abort()"), ("hangs", "while True: pass")):
            with pytest.raises(
                process.ArtifactError, match=f"{name}.py (ended the process|is damaged, or needs)"
            ):
                apart(runpy.run_path, written(f"{name}.py", text))
            (first, second) = (apart(os.path.getsize, written("whole", "1234")) for _ in range(2))
            assert first == second == 4
        with pytest.raises(FileNotFoundError):
            apart(os.path.getsize, tmp_path / "none")
    assert [line for line in children() if "spawn_main" in line] == []


@linux
@pytest.mark.processes
@pytest.mark.parametrize("module", ["elir_mobile.restore", "elir_mobile.cli.main"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_nothing(
    bundle_that: Make, picture_folder: Path, tmp_path: Path, number: signal.Signals, module: str
) -> None:
    bundle, out = bundle_that("run: hangs"), tmp_path / "out"
    pids = bundle / "litert" / "bfr-fp32.tflite.pids"
    given = (picture_folder, out, "--task", "bfr", "--anyway", "--bundle", bundle)
    if module == "elir_mobile.cli.main":
        run = started("-c", f"from {module} import app; app()", "restore", *given)
    else:
        run = started("-m", module, *given)
    wait_for(lambda: pids.is_file() and pids.read_text(), run)
    time.sleep(0.3)  # it hangs by now
    run.send_signal(number)
    said = run.communicate(timeout=20)[0]
    assert run.returncode == 128 + number
    assert "Traceback" not in said
    assert gone(int(pids.read_text()))
    assert not out.exists() or not list(out.iterdir())


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_does_not_wait(bundle_that: Make, number: signal.Signals) -> None:
    bundle_that("works")
    script = """
import time
from elir_mobile.core.errors import exits_with_2

@exits_with_2
def main():
    try:
        print("running", flush=True)
        time.sleep(600)
    finally:
        print("cleaning up", flush=True)
        time.sleep(600)

main()
"""
    run = started("-c", script)
    assert run.stdout is not None
    for line in ("running\n", "cleaning up\n"):
        assert run.stdout.readline() == line
        run.send_signal(number)
    assert run.communicate(timeout=20)[0] == ""
    assert run.returncode == 128 + number


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    @contextmanager
    def stoppable() -> Iterator[None]:
        asked.append(name)
        raise SystemExit(130)
        yield

    monkeypatch.setattr("elir_mobile.core.errors.stoppable", stoppable)
    command = COMMANDS[name]
    with pytest.raises(SystemExit) as ended:
        command(**dict.fromkeys(inspect.signature(command).parameters))
    assert ended.value.code == 130
    assert asked == [name]


@linux
def test_a_signal_waits_until_a_process_is_started() -> None:
    """Nobody hears of it in between: neither half of a pool, nor a process that would print a traceback."""
    script = """
import os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from elir_mobile.core import processes
from elir_mobile.core.errors import exits_with_2

class Pool(ProcessPoolExecutor):
    def submit(self, *job):
        os.killpg(0, signal.SIGINT)
        future = super().submit(*job)
        os.killpg(0, signal.SIGINT)
        print("started", flush=True)
        return future

@exits_with_2
def main():
    with Pool(1, get_context("spawn"), processes.end_with_parent) as pool:
        try:
            processes.submit(pool, Path(os.devnull), print)
        finally:
            processes.end_pool(pool)

if __name__ == "__main__":
    main()
"""
    run = started("-c", script)
    assert run.communicate(timeout=60)[0] == "started\n"
    assert run.returncode == 130


@linux
@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_native_code_makes_an_error_of_ends_the_command_all_the_same(number: int) -> None:
    """As safetensors does where it asks PyTorch for a tensor."""
    script = f"""
import os
from elir_mobile.core.errors import UserError, exits_with_2

@exits_with_2
def main():
    try:
        os.kill(os.getpid(), {number})
        for _ in range(1000000):
            pass
    except SystemExit:
        raise ValueError("could not determine the shape") from None

main()
"""
    run = started("-c", script)
    assert run.communicate(timeout=60)[0] == ""
    assert run.returncode == 128 + number


LEAVES_A_LOCK = """
import multiprocessing, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from elir_mobile.core import processes
from elir_mobile.core.errors import UserError, exits_with_2

def helper(log):
    global lock
    lock = multiprocessing.RLock()
    log.with_suffix(".part").write_text(lock._semlock.name)
    log.with_suffix(".part").rename(log)
    time.sleep(60)

@exits_with_2
def main():
    log = Path("log")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, processes.end_with_parent) as pool:
        processes.submit(pool, Path("stderr"), helper, log)
        while not log.exists():
            time.sleep(0.01)
        processes.end_pool(pool)
        raise UserError("it is enough")

if __name__ == "__main__":
    main()
"""


@linux
@pytest.mark.processes
def test_what_a_killed_helper_leaves_is_cleared_without_a_word(tmp_path: Path) -> None:
    """A lock of its own, as tqdm makes one; Python would warn of it after the command's last line."""
    script = tmp_path / "script.py"
    script.write_text(LEAVES_A_LOCK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert (run.returncode, run.stderr) == (2, "error: it is enough\n")
    name = (tmp_path / "log").read_text().removeprefix("/")
    assert name.startswith("mp-")
    assert not Path("/dev/shm", f"sem.{name}").exists()  # Linux keeps named semaphores there, sem_overview(7)


WANTS_MEMORY = (
    MemoryError(),
    MemoryError("std::bad_alloc"),  # as pybind11 says it
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("can't start new thread"),
    RuntimeError("could not create a primitive"),  # as oneDNN says it
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    np._core._exceptions._ArrayMemoryError((2**40,), np.dtype(np.float64)),
)


@pytest.mark.parametrize("error", WANTS_MEMORY, ids=lambda error: f"{type(error).__name__}-{error}"[:40])
def test_want_of_memory_is_one_sentence(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # which is left as it was

    @exits_with_2
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: there is not enough memory: ")
    assert sentence(error).startswith("there is not enough memory: ")  # of a worker


@pytest.mark.processes
@pytest.mark.parametrize(("error", "lines"), [("MemoryError()", 1), ("UserError('no such file')", 5)])
def test_a_command_that_wants_memory_says_nothing_more_as_it_ends(error: str, lines: int) -> None:
    """Whatever else fails for the same want; of other errors it is told."""
    script = f"""
import atexit
from elir_mobile.core.errors import UserError, exits_with_2

@atexit.register
def fails():
    raise OSError("and one more")

@exits_with_2
def main():
    raise {error}

main()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert ("and one more" in run.stderr) == (lines > 1)
    assert len(run.stderr.splitlines()) == lines


def test_a_library_that_would_ask_for_memory_for_ever_is_not_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    errors.check_memory(errors.BLAS_BYTES)  # there is enough
    monkeypatch.setattr(qat, "BLAS_BYTES", 1 << 60)
    monkeypatch.setitem(sys.modules, "lightning", None)  # it is not even looked for
    result = CliRunner().invoke(alone(qat.main), ["--task", "bfr"])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("error: there is not enough memory: ")


@linux
def test_addresses_are_asked_for_and_not_memory() -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    errors.check_memory(16 * memory)  # as COMMAND_BYTES are to a device of 64 MB
    with pytest.raises(OSError, match="Cannot allocate memory"):
        errors.check_memory(1 << 60)


@linux
def test_a_worker_ends_with_a_parent_that_was_killed(bundle_that: Make) -> None:
    path = bundle_that("run: hangs") / "litert" / "bfr-fp32.tflite"
    script = f"""
from pathlib import Path
import numpy as np
from elir_mobile.devices.process import open_programs
programs = open_programs("litert", Path({str(path)!r}), {SHAPES!r}, 1)
print("opened", flush=True)
programs["encode"](np.zeros((1, 3, 64, 64), np.float32))
"""
    with started("-c", script) as parent:
        assert parent.stdout and parent.stdout.readline() == "opened\n"
        (pid,) = path.with_name(f"{path.name}.pids").read_text().split()
        time.sleep(0.3)  # it hangs by now, and would not notice an end of its input
        parent.kill()
    wait_for(lambda: gone(int(pid)))
