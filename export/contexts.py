"""Files for one Snapdragon each: ``python -m export.contexts BUNDLE OUT --precision w8a16``.

The ``onnx/qnn`` files of a bundle are compiled on the phone when an app first opens them. Here the same
compiler does it beforehand, once for each chip: OUT/CHIP/PROGRAM.onnx holds the program as one context
binary, which onnxruntime-android-qnn on a phone of that chip opens as it is
(https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html, "QNN context binary cache").
Which chip a binary was made for is read back from it. Nothing here runs them: the emulator opens the QDQ
files.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from elir_mobile.bundle import read_bundle
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import written
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.devices.process import ArtifactError, apart
from elir_mobile.runtimes.onnx import open_session
from elir_mobile.runtimes.qnn import CHIPS, npu_options
from elir_mobile.runtimes.table import RUNTIMES

TARGET = "onnx/qnn"
COMPILE_LIMIT_S = 3600.0
_MADE_FOR = re.compile(rb"soc_type=(\w+);arch=(\d+);")  # among the compiler's options, kept in the binary


@dataclass(frozen=True)
class Compiled:
    """A program for one chip.

    Attributes:
        chip, version: of the NPU, as the binary says.
        partitions: context binaries.
        outside: operators that stayed outside.
        bytes: of the file.
        seconds: that compiling took.
    """

    chip: str
    version: int
    partitions: int
    outside: tuple[str, ...]
    bytes: int
    seconds: float


def compile_program(source: Path, chip: str, path: Path) -> Compiled:
    """Compile one QDQ file for ``chip`` and write the context binary to ``path``.

    Raises:
        UserError: as :func:`open_session`, or the binary is for another chip.
    """
    import onnx

    options = npu_options(chip, 1)
    for key, value in (("enable", "1"), ("embed_mode", "1"), ("file_path", str(path))):
        options.add_session_config_entry(f"ep.context_{key}", value)
    start = time.monotonic()
    open_session(source, options)
    seconds = time.monotonic() - start
    nodes = onnx.load(path).graph.node
    contexts = [node for node in nodes if node.op_type == "EPContext"]
    outside = tuple(node.op_type for node in nodes if node not in contexts)
    found = {_made_for(node) for node in contexts}
    if found != {(chip, CHIPS[chip][1])}:
        raise UserError(
            f"asked for {chip}, the compiler wrote {path.name} for {sorted(found)}: do not ship it"
        )
    return Compiled(chip, CHIPS[chip][1], len(contexts), outside, path.stat().st_size, seconds)


def _made_for(node: Any) -> tuple[str, int]:
    """Chip and version of its NPU, as a context binary says."""
    (binary,) = (attribute.s for attribute in node.attribute if attribute.name == "ep_cache_context")
    said = _MADE_FOR.search(binary)
    return (said[1].decode(), int(said[2])) if said else ("an unnamed chip", 0)


@exits_with_2
def main(
    bundle: Annotated[Path, typer.Argument(help="That quant.ptq wrote, with onnx/qnn files.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, new.")],
    precision: Annotated[str, typer.Option(metavar="NAME", help="Of the file.")] = "w8a16",
    chips: Annotated[str, typer.Option(metavar="NAME,…", help=f"{', '.join(CHIPS)}.")] = ",".join(CHIPS),
) -> None:
    """Compile a bundle's onnx/qnn file for chips, a folder for each."""
    from rich.progress import track
    from rich.table import Table

    from elir_mobile.terminal import Terminal

    asked = chips.split(",")
    if unknown := [chip for chip in asked if chip not in CHIPS]:
        raise UserError(f"unknown chip '{unknown[0]}': choose from {', '.join(CHIPS)}")
    if out.exists():
        raise UserError(f"{out} is there already: name a folder that is not")
    RUNTIMES[TARGET].load()
    source = read_bundle(bundle).file(TARGET, precision)
    table = Table(title=f"{precision} of {bundle}, compiled")
    for heading in ("chip", "NPU", "program", "context binaries", "operators outside", "MB", "seconds"):
        table.add_column(heading, justify="left" if heading in ("chip", "program") else "right")
    with written(out) as staged:
        for chip, program in track([(c, p) for c in asked for p in PROGRAMS], "compiling", transient=True):
            path = staged / chip / f"{program}.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = source / f"{program}.onnx"
            try:
                made = apart(compile_program, file, chip, path, limit_s=COMPILE_LIMIT_S)
            except ArtifactError as error:
                raise UserError(f"{file} cannot be compiled for {chip}: {error}") from error
            facts = (made.partitions, len(made.outside), f"{made.bytes / 1e6:.2f}", f"{made.seconds:.1f}")
            table.add_row(made.chip, f"v{made.version}", program, *map(str, facts))
    Terminal().print(table)


if __name__ == "__main__":
    typer.run(main)
