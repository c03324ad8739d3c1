"""Lowered files, kept by content for the length of a test run and shared by its processes.

Lowering is most of what the tests spend their time on, and many ask for the same file. A test whose subject
is lowering itself asks for the fixture ``lowered_anew``. A test that lowers has the mark ``lowering``, so
that ``make test-fast`` can leave it out; one that lowers without it fails.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from elir_mobile.precision import Recipe
from export.programs import Delegation, Programs, Samples
from export.targets import TARGETS, Target
from quant import exporting

running: list[pytest.Item] = []  # the test at hand, see conftest.py
lower_all = exporting._lower_all


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
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def _state(programs: Programs) -> Iterator[bytes]:
    yield programs.table.numpy().tobytes()
    for name, module in programs.modules.items():
        shapes = [tuple(x.shape) for x in programs.example_inputs[name]]
        yield f"{name} {module} {shapes}".encode()
        for parameter, value in module.state_dict().items():
            yield parameter.encode() + value.numpy().tobytes()


def _cached(target: Target, folder: Path) -> Target:
    lower = target.lower

    def cached(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
        check_mark()
        calls = [x.numpy().tobytes() for inputs in samples.values() for call in inputs for x in call]
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


def _cached_all(folder: Path) -> Callable[..., None]:
    def cached(job, samples, missing, log, stages) -> None:
        check_mark()
        weights = [value.numpy().tobytes() for value in job.restorer.state_dict().values()]
        rest = []
        for target, recipe, place in missing:
            kept = _kept(folder, place.parent.name, *weights)
            if kept.is_dir():
                shutil.copytree(kept, place.parent)
                stages.tick()
            else:
                rest.append((target, recipe, place))
        if rest:
            lower_all(job, samples, rest, log, stages)
        for _, _, place in rest:
            kept = _kept(folder, place.parent.name, *weights)
            with tempfile.TemporaryDirectory(dir=folder) as tmp:
                shutil.copytree(place.parent, Path(tmp) / "staged")
                if not kept.is_dir():
                    (Path(tmp) / "staged").rename(kept)

    return cached


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Keep what is lowered in ``folder`` while the block runs."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, target in TARGETS.items():
            patch.setitem(TARGETS, name, _cached(target, folder))
        patch.setattr(exporting, "_lower_all", _cached_all(folder))
        yield
