"""The report of a run: ``report.json`` for machines, ``report.html`` and ``strip.png`` for people.

The page is one file that asks nobody for anything: charts are inline SVG (``charts.py``), pictures and the
JSON are data in it.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from elir_mobile.core.files import write_json, write_text, written
from elir_mobile.data.pairs import Pair
from elir_mobile.harness.charts import charts, executed, label, named_devices, number, style
from elir_mobile.harness.compare import (
    few_sources,
)
from elir_mobile.harness.roofline import COMMAND, furthest
from elir_mobile.images import caption, hstack_images, to_image, vstack_images

DIFFERENCE_GAIN = 8
STRIP_ROWS = 6


@dataclass(frozen=True)
class Shown:
    """Pictures for people: the evaluated pairs, and what each column's artifact made of them, the float
    reference first; (1, 3, H, W) in [0, 1] each."""

    pairs: list[Pair]
    columns: list[tuple[str, list[Tensor]]]


def write_report(folder: Path, report: dict, shown: Shown | None) -> None:
    """Write ``report.json``, ``report.html`` and, with pictures, ``strip.png`` into ``folder``.

    Args:
        folder: made if it does not exist.
        report: what :meth:`elir_mobile.harness.measure.Ran.report` says.
        shown: the pictures; the difference of the last column from the first is shown too.
    """
    if shown:
        with written(folder / "strip.png") as staged:
            draw_strip(shown.pairs, shown.columns).save(staged)
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", page(report, shown))


def page(report: dict, shown: Shown | None) -> str:
    """The report as one HTML page that needs nothing else: pictures, charts and the JSON are inside it."""
    environment = Environment(
        loader=PackageLoader("elir_mobile.harness"),
        autoescape=select_autoescape(("html", "j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "label": label, "ops": ops_text, "megabytes": megabytes}
    environment.tests["executed"] = executed
    blob = base64.b64encode(json.dumps(report, indent=2).encode()).decode()
    return environment.get_template("report.html.j2").render(
        report=report,
        several_devices=named_devices(report["rows"]),
        charts={**charts(report), "style": style(":root")},
        furthest=furthest(report["rows"]),
        few=few_sources(report["data"]["sources"]),
        roofline_command=COMMAND,
        pictures=_pictures(shown) if shown else None,
        json_blob=blob,
    )


def _pictures(shown: Shown) -> dict:
    """The evaluated pictures as PNG data, spread over the set: degraded, ground truth, each column."""
    strips = []
    for index in _spread_over(shown.pairs):
        pair = shown.pairs[index]
        restored = [(name, _png(images[index])) for name, images in shown.columns]
        strips.append(
            {
                "name": pair.name,
                "degraded": _png(pair.degraded),
                "clean": _png(pair.clean),
                "restored": restored,
            }
        )
    return {"side": shown.pairs[0].clean.shape[-1], "strips": strips}


def _png(image: Tensor) -> str:
    buffer = io.BytesIO()
    to_image(image[0]).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _spread_over(pairs: list[Pair]) -> list[int]:
    """Some indices spread over the set: the first images of a small set are the same portrait again."""
    return torch.linspace(0, len(pairs) - 1, min(STRIP_ROWS, len(pairs))).round().int().tolist()


def megabytes(size: int | None) -> str:
    """A size in bytes for people, in 10^6 bytes."""
    return number(None if size is None else size / 1e6, 0)


def ops_text(ops: list[str] | dict[str, int] | None) -> str:
    """Operators for people, equal ones counted."""
    if ops is None:
        return "–"
    return ", ".join(f"{name} × {n}" if n > 1 else name for name, n in Counter(ops).items()) or "none"


def draw_strip(pairs: list[Pair], columns: list[tuple[str, list[Tensor]]]) -> Image.Image:
    """Rows of degraded, each column, |difference| × 8 of last against first, ground truth."""
    heads = ["degraded", *(head for head, _ in columns), f"|difference| x {DIFFERENCE_GAIN}", "ground truth"]
    side = pairs[0].clean.shape[-1]
    zoom = max(1, 192 // side)
    rows = []
    for index in _spread_over(pairs):
        first, last = columns[0][1][index], columns[-1][1][index]
        tensors = [
            pairs[index].degraded,
            *(images[index] for _, images in columns),
            (last - first).abs() * DIFFERENCE_GAIN,
            pairs[index].clean,
        ]
        pictures = [to_image(tensor[0]) for tensor in tensors]
        rows.append(
            hstack_images([p.resize((side * zoom, side * zoom), Image.Resampling.NEAREST) for p in pictures])
        )
    return vstack_images([caption(heads, side * zoom), *rows])


def terminal_table(rows: list[dict]) -> Table:
    """The rows as one table that fits 80 columns; the report has the rest."""
    table = Table(
        title="each artifact against the float reference",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("artifact", no_wrap=True)
    for head in ("MB", "ms", "×eager", "×fp32", "~float", "~flow", "PSNR", "LPIPS"):
        table.add_column(head, justify="right", no_wrap=True)
    several = named_devices(rows)
    for row in rows:
        image, latency = row["image"], row["latency_ms"]
        digits = 0 if (latency["median"] or 0) >= 1000 else 1
        table.add_row(
            label(row, several),
            number(row["bytes"] / 1e6),
            number(latency["median"], digits),
            number(row["speedup_vs_eager"]),
            number(row["speedup_vs_fp32"]),
            number(image["psnr_vs_float_db"], 1),
            number(row["update_sqnr_db"], 1),
            number(image["psnr_db"]),
            number(image["lpips"], 4),
        )
    few = {few_sources(row["sources"]) for row in rows} - {""}
    left = [f"{label(row)}: {row['against']['run']}" for row in rows if not executed(row)]
    table.caption = "\n".join(
        [
            "ms: median; ~float: PSNR against float, ~flow: SQNR of z_K - z_0, in dB",
            "PSNR and LPIPS: against ground truth",
            *(f"{who}: {', '.join(files)}" for who, files in executors(rows).items()),
            *few,
            *left,
        ]
    )
    return table


def executors(rows: list[dict]) -> dict[str, list[str]]:
    """Who executed which files; where all of a target have the same one, they are called by it alone."""
    several = named_devices(rows)
    who: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        who.setdefault((row["target"], row["device"]), set()).add(row["executed_by"])
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        alone = len(who[row["target"], row["device"]]) == 1
        name = row["target"] if alone else label(row)
        placed = f"{name} @ {row['device']}" if several and executed(row) else name
        found.setdefault(row["executed_by"], {})[placed] = None
    return {executor: list(files) for executor, files in found.items()}


def recommendation_table(recommended: list[dict]) -> Table:
    """Which file each class of device is advised to run; the report has the reasons."""
    table = Table("device", "file", title="which file for which device", box=SIMPLE_HEAD, pad_edge=False)
    for line in recommended:
        table.add_row(line["title"], line["path"])
    return table
