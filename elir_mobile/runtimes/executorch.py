"""Run a ``.pte`` with ExecuTorch's own Python runtime."""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np

from elir_mobile.core.errors import UserError
from elir_mobile.runtimes.programs import Program

NOT_FOUND = "0x:20"  # Error::NotFound of a backend, executorch/runtime/core/error.h


def leave_exporter_out() -> None:
    """Import of ExecuTorch what runs files and nothing else, for good: that takes 6 ms instead of 3 s.

    The runtime needs one small module of the package ``executorch.exir``, whose own ``__init__`` imports the
    whole exporter. For processes that only run files.
    """
    found = find_spec("executorch")
    if found is not None and found.submodule_search_locations:
        package = ModuleType("executorch.exir")
        package.__path__ = [str(Path(folder) / "exir") for folder in found.submodule_search_locations]
        sys.modules[package.__name__] = package


def open_programs(path: Path, threads: int, names: tuple[str, ...]) -> dict[str, Program]:
    """Load the methods ``names`` of ``path``.

    Args:
        path: the ``.pte`` file.
        threads: of the runtime's pool, which all programs of this process share, and of PyTorch, which
            copies the outputs.

    Raises:
        UserError: the file cannot be loaded, or was written for a delegate that is not here.
    """
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime, Verification

    torch.set_num_threads(threads)
    # Older releases (1.1 on arm64) cannot be asked; their pool has a thread for each core.
    count = getattr(portable_lib, "_threadpool_get_thread_count", None)
    if count is not None and count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)  # unsafe while a program runs: none does yet
    try:
        program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
        methods = {name: program.load_method(name) for name in names}
    except RuntimeError as error:
        if NOT_FOUND in str(error):
            raise UserError(
                f"ExecuTorch on this machine lacks the delegate of {path}: run it on a device that has it"
            ) from error
        raise UserError(f"{path} is damaged or not an ExecuTorch program: export it again") from error
    missing = [name for name, method in methods.items() if method is None]
    if missing:
        raise UserError(f"{path} has no method '{missing[0]}': export it again")

    def run(name: str, *inputs: np.ndarray) -> np.ndarray:
        tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs]
        # The runtime hands out views of memory that the next call overwrites.
        out: np.ndarray = methods[name].execute(tensors)[0].clone().numpy()
        return out

    return {name: partial(run, name) for name in names}
