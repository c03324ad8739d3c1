"""Measure every file of a bundle: ``python -m elir_mobile.harness BUNDLE``.

Runs the files on this machine and on any other device (``--device``), compares them with float and with
each other, and writes ``report.json``, ``report.html`` and ``strip.png``. ``--budget`` turns the figures into
pass or fail; ``--compare`` says what changed between two reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from elir_mobile.bundle import read_bundle
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.devices.protocol import SPECS, device
from elir_mobile.harness.charts import label, named_devices
from elir_mobile.harness.difference import difference_table, read_report
from elir_mobile.harness.gate import check, read_limits, shortfall_table
from elir_mobile.harness.measure import Settings, measure_bundle
from elir_mobile.harness.protocol import Protocol
from elir_mobile.harness.report import terminal_table, write_report
from elir_mobile.harness.roofline import furthest

app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    bundle: Annotated[Path | None, typer.Argument(help="Folder that quant.ptq wrote.")] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--device", help=f"{SPECS}; may be given several times. Default: host."),
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Only files of this target; several.")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Only files of this precision; several.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of clean images to judge quality on. Default: the bundled portraits."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="The float weights that the bundle was made from. Default: the demo's, if it was."),
    ] = None,
    budget: Annotated[
        Path | None, typer.Option(help="TOML file of limits; exit code 1 if one is not held.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two report.json, the older first: print what changed, measure nothing."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where reports are written.")] = Path("out/harness"),
    threads: Annotated[int, typer.Option(min=1, help="Threads of each runtime.")] = Protocol.threads,
    runs: Annotated[int, typer.Option(min=2, help="Timed restorations of each file.")] = Protocol.runs,
    warmups: Annotated[
        int, typer.Option(min=0, help="Restorations before those that count.")
    ] = Protocol.warmups,
) -> None:
    """Measure, compare with float, report, and gate."""
    console = Console()
    if compare is not None:
        if bundle is not None:
            raise UserError("--compare prints two reports that were written before: leave the bundle out")
        console.print(difference_table(*map(read_report, compare)))
        return
    if bundle is None:
        raise UserError("name the bundle folder to measure, or two reports with --compare")
    limits = read_limits(budget) if budget else []
    opened = read_bundle(bundle)
    devices = [device(spec) for spec in dict.fromkeys(on or ["host"])]
    settings = Settings(tuple(target or ()), tuple(precision or ()), images, weights)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=None)
        report, shown = measure_bundle(
            opened,
            devices,
            settings,
            Protocol(threads, warmups, runs),
            lambda done, total, text: progress.update(task, completed=done, total=total, description=text),
        )
    rows = report["rows"]
    folder = out / opened.folder.resolve().name
    write_report(folder, report, shown)
    console.print(terminal_table(rows))
    if (slowest := furthest(rows)) is not None:
        console.print(
            f"furthest from its roof: {label(slowest)} {slowest['program']}, "
            f"{100 * slowest['roof_share']:.0f} % of {slowest['roof_gmacs_per_s']:.1f} GMAC/s"
        )
    console.print(f"report: {folder / 'report.html'}")
    failed = [row for row in rows if row["error"]]
    for row in failed:
        console.print(f"{label(row, named_devices(rows))} did not run: {row['error']}")
    short = check(rows, limits)
    if short:
        console.print(shortfall_table(short))
    elif limits:
        console.print(f"all {len(limits)} limits of {budget} hold")
    if short or failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
