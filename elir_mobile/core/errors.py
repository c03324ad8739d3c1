"""The one exception for what a user can mend, and how the commands show it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import wraps
from importlib.metadata import PackageNotFoundError, requires
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Bad input or environment; the message is one sentence that says what to do."""


def exits_with_2(command: Callable[P, R]) -> Callable[P, R]:
    """Print a ``UserError``, a missing extra or a full disk as one line on stderr and exit with code 2."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            said = str(error)
        except ModuleNotFoundError as error:
            if (extra := _extra_of(error.name or "")) is None:
                raise
            said = f"{error.name} is not installed: pip install 'elir-mobile[{extra}]'"
        except OSError as error:
            said = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
        print(f"error: {said}", file=sys.stderr)
        raise SystemExit(2)

    return wrapper


def _extra_of(module: str) -> str | None:
    """The pip extra of this package that installs ``module``; None: no extra does."""
    wanted = module.partition(".")[0].replace("_", "-")
    try:
        lines = requires("elir-mobile") or []
    except PackageNotFoundError:
        return None
    for line in lines:
        found = re.match(r"(?!elir-mobile)([\w-]+).*extra == [\"']([\w-]+)", line)
        if found and found[1].lower() == wanted:
            return found[2]
    return None
