"""The report's charts as SVG: quality against latency, latency with its spread, error along the trajectory.

Colours are CSS variables of the page (``--c0`` … for series, ``--ink``, ``--muted``, ``--rule``), so that
dark mode is the page's business; :func:`standalone` makes a file of its own with the same colours. Widths
are in a view box, so that a chart is as wide as its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from elir_mobile.runtimes.table import NOBODY

WIDTH, HEIGHT = 540, 350  # readable when a phone shrinks it to two thirds
LEFT, RIGHT, TOP, BOTTOM = 88, 12, 14, 46
# Okabe and Ito (2008): eight colours that the colour-blind can tell apart, darker and lighter variants.
LIGHT = ("#0072b2", "#d55e00", "#007a5a", "#a3528a", "#8a6d00", "#4a4a4a")
DARK = ("#56b4e9", "#ff9b4d", "#3fd0a0", "#e39ac9", "#f0e442", "#cfcfcf")


def number(value: float | None, digits: int = 2) -> str:
    """A figure for people; an en dash where there is none."""
    # Adding zero makes a rounded -0.0 a plain one.
    return "–" if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"


def label(row: dict, with_device: bool = False) -> str:
    """How a row is called: target and precision, and the device where there are several."""
    name = f"{row['target']} {row['precision']}"
    return f"{name} @ {row['device']}" if with_device and executed(row) else name


def value_at(row: dict, path: str, missing: object = None) -> Any:
    """The value at a dotted path in a row; ``missing`` where there is none."""
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return missing
        value = value[part]
    return value


def executed(row: dict) -> bool:
    """Whether a device ran the file of a row."""
    return bool(row["device"] != NOBODY)


def named_devices(rows: list[dict]) -> bool:
    """Whether rows must say their device: unless all that ran did so on this machine."""
    return any(row["device"] not in ("host", NOBODY) for row in rows)


def colours(names: tuple[str, ...]) -> str:
    """CSS variables of the series' colours."""
    return "".join(f"--c{i}:{name};" for i, name in enumerate(names))


def style(root: str) -> str:
    """CSS of the charts, light and dark; ``root`` selects what carries the variables."""
    light = f"{colours(LIGHT)}--ink:#1b1f24;--muted:#5b6570;--rule:#d5dbe1;--ground:#fff;"
    dark = f"{colours(DARK)}--ink:#e7ebef;--muted:#9aa5b1;--rule:#39424c;--ground:#14181d;"
    return (
        f"{root}{{{light}}}@media(prefers-color-scheme:dark){{{root}{{{dark}}}}}"
        ".chart text{font:14px system-ui,sans-serif;fill:var(--ink)}.chart .muted{fill:var(--muted)}"
        ".chart .rule{stroke:var(--rule);stroke-width:1}.chart .axis{stroke:var(--muted);stroke-width:1}"
    )


def standalone(svg: str) -> str:
    """A chart as a file: namespace, colours and a ground of its own."""
    head, _, body = svg.partition(">")
    ground = f'<rect width="100%" height="100%" fill="var(--ground)"/><style>{style("svg")}</style>'
    return f'{head} xmlns="http://www.w3.org/2000/svg">{ground}{body}\n'


def charts(report: dict) -> dict[str, str]:
    """SVG of each chart that the report has figures for, by name."""
    rows = [row for row in report["rows"] if executed(row)]
    drawn = {
        "pareto": pareto(rows),
        "steps": steps_lines(report["steps"]),
        "latency": latency_bars(rows),
        "trajectory": trajectory(rows),
    }
    return {name: svg for name, svg in drawn.items() if svg}


def series(rows: list[dict]) -> dict[str, str]:
    """A colour for each target, in the order of the rows."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    return {target: f"var(--c{index % len(LIGHT)})" for index, target in enumerate(targets)}


@dataclass(frozen=True)
class _Axis:
    """Values onto pixels, with round ticks."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: list[float], start: float, end: float, *, zero: bool = False) -> _Axis:
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(0.0 if zero else low - margin, high + margin, start, end)

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 7) -> list[float]:
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
        first = math.ceil(self.low / step)
        return [k * step for k in range(first, math.floor(self.high / step) + 1)]


def _svg(height: float, title: str, body: list[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    classed = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{classed}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "", stroke: str = "") -> str:
    """``kind`` is a class of the style sheet, ``stroke`` further attributes."""
    classed = f'class="{kind}"' if kind else stroke
    return f'<line {classed} x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _curve(places: list[tuple[float, float]], attributes: str) -> str:
    """A line through ``places``."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" fill="none" {attributes}/>'


def _plain(value: float) -> str:
    return f"{value:,.6g}"


def _frame(
    x: _Axis,
    y: _Axis,
    x_title: str,
    y_title: str,
    height: float,
    right: float = 0,
    ticks: Iterable[float] | None = None,
) -> list[str]:
    """Axes, rules and titles; ``right`` is kept free for labels beside the plot."""
    edge = WIDTH - RIGHT - right
    body = []
    for tick in y.ticks():
        body.append(_line(LEFT, y.at(tick), edge, y.at(tick), "rule"))
        body.append(_text(LEFT - 8, y.at(tick) + 4, _plain(tick), anchor="end", kind="muted"))
    for tick in x.ticks(5) if ticks is None else ticks:
        body.append(_line(x.at(tick), height - BOTTOM, x.at(tick), height - BOTTOM + 5, "axis"))
        body.append(_text(x.at(tick), height - BOTTOM + 20, _plain(tick), anchor="middle", kind="muted"))
    body.append(_line(LEFT, height - BOTTOM, edge, height - BOTTOM, "axis"))
    body.append(_text((LEFT + edge) / 2, height - 8, x_title, anchor="middle"))
    middle = (TOP + height - BOTTOM) / 2
    turned = f'transform="translate(16 {middle:.1f}) rotate(-90)"'
    body.append(f'<text {turned} text-anchor="middle">{escape(y_title)}</text>')
    return body


@dataclass(frozen=True)
class _Label:
    """A name beside its mark, in the colour of its series."""

    x: float
    y: float
    text: str
    ink: str

    def meets(self, other: _Label) -> bool:
        """Whether the two would lie on one another at the same height."""
        return abs(self.x - other.x) < 7.6 * max(len(self.text), len(other.text))


def _apart(wanted: list[_Label], low: float, high: float, gap: float = 15) -> list[str]:
    """The labels as text, moved apart vertically: down where they would meet, and up again from ``high``."""
    placed: list[_Label] = []
    for label_ in sorted(wanted, key=lambda item: item.y):
        above = [other.y + gap for other in placed if label_.meets(other)]
        placed.append(replace(label_, y=max([label_.y, low, *above])))
    raised: list[_Label] = []
    for label_ in reversed(placed):
        below = [other.y - gap for other in raised if label_.meets(other)]
        raised.append(replace(label_, y=min([label_.y, high, *below])))
    return [
        f'<text x="{item.x:.1f}" y="{item.y:.1f}" style="fill:{item.ink}">{escape(item.text)}</text>'
        for item in raised
    ]


def pareto(rows: list[dict]) -> str:
    """LPIPS (PSNR where LPIPS was not measured) against the median latency; a bubble's area is the file's
    size. Artifacts that none beats in both are joined. Empty if fewer than two rows have both figures."""
    metric, better, title = "lpips", min, "LPIPS (lower is better)"
    if not any(row["image"]["lpips"] is not None for row in rows):
        metric, better, title = "psnr_db", max, "PSNR, dB (higher is better)"
    known = [
        row for row in rows if row["image"][metric] is not None and row["latency_ms"]["median"] is not None
    ]
    if len(known) < 2:
        return ""
    colour = series(rows)
    several = len({row["device"] for row in rows}) > 1
    x = _Axis.over([row["latency_ms"]["median"] for row in known], LEFT, WIDTH - RIGHT - 150, zero=True)
    y = _Axis.over([row["image"][metric] for row in known], HEIGHT - BOTTOM, TOP)
    body = _frame(x, y, "median milliseconds of one restoration", title, HEIGHT)
    front, best = [], None
    for row in sorted(known, key=lambda r: r["latency_ms"]["median"]):
        value = row["image"][metric]
        if best is None or better(value, best) != best:
            best = value
            front.append((x.at(row["latency_ms"]["median"]), y.at(value)))
    body.append(_curve(front, 'stroke="var(--muted)" stroke-dasharray="4 4"'))
    largest = max(row["bytes"] for row in known)
    labels = []
    for row in sorted(known, key=lambda r: -r["bytes"]):
        radius = 4 + 18 * math.sqrt(row["bytes"] / largest)
        px, py = x.at(row["latency_ms"]["median"]), y.at(row["image"][metric])
        figures = f"{row['latency_ms']['median']:.1f} ms, {row['image'][metric]:.4g}"
        note = f"{label(row, several)}: {figures}, {row['bytes'] / 1e6:.2f} MB"
        body.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}" fill="{colour[row["target"]]}" '
            f'fill-opacity=".35" stroke="{colour[row["target"]]}"><title>{escape(note)}</title></circle>'
        )
        labels.append(_Label(px + radius + 4, py + 4, label(row, several), colour[row["target"]]))
    body += _apart(labels, TOP + 8, HEIGHT - BOTTOM - 6)
    return _svg(HEIGHT, "Quality against latency; the area of a bubble is the file's size", body)


def latency_bars(rows: list[dict]) -> str:
    """Median latency of each artifact as a bar, with the 95 % interval of the median as a thick line and the
    90th percentile as a tick. Empty if nothing was timed."""
    timed = [row for row in rows if row["latency_ms"]["median"] is not None]
    if not timed:
        return ""
    several = len({row["device"] for row in rows}) > 1
    names = [label(row, several) for row in timed]
    left = 14 + 7.6 * max(map(len, names))
    step = 30
    height = TOP + step * len(timed) + BOTTOM
    highest = [max(row["latency_ms"]["p90"], row["latency_ms"]["high"] or 0) for row in timed]
    x = _Axis.over([0.0, *highest], left, WIDTH - RIGHT - 48, zero=True)
    colour = series(rows)
    body = []
    for tick in x.ticks(5):
        body.append(_line(x.at(tick), TOP, x.at(tick), height - BOTTOM, "rule"))
        body.append(_text(x.at(tick), height - BOTTOM + 18, _plain(tick), anchor="middle", kind="muted"))
    body.append(
        _text((left + WIDTH - RIGHT) / 2, height - 8, "milliseconds of one restoration", anchor="middle")
    )
    for index, (row, name) in enumerate(zip(timed, names, strict=True)):
        facts, top = row["latency_ms"], TOP + step * index
        middle = top + step / 2
        ink = colour[row["target"]]
        body.append(_text(left - 8, middle + 4, name, anchor="end"))
        place = (
            f'x="{left:.1f}" y="{top + 5}" width="{x.at(facts["median"]) - left:.1f}" height="{step - 10}"'
        )
        body.append(f'<rect {place} fill="{ink}" fill-opacity=".45"/>')
        if facts["low"] is not None:
            ends = x.at(facts["low"]), middle, x.at(facts["high"]), middle
            body.append(_line(*ends, stroke='stroke="var(--ink)" stroke-width="4"'))
        p90 = x.at(facts["p90"])
        body.append(_line(p90, top + 6, p90, top + step - 6, stroke=f'stroke="{ink}" stroke-width="2"'))
        end = max(p90, x.at(facts["high"] or 0))
        body.append(_text(end + 8, middle + 4, number(facts["median"], 1), kind="muted"))
    return _svg(height, "Latency: bar median, thick line its 95 % interval, tick 90th percentile", body)


def steps_lines(lines: list[dict]) -> str:
    """What a step is worth: LPIPS (PSNR where LPIPS was not measured) of the float network for each K, over
    the milliseconds that each artifact needs for it. Empty with a single K, or if nothing was timed."""
    names = sorted({name for line in lines for name in line["milliseconds"]})
    if len(lines) < 2 or not names:
        return ""
    known = all(line["lpips"] is not None for line in lines)
    metric, title = ("lpips", "LPIPS in float") if known else ("psnr_db", "PSNR in float, dB")
    ends = [line["milliseconds"][name] for line in lines for name in names]
    x = _Axis.over(ends, LEFT, WIDTH - RIGHT - 150, zero=True)
    y = _Axis.over([line[metric] for line in lines], HEIGHT - BOTTOM, TOP)
    body = _frame(x, y, "milliseconds of one restoration with K steps", title, HEIGHT, right=150)
    labels = []
    for index, name in enumerate(names):
        ink = f"var(--c{index % len(LIGHT)})"
        places = [(x.at(line["milliseconds"][name]), y.at(line[metric])) for line in lines]
        body.append(_curve(places, f'stroke="{ink}" stroke-width="1.5"'))
        for line, (px, py) in zip(lines, places, strict=True):
            note = f"{name}, K = {line['steps']}: {line['milliseconds'][name]:.1f} ms, {line[metric]:.4g}"
            mark = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{ink}">'
            body.append(f"{mark}<title>{escape(note)}</title></circle>")
        labels.append(_Label(places[-1][0] + 8, places[-1][1] + 4, name, ink))
    body += [_text(LEFT + 4, y.at(line[metric]) - 4, f"K = {line['steps']}", kind="muted") for line in lines]
    body += _apart(labels, TOP + 8, HEIGHT - BOTTOM)
    return _svg(HEIGHT, "What a step is worth: quality in float against the time of K steps", body)


def trajectory(rows: list[dict]) -> str:
    """SQNR of the latent after each Euler step, a line an artifact. Empty if none was measured."""
    known = [row for row in rows if len([v for v in row["trajectory_sqnr_db"] if v is not None]) > 0]
    if not known:
        return ""
    several = len({row["device"] for row in rows}) > 1
    values = [v for row in known for v in row["trajectory_sqnr_db"] if v is not None]
    steps = max(len(row["trajectory_sqnr_db"]) for row in known)
    height = HEIGHT + 40
    x = _Axis(1, max(steps, 2), LEFT + 10, WIDTH - RIGHT - 130)
    y = _Axis.over(values, height - BOTTOM, TOP)
    body = _frame(x, y, "Euler step", "SQNR against float, dB", height, right=130, ticks=range(1, steps + 1))
    colour = series(rows)
    labels = []
    for row in known:
        places = [(x.at(k + 1), y.at(v)) for k, v in enumerate(row["trajectory_sqnr_db"]) if v is not None]
        ink = colour[row["target"]]
        body.append(_curve(places, f'stroke="{ink}" stroke-width="2"'))
        body += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{ink}"/>' for px, py in places]
        labels.append(_Label(places[-1][0] + 8, places[-1][1] + 4, label(row, several), ink))
    body += _apart(labels, TOP + 8, height - BOTTOM)
    return _svg(height, "Error along the trajectory: SQNR of the latent after each Euler step", body)
