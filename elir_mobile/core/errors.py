"""The one exception for what a user can mend, and how the commands show it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Bad input or environment; the message is one sentence that says what to do."""


def exits_with_2(command: Callable[P, R]) -> Callable[P, R]:
    """Print a ``UserError`` (or a full disk) as one line on stderr and exit with code 2."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            said = str(error)
        except OSError as error:
            said = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
        print(f"error: {said}", file=sys.stderr)
        raise SystemExit(2)

    return wrapper
