"""Put measured figures into the Markdown files: ``python -m benchmarks.tables [--check]``.

``--take NAME report.json`` first keeps a report of a measured bundle or of ``quant.sensitivity`` as a result.

Every block between ``<!-- table NAME -->`` and ``<!-- end -->`` is replaced by the table made from
``benchmarks/results/NAME.json``; a block ``NAME-figures`` shows its charts, which are written to
``docs/images``. ``--check`` changes nothing and exits with 1 if a block or a figure is stale.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.released import RESULTS
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.harness.charts import charts, label, named_devices, number, standalone
from elir_mobile.harness.report import megabytes
from elir_mobile.precision import RECIPES, recipe_digest

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
DOCUMENTS = (
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("results", "demo-model", "ablations", "quantization", "harness")
    ),
)
BLOCK = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def programs_table(report: dict) -> str:
    """One line for each program of each exported file."""
    lines = [
        "| artifact | program | SQNR, dB | median ms | delegates | operators outside |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in report["rows"]:
        if row["target"] == "eager":
            continue
        for name, program in row["programs"].items():
            cells = [
                f"{row['target']} {row['precision']}",
                name,
                number(program["sqnr_db"], 1),
                number(program["latency_ms"]["median"], 1),
                str(program["delegates"]),
                str(len(program["ops_outside"])),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def quality_table(result: dict) -> str:
    """Degraded, coarse and restored on held-out faces."""
    lines = ["| | PSNR, dB | SSIM | LPIPS |", "|---|--:|--:|--:|"]
    lines += [f"| {name} | {_quality(values)} |" for name, values in result["table"].items()]
    return "\n".join(lines)


def ablations_table(result: dict) -> str:
    """Mean over the seeds of each variant, and from the lowest to the highest; coarse and K = 1, 5, 8."""
    lines = [
        "| variant | output | PSNR, dB | SSIM | LPIPS |",
        "|---|---|--:|--:|--:|",
        f"| degraded input | | {_quality(result['degraded'])} |",
        f"| teacher, clean input | | {_quality(result['teacher']['reconstructed'])} |",
    ]
    for name, variant in result["variants"].items():
        runs = [run for run in result["runs"] if run["variant"] == name]
        outputs = {"coarse": [run["coarse"] for run in runs]}
        outputs |= {f"K = {k}": [run["sampled"][k] for run in runs] for k in ("1", "2", "5", "8") if runs}
        for output, values in outputs.items():
            cells = [
                _spread([value[metric] for value in values], digits)
                for metric, digits in (("psnr_db", 2), ("ssim", 3), ("lpips", 4))
            ]
            title = variant["title"] if output == "coarse" else ""
            lines.append(f"| {title} | {output} | {' | '.join(cells)} |")
    setting = result["setting"]
    lines += [
        "",
        f"{setting['faces']} held-out faces; mean of {len(setting['seeds'])} seeds (lowest–highest).",
    ]
    return "\n".join(lines)


def _spread(values: list[float], digits: int) -> str:
    mean = number(sum(values) / len(values), digits)
    if len(values) == 1:
        return mean
    return f"{mean} ({number(min(values), digits)}–{number(max(values), digits)})"


def throughput_table(result: dict) -> str:
    """Seconds a step of the plain loop and of ours."""
    lines = [
        "| network | image, batch | plain, s | ours, s | × | plain, CPU s | ours, CPU s | × |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in result["rows"].items():
        cells = [f"{row['setting']['size']}, {row['setting']['batch']}"]
        for seconds, ratio in (("wall_s", "speedup_wall"), ("processor_s", "speedup_processor")):
            cells += [number(row[seconds]["plain"]), number(row[seconds]["ours"]), number(row[ratio])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{_machine(result['machine'])}; {result['threads']} thread, medians of {result['runs']} steps each "
        f"after {result['warmups']} warm-up, alternating.",
    ]
    return "\n".join(lines)


def qat_table(result: dict) -> str:
    """Rows of ``benchmarks.qat``: each recipe before and after training."""
    columns: list[tuple[str, str, int | None]] = [
        ("recipe", "recipe", None),
        ("method", "method", None),
        ("run_by", "run by", None),
        ("seed", "seed", 0),
        ("psnr_db", "PSNR, dB", 2),
        ("drop_psnr_db", "drop, dB", 3),
        ("lpips", "LPIPS", 4),
        ("rise_lpips", "rise", 4),
        ("minutes", "CPU minutes", 0),
    ]
    note = f"{result['pairs']} pairs of held-out faces; batches of {result['batch']} images."
    return columns_table(columns, result["rows"], note)


def report_table(report: dict) -> str:
    """One line for each row of a report, with what was compared with what below."""
    rows = report["rows"]
    several = named_devices(rows)
    lines = [
        "| artifact | MB | median ms (95 %) | p90 ms | × eager | × fp32 | load ms | peak MB | vs float, dB "
        "| PSNR, dB | drop, dB (95 %) | SSIM | LPIPS |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    degraded = report["data"]["degraded"]
    if degraded["psnr_db"] is not None:
        psnr, *rest = _quality(degraded).split(" | ")
        lines.append(f"| degraded input | | | | | | | | | {psnr} | | {' | '.join(rest)} |")
    for row in rows:
        latency, image = row["latency_ms"], row["image"]
        psnr, *rest = _quality(image).split(" | ")
        cells = [
            label(row, several),
            number(row["bytes"] / 1e6),
            _interval(latency["median"], latency["low"], latency["high"], 1),
            number(latency["p90"], 1),
            number(row["speedup_vs_eager"]),
            number(row["speedup_vs_fp32"]),
            number(row["load_ms"], 1),
            megabytes(row["memory"]["peak_bytes"]),
            number(image["psnr_vs_float_db"], 1),
            psnr,
            _interval(image["psnr_drop_db"], image["psnr_drop_db_low"], image["psnr_drop_db_high"], 3),
            *rest,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    protocol = report["protocol"]
    lines += [
        "",
        f"{_machine(report['machine'])}; {protocol['threads']} threads, {protocol['warmups']} warm-ups, "
        f"{protocol['runs']} runs, {protocol['order']}. Compared with: {_compared(rows)}.",
    ]
    if "peak_export_process_bytes" in report:
        memory = report["peak_export_process_bytes"] / 2**30
        lines[-1] += (
            f" All files were exported in {report['export_seconds']:.0f} s, by {protocol['threads']} "
            f"processes of at most {memory:.1f} GiB."
        )
    return "\n".join(lines)


# Of the demo bundle: what a reader of the first screen wants to know.
SHORT = ("eager fp32", "executorch fp32", "executorch w8a8", "litert w8a8", "coreml fp16", "coreml w4")


def short_table(report: dict) -> str:
    """Six rows of a report: size, speed and what it costs in quality."""
    lines = [
        "| file | MB | ms | × eager | PSNR drop against float, dB (95 %) | LPIPS |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in report["rows"]:
        if label(row) not in SHORT:
            continue
        image = row["image"]
        drop = _interval(image["psnr_drop_db"], image["psnr_drop_db_low"], image["psnr_drop_db_high"], 3)
        cells = [
            label(row),
            number(row["bytes"] / 1e6),
            number(row["latency_ms"]["median"], 1),
            number(row["speedup_vs_eager"]),
            drop,
            number(image["lpips"], 4),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    protocol, data = report["protocol"], report["data"]
    timing = f"{protocol['threads']} threads, medians of {protocol['runs']} runs in turn"
    quality = f"{len(data['evaluation'])} pairs, {data['source']}"
    lines += [
        "",
        f"{_machine(report['machine'])}; {timing}. Quality on {quality}; LPIPS of the degraded input "
        f"{number(data['degraded']['lpips'], 4)}. Core ML: an interpreter ran the file: no time is claimed.",
    ]
    return "\n".join(lines)


def _machine(machine: dict) -> str:
    return f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['cpu_flags'])}"


def _compared(rows: list[dict]) -> str:
    """What the figures of the rows were compared with, each sentence once."""
    said: dict[str, None] = {}
    for row in rows:
        for kind, text in row["against"].items():
            if kind != "latency":
                said[f"{kind}: {text}"] = None
            elif row["latency_ms"]["median"] is None:
                said[f"{row['target']}: latency {text}"] = None
    return "; ".join(said)


def _interval(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    if value is None or low is None or high is None:
        return number(value, digits)
    return f"{number(value, digits)} ({number(low, digits)}–{number(high, digits)})"


def roofline_table(result: dict) -> str:
    """The best throughput of each target and arithmetic, and the convolution that reached it."""
    best: dict[tuple[str, str], dict] = {}
    for row in result["rows"]:
        key = (row["target"], row["precision"])
        if key not in best or row["gmacs_per_s"] > best[key]["gmacs_per_s"]:
            best[key] = row
    lines = [
        "| runtime | arithmetic | best, GMAC/s | reached by |",
        "|---|---|--:|---|",
    ]
    for (target, precision), row in best.items():
        shape = f"{row['depth']} × {row['channels']} channels at {row['side']}²"
        lines.append(f"| {target} | {precision} | {number(row['gmacs_per_s'], 1)} | {shape} |")
    protocol = result["protocol"]
    lines += [
        "",
        f"{_machine(result['machine'])}; {protocol['threads']} threads, medians of {protocol['runs']} runs "
        f"after {protocol['warmups']} warm-ups, all in turn.",
    ]
    return "\n".join(lines)


def sensitivity_table(result: dict) -> str:
    """The ten layers that hurt most when rounded alone, and the whole recipe."""

    def cells(verdict: dict, program: str | None) -> str:
        decibels = (
            verdict["program_db"][program] if program else None,
            verdict["trajectory_db"][-1],
            verdict["image_db"],
        )
        figures = [number(value, 1) for value in decibels]
        figures += [number(verdict["psnr_drop_db"], 3), number(verdict["lpips_rise"], 4)]
        return " | ".join(figures)

    lines = [
        "| rounded | program, dB | end of trajectory, dB | image, dB | PSNR drop, dB | LPIPS rise "
        "| drop of all but it, dB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"][:10]:
        but_it = number(row["others"]["psnr_drop_db"], 3)
        lines.append(f"| `{row['layer']}` | {cells(row['alone'], row['program'])} | {but_it} |")
    lines += [
        f"| all {len(result['rows'])} of {result['recipe']['name']} | {cells(result['whole'], None)} | – |",
        "",
        f"{result['task']}, {len(result['pairs'])} pairs of {result['images']}; {result['protocol']}.",
    ]
    return "\n".join(lines)


KINDS = {
    "ablations": ablations_table,
    "qat": qat_table,
    "roofline": roofline_table,
    "sensitivity": sensitivity_table,
    "throughput": throughput_table,
}
# Charts that the documents show of a report, with what they are called.
FIGURES = {
    "pareto": "quality against latency",
    "latency": "latency",
    "trajectory": "error along the trajectory",
}


def _quality(values: dict) -> str:
    return f"{number(values['psnr_db'])} | {number(values['ssim'], 3)} | {number(values['lpips'], 4)}"


# Columns of each section of quantization.json: key, heading, digits after the point (None: text).
SECTIONS: dict[str, list[tuple[str, str, int | None]]] = {
    "methods": [
        ("method", "method", None),
        ("encode_db", "encode, dB", 1),
        ("step_db", "step, dB", 1),
        ("decode_db", "decode, dB", 1),
        ("end_db", "end of trajectory, dB", 1),
        ("image_db", "image, dB", 1),
        ("psnr_drop_db", "PSNR drop, dB", 3),
        ("lpips_rise", "LPIPS rise", 4),
    ],
    "converted": [
        ("variant", "w8a8 graph", None),
        ("encode_db", "encode, dB", 1),
        ("step_db", "step, dB", 1),
        ("decode_db", "decode, dB", 1),
    ],
    "steps": [
        ("k", "step k", 0),
        ("shared_db", "shared range, dB", 1),
        ("own_db", "own range, dB", 1),
    ],
    "trajectory": [
        ("recipe", "recipe", None),
        ("K", "K", 0),
        ("trajectory_db", "after each step, dB", 1),
        ("psnr_drop_db", "PSNR drop, dB", 3),
        ("lpips_rise", "LPIPS rise", 4),
        ("float_psnr_db", "float PSNR, dB", 2),
        ("float_lpips", "float LPIPS", 4),
    ],
    "files": [
        ("artifact", "artifact", None),
        ("bytes", "bytes", 0),
        ("encode_db", "encode, dB", 1),
        ("step_db", "step, dB", 1),
        ("decode_db", "decode, dB", 1),
        ("end_db", "end of trajectory, dB", 1),
        ("image_db", "image, dB", 1),
        ("psnr_db", "PSNR, dB", 2),
        ("psnr_drop_db", "drop, dB", 3),
        ("lpips", "LPIPS", 4),
        ("lpips_rise", "rise", 4),
    ],
    "budgets": [
        ("budget", "budget", None),
        ("raised", "layers in float", 0),
        ("simulated_drop_db", "simulated PSNR drop, dB", 3),
        ("simulated_drop_high_db", "on others up to", 3),
        ("simulated_rise", "LPIPS rise", 4),
        ("simulated_rise_high", "on others up to", 4),
        ("psnr_drop_db", "executed PSNR drop, dB", 3),
        ("lpips_rise", "LPIPS rise", 4),
        ("estimated_ms", "estimated ms", 0),
        ("bytes", "bytes", 0),
        ("holds", "holds", None),
    ],
    "released": [
        ("recipe", "recipe", None),
        ("weights", "weights", 0),
        ("bytes", "bytes", 0),
        ("bytes_per_weight", "bytes a weight", 2),
    ],
    "baselines": [
        ("artifact", "artifact", None),
        ("bytes", "bytes", 0),
        ("psnr_db", "PSNR, dB", 2),
        ("psnr_drop_db", "drop, dB", 3),
        ("lpips", "LPIPS", 4),
        ("lpips_rise", "rise", 4),
        ("failure", "failure", None),
    ],
}


def columns_table(columns: list[tuple[str, str, int | None]], rows: list[dict], note: str) -> str:
    """One line for each row, a column for each (key, heading, digits after the point or None: text)."""

    def cell(value: object, digits: int | None) -> str:
        if isinstance(value, list):
            return ", ".join(cell(item, digits) for item in value)
        if digits is None or isinstance(value, bool):
            return {None: "", True: "yes", False: "no"}.get(value, str(value))  # type: ignore[call-overload]
        return number(value, digits)  # type: ignore[arg-type]

    lines = [
        f"| {' | '.join(heading for _, heading, _ in columns)} |",
        f"|{'|'.join('---' if digits is None else '--:' for _, _, digits in columns)}|",
    ]
    lines += [f"| {' | '.join(cell(row.get(key), digits) for key, _, digits in columns)} |" for row in rows]
    return "\n".join([*lines, "", note])


def bars_table(results: dict, trained: dict) -> str:
    """What quantization may cost at most, and what it costs in every exported file that is held to it."""
    lines = ["| what | may cost at most | costs | holds |", "|---|---|---|---|"]

    def add(what: str, row: dict, drop_db: float, rise: float) -> None:
        drop, risen = (row[key] for key in ("psnr_drop_db", "lpips_rise"))
        holds = "yes" if drop <= drop_db and risen <= rise else "no"
        most = f"{number(drop_db)} dB, {number(rise, 3)} LPIPS"
        lines.append(f"| {what} | {most} | {number(drop, 3)} dB, {number(risen, 4)} LPIPS | {holds} |")

    for row in results["files"]["rows"]:
        if row["artifact"].endswith(" w8a8"):
            add(f"{row['task']}, {row['artifact']}", row, 0.10, 0.005)
    for row in trained["rows"]:
        if row["method"] == "qat" and row["run_by"] != "simulation":
            costs = {"psnr_drop_db": row["drop_psnr_db"], "lpips_rise": row["rise_lpips"]}
            drop_db, rise = {"w8a8": (0.05, 0.003), "w4": (0.15, 0.01)}[row["recipe"]]
            add(f"bfr, {row['run_by']} {row['recipe']}, trained, seed {row['seed']}", costs, drop_db, rise)
    for row in results["budgets"]["rows"]:
        weights = ", GPTQ" if row["gptq"] else ""
        what = f"{row['task']}, executorch, searched for this budget{weights}"
        add(what, row, row["max_psnr_drop_db"], row["max_lpips_rise"])
    for row in results["released"]["rows"]:
        if row["recipe"] == "w4":
            holds = "yes" if row["bytes"] <= 16e6 else "no"
            size = number(row["bytes"] / 1e6)
            lines.append(f"| step program of the released network, w4 | 16 MB | {size} MB | {holds} |")
    return "\n".join([*lines, "", results["files"]["note"]])


def section_table(section: str, result: dict) -> str:
    """A section of quantization.json."""
    return columns_table([("task", "task", None), *SECTIONS[section]], result["rows"], result["note"])


def render(name: str) -> str:
    """The Markdown of block ``name``."""
    if name.startswith("quantization-"):
        section = name.removeprefix("quantization-")
        path = RESULTS / "quantization.json"
        results = json.loads(path.read_text()) if path.is_file() else {}
        if section == "bars":
            return bars_table(results, json.loads((RESULTS / "qat.json").read_text()))
        if section not in results:
            command = "methods" if section == "steps" else section
            return f"Not measured yet: `python -m benchmarks.quantization {command}`."
        return section_table(section, results[section])
    base = re.sub("-(programs|figures|short)$", "", name)
    path = RESULTS / f"{base}.json"
    if base in COMMANDS and not path.is_file():
        return f"Not measured yet: `{COMMANDS[base]}`."
    result = json.loads(path.read_text())
    if name.endswith("-figures"):
        drawn = figures(base, result)
        return "\n".join(f"![{FIGURES[chart]}](images/{base}-{chart}.svg)" for chart in drawn)
    if name != base:
        return short_table(result) if name.endswith("-short") else programs_table(result)
    if "kind" in result:
        return KINDS[result["kind"]](result)
    return report_table(result) if "rows" in result else quality_table(result)


# Blocks whose result may not be there yet, and the command that makes it.
COMMANDS = {
    "qat": "python -m benchmarks.qat RUN_DIR",
    "roofline": "python -m benchmarks.roofline",
    "sensitivity-bfr": "python -m quant.sensitivity --task bfr",
}


def figures(name: str, result: dict) -> dict[str, str]:
    """The SVG files that ``docs/images`` has of the result ``name``, by chart."""
    return {chart: standalone(svg) for chart, svg in charts(result).items()}


def images() -> dict[Path, str]:
    """Every figure that a document shows, by its path."""
    wanted: dict[Path, str] = {}
    for document in DOCUMENTS:
        for match in BLOCK.finditer(document.read_text()):
            if match[2].endswith("-figures"):
                base = match[2].removesuffix("-figures")
                result = json.loads((RESULTS / f"{base}.json").read_text())
                drawn = figures(base, result)
                wanted |= {IMAGES / f"{base}-{chart}.svg": svg for chart, svg in drawn.items()}
    return wanted


def outdated() -> list[str]:
    """Results whose figures come from another recipe than the built-in one of that name today."""
    today = {name: recipe_digest(recipe.to_json()) for name, recipe in RECIPES.items()}
    found = []
    for document in DOCUMENTS:
        for match in BLOCK.finditer(document.read_text()):
            path = RESULTS / f"{match[2]}.json"
            result = json.loads(path.read_text()) if path.is_file() else {}
            rows = [row for row in result.get("rows", []) if "bundle" in result and row["target"] != "eager"]
            if any(row["recipe"] != today.get(row["precision"], row["recipe"]) for row in rows):
                found.append(path.name)
    return found


def filled(text: str) -> str:
    """``text`` with every block made anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{render(m[2])}\n{m[3]}", text)


app = typer.Typer(add_completion=False)


@app.command()
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
    app()
