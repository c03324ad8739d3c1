"""What people see of a command on the terminal, whoever wrote the words in it.

File names, manifests, reports and what a device answers are others' words: in rich's markup ``[litert]``
would vanish and ``[/x]`` be an error, and a terminal obeys control characters. So every command prints by
:class:`Terminal`, its bars by :class:`Described`, and single lines by :func:`elir_mobile.core.errors.say`.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import Task, TextColumn
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
