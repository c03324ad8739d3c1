"""Our interpreter of Core ML programs beside Apple's own runtime: ``python -m benchmarks.apple``.

The demo bfr network goes into a Core ML package, which the interpreter runs, and into a Core AI model, which
Apple's runtime runs. Both restore the bundled pairs with the same noise, and are held against float and
against each other. Writes ``benchmarks/results/apple.json``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import typer
from rich.progress import track
from torch import Tensor

from benchmarks.released import RESULTS
from elir_mobile.checkpoints import load_weights
from elir_mobile.core.errors import exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.core.manifest import bytes_of
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.data.pairs import load_pair_sets
from elir_mobile.models.restorer import seeded_noise
from elir_mobile.precision import get_recipe
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.runtimes.table import RUNTIMES, package_versions
from elir_mobile.tasks import get_task
from export.programs import build_programs
from export.targets import TARGETS

SEED = 0
BOTH = ("coreml", "coreai")
MEASURED = ("coarse", "update", "z", "image")  # after encode, z_K − z_0, z_K, after decode


def measured(image: Tensor, trajectory: list[Tensor]) -> list[Tensor]:
    """What is compared of a restoration, in the order of ``MEASURED``."""
    return [trajectory[0], trajectory[-1] - trajectory[0], trajectory[-1], image]


@exits_with_2
def main() -> None:
    """Run the same network in both, and say how far they are from float and from each other."""
    for name in BOTH:
        RUNTIMES[name].load()
    task = get_task("bfr")
    restorer, info = load_weights("demo", task)
    assert TARGETS["coreml"].form == TARGETS["coreai"].form
    programs = build_programs(
        restorer, size=info.size, steps=info.steps, sigma_s=info.sigma_s, form=TARGETS["coreai"].form
    )
    pairs = load_pair_sets(None, task, info.size, SEED, domain=info.domain).evaluation
    loop = {"steps": info.steps, "sigma_s": info.sigma_s}

    def outputs(restore: Callable[[Tensor, Tensor], tuple[Tensor, list[Tensor]]]) -> list[Tensor]:
        """What is compared, of all pairs together."""
        noises = [seeded_noise(programs.latent_shape, SEED + index) for index in range(len(pairs))]
        found = [measured(*restore(pair.degraded, n)) for pair, n in zip(pairs, noises, strict=True)]
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def between(first: list[Tensor], second: list[Tensor]) -> dict[str, float]:
        return {name: sqnr_db(*both) for name, *both in zip(MEASURED, first, second, strict=True)}

    with torch.no_grad():
        wanted = outputs(
            lambda x, n: programs.restore(lambda name, *inputs: programs.modules[name](*inputs), x, n)
        )
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        for precision in track(TARGETS["coreai"].precisions, "running"):
            found, sizes = {}, {}
            for name in BOTH:
                path = Path(tmp) / f"{precision}{TARGETS[name].suffix}"
                TARGETS[name].lower(programs, get_recipe(precision), {}, path)
                runner = open_runner(name, path, programs.table)
                found[name] = outputs(lambda x, n, runner=runner: runner.restore(x, n, **loop))  # type: ignore[misc]
                sizes[f"{name}_bytes"] = bytes_of(path)
            against = {f"{name}_float": between(wanted, found[name]) for name in BOTH}
            each_other = between(found["coreai"], found["coreml"])
            rows.append({"precision": precision, **sizes, **against, "each_other": each_other})
    facts = {"kind": "apple", "task": task.name, "pairs": len(pairs), "weights": info.sha256}
    write_json(RESULTS / "apple.json", {**facts, "versions": package_versions(), "rows": rows})


if __name__ == "__main__":
    typer.run(main)
