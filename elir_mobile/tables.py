"""TOML that a user writes, read into pydantic models: each failure is one sentence that names the place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import read_bytes

TOML_BYTES = 1 << 20  # of the largest file that is read

Model = TypeVar("Model", bound=BaseModel)

MOST_LEVELS = 8  # of tables and lists in a file: a [[rule]] is three deep
# Whatever dots may stand in without being of a key: texts and comments.
_TEXT = re.compile(r'''"""(?:\\.|[^\\])*?"""|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*''', re.DOTALL)
_PART = r"[\w-]++"
_DEEP_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MOST_LEVELS - 1}}}")


class Entry(BaseModel):
    """A table of which every key is known and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def load_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        UserError: it cannot be read, is no TOML, or is nested deeper than any table that is asked for.
    """
    data = read_bytes(path, TOML_BYTES)
    try:
        text = data.decode("utf-8")
        if _DEEP_KEY.search(_TEXT.sub("text", text)):  # tomllib's time grows with the square of the parts
            raise _too_deep(path)
        content = tomllib.loads(text)
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:  # no TOML, no UTF-8, or a number of more digits than Python converts
        reason = str(error).splitlines()[0].partition(";")[0]
        raise UserError(f"{path} is not a TOML file: {reason}") from error
    level: list[Any] = [content]
    for _ in range(MOST_LEVELS):
        level = [inner for value in level for inner in _inside(value)]
    if level:
        raise _too_deep(path)
    return content


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep(path: Path) -> UserError:
    return UserError(f"{path} is nested deeper than {MOST_LEVELS} levels: it is no recipe and no budget")


def checked(model: type[Model], value: object, where: str) -> Model:
    """``value`` as ``model``; ``where`` begins the sentence.

    Raises:
        UserError: the first thing that is wrong with it.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(field.alias or name for name, field in model.model_fields.items())
        key = first["loc"][-1] if first["loc"] else ""
        said = {
            "missing": f"{where} has no {key}",
            "extra_forbidden": f"{where} has unknown key '{key}': use {known}",
            "string_type": f"{where}: {key} must be text",
            "float_type": f"{where}: {key} must be a finite number",
            "finite_number": f"{where}: {key} must be a finite number",
            "model_type": f"{where} is not a table",
        }
        raise UserError(said.get(first["type"], f"{where}: {key} {first['msg']}")) from error
