"""The console command: ``elir-mobile quantize --task bfr``, ``elir-mobile restore IN OUT --task bfr``, …

Each command is a module of this folder: its options, and the call of what does the work, which is imported
only then. ``python -m quant.ptq`` and the other modules that have a command run the same function. Exit
codes: 0, done; 1, done, but a limit does not hold or a file did not run; 2, not done, or no file
ran, and the last line says what to do; 130 and 143, stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from elir_mobile.cli import (
    distill,
    evaluate,
    export,
    lint,
    measure,
    push,
    qat,
    quantize,
    restore,
    sensitivity,
    train,
)
from elir_mobile.cli.options import command_app

COMMANDS: dict[str, Callable[..., None]] = {
    "quantize": quantize.main,
    "search": quantize.main,
    "sensitivity": sensitivity.main,
    "qat": qat.main,
    "export": export.main,
    "lint": lint.main,
    "measure": measure.main,
    "compare": measure.compare,
    "restore": restore.main,
    "evaluate": evaluate.main,
    "train": train.main,
    "distill": distill.main,
    "push": push.main,
}

app = command_app(completion=True, no_args_is_help=True)
for name, command in COMMANDS.items():
    app.command(name, help=quantize.SEARCH if name == "search" else None)(command)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"elir-mobile {version('elir-mobile')}")
        raise typer.Exit


@app.callback(help="")  # a sentence of its own would push the commands off a screen of 24 lines
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    """Generative image restoration on phones: quantize, export, run, measure."""
