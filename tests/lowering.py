"""Lowered files, kept by content for the length of a test run and shared by its processes.

Lowering is most of what the tests spend their time on, and many ask for the same file. ``quant.ptq`` lowers
in the process of its test, so that it finds what another test has lowered; a test whose subject are the
export processes asks for the fixture ``lowered_anew``. A test that lowers has the mark ``lowering``, so that
``make test-fast`` can leave it out; one that lowers without it fails.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elir_mobile.precision import Recipe
from export import artifacts, litert
from export.programs import Delegation, Programs, Samples
from export.targets import TARGETS, Target, writer

running: list[pytest.Item] = []  # the test at hand, see conftest.py
processes = artifacts.ProcessPoolExecutor


def check_mark() -> None:
    """Fail if the test at hand lowers without saying so."""
    if running and running[-1].get_closest_marker("lowering") is None:
        pytest.fail(f"{running[-1].nodeid} lowers a file: mark it with pytest.mark.lowering")


def _kept(folder: Path, *facts: bytes | str) -> Path:
    sha = hashlib.sha256()
    for fact in facts:
        sha.update(fact.encode() if isinstance(fact, str) else fact)
    return folder / sha.hexdigest()[:24]


def _copy(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        target.write_bytes(source.read_bytes())


def _state(programs: Programs) -> Iterator[bytes]:
    yield programs.table.numpy().tobytes() + str((programs.steps, programs.sigma_s, programs.roles)).encode()
    for name, module in programs.modules.items():
        shapes = [tuple(x.shape) for x in programs.example_inputs[name]]
        clip = getattr(module, "clip", None)  # a function, which the module's text does not show
        yield f"{name} {module} {getattr(clip, '__name__', '')} {shapes}".encode()
        for parameter, value in module.state_dict().items():
            yield parameter.encode() + value.numpy().tobytes()


def _cached(target: Target, folder: Path) -> Target:
    lower = target.lower

    def cached(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
        check_mark()
        seen = samples if recipe.needs_calibration else {}
        calls = [x.numpy().tobytes() for inputs in seen.values() for call in inputs for x in call]
        form, rules = (json.dumps(what.to_json(), sort_keys=True) for what in (target, recipe))
        kept = _kept(folder, form, rules, *calls, *_state(programs))
        if not kept.is_dir():
            with tempfile.TemporaryDirectory(dir=folder) as tmp:
                staged = Path(tmp) / "staged"
                staged.mkdir()
                said = lower(programs, recipe, samples, staged / f"file{target.suffix}")
                (staged / "said").write_bytes(pickle.dumps(said))
                if not kept.is_dir():
                    staged.rename(kept)
        _copy(kept / f"file{target.suffix}", path)
        found: dict[str, Delegation] = pickle.loads((kept / "said").read_bytes())
        return found

    return replace(target, lower=cached)


def _cached_conversion(folder: Path) -> Callable[[Programs], bytes]:
    convert = litert._last_converted

    def cached(programs: Programs) -> bytes:
        kept = _kept(folder, "litert", *_state(programs))
        if not kept.is_file():
            with tempfile.TemporaryDirectory(dir=folder) as tmp:
                staged = Path(tmp) / "staged"
                staged.write_bytes(convert(programs))
                staged.rename(kept)
        return kept.read_bytes()

    return cached


class InThisProcess(Executor):
    """In place of a pool of export processes: each job is done when it is handed in."""

    _processes: dict = {}  # see elir_mobile.core.processes.end_pool

    def __init__(self, workers: int, *, initargs: tuple, **options: Any) -> None:
        artifacts._work = pickle.loads(initargs[-1].read_bytes())

    def submit(self, function: Callable, /, *arguments: Any, **named: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Keep what is lowered in ``folder`` while the block runs."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        writers = {name: writer(target).name for name, target in TARGETS.items()}
        cached = {name: _cached(TARGETS[name], folder).lower for name in {*writers.values()}}
        for name, target in list(TARGETS.items()):
            patch.setitem(TARGETS, name, replace(target, lower=cached[writers[name]]))
        patch.setattr(litert, "_last_converted", _cached_conversion(folder))
        patch.setattr(artifacts, "ProcessPoolExecutor", InThisProcess)
        yield
