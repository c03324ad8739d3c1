"""Others' words reach the terminal as they are, and the terminal obeys none of them."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table

from elir_mobile.core.errors import UserError, exits_with_2, printable, say
from elir_mobile.terminal import Described, Terminal

HOSTILE = "\x1b[31m[litert] [/x] :smile: \x9b2J \u202egpj.exe \udcff"
SHOWN = r"\x1b[31m[litert] [/x] :smile: \x9b2J \u202egpj.exe \udcff"


def console() -> Terminal:
    return Terminal(file=io.StringIO(), width=200, force_terminal=True, color_system=None)


def test_markup_and_escape_sequences_are_shown() -> None:
    made = console()
    made.print(f"name {HOSTILE}")
    table = Table("column", title=f"of {HOSTILE}", caption=HOSTILE)
    table.add_row(HOSTILE)
    made.print(table)
    shown = made.file.getvalue()
    assert shown.count(SHOWN) == 4
    assert "\x9b" not in shown and "\u202e" not in shown


def test_bars_are_called_what_they_are_called() -> None:
    made = console()
    with Progress(Described(), console=made) as progress:
        progress.add_task(HOSTILE)
    assert SHOWN in made.file.getvalue()


def test_a_line_is_one_line_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, letter in (("utf-8", "é"), ("ascii", r"\xe9")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stderr", stream)
        say(f"a\nb é {HOSTILE}")
        stream.flush()
        assert stream.buffer.getvalue().decode(encoding) == f"a\\nb {letter} {SHOWN}\n"


def test_errors_are_printed_that_way(capsys) -> None:
    @exits_with_2
    def main() -> None:
        raise UserError(f"{HOSTILE} is not an image")

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {SHOWN} is not an image\n"


@given(st.text())
def test_what_is_printable_stays_and_what_is_printed_is_printable(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
    shown.encode()  # no half of a surrogate pair


def test_words_of_other_languages_stay() -> None:
    for text in ("фото é 日本語 سلام", "می‌خواهم", "👩‍🚀.jpg", "Screenshot 3.15\u202fPM.png", "a\u00a0b"):
        assert printable(text) == text
