"""The one exception for what a user can mend, and how the commands show it."""

from __future__ import annotations

import errno
import re
import reprlib
import sys
import unicodedata
from collections.abc import Callable
from functools import wraps
from importlib.metadata import PackageNotFoundError, requires
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, mmap
from typing import ParamSpec, TypeVar

from elir_mobile.core.processes import stoppable

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Bad input or environment; the message is one sentence that says what to do."""


_UNPRINTED = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories
_SHOWN = "\n\u200c\u200d"  # of these the end of a line, and what joins letters and emoji


def printable(text: str) -> str:
    """``text`` with what a terminal would obey, or cannot show, written out: control characters (but the end
    of a line), marks that turn the direction of writing, bytes of a file name that are no text."""
    return "".join(
        _escaped(c) if unicodedata.category(c) in _UNPRINTED and c not in _SHOWN else c for c in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def say(text: str) -> None:
    """A line on stderr for people, whatever is in it, see :func:`printable`."""
    encoding = sys.stderr.encoding or "utf-8"
    line = printable(text).replace("\n", "\\n").encode(encoding, "backslashreplace").decode(encoding)
    print(line, file=sys.stderr)


def shortened(value: object) -> str:
    """``value`` as Python writes it, in a sentence: what is long or deep is cut."""
    return reprlib.repr(value)


def exits_with_2(command: Callable[P, R]) -> Callable[P, R]:
    """Print a ``UserError``, a missing extra, a full disk or want of memory as one line on stderr and exit
    with code 2; with 130 on Ctrl-C and 143 on SIGTERM, see :func:`~elir_mobile.core.processes.stoppable`."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with stoppable():
                if "torch" not in sys.modules:
                    check_memory(COMMAND_BYTES)
                return command(*args, **kwargs)
        except UserError as error:
            said = str(error)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name in _OWN:
                raise
            extra = _extra_of(name)
            wanted = f"'elir-mobile[{extra}]'" if extra else name
            # Some packages look for another one themselves, and say so in words of their own.
            said = f"{name} is not installed: pip install {wanted}" if name else _first_line(error)
        except Exception as error:
            if wants_memory(error):
                said = NO_MEMORY
                # What libraries do as the process ends lacks memory as well, and is no news.
                sys.unraisablehook = lambda unraisable: None
            elif isinstance(error, OSError):
                said = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
            else:
                raise
        say(f"error: {said}")
        raise SystemExit(2)

    return wrapper


NO_MEMORY = "there is not enough memory: close other programs, or use a machine with more"
# Of PyTorch's allocator, the system, its loader and threads, C++ and oneDNN: they have no error of their own.
_NO_MEMORY = (
    "can't allocate memory", "annot allocate memory", "failed to map segment", "can't start new thread",
    "bad_alloc", "bad allocation", "out of memory", "could not create a primitive",
)  # fmt: skip


def wants_memory(error: BaseException) -> bool:
    """Whether an exception is for want of memory: a ``MemoryError``, the system's ``ENOMEM``, or what a
    library raises in their place."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)


# Of addresses, not of memory that is written to. The smallest restoration takes 0.8 GB with PyTorch; with
# less, PyTorch, the loader and OpenBLAS end the process in words of their own, each at other sizes.
COMMAND_BYTES = 1 << 30
# What SciPy's OpenBLAS takes as it is loaded, and what is imported before it, with room to spare.
BLAS_BYTES = 256 << 20


def check_memory(size: int) -> None:
    """Ask for ``size`` bytes of addresses and give them back.

    Every command does so for ``COMMAND_BYTES`` as it begins, before PyTorch is imported. Call it with
    ``BLAS_BYTES`` before SciPy is imported, or what imports it, which torchmetrics and so Lightning does: the
    OpenBLAS in it asks for memory as it is loaded, and goes on asking for ever where there is none.

    Raises:
        OSError: of ``ENOMEM``: there is less.
    """
    # Read-only and private: addresses alone, which a small machine has even where its memory is less.
    mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS, prot=PROT_READ).close()


_OWN = ("elir_mobile", "export", "quant")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _extra_of(module: str) -> str | None:
    """The pip extra of this package that installs ``module``; None: no extra does."""
    wanted = module.replace("_", "-")
    try:
        lines = requires("elir-mobile") or []
    except PackageNotFoundError:
        return None
    for line in lines:
        found = re.match(r"(?!elir-mobile)([\w-]+).*extra == [\"']([\w-]+)", line)
        if found and found[1].lower() == wanted:
            return found[2]
    return None
