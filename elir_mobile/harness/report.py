"""The report of a run: ``report.json`` for machines, ``report.html`` and ``strip.png`` for people."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image, ImageDraw, ImageFont
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from elir_mobile.data.pairs import Pair
from elir_mobile.harness.compare import Parity, psnr_between, quality
from elir_mobile.images import hstack_images, to_image, vstack_images

DIFFERENCE_GAIN = 8
STRIP_ROWS = 6


def make_row(
    *,
    target: str,
    precision: str,
    size_bytes: int,
    latency: dict[str, dict[str, float]] | None,
    eager_ms: float,
    fp32_ms: float | None,
    programs: dict[str, dict[str, object]],
    trajectory: list[float | None],
    image: dict[str, float | None],
) -> dict:
    """One row of ``report.json``.

    Args:
        latency: of this artifact, as :func:`elir_mobile.harness.protocol.measure` gives it; None where
            what ran it says nothing of its speed.
        eager_ms, fp32_ms: whole-restoration medians of the float network and of the same target's
            ``fp32`` file (None if absent).
        programs: for each program ``sqnr_db``, ``delegates``, ``ops_outside``.
    """
    unknown: dict[str, float | None] = {"median": None, "p90": None}
    latencies: Mapping[str, Mapping[str, float | None]]
    latencies = latency or dict.fromkeys(("whole", *programs), unknown)
    median = latencies["whole"]["median"]
    return {
        "target": target,
        "precision": precision,
        "bytes": size_bytes,
        "latency_ms": latencies["whole"],
        "speedup_vs_eager": _ratio(eager_ms, median),
        "speedup_vs_fp32": _ratio(fp32_ms, median),
        "programs": {name: {**facts, "latency_ms": latencies[name]} for name, facts in programs.items()},
        "trajectory_sqnr_db": trajectory,
        "image": image,
    }


def _ratio(base: float | None, value: float | None) -> float | None:
    return None if base is None or value is None else base / value


def image_facts(
    parity: Parity, reference: list[Tensor], pairs: list[Pair], trained: bool
) -> dict[str, float | None]:
    """The ``image`` entry of a row; blank for untrained weights, whose pictures mean nothing."""
    if not trained:
        return dict.fromkeys(("psnr_vs_float_db", "sqnr_vs_float_db", "psnr_db", "ssim", "lpips"))
    return {
        "psnr_vs_float_db": psnr_between(parity.restored, reference),
        "sqnr_vs_float_db": parity.image.db,
        **quality(parity.restored, pairs),
    }


def write_report(
    folder: Path,
    facts: Mapping[str, object],
    rows: list[dict],
    pairs: list[Pair],
    columns: list[tuple[str, list[Tensor]]],
) -> None:
    """Write the three files into ``folder``.

    Args:
        folder: made if it does not exist.
        facts: ``model``, ``data``, ``protocol``, ``machine``.
        rows: see :func:`make_row`.
        pairs: the evaluated images.
        columns: heading and restored images; the first is the float reference, the last the one
            whose difference from it is shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = {"rows": rows, **facts}
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    strip = folder / "strip.png"
    draw_strip(pairs, columns).save(strip)
    environment = Environment(
        loader=PackageLoader("elir_mobile.harness"), autoescape=select_autoescape(), trim_blocks=True
    )
    environment.filters["number"] = number
    page = environment.get_template("report.html.j2").render(
        **report, strip=base64.b64encode(strip.read_bytes()).decode()
    )
    (folder / "report.html").write_text(page)


def draw_strip(pairs: list[Pair], columns: list[tuple[str, list[Tensor]]]) -> Image.Image:
    """Rows of degraded, each column, |difference| × 8 of last against first, ground truth."""
    heads = ["degraded", *(head for head, _ in columns), f"|difference| x {DIFFERENCE_GAIN}", "ground truth"]
    side = pairs[0].clean.shape[-1]
    zoom = max(1, 192 // side)
    rows = []
    # Spread over the set: the first images of a small set are the same portrait again.
    for index in torch.linspace(0, len(pairs) - 1, min(STRIP_ROWS, len(pairs))).round().int().tolist():
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
    heading = Image.new("RGB", (rows[0].width, 28), "white")
    draw = ImageDraw.Draw(heading)
    font = ImageFont.load_default(14)
    for index, text in enumerate(heads):
        draw.text((index * (side * zoom + 2) + 4, 6), text, fill="black", font=font)
    return vstack_images([heading, *rows], gap=2)


def number(value: float | None, digits: int = 2) -> str:
    """A figure for people; an en dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def terminal_table(rows: list[dict]) -> Table:
    """The rows as one table that fits 80 columns; the report has the rest."""
    table = Table(
        title="each artifact against the float reference",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("artifact", no_wrap=True)
    for head in ("MB", "ms", "p90", "×eager", "×fp32", "~float", "PSNR", "LPIPS"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        image, latency = row["image"], row["latency_ms"]
        digits = 0 if (latency["median"] or 0) >= 1000 else 1
        table.add_row(
            f"{row['target']} {row['precision']}",
            number(row["bytes"] / 1e6),
            number(latency["median"], digits),
            number(latency["p90"], digits),
            number(row["speedup_vs_eager"]),
            number(row["speedup_vs_fp32"]),
            number(image["psnr_vs_float_db"], 1),
            number(image["psnr_db"]),
            number(image["lpips"], 4),
        )
    table.caption = "ms: median and 90th percentile; ~float, PSNR: dB against float and against ground truth"
    return table
