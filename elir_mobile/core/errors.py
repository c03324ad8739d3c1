"""The one exception for what a user can mend, and how the commands show it."""

from __future__ import annotations

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
        import typer  # here: the worker raises UserError where typer is not installed

        try:
            return command(*args, **kwargs)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            typer.echo(f"error: {error.strerror or error}{where}", err=True)
            raise typer.Exit(2) from None

    return wrapper
