"""What people see of a command on the terminal, whoever wrote the words in it.

File names, manifests, reports and what a device answers are others' words: in rich's markup ``[litert]``
would vanish and ``[/x]`` be an error, and a terminal obeys control characters. So every command prints by
:class:`Terminal`, its bars by :class:`Described`, and single lines by :func:`elir_mobile.core.errors.say`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from elir_mobile.core.errors import printable


class Terminal(Console):
    """A console without markup and emoji codes, whose texts are printable."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # all are passed on
        return super().render_str(printable(text), **options)


class Described(TextColumn):
    """What a task of a progress display is called."""

    def __init__(self) -> None:
        super().__init__("{task.description}", markup=False)

    def render(self, task: Task) -> Text:
        return Text(printable(super().render(task).plain))


class Stages(Progress):
    """Progress on the terminal: a line for each stage, with a bar where its length is known."""

    def __init__(self, console: Console) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(SpinnerColumn(), Described(), *columns, console=console)

    @contextmanager
    def stage(self, text: str, total: int | None = None) -> Iterator[None]:
        """Show ``text`` while the block runs; :meth:`tick` and :meth:`tell` move its bar."""
        self.current = self.add_task(text, total=total)
        yield
        length = next(task.total for task in self.tasks if task.id == self.current) or 1
        self.update(self.current, total=length, completed=length)

    def tick(self) -> None:
        """One more of the stage is done."""
        self.advance(self.current)

    def tell(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` are done; ``text`` says what comes."""
        self.update(self.current, completed=done, total=total, description=text)
