"""What quantization costs the demo model: ``python -m benchmarks.quantization SECTION [--task bfr]``.

Held-out faces or photographs (see ``benchmarks/demo_model.py``; numbers only, no picture leaves the cache).
Sections:

- ``calibration``: what more calibration pairs gain, in simulation;
- ``methods``: what each post-training method gains, in simulation;
- ``converted``: the same of observers on ExecuTorch's own converted graphs, before lowering;
- ``trajectory``: error along the ODE for each recipe and for few against many steps, in simulation;
- ``files``: every precision of every target, exported and run;
- ``budgets``: the accuracy-controlled search for three budgets, its files run;
- ``baselines``: what one would do without this project, run as it is, failures included;
- ``released``: bytes of the released network's step program by itself, random weights.

Each section is merged into ``benchmarks/results/quantization.json``, row by row, so that sections can be
measured apart; ``python -m benchmarks.tables`` puts them into docs/quantization.md.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

from benchmarks.demo_model import PICTURES, SEED, heldout_folder
from benchmarks.released import RESULTS
from elir_mobile.bundle import bytes_of
from elir_mobile.checkpoints import ModelInfo, load_weights, random_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import write_json
from elir_mobile.core.statistics import sqnr_db
from elir_mobile.data.pairs import Pair, PairCounts, PairSets, load_pair_sets
from elir_mobile.harness.charts import executed
from elir_mobile.harness.compare import means, quality
from elir_mobile.harness.protocol import Protocol
from elir_mobile.models.restorer import Restorer, seeded_noise
from elir_mobile.precision import RECIPES, W4, Recipe, Rule
from elir_mobile.recommendation import BUDGET
from elir_mobile.tasks import get_task
from export import coreml
from export.calibrate import calibrate
from export.executorch import quantize
from export.gptq import RECONSTRUCTION_CALLS, correct_biases, reconstruct
from export.job import ALL, Job, select_artifacts
from export.observers import OBSERVERS, HistogramObserver, MinMaxObserver, MseObserver, PercentileObserver
from export.programs import PROGRAM_NAMES, Programs, Samples, build_programs
from export.samples import collect_samples
from export.simulate import simulate
from export.targets import TARGETS
from quant.budget import find_recipe, rank_layers, verdicts
from quant.judge import Judge, Verdict
from quant.ptq import run
from quant.search import FASTEST, Budget

FACES = 22  # judged in simulation
STEP_COUNTS = (1, 2, 3, 5, 8)
W4_EVERYWHERE = Recipe("w4-everywhere", (Rule("*", W4),))
SWEPT = ("fp16", "w8", "w4", "w8a8")
SIMULATED = "fake quantization in eager PyTorch"
BUDGETS = tuple(
    Budget(drop_db, rise, min_update_db=BUDGET["update_sqnr_db"])
    for drop_db, rise in ((0.1, 0.005), (0.05, 0.003), (0.02, 0.001))
)
UNTIMED = Protocol(warmups=0, runs=0, cold_starts=1)  # latencies are the harness's
SWEEP_FACES = 6
BASELINE_SECONDS = 1800
CHOOSERS = {  # which observer of which program
    "histogram observer": dict.fromkeys(PROGRAM_NAMES, HistogramObserver),
    "min-max observer": dict.fromkeys(PROGRAM_NAMES, MinMaxObserver),
    "histogram in step, min-max elsewhere": OBSERVERS,
}


def load(task: str, faces: int = FACES) -> tuple[Restorer, ModelInfo, PairSets]:
    """Demo model of ``task``, and at most ``faces`` pairs of held-out pictures."""
    restorer, info = load_weights("demo", get_task(task))
    counts = PairCounts(max_evaluation=faces)
    return restorer, info, load_pair_sets(heldout_folder(info), get_task(task), info.size, SEED, counts)


def programs_for(restorer: Restorer, info: ModelInfo, steps: int | None = None) -> Programs:
    return build_programs(restorer, size=info.size, steps=steps or info.steps, sigma_s=info.sigma_s)


def store(section: str, task: str, rows: list[dict], key: str, note: str) -> None:
    """Merge ``rows`` into the results: one with the same task and ``key`` is replaced."""
    path = RESULTS / "quantization.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    rows = results.get(section, {"rows": []})["rows"] + [{"task": task, **row} for row in rows]
    merged = {(row["task"], row[key]): row for row in rows}  # a newer row takes the older one's place
    results[section] = {"rows": list(merged.values()), "note": note}
    write_json(path, results)


def judged(verdict: Verdict) -> dict:
    """A verdict's figures as a flat row; None where nothing was rounded."""
    decibels = {f"{name}_db": verdict.program_db[name] for name in PROGRAM_NAMES}
    decibels |= {"end_db": verdict.trajectory_db[-1], "image_db": verdict.image_db}
    return {
        **{name: None if value == float("inf") else value for name, value in decibels.items()},
        "psnr_drop_db": verdict.psnr_drop_db,
        "lpips_rise": verdict.lpips_rise,
    }


def without_weights(simulated: Programs, programs: Programs) -> Programs:
    """The simulation with its weights put back to float: what activations alone cost."""
    for name, module in simulated.modules.items():
        parameters = dict(programs.modules[name].named_parameters())
        for key, value in module.named_parameters():
            if key in parameters:
                value.data = parameters[key].data
    return simulated


def measure_calibration(task: str, console: Console) -> None:
    """w8a8 with ranges from few pairs and from many, of half of the held-out pictures or of the bundled."""
    restorer, info, data = load(task, PairCounts().max_evaluation)
    programs = programs_for(restorer, info)
    note = f"{SIMULATED}; judged on {len(data.evaluation)} held-out pictures."
    for of, folder, counts in (
        ("held out", heldout_folder(info), (12, 48, 176)),
        ("bundled", None, (12, 48, 96)),
    ):
        for count in counts:
            only = PairCounts(calibration=count, max_evaluation=0)
            seen = load_pair_sets(folder, get_task(task), info.size, SEED, only, info.domain).calibration
            samples = collect_samples(programs, [pair.degraded for pair in seen], SEED)
            pictures = len({pair.source for pair in seen})
            for name, observers in CHOOSERS.items():
                ranges = calibrate(programs, samples, observers)
                verdict = Judge(programs, ranges, data.evaluation, SEED).judge(
                    RECIPES["w8a8"], programs=False
                )
                row = {
                    "calibrated": f"{len(seen)} of {pictures} pictures, {of}",
                    "observer": name,
                    "key": f"{len(seen)} {of} {name}",
                    "end_db": verdict.trajectory_db[-1],
                    "update_sqnr_db": verdict.update_db,
                    "image_db": verdict.image_db,
                    "psnr_drop_db": verdict.psnr_drop_db,
                    "lpips_rise": verdict.lpips_rise,
                    "lpips_rise_high": verdict.lpips_rise_high,
                }
                store("calibration", task, [row], "key", note)
                console.print(row)


def measure_methods(task: str, console: Console) -> None:
    """What every method gains on w8a8, one after another on the same calibration and faces."""
    restorer, info, data = load(task)
    programs = programs_for(restorer, info)
    samples = collect_samples(programs, [pair.degraded for pair in data.calibration], SEED)
    recipe = RECIPES["w8a8"]
    note = f"{SIMULATED}; {len(data.calibration)} pairs calibrate, {len(data.evaluation)} are judged."
    observers = CHOOSERS | {
        "percentile observer, 0.01 % of either tail": dict.fromkeys(PROGRAM_NAMES, PercentileObserver),
        "MSE-optimal observer": dict.fromkeys(PROGRAM_NAMES, MseObserver),
    }
    ranges = {name: calibrate(programs, samples, chooser) for name, chooser in observers.items()}
    chosen = ranges["MSE-optimal observer"]
    judge = Judge(programs, chosen, data.evaluation, SEED)

    def keep(method: str, verdict: Verdict) -> None:
        row = {"method": method, **judged(verdict)}
        store("methods", task, [row], "method", note)
        console.print(method, row)

    for name in observers:
        keep(name, judge.judge_programs(simulate(programs, recipe, ranges[name])))
    keep("weights alone in int8", judge.judge(RECIPES["w8"]))
    alone = without_weights(simulate(programs, recipe, chosen), programs)
    keep("activations alone in int8", judge.judge_programs(alone))
    corrected = correct_biases(programs, recipe, chosen, samples, reference=programs)
    keep("MSE + bias correction", judge.judge_programs(simulate(corrected, recipe, chosen)))
    few = {name: calls[:: max(1, len(calls) // RECONSTRUCTION_CALLS)] for name, calls in samples.items()}
    rounded = reconstruct(programs, recipe, chosen, few)
    keep("MSE + reconstruction", judge.judge_programs(simulate(rounded, recipe, chosen)))
    corrected = correct_biases(rounded, recipe, chosen, samples, reference=programs)
    keep("MSE + reconstruction + bias correction", judge.judge_programs(simulate(corrected, recipe, chosen)))
    for weights in (RECIPES["w8"], RECIPES["w4"], W4_EVERYWHERE):
        rounded = reconstruct(programs, weights, {}, few)
        corrected = correct_biases(rounded, weights, {}, samples, reference=programs)
        keep(weights.name, judge.judge_programs(simulate(programs, weights)))
        keep(f"{weights.name} + reconstruction", judge.judge_programs(simulate(rounded, weights)))
        both = judge.judge_programs(simulate(corrected, weights))
        keep(f"{weights.name} + reconstruction + bias correction", both)
    measure_step_ranges(task, judge, samples, console)


@torch.no_grad()
def measure_step_ranges(task: str, judge: Judge, samples: Samples, console: Console) -> None:
    """SQNR of the step program at each index with its own ranges and with those of all steps."""
    programs, recipe = judge.programs, RECIPES["w8a8"]
    shared = simulate(programs, recipe, judge.ranges).modules["step"]
    rows = []
    for k in range(programs.steps):  # from the calls of each step index alone
        ranges = calibrate(programs, {**samples, "step": samples["step"][k :: programs.steps]})
        own = simulate(programs, recipe, ranges).modules["step"]
        z, row, want = judge.trajectory[k], programs.row(k), judge.trajectory[k + 1]
        update = want - z  # the step itself: z passes it in float
        rows.append(
            {
                "k": k,
                "shared_db": sqnr_db(update, shared(z, row) - z),
                "own_db": sqnr_db(update, own(z, row) - z),
            }
        )
    note = f"{SIMULATED}; SQNR of the update z[k+1] - z[k] on the float trajectory."
    store("steps", task, rows, "k", note)
    console.print(rows)


@torch.no_grad()
def measure_converted(task: str, console: Console) -> None:
    """ExecuTorch's converted graphs, run in eager: what the observer does there."""
    restorer, info, data = load(task)
    programs = programs_for(restorer, info)
    samples = collect_samples(programs, [pair.degraded for pair in data.calibration], SEED)
    held = collect_samples(programs, [pair.degraded for pair in data.evaluation], SEED)
    variants = {"as ExecuTorch has it": HistogramObserver, "MSE-optimal observer": MseObserver}
    for variant, observer in variants.items():
        row: dict[str, object] = {"variant": variant}
        for name, module in programs.modules.items():
            graph = quantize(
                module,
                programs.example_inputs[name],
                RECIPES["w8a8"].on(programs.roles),
                samples[name],
                observer,
            )
            wanted = torch.cat([module(*inputs) for inputs in held[name]])
            row[f"{name}_db"] = sqnr_db(wanted, torch.cat([graph(*inputs) for inputs in held[name]]))
        judged_on = f"{len(data.calibration)} pairs calibrate, {len(data.evaluation)} are judged"
        note = f"PT2E graphs in eager; {judged_on}."
        store("converted", task, [row], "variant", note)
        console.print(row)


def measure_trajectory(task: str, console: Console) -> None:
    """Error after every step for each recipe, and what K does to it."""
    restorer, info, data = load(task)
    rows = []
    for steps in STEP_COUNTS:
        programs = programs_for(restorer, info, steps)
        samples = collect_samples(programs, [pair.degraded for pair in data.calibration], SEED)
        judge = Judge(programs, calibrate(programs, samples), data.evaluation[:SWEEP_FACES], SEED)
        floats = means(judge.quality)
        for name in SWEPT:
            verdict = judge.judge(RECIPES[name])
            rows.append(
                {
                    "key": f"{name} K={steps}",
                    "recipe": name,
                    "K": steps,
                    "trajectory_db": verdict.trajectory_db,
                    **judged(verdict),
                    "float_psnr_db": floats["psnr_db"],
                    "float_lpips": floats["lpips"],
                }
            )
            console.print(rows[-1])
        store("trajectory", task, rows, "key", f"{SIMULATED}; {SWEEP_FACES} held-out pictures.")
    plot_trajectory(rows, info.steps, PICTURES / f"trajectory-{task}.png")


def plot_trajectory(rows: list[dict], steps: int, path: Path) -> None:
    """Left: SQNR after each of the model's own K steps. Right: SQNR at the end against K."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name in SWEPT:
        mine = [row for row in rows if row["recipe"] == name]
        whole = next(row for row in mine if row["K"] == steps)
        left.plot(range(1, steps + 1), whole["trajectory_db"], marker="o", label=name)
        right.plot([row["K"] for row in mine], [row["end_db"] for row in mine], marker="o", label=name)
    left.set_xlabel(f"step (K = {steps})")
    left.set_ylabel("SQNR of the latent, dB")
    left.set_xticks(range(1, steps + 1))
    right.set_xlabel("K, the number of steps")
    right.set_xticks(STEP_COUNTS)
    left.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def file_rows(report: dict) -> list[dict]:
    """Rows of the comparison table from a report of ``quant.ptq``."""
    reference = report["rows"][0]
    rows = []
    for row in filter(executed, report["rows"]):
        image = row["image"]
        rows.append(
            {
                "artifact": f"{row['target']} {row['precision']}",
                "pairs": len(report["data"]["evaluation"]),
                "bytes": row["bytes"],
                "digest": row["recipe"],
                "revision": report["revision"],
                "end_db": row["trajectory_sqnr_db"][-1],
                "update_sqnr_db": row["update_sqnr_db"],
                "image_db": image["sqnr_vs_float_db"],
                **{f"{name}_db": row["programs"][name]["sqnr_db"] for name in PROGRAM_NAMES},
                "psnr_db": image["psnr_db"],
                "psnr_drop_db": reference["image"]["psnr_db"] - image["psnr_db"],
                "psnr_drop_db_high": image["psnr_drop_db_high"],
                "lpips": image["lpips"],
                "lpips_rise": image["lpips"] - reference["image"]["lpips"],
                "lpips_rise_high": image["lpips_rise_high"],
                "failure": None,
            }
        )
    return rows


def measure_files(task: str, console: Console) -> None:
    """Export and run on held-out faces: for bfr every precision of every target, and then with adjusted
    weights; of the other tasks int8 of every target."""
    if task == "bfr":
        export_and_run(task, console, ",".join(RECIPES), gptq=False)
        export_and_run(task, console, "w8,w4,w8a8", gptq=True)
    else:
        export_and_run(task, console, "w8a8,mixed", gptq=False)


def heldout_job(task: str, out: str, restorer: Restorer, info: ModelInfo) -> Job:
    """A job on the held-out faces, of no artifact yet, without times."""
    faces = heldout_folder(info)
    return Job(get_task(task), restorer, info, info.size, (), faces, Path(out), SEED, UNTIMED)


def export_and_run(task: str, console: Console, precisions: str, *, gptq: bool) -> None:
    restorer, info, _ = load(task)
    # What nothing here executes would get no row.
    artifacts = tuple(
        (target, recipe)
        for target, recipe in select_artifacts(ALL, precisions, console)
        if "host" in target.to_json()["devices"]
    )
    with tempfile.TemporaryDirectory() as out:
        job = replace(heldout_job(task, out, restorer, info), artifacts=artifacts, gptq=gptq)
        _, report = run(job, console)
    rows = file_rows(report)
    if gptq:
        rows = [row | {"artifact": f"{row['artifact']}, GPTQ"} for row in rows[1:]]
    store(
        "files",
        task,
        rows,
        "artifact",
        "Held-out faces, for denoising and bsr squares of held-out photographs; every file run.",
    )


def measure_budgets(task: str, console: Console) -> None:
    """The search for each budget, with plain weights and adjusted ones; what it finds is exported and
    run."""
    restorer, info, _ = load(task)
    plain = heldout_job(task, ".", restorer, info)
    for start in (plain, replace(plain, gptq=True)):
        ranking = rank_layers(start, console, few=False)
        for budget in BUDGETS:
            with tempfile.TemporaryDirectory() as out:
                job = replace(start, out=Path(out))
                found = find_recipe(job, ranking, budget, console)
                _, report = run(replace(job, artifacts=((TARGETS["executorch"], found.recipe),)), console)
            chosen = next(r for r in file_rows(report) if r["artifact"] == f"executorch {FASTEST.name}")
            row = {
                "budget": f"{budget}{', GPTQ' if job.gptq else ''}",
                "max_psnr_drop_db": budget.psnr_drop_db,
                "max_lpips_rise": budget.lpips_rise,
                "gptq": job.gptq,
                "raised": found.fallbacks,
                "simulated_drop_db": found.verdict.psnr_drop_db,
                "simulated_drop_high_db": found.verdict.psnr_drop_db_high,
                "simulated_rise": found.verdict.lpips_rise,
                "simulated_rise_high": found.verdict.lpips_rise_high,
                "estimated_ms": found.milliseconds,
                **chosen,
                "holds": verdicts(report["rows"], FASTEST.name, budget)[0][1],
            }
            note = "simulated on held-out calibration pairs, then the file run."
            store("budgets", task, [row], "budget", note)
            console.print(row)


class Whole(torch.nn.Module):
    """The reference network with its loop inside, as one program of image and noise."""

    def __init__(self, restorer: Restorer, info: ModelInfo) -> None:
        super().__init__()
        self.restorer, self.info = restorer, info

    def forward(self, image: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.restorer(image, noise, steps=self.info.steps, sigma_s=self.info.sigma_s)

    def inputs(self, pairs: list[Pair]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Degraded image and noise of each pair."""
        shape = self.restorer.arch.latent_shape(self.info.size, self.info.size)
        return [(pair.degraded, seeded_noise(shape, SEED + i)) for i, pair in enumerate(pairs)]

    @torch.no_grad()
    def restored(self, pairs: list[Pair]) -> list[torch.Tensor]:
        """What it makes of each pair's degraded image."""
        return [self(*inputs) for inputs in self.inputs(pairs)]


Baseline = Callable[[Whole, PairSets], tuple[int, list[torch.Tensor]]]


def global_xnnpack(whole: Whole, data: PairSets) -> tuple[int, list[torch.Tensor]]:
    """The whole network as one program, one global XNNPACKQuantizer: the obvious path."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    shown = whole.inputs(data.evaluation)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(whole, shown[0]).module(), quantizer)
    for inputs in whole.inputs(data.calibration):
        prepared(*inputs)
    converted = torch.export.export(convert_pt2e(prepared), shown[0])
    program = to_edge_transform_and_lower(converted, partitioner=[XnnpackPartitioner()]).to_executorch()
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "whole.pte"
        path.write_bytes(program.buffer)
        method = Runtime.get().load_program(path).load_method("forward")
        if method is None:
            raise RuntimeError("the file has no method 'forward'")
        return len(program.buffer), [method.execute(inputs)[0].clone() for inputs in shown]


def torchao_weights(whole: Whole, data: PairSets) -> tuple[int, list[torch.Tensor]]:
    """torchao's one-liner, int8 weight-only, on the eager network."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(whole.restorer, Int8WeightOnlyConfig())
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "weights.pt"
        torch.save(whole.restorer.state_dict(), path)
        return path.stat().st_size, whole.restored(data.evaluation)


def litert_static(whole: Whole, data: PairSets) -> tuple[int, list[torch.Tensor]]:
    """ai-edge-quantizer's stock static recipe on the network converted whole."""
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    shown = whole.inputs(data.evaluation)
    with tempfile.TemporaryDirectory() as tmp:
        source = str(Path(tmp) / "float.tflite")
        litert_torch.convert(whole, shown[0]).export(source)
        ((signature, found),) = Interpreter(model_path=source).get_signature_list().items()
        names = found["inputs"]
        quantization = quantizer.Quantizer(source)
        quantization.load_quantization_recipe(recipe.static_wi8_ai8())
        seen = [
            {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
            for inputs in whole.inputs(data.calibration)
        ]
        result = quantization.quantize(quantization.calibrate({signature: seen}))
        target = Path(tmp) / "int8.tflite"
        target.write_bytes(result.quantized_model)
        runner = Interpreter(model_path=str(target)).get_signature_runner(signature)
        details = runner.get_input_details()
        [(output, said)] = runner.get_output_details().items()
        images = []
        for inputs in shown:
            fed = {
                name: _to_integers(value.numpy(), details[name])
                for name, value in zip(names, inputs, strict=True)
            }
            images.append(torch.from_numpy(_from_integers(runner(**fed)[output], said)))
        return target.stat().st_size, images


def _to_integers(values: np.ndarray, details: dict) -> np.ndarray:
    """``values`` as the file's input takes them: the stock recipe makes inputs and outputs int8 too."""
    scale, zero_point = details["quantization"]
    if not scale:
        return values
    limits = np.iinfo(details["dtype"])
    integers = np.round(values / scale) + zero_point
    return integers.clip(limits.min, limits.max).astype(details["dtype"])


def _from_integers(values: np.ndarray, details: dict) -> np.ndarray:
    """What the file's output stands for, float32."""
    scale, zero_point = details["quantization"]
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32) if scale else values


BASELINES: dict[str, Baseline] = {
    "one global XNNPACKQuantizer, whole network": global_xnnpack,
    "torchao int8 weight-only, eager": torchao_weights,
    "ai-edge-quantizer static recipe, whole network": litert_static,
}


def _run_baseline(name: str, task: str, path: Path) -> None:
    """In a process of its own: the row, or the error's last line, as JSON at ``path``."""
    start = time.monotonic()
    resource.setrlimit(resource.RLIMIT_CPU, (BASELINE_SECONDS, 2 * BASELINE_SECONDS))
    restorer, info, data = load(task, PairCounts().max_evaluation)  # those the files are run on
    whole = Whole(restorer, info)
    before = quality(whole.restored(data.evaluation), data.evaluation)
    row: dict[str, object] = {"artifact": name, "failure": None}
    try:
        size, images = BASELINES[name](whole, data)
        after = quality(images, data.evaluation)
        row |= {
            "bytes": size,
            "psnr_db": after["psnr_db"],
            "psnr_drop_db": before["psnr_db"] - after["psnr_db"],  # type: ignore[operator]
            "lpips": after["lpips"],
            "lpips_rise": after["lpips"] - before["lpips"],  # type: ignore[operator]
        }
    except Exception as error:  # whatever it is, it is what a user would have seen
        traceback.print_exc()
        row["failure"] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:160]}"
    row["seconds"] = time.monotonic() - start
    write_json(path, row)


def measure_baselines(task: str, console: Console) -> None:
    """Each baseline in a process of its own, stopped after ``BASELINE_SECONDS`` of processor time."""
    context = multiprocessing.get_context("spawn")
    for name in BASELINES:
        with tempfile.TemporaryDirectory() as tmp:
            path = Path(tmp) / "row.json"
            process = context.Process(target=_run_baseline, args=(name, task, path))
            process.start()
            process.join()
            if path.is_file():
                row = json.loads(path.read_text())
            elif process.exitcode == -signal.SIGXCPU:
                failure = f"not done after {BASELINE_SECONDS} s of processor time, stopped"
                row = {"artifact": name, "failure": failure}
            else:
                row = {"artifact": name, "failure": f"the process died with code {process.exitcode}"}
        store("baselines", task, [row], "artifact", "the pairs of the table of files.")
        console.print(row)


def measure_released_step(task: str, console: Console) -> None:
    """Size of the velocity field as a Core ML package of its own in each precision."""
    restorer, info = random_weights(get_task(task), SEED)
    programs = programs_for(restorer, info)
    weights = sum(p.numel() for p in programs.modules["step"].parameters())
    halves = coreml.float_models(programs, half=True, functions=("step",))
    note = f"the step program of the released network, {info.size} pixels, random weights, Core ML."
    for name in ("fp16", "w8", "w4"):
        with tempfile.TemporaryDirectory() as out:
            path = Path(out) / "step.mlpackage"
            coreml.write(halves, programs, RECIPES[name], {}, path)
            size = bytes_of(path)
        row = {"recipe": name, "weights": weights, "bytes": size, "bytes_per_weight": size / weights}
        store("released", task, [row], "recipe", note)
        console.print(row)


SECTIONS: dict[str, Callable[[str, Console], None]] = {
    "calibration": measure_calibration,
    "methods": measure_methods,
    "converted": measure_converted,
    "trajectory": measure_trajectory,
    "files": measure_files,
    "budgets": measure_budgets,
    "baselines": measure_baselines,
    "released": measure_released_step,
}


@exits_with_2
def main(
    section: Annotated[str, typer.Argument(help=f"One of {', '.join(SECTIONS)}, or 'all'.")] = "all",
    task: Annotated[str, typer.Option(help="A task with demo weights.")] = "bfr",
) -> None:
    """Measure what quantization costs the demo model on held-out faces."""
    console = Console()
    if section not in (*SECTIONS, "all"):
        raise UserError(f"unknown section '{section}': choose one of {', '.join(SECTIONS)}, or 'all'")
    for name in SECTIONS if section == "all" else (section,):
        SECTIONS[name](task, console)


if __name__ == "__main__":
    typer.run(main)
