"""Post-training quantization, end to end: ``python -m quant.ptq --task bfr``.

Loads a float restorer, calibrates along its own trajectories, exports one file for each target and
precision, runs every file, holds it against the float reference and writes a bundle with the report.
With a budget (``--max-psnr-drop``, ``--max-lpips-rise``, ``--max-bytes``) it first searches for the
fastest recipe that holds it (``quant/search.py``), and ends with whether the executed file does.
A run that was stopped finds the files it had already exported beside the bundle and goes on from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
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
from rich.table import Table

from elir_mobile.bundle import building, file_entry, write_golden, write_manifest, write_table
from elir_mobile.checkpoints import ModelInfo, load_weights, random_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.machine import peak_bytes
from elir_mobile.core.manifest import bytes_of
from elir_mobile.data.pairs import PairCounts, PairSets, load_pair_sets
from elir_mobile.harness.compare import compare, golden_parity, pairwise_psnr, quality
from elir_mobile.harness.protocol import (
    PROGRAMS,
    Protocol,
    machine_facts,
    measure,
    package_versions,
    set_threads,
)
from elir_mobile.harness.report import image_facts, make_row, number, terminal_table, write_report
from elir_mobile.metrics import LPIPS_INSTALL, lpips_available
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.precision import (
    FP32,
    PRECISIONS,
    RECIPES,
    W4,
    W8,
    W8A8,
    Recipe,
    check_rules,
    get_recipe,
    read_recipe,
    recipe_toml,
)
from elir_mobile.runtimes.eager import eager_runner
from elir_mobile.runtimes.registry import open_runner
from elir_mobile.runtimes.runner import Runner
from elir_mobile.tasks import Task, get_task
from export.programs import Delegation, Programs, Samples, build_programs
from export.samples import collect_samples, digest
from export.targets import TARGETS, Target, get_target, realizes
from quant.fakequant import calibrate, layer_names
from quant.judge import Judge
from quant.methods import Moved, improved_weights, with_weights
from quant.search import FASTEST, Attempt, Budget, Cost, damages, layer_costs, raising_order, search

# Untrained weights are for size and speed: one pair shows that the files run and agree.
UNTRAINED_COUNTS = PairCounts(calibration=2, min_evaluation=1, max_evaluation=1)
DAMAGE_PAIRS = 4  # pairs on which a search rounds layer by layer
JUDGED_PAIRS = 48  # pairs on which it judges a recipe: more of them, closer to the budget
COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)


@dataclass(frozen=True)
class Job:
    """One run of the command, inputs already validated and loaded."""

    task: Task
    restorer: Restorer
    info: ModelInfo
    size: int
    artifacts: tuple[tuple[Target, Recipe], ...]  # what to export, in the order of the report
    images: Path | None
    out: Path
    seed: int
    protocol: Protocol = field(default_factory=Protocol)
    reconstruct: bool = False  # move float weights so that rounding hurts least


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
    with (
        _export_place(folder) as exports,
        building(folder) as staging,
        Progress(*COLUMNS, console=console) as progress,
    ):
        stages = Stages(progress)
        with stages.stage("loading and degrading images"):
            counts = PairCounts() if job.info.trained else UNTRAINED_COUNTS
            data = load_pair_sets(job.images, job.task, job.size, job.seed, counts)
            programs = _programs(job, TARGETS["executorch"])
        samples: Samples = {}
        if any(recipe.needs_calibration or _moves(job, recipe) for _, recipe in job.artifacts):
            with stages.stage("recording float trajectories", len(data.calibration)):
                samples = collect_samples(
                    programs, (_ticking(pair.degraded, stages) for pair in data.calibration), job.seed
                )
        started = time.monotonic()
        artifacts = _export(job, samples, exports, staging, stages)
        export_seconds = time.monotonic() - started
        runners = [open_runner(a.target.name, a.path, a.recipe.name, programs.table) for a in artifacts]
        report = _run_and_compare(job, programs, data, artifacts, runners, staging, stages, export_seconds)
        eager = eager_runner(job.restorer, programs.steps)
        golden = write_golden(staging, eager, data.evaluation[0].degraded, programs.steps, programs.sigma_s)
        loop = {"steps": programs.steps, "sigma_s": programs.sigma_s}
        parity = [golden_parity(golden, staging, runner, loop) for runner in runners]
        table = write_table(staging, programs.table)
        manifest = _manifest(job, table, samples, data, artifacts, staging)
        manifest["golden"] = golden
        for entry, values in zip(manifest["files"], parity, strict=True):
            entry["parity"] = values
        write_manifest(staging, manifest)
    return folder, report


def _moves(job: Job, recipe: Recipe) -> bool:
    return job.reconstruct and bool(recipe.precisions & {W8, W4, W8A8})


@contextmanager
def _export_place(folder: Path) -> Iterator[Path]:
    """Where exported files wait until the bundle is whole; a run that is stopped leaves them to the next.

    A disk that is full needs the room.
    """
    exports = folder.with_name(f".{folder.name}-exports")
    try:
        yield exports
    except OSError:
        shutil.rmtree(exports, ignore_errors=True)
        raise
    shutil.rmtree(exports, ignore_errors=True)


def _programs(job: Job, target: Target) -> Programs:
    return build_programs(
        job.restorer,
        size=job.size,
        steps=job.info.steps,
        sigma_s=job.info.sigma_s,
        group_norm=target.group_norm,
        clip=target.clip,
    )


def _ticking(image: torch.Tensor, stages: Stages) -> torch.Tensor:
    stages.advance()
    return image


@dataclass(frozen=True)
class Artifact:
    """An exported file and what its lowering said."""

    target: Target
    recipe: Recipe
    path: Path
    delegation: dict[str, Delegation]


def _export(job: Job, samples: Samples, exports: Path, staging: Path, stages: Stages) -> list[Artifact]:
    """Lower every artifact, each in a process of its own: lowering is single-threaded Python.

    Each file goes to ``exports`` under a key of all that shapes it; what is there already is taken as
    it is, so that a run that was stopped goes on.
    """
    calibration = digest(samples) if samples else ""
    with stages.stage("exporting", len(job.artifacts)) as progress:
        places: dict[tuple[str, str], Path] = {}
        missing: list[tuple[Target, Recipe, Path]] = []
        for target, recipe in job.artifacts:
            facts = {
                "weights": job.info.sha256,
                "size": job.size,
                "steps": job.info.steps,
                "sigma_s": job.info.sigma_s,
                "target": target.name,
                "recipe": recipe.to_json(),
                "reconstruct": _moves(job, recipe),
                "calibration": calibration if recipe.needs_calibration or _moves(job, recipe) else "",
                "versions": package_versions(),
            }
            key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
            place = places[target.name, recipe.name] = exports / key
            if place.is_dir():
                stages.advance()
            else:
                missing.append((target, recipe, place))
        done = len(job.artifacts) - len(missing)
        if done:
            progress.console.print(f"{done} of {len(job.artifacts)} files were exported before")
        built = {target.name: _programs(job, target) for target, _, _ in missing}
        moved: dict[str, Moved] = {}
        for _, recipe, _ in missing:
            if _moves(job, recipe) and recipe.name not in moved:
                moved[recipe.name] = improved_weights(_programs(job, TARGETS["executorch"]), recipe, samples)
                progress.console.print(f"moved weights for {recipe.name}")
        workers = max(1, min(len(missing), job.protocol.threads))
        exports.mkdir(parents=True, exist_ok=True)
        log = exports / "log.txt"
        with ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(max(1, job.protocol.threads // workers), log, built, samples, moved),
        ) as pool:
            futures = {
                pool.submit(_lower, target.name, recipe, place): f"{target.name} {recipe.name}"
                for target, recipe, place in missing
            }
            try:
                for future in as_completed(futures):
                    future.result()
                    stages.advance()
                    progress.console.print(f"exported {futures[future]}")
            except BrokenProcessPool as error:
                raise UserError(f"an export process died, perhaps for lack of memory: see {log}") from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    artifacts = []
    for target, recipe in job.artifacts:
        place = places[target.name, recipe.name]
        path = staging / target.name / f"{job.task.name}-{recipe.name}{target.suffix}"
        path.parent.mkdir(exist_ok=True)
        source = place / f"file{target.suffix}"
        if source.is_dir():
            shutil.copytree(source, path)
        else:
            shutil.copyfile(source, path)
        said = json.loads((place / "delegation.json").read_text())
        delegation = {name: Delegation(d["delegates"], tuple(d["ops_outside"])) for name, d in said.items()}
        artifacts.append(Artifact(target, recipe, path, delegation))
    return artifacts


# Of an export worker: programs by target, samples, and moved weights by recipe.
_work: tuple[dict[str, Programs], Samples, dict[str, Moved]]


def _start_worker(
    threads: int, log: Path, built: dict[str, Programs], samples: Samples, moved: dict[str, Moved]
) -> None:
    """Set an export worker up; the converters' many notes go to ``log`` and not to the terminal."""
    global _work
    with log.open("a") as notes:
        os.dup2(notes.fileno(), sys.stderr.fileno())
    torch.set_num_threads(threads)
    _work = built, samples, moved


def _lower(target_name: str, recipe: Recipe, place: Path) -> None:
    """Lower one artifact into the folder ``place``, which appears when it is whole."""
    built, samples, moved = _work
    target, programs = get_target(target_name), built[target_name]
    if recipe.name in moved:
        programs = with_weights(programs, moved[recipe.name])
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as tmp:
        staged = Path(tmp) / "staged"
        staged.mkdir()
        delegation = target.lower(programs, recipe, samples, staged / f"file{target.suffix}")
        text = json.dumps({name: asdict(d) for name, d in delegation.items()})
        (staged / "delegation.json").write_text(text)
        staged.rename(place)


def _run_and_compare(
    job: Job,
    programs: Programs,
    data: PairSets,
    artifacts: list[Artifact],
    runners: list[Runner],
    staging: Path,
    stages: Stages,
    export_seconds: float,
) -> dict:
    steps, sigma_s, pairs = programs.steps, programs.sigma_s, data.evaluation
    eager = eager_runner(job.restorer, steps)
    with stages.stage("running every file on every image", len(pairs) * len(runners)):
        reference, parities = compare(
            eager, runners, pairs, steps=steps, sigma_s=sigma_s, seed=job.seed, advance=stages.advance
        )
    protocol = job.protocol
    timed = [runner for runner in runners if runner.timed]
    with stages.stage("timing, interleaved", (protocol.warmups + protocol.runs) * (1 + len(timed))):
        measured = measure(
            [eager, *timed],
            pairs[0].degraded,
            seeded_noise(programs.latent_shape, job.seed),
            steps=steps,
            sigma_s=sigma_s,
            protocol=protocol,
            advance=stages.advance,
        )
    latencies = {id(runner): latency for runner, latency in zip([eager, *timed], measured, strict=True)}
    eager_ms = latencies[id(eager)]["total"]["median"]
    fp32_ms = {r.target: latencies[id(r)]["total"]["median"] for r in timed if r.precision == FP32}
    trained = job.info.trained
    blank = dict.fromkeys(("psnr_db", "ssim", "lpips"))
    rows = [
        make_row(
            target="eager",
            precision=FP32,
            size_bytes=4 * sum(p.numel() for p in job.restorer.parameters()),
            latency=latencies[id(eager)],
            eager_ms=eager_ms,
            fp32_ms=fp32_ms.get("executorch"),
            programs={n: {"sqnr_db": None, "delegates": None, "ops_outside": None} for n in PROGRAMS},
            trajectory=[None] * steps,
            image={
                "psnr_vs_float_db": None,
                "sqnr_vs_float_db": None,
                **(quality(reference, pairs) if trained else blank),
            },
        )
    ]
    for artifact, runner, parity in zip(artifacts, runners, parities, strict=True):
        rows.append(
            make_row(
                target=artifact.target.name,
                precision=artifact.recipe.name,
                size_bytes=bytes_of(artifact.path),
                latency=latencies.get(id(runner)),
                eager_ms=eager_ms,
                fp32_ms=fp32_ms.get(artifact.target.name),
                programs={
                    name: {"sqnr_db": parity.programs[name].db, **asdict(artifact.delegation[name])}
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
        "pairwise": pairwise_psnr(runners, parities),
        "export_seconds": export_seconds,
        "protocol": protocol.to_json(),
        "machine": machine_facts() | {"peak_memory_bytes": peak_bytes()},
    }
    columns = [("float", reference)]
    columns += [
        (f"{a.recipe.name} {a.target.suffix}", p.restored) for a, p in zip(artifacts, parities, strict=True)
    ]
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
                target=artifact.target.name,
                precision=artifact.recipe.name,
                programs=list(PROGRAMS),
                recipe=artifact.recipe.to_json(),
                reconstructed=_moves(job, artifact.recipe),
                delegation={name: asdict(d) for name, d in artifact.delegation.items()},
            )
            for artifact in artifacts
        ],
    }


def select_artifacts(
    targets: str, precisions: str, console: Console, recipes: Sequence[Recipe] = ()
) -> tuple[tuple[Target, Recipe], ...]:
    """The files that comma-separated target and precision names ask for.

    Args:
        recipes: of the user's own, to be exported too.

    Raises:
        UserError: an unknown name, or a target that has none of the precisions.
    """
    wanted = [get_recipe(name.strip()) for name in precisions.split(",")] + list(recipes)
    chosen = []
    for target in [get_target(name.strip()) for name in targets.split(",")]:
        realized = [recipe for recipe in wanted if realizes(target, recipe)]
        if not realized:
            names = ", ".join(recipe.name for recipe in wanted)
            raise UserError(f"{target.name} has none of {names}: use {', '.join(target.precisions)}")
        absent = [recipe.name for recipe in wanted if recipe not in realized]
        if absent:
            console.print(f"{target.name} has no {', '.join(absent)}: left out")
        chosen += [(target, recipe) for recipe in realized]
    return tuple(chosen)


def recipes_table() -> Table:
    """Every recipe, what it is made of, and which target realizes it."""
    table = Table(title="recipes and the targets that realize them")
    table.add_column("recipe")
    table.add_column("rules, the first match wins", max_width=48)
    for name in TARGETS:
        table.add_column(name, justify="center")
    for recipe in RECIPES.values():
        rules = "; ".join(f"{rule.pattern} {rule.precision}" for rule in recipe.rules) or "all float32"
        marks = ("yes" if realizes(target, recipe) else "–" for target in TARGETS.values())
        table.add_row(recipe.name, rules, *marks)
    return table


def _list_and_exit(asked: bool) -> None:
    if asked:
        console = Console()
        console.print(recipes_table())
        console.print(
            f"a recipe of your own is a TOML file for --recipe; its rules may name {', '.join(PRECISIONS)}"
        )
        raise typer.Exit


@dataclass(frozen=True)
class Ranking:
    """What a search needs to know, whatever the budget."""

    judge: Judge
    order: list[str]  # layers, the one that float helps most for its time first
    costs: dict[str, Cost]


def rank_layers(job: Job, console: Console) -> Ranking:
    """Round every layer alone and rank it by the damage for the time that int8 saves on it.

    Ranges come from the calibration pairs, recipes are judged on ``JUDGED_PAIRS`` more of the same
    images degraded anew; the evaluation images are left for the executed file. Weights that
    ``job.reconstruct`` asks for are moved once, for int8 everywhere, though they depend on what is rounded
    before them: the file of the recipe that is found has them moved anew.

    Raises:
        UserError: the images cannot be used.
    """
    set_threads(job.protocol)
    counts = PairCounts()
    more = replace(counts, calibration=counts.calibration + JUDGED_PAIRS)
    pairs = load_pair_sets(job.images, job.task, job.size, job.seed, more).calibration
    seen, heldout = pairs[: counts.calibration], pairs[counts.calibration :]
    programs = _programs(job, TARGETS["executorch"])
    with Progress(*COLUMNS, console=console) as progress:
        stages = Stages(progress)
        with stages.stage("calibrating"):
            samples = collect_samples(programs, [pair.degraded for pair in seen], job.seed)
            ranges = calibrate(programs, samples)
        moved: Moved = {}
        if job.reconstruct:
            with stages.stage("moving weights"):
                moved = improved_weights(programs, FASTEST, samples)
        judge = Judge(programs, ranges, heldout[:DAMAGE_PAIRS], job.seed, moved)
        total = sum(len(layers) for layers in judge.layers.values())
        with stages.stage("rounding layer by layer", total):
            damage = damages(judge, stages.advance)
    costs = layer_costs(programs)
    return Ranking(Judge(programs, ranges, heldout, job.seed, moved), raising_order(damage, costs), costs)


def find_recipe(job: Job, ranking: Ranking, budget: Budget, console: Console) -> Attempt:
    """Search for the fastest recipe within ``budget``, each try printed; writes it as TOML."""
    console.print(f"searching the fastest recipe with {budget}")
    with Progress(*COLUMNS, console=console) as progress:
        stages = Stages(progress)

        def say(tried: Attempt) -> None:
            verdict = tried.verdict
            lpips = ""
            if verdict.lpips_rise is not None:
                lpips = (
                    f", LPIPS {number(verdict.lpips_rise, 4)} (up to {number(verdict.lpips_rise_high, 4)})"
                )
            progress.console.print(
                f"{tried.raised:4} layers in float: PSNR drop {number(verdict.psnr_drop_db, 3)} dB "
                f"(up to {number(verdict.psnr_drop_db_high, 3)}){lpips}, about {tried.milliseconds:.0f} ms, "
                f"{tried.bytes / 1e6:.2f} MB: {'holds' if tried.holds else 'over budget'}"
            )

        with stages.stage("raising layers"):
            found = search(ranking.judge, ranking.order, ranking.costs, budget, say)
    job.out.mkdir(parents=True, exist_ok=True)
    path = job.out / f"{job.task.name}-{job.info.name}-{FASTEST.name}.toml"
    staged = path.with_suffix(".tmp")
    staged.write_text(recipe_toml(found.recipe))
    staged.rename(path)
    if not found.holds:
        console.print(
            "the budget cannot be held within these bytes; the best reachable is the last one above"
        )
    again = f"--recipe {path}" + (" --reconstruct" if job.reconstruct else "")
    console.print(f"recipe: {path} (run it again with {again})")
    return found


def verdicts(rows: list[dict], recipe: str, budget: Budget) -> list[tuple[str, bool, str]]:
    """Of each executed file of ``recipe``: its target, whether it holds the budget, and the figures."""
    float_row = rows[0]["image"]
    said = []
    for row in rows[1:]:
        if row["precision"] != recipe:
            continue
        image = row["image"]
        drop = float_row["psnr_db"] - image["psnr_db"]
        rise = None if image["lpips"] is None else image["lpips"] - float_row["lpips"]
        holds = budget.held_by(drop, rise)
        holds = holds and (budget.max_bytes is None or row["bytes"] <= budget.max_bytes)
        figures = f"PSNR drop {drop:.3f} dB, " + ("" if rise is None else f"LPIPS {rise:+.4f}, ")
        said.append((row["target"], holds, f"{figures}{row['bytes']} bytes"))
    return said


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
    targets: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(TARGETS)}.")] = "executorch",
    precision: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated: {', '.join(RECIPES)}. One that a target does not have is left out for it."
        ),
    ] = "fp32,w8a8",
    recipe: Annotated[
        list[Path] | None, typer.Option(help="A recipe of your own, a TOML file; may be given several times.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the bundle folder is written.")] = Path("out"),
    seed: Annotated[int, typer.Option(help="Seed of noise and degradations.")] = 0,
    random: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="The released architecture untrained: for size and speed only."
        ),
    ] = False,
    max_psnr_drop: Annotated[
        float | None, typer.Option(help="Search a recipe: PSNR may drop by so many dB against float.", min=0)
    ] = None,
    max_lpips_rise: Annotated[
        float | None, typer.Option(help="Search a recipe: LPIPS may rise by so much against float.", min=0)
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(help="Search a recipe: estimated size of its file, at most.", min=1)
    ] = None,
    reconstruct: Annotated[
        bool,
        typer.Option(
            "--reconstruct",
            help="Round weights together by what their layers see, and correct biases: some minutes for "
            "smaller errors (docs/quantization.md). Not for weights that were trained quantized.",
        ),
    ] = False,
    listing: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=_list_and_exit,
            is_eager=True,
            help="Show recipes, targets, and which target realizes what.",
        ),
    ] = False,
) -> None:
    """Quantize, export, run every file and compare it with float."""
    console = Console()
    chosen = get_task(task)
    recipes = [read_recipe(path) for path in recipe or ()]
    artifacts = select_artifacts(targets, precision, console, recipes)
    budget = Budget(max_psnr_drop, max_lpips_rise, max_bytes)
    searching = budget.psnr_drop_db is not None or budget.lpips_rise is not None
    if budget.max_bytes and not searching:
        raise UserError(
            "--max-bytes alone asks nothing of the pictures: add --max-psnr-drop or --max-lpips-rise"
        )
    if searching and random:
        raise UserError("a budget for the pictures means nothing with --random-weights: leave one out")
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
    side = restorer.arch.check_side(info.size if size is None else size, "--size")
    if info.trained and not lpips_available():
        console.print(f"LPIPS is left out, its weights are not installed: {LPIPS_INSTALL}")
    job = Job(chosen, restorer, info, side, artifacts, images, out, seed, reconstruct=reconstruct)
    if recipes:
        known = [name for names in layer_names(_programs(job, artifacts[0][0])).values() for name in names]
        for own in recipes:
            check_rules(own, known)
    if searching:
        if budget.lpips_rise is not None and not lpips_available():
            raise UserError(f"--max-lpips-rise needs the weights of LPIPS: {LPIPS_INSTALL}")
        found = find_recipe(job, rank_layers(job, console), budget, console)
        artifacts = select_artifacts(targets, precision, console, [*recipes, found.recipe])
        job = replace(job, artifacts=artifacts)
    folder, report = run(job, console)
    console.print(terminal_table(report["rows"]))
    held = True
    if searching:
        for target, holds, figures in verdicts(report["rows"], FASTEST.name, budget):
            what = "holds" if holds else "does NOT hold"
            console.print(f"{target} {FASTEST.name}, executed: {figures}: the budget {what}")
            held = held and holds
    console.print(f"bundle: {folder}\nreport: {folder / 'report' / 'report.html'}")
    if not held:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
