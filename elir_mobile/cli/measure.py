"""Measure every file of a bundle: ``elir-mobile measure BUNDLE``, and ``compare`` for what changed since.

Runs the files on this machine and on any other device (``--device``), compares them with float and with
each other, and writes ``report.json``, ``report.html`` and ``strip.png``. ``--budget`` turns the figures into
pass or fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.devices.protocol import BACKENDS, SPECS
from elir_mobile.runtimes.table import canonical


@exits_with_2
def main(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Argument(metavar="BUNDLE", hidden=True)] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="WHERE",
            help=f"{SPECS}; several times.",
            autocompletion=lambda: list(BACKENDS),
        ),
    ] = None,
    targets: options.Targets = "",
    precision: options.Precisions = "",
    images: options.Images = None,
    weights: options.Weights = "demo",
    budget: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML of limits; exit code 1 if one does not hold.")
    ] = None,
    between: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="FILE FILE", help="Two report.json instead: what changed."),
    ] = None,
    out: options.Out = Path("out/harness"),
    threads: options.Threads = None,
    runs: Annotated[int | None, options.count("Timed restorations of a file.", least=2)] = None,
    warmups: Annotated[int | None, options.count("Restorations before those.", least=0)] = None,
) -> None:
    """Run every file of BUNDLE: speed, memory, parity, quality.

    --targets and --precision choose among the files; --weights are those that it was made of.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from elir_mobile.terminal import Described, Terminal

    if between is not None:
        if bundle is not None:
            raise UserError("--compare prints two reports that were written before: leave the bundle out")
        compare(*between)
        return
    if bundle is None:
        raise UserError("name the bundle folder to measure, or two reports with --compare")
    console = Terminal()
    with console.status("loading"):
        from elir_mobile.bundle import read_bundle
        from elir_mobile.devices.protocol import device
        from elir_mobile.harness.charts import label, named_devices
        from elir_mobile.harness.gate import check, read_limits, shortfall_table
        from elir_mobile.harness.measure import EAGER, measure_bundle
        from elir_mobile.harness.protocol import Protocol
        from elir_mobile.harness.report import terminal_table, write_report
        from elir_mobile.harness.roofline import furthest

        limits = read_limits(budget) if budget else []
        opened = read_bundle(bundle)
        devices = [device(spec) for spec in dict.fromkeys(on or ["host"])]
    counts = {"threads": threads, "warmups": warmups, "runs": runs}
    protocol = Protocol(**{name: count for name, count in counts.items() if count is not None})
    columns = (Described(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=None)
        report, shown = measure_bundle(
            opened,
            devices,
            protocol,
            lambda done, total, text: progress.update(task, completed=done, total=total, description=text),
            targets=tuple(map(canonical, options.names(targets))),
            precisions=options.names(precision),
            images=images,
            weights=weights if options.given(context, "weights") else None,
        )
    rows = report["rows"]
    failed = [row for row in rows if row["error"]]
    errors = [row["error"] for row in rows if row["target"] != EAGER[0]]
    if all(errors):
        raise UserError(f"no file of {opened.folder} ran: {'; '.join(dict.fromkeys(errors))}")
    folder = out / opened.folder.resolve().name
    write_report(folder, report, shown)
    console.print(terminal_table(rows))
    if (slowest := furthest(rows)) is not None:
        console.print(
            f"furthest from its roof: {label(slowest)} {slowest['program']}, "
            f"{100 * slowest['roof_share']:.0f} % of {slowest['roof_gmacs_per_s']:.1f} GMAC/s"
        )
    console.print(f"report: {folder / 'report.html'}")
    for row in failed:
        console.print(f"{label(row, named_devices(rows))} did not run: {row['error']}")
    short = check(rows, limits)
    if short:
        console.print(shortfall_table(short))
    elif limits:
        console.print(f"all {len(limits)} limits of {budget} hold")
    if short or failed:
        raise typer.Exit(1)


@exits_with_2
def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", hidden=True)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", hidden=True)],
) -> None:
    """Print what changed between two report.json.

    Both measured by one protocol; a time has changed where the intervals do not overlap.
    """
    from elir_mobile.harness.difference import difference_table, read_report
    from elir_mobile.terminal import Terminal

    Terminal().print(difference_table(read_report(before), read_report(after)))
