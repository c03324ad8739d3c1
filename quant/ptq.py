"""Post-training quantization, end to end: ``python -m quant.ptq --task bfr``.

Loads a float restorer, calibrates along its own trajectories, exports one file for each precision,
runs every file, holds it against the float reference and writes a bundle with the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from elir_mobile.bundle import building, file_entry, write_manifest, write_table
from elir_mobile.checkpoints import ModelInfo, load_weights, random_weights
from elir_mobile.data.pairs import PairCounts, PairSets, load_pair_sets
from elir_mobile.errors import UserError, exits_with_2
from elir_mobile.harness.compare import compare, quality
from elir_mobile.harness.protocol import (
    PROGRAMS,
    Protocol,
    machine_facts,
    measure,
    package_versions,
    peak_memory_bytes,
    set_threads,
)
from elir_mobile.harness.report import image_facts, make_row, terminal_table, write_report
from elir_mobile.metrics import LPIPS_INSTALL, lpips_available
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.precision import Recipe, get_recipe
from elir_mobile.runtime.eager import eager_runner
from elir_mobile.runtime.executorch import executorch_runner
from elir_mobile.tasks import Task, get_task
from export.executorch import Lowered, lower
from export.programs import Programs, build_programs
from quant.calibrate import Samples, collect_samples, digest

# Untrained weights are for size and speed: one pair shows that the files run and agree.
UNTRAINED_COUNTS = PairCounts(calibration=2, min_evaluation=1, max_evaluation=1)


@dataclass(frozen=True)
class Job:
    """One run of the command, inputs already validated and loaded."""

    task: Task
    restorer: Restorer
    info: ModelInfo
    size: int
    recipes: tuple[Recipe, ...]
    images: Path | None
    out: Path
    seed: int
    protocol: Protocol = field(default_factory=Protocol)


class Stages:
    """Progress on the terminal: a line for each stage, with a bar where its length is known."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    @contextmanager
    def stage(self, text: str, total: int | None = None) -> Iterator[Progress]:
        """Show ``text`` while the block runs; advance the one open bar with :meth:`advance`."""
        self.current = self.progress.add_task(text, total=total)
        yield self.progress
        self.progress.update(self.current, total=total or 1, completed=total or 1)

    def advance(self) -> None:
        self.progress.advance(self.current)


def run(job: Job, console: Console) -> tuple[Path, dict]:
    """Do the whole job; returns the bundle's folder and the report.

    Raises:
        UserError: images or output folder cannot be used.
    """
    set_threads(job.protocol)
    folder = job.out / f"{job.task.name}-{job.info.name}"
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with building(folder) as staging, Progress(*columns, console=console) as progress:
        stages = Stages(progress)
        with stages.stage("loading and degrading images"):
            counts = PairCounts() if job.info.trained else UNTRAINED_COUNTS
            data = load_pair_sets(job.images, job.task, job.size, job.seed, counts)
            programs = build_programs(
                job.restorer, size=job.size, steps=job.info.steps, sigma_s=job.info.sigma_s
            )
        samples: Samples = {}
        if any(recipe.needs_calibration for recipe in job.recipes):
            with stages.stage("recording float trajectories", len(data.calibration)):
                samples = collect_samples(
                    programs, (_ticking(pair.degraded, stages) for pair in data.calibration), job.seed
                )
        artifacts = _export(job, programs, samples, staging, stages)
        report = _run_and_compare(job, programs, data, artifacts, staging, stages)
        table = write_table(staging, programs.table)
        write_manifest(staging, _manifest(job, table, samples, data, artifacts, staging))
    return folder, report


def _ticking(image: torch.Tensor, stages: Stages) -> torch.Tensor:
    stages.advance()
    return image


@dataclass(frozen=True)
class Artifact:
    """An exported file and what its lowering said."""

    recipe: Recipe
    path: Path
    lowered: Lowered


def _export(job: Job, programs: Programs, samples: Samples, staging: Path, stages: Stages) -> list[Artifact]:
    """Lower every recipe, each in a process of its own: lowering is single-threaded Python."""
    artifacts = []
    (staging / "executorch").mkdir()
    workers = min(len(job.recipes), job.protocol.threads)
    with ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(max(1, job.protocol.threads // workers),),
    ) as pool:
        futures = [pool.submit(lower, programs, recipe, samples) for recipe in job.recipes]
        for recipe, future in zip(job.recipes, futures, strict=True):
            with stages.stage(f"exporting {recipe.name}"):
                lowered = future.result()
            path = staging / "executorch" / f"{job.task.name}-{recipe.name}.pte"
            path.write_bytes(lowered.buffer)
            artifacts.append(Artifact(recipe, path, lowered))
    return artifacts


def _run_and_compare(
    job: Job,
    programs: Programs,
    data: PairSets,
    artifacts: list[Artifact],
    staging: Path,
    stages: Stages,
) -> dict:
    steps, sigma_s, pairs = programs.steps, programs.sigma_s, data.evaluation
    eager = eager_runner(job.restorer, steps)
    runners = [executorch_runner(a.path, a.recipe.name, programs.table) for a in artifacts]
    with stages.stage("running every file on every image", len(pairs) * len(runners)):
        reference, parities = compare(
            eager, runners, pairs, steps=steps, sigma_s=sigma_s, seed=job.seed, advance=stages.advance
        )
    protocol = job.protocol
    with stages.stage("timing, interleaved", (protocol.warmups + protocol.runs) * (1 + len(runners))):
        latencies = measure(
            [eager, *runners],
            pairs[0].degraded,
            seeded_noise(programs.latent_shape, job.seed),
            steps=steps,
            sigma_s=sigma_s,
            protocol=protocol,
            advance=stages.advance,
        )
    medians = {"eager": latencies[0]["whole"]["median"], "fp32": None}
    for artifact, latency in zip(artifacts, latencies[1:], strict=True):
        if artifact.recipe.name == "fp32":
            medians["fp32"] = latency["whole"]["median"]
    trained = job.info.trained
    blank = dict.fromkeys(("psnr_db", "ssim", "lpips"))
    rows = [
        make_row(
            target="eager",
            precision="fp32",
            size_bytes=4 * sum(p.numel() for p in job.restorer.parameters()),
            latency=latencies[0],
            medians=medians,
            programs={n: {"sqnr_db": None, "delegates": None, "ops_outside": None} for n in PROGRAMS},
            trajectory=[None] * steps,
            image={"psnr_vs_float_db": None, **(quality(reference, pairs) if trained else blank)},
        )
    ]
    for artifact, latency, parity in zip(artifacts, latencies[1:], parities, strict=True):
        rows.append(
            make_row(
                target="executorch",
                precision=artifact.recipe.name,
                size_bytes=artifact.path.stat().st_size,
                latency=latency,
                medians=medians,
                programs={
                    name: {"sqnr_db": parity.programs[name].db, **asdict(artifact.lowered.delegation[name])}
                    for name in PROGRAMS
                },
                trajectory=[energy.db for energy in parity.trajectory],
                image=image_facts(parity, reference, pairs, trained),
            )
        )
    facts = {
        "model": _model_facts(job),
        "data": {
            "source": data.source,
            "seed": job.seed,
            "calibration": [pair.name for pair in data.calibration],
            "evaluation": [pair.name for pair in pairs],
            "degraded": quality([pair.degraded for pair in pairs], pairs) if trained else blank,
        },
        "protocol": protocol.to_json(),
        "machine": machine_facts() | {"peak_memory_bytes": peak_memory_bytes()},
    }
    columns = [("float", reference)]
    columns += [(f"{r.precision} .pte", p.restored) for r, p in zip(runners, parities, strict=True)]
    with stages.stage("writing the report"):
        write_report(staging / "report", facts, rows, pairs, columns)
    return {"rows": rows, **facts}


def _model_facts(job: Job) -> dict:
    return {
        "task": job.task.name,
        **asdict(job.info),
        "size": job.size,
        "parameters": sum(p.numel() for p in job.restorer.parameters()),
        "architecture": asdict(job.restorer.arch),
    }


def _manifest(
    job: Job, table: dict, samples: Samples, data: PairSets, artifacts: list[Artifact], staging: Path
) -> dict:
    calibration = None
    if samples:
        calibration = {
            "sha256": digest(samples),
            "images": [pair.name for pair in data.calibration],
            "calls": {name: len(inputs) for name, inputs in samples.items()},
        }
    return {
        "task": job.task.name,
        "model": _model_facts(job),
        "size": job.size,
        "steps": job.info.steps,
        "sigma_s": job.info.sigma_s,
        "versions": package_versions(),
        "table": table,
        "calibration": calibration,
        "files": [
            file_entry(
                staging,
                artifact.path,
                target="executorch",
                precision=artifact.recipe.name,
                programs=list(PROGRAMS),
                recipe=artifact.recipe.to_json(),
                delegation={name: asdict(d) for name, d in artifact.lowered.delegation.items()},
            )
            for artifact in artifacts
        ],
    }


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    task: Annotated[str, typer.Option(help="Restoration task.")],
    weights: Annotated[
        str,
        typer.Option(help="'demo' (bundled), a .pth, .ckpt or .safetensors file, or its http(s) address."),
    ] = "demo",
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of clean images; every other one is kept for evaluation. Default: bundled portraits."
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Image side in pixels. Default: the model's own.")] = None,
    precision: Annotated[str, typer.Option(help="Comma-separated: fp32, w8a8.")] = "fp32,w8a8",
    out: Annotated[Path, typer.Option(help="Where the bundle folder is written.")] = Path("out"),
    seed: Annotated[int, typer.Option(help="Seed of noise and degradations.")] = 0,
    random: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="The released architecture untrained: for size and speed only."
        ),
    ] = False,
) -> None:
    """Quantize, export to ExecuTorch, run and compare with float."""
    console = Console()
    chosen = get_task(task)
    recipes = tuple(get_recipe(name.strip()) for name in precision.split(","))
    if random:
        restorer, info = random_weights(chosen, seed)
        console.print("random weights: sizes and speeds mean something, pictures do not")
    else:
        restorer, info = load_weights(weights, chosen)
        if weights == "demo":
            console.print(
                f"using the bundled demo weights ({info.size} pixels, see docs/demo-model.md); "
                "pass --weights for your own"
            )
    side = size or info.size
    if side <= 0 or side % restorer.arch.size_multiple:
        raise UserError(
            f"--size {side} does not suit this network: use a multiple of {restorer.arch.size_multiple}"
        )
    if info.trained and not lpips_available():
        console.print(f"LPIPS is left out, its weights are not installed: {LPIPS_INSTALL}")
    job = Job(chosen, restorer, info, side, recipes, images, out, seed)
    folder, report = run(job, console)
    console.print(terminal_table(report["rows"]))
    console.print(f"bundle: {folder}\nreport: {folder / 'report' / 'report.html'}")


if __name__ == "__main__":
    app()
