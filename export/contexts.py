"""Files for one Snapdragon each: ``python -m export.contexts BUNDLE OUT --precision w8a16``.

The ``onnx/qnn`` files of a bundle are compiled on the phone when an app first opens them. Here the same
compiler does it beforehand, once for each chip: OUT/CHIP/PROGRAM.onnx holds the program as one context
binary, which onnxruntime-android-qnn on a phone of that chip opens as it is
(https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html, "QNN context binary cache").
With ``--target litert`` LiteRT's plugin hands a ``.tflite`` to that compiler: in OUT/CHIP/NAME.tflite a
context binary stands in for the operators that the NPU takes, and the processor has the others
(https://ai.google.dev/edge/litert/next/npu). Which chip a binary was made for is read back from it.
``litert/qnn`` is such a file for the one chip that the emulator is asked for.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.bundle import read_bundle
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import written
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.devices.process import Apart
from elir_mobile.precision import Recipe
from elir_mobile.runtimes.onnx import open_session
from elir_mobile.runtimes.qnn import CHIPS, EMULATED, npu_options
from elir_mobile.runtimes.table import RUNTIMES
from export import litert
from export.programs import Delegation, Programs, Samples

COMPILE_LIMIT_S = 3600.0
COMPILER = "onnx/qnn"  # the runtime whose package has it
TARGETS = (COMPILER, "litert", "litert/gpu")  # whose files it compiles
_MADE_FOR = re.compile(rb"soc_type=(\w+);arch=(\d+);")  # among the compiler's options, kept in a binary


@dataclass(frozen=True)
class Compiled:
    """A file for one chip.

    Attributes:
        chip, version: of the NPU, as the context binaries say.
        delegation: context binaries of each program, and the operators that stayed outside.
        bytes: of the file.
        seconds: that compiling took.
    """

    chip: str
    version: int
    delegation: dict[str, Delegation]
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
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    contexts = kinds.count("EPContext")
    outside = tuple(kind for kind in kinds if kind != "EPContext")
    return _checked(path, chip, {source.stem: Delegation(contexts, outside)}, seconds)


def compile_tflite(source: Path, chip: str, path: Path) -> Compiled:
    """Compile a ``.tflite`` for ``chip`` and write it to ``path``.

    Raises:
        UserError: the compiler does not take the file, or a context binary is for another chip.
    """
    import onnxruntime_qnn
    from ai_edge_litert.aot.core.aot_types import Model
    from ai_edge_litert.aot.core.apply_plugin import ApplyPlugin
    from ai_edge_litert.aot.core.common import get_resource
    from ai_edge_litert.aot.vendors.qualcomm.qualcomm_backend import COMPILER_PLUGIN_LIB_PATH

    compiler = get_resource(Path("tools/apply_plugin_main"))
    if not os.access(compiler, os.X_OK):  # the wheel installs it as data
        compiler.chmod(0o755)
    libraries = Path(onnxruntime_qnn.get_qnn_htp_path()).parent
    plugin = get_resource(COMPILER_PLUGIN_LIB_PATH).parent
    start = time.monotonic()
    try:
        ApplyPlugin()(Model(source), Model(path), "Qualcomm", chip, str(libraries), libs=str(plugin))
    except ValueError as error:
        raise UserError(f"LiteRT's compiler for {chip} does not take {source}: {error}") from error
    return _checked(path, chip, litert.npu_delegation(path.read_bytes()), time.monotonic() - start)


def lower(programs: Programs, recipe: Recipe, samples: Samples, path: Path) -> dict[str, Delegation]:
    """Write what ``export.litert.lower`` does, compiled for the chip that is emulated.

    Raises:
        ValueError: as that function.
        UserError: as :func:`compile_tflite`.
    """
    RUNTIMES["litert/qnn"].load()
    with tempfile.TemporaryDirectory(dir=path.parent) as tmp:
        source = Path(tmp) / "source.tflite"
        litert.lower(programs, recipe, samples, source)
        return compile_tflite(source, EMULATED, path).delegation


def _checked(path: Path, chip: str, delegation: dict[str, Delegation], seconds: float) -> Compiled:
    """What was written to ``path``.

    Raises:
        UserError: it has a context binary for another chip than ``chip``, or one that does not say.
    """
    content = path.read_bytes()
    found = [(said[1].decode(), int(said[2])) for said in _MADE_FOR.finditer(content)]
    contexts = sum(split.delegates for split in delegation.values())
    if set(found) != {(chip, CHIPS[chip][1])} or len(found) < contexts:
        said = ", ".join(f"{name} (v{version})" for name, version in sorted(set(found))) or "no chip"
        raise UserError(f"asked for {chip}, the compiler wrote {path.name} for {said}: do not ship it")
    return Compiled(chip, CHIPS[chip][1], delegation, len(content), seconds)


@exits_with_2
def main(
    bundle: Annotated[Path, typer.Argument(help="That quant.ptq wrote, with files of the target.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, new.")],
    precision: Annotated[str, typer.Option(metavar="NAME", help="Of the file.")] = "w8a16",
    chips: Annotated[str, typer.Option(metavar="NAME,…", help=f"{', '.join(CHIPS)}.")] = ",".join(CHIPS),
    target: Annotated[str, typer.Option(metavar="NAME", help=f"{', '.join(TARGETS)}.")] = COMPILER,
) -> None:
    """Compile a bundle's file for chips, a folder for each."""
    from rich.progress import track
    from rich.table import Table

    from elir_mobile.terminal import Terminal

    asked = chips.split(",")
    if unknown := [chip for chip in asked if chip not in CHIPS]:
        raise UserError(f"unknown chip '{unknown[0]}': choose from {', '.join(CHIPS)}")
    if target not in TARGETS:
        raise UserError(f"files of '{target}' cannot be compiled: choose from {', '.join(TARGETS)}")
    if out.exists():
        raise UserError(f"{out} is there already: name a folder that is not")
    RUNTIMES[COMPILER].load()
    RUNTIMES[target].load()
    source = read_bundle(bundle).file(target, precision)
    files = [source / f"{name}.onnx" for name in PROGRAMS] if target == COMPILER else [source]
    compile_file = compile_program if target == COMPILER else compile_tflite
    table = Table(title=f"{target} {precision} of {bundle}, compiled")
    for heading in ("chip", "NPU", "program", "context binaries", "operators outside", "MB", "seconds"):
        table.add_column(heading, justify="left" if heading in ("chip", "program") else "right")
    with written(out) as staged, Apart(COMPILE_LIMIT_S) as apart:
        for chip, file in track([(c, f) for c in asked for f in files], "compiling", transient=True):
            path = staged / chip / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            made = apart(compile_file, file, chip, path)
            contexts = ", ".join(str(split.delegates) for split in made.delegation.values())
            outside = ", ".join(str(len(split.ops_outside)) for split in made.delegation.values())
            size, seconds = f"{made.bytes / 1e6:.2f}", f"{made.seconds:.1f}"
            facts = (", ".join(made.delegation), contexts, outside, size, seconds)
            table.add_row(made.chip, f"v{made.version}", *facts)
    Terminal().print(table)


if __name__ == "__main__":
    typer.run(main)
