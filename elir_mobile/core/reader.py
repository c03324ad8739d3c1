"""JSON from outside, read strictly into what dataclasses declare: each failure is one sentence.

A field's type says what may stand there: ``str``, ``bool``, ``int``, ``float`` (finite), ``X | None``,
``tuple[X, ...]`` for a list, ``dict[K, X]`` or a dataclass for an object, and ``Annotated[X, Limit(…)]``
what must hold besides. Every field must be there but those of ``field(metadata=OPTIONAL)``; what no field
is called is passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from elir_mobile.core.errors import UserError, shortened
from elir_mobile.core.files import read_bytes

T = TypeVar("T")
OPTIONAL = {"optional": True}
JSON_BYTES = 64 << 20  # of the largest file that is read
MOST_TEXT = 4096  # characters of one text: a name, a path, a sentence


@dataclass(frozen=True)
class Limit:
    """What a value must be, in words that follow "is not", and whether it is."""

    words: str
    holds: Callable[[Any], bool]


def one_of(*names: str) -> Limit:
    """One of some texts."""
    return Limit(f"one of {', '.join(names)}", lambda value: value in names)


Count = Annotated[int, Limit("a whole number of at least 0", lambda value: value >= 0)]
Positive = Annotated[int, Limit("a whole number of at least 1", lambda value: value >= 1)]
NotNegative = Annotated[float, Limit("a finite number of at least 0", lambda value: value >= 0)]
Sha256 = Annotated[str, Limit("64 hexadecimal digits", re.compile(r"[0-9a-f]{64}").fullmatch)]
Inside = Annotated[
    str,
    Limit("a relative path", lambda name: bool(name) and not {"\\", "\0"} & {*name}),
    Limit(
        "a path that stays inside its folder",
        lambda name: not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts,
    ),
]


def load_object(path: Path, schema: int) -> dict[str, Any]:
    """The JSON object in ``path``, of schema 1 to ``schema``.

    Raises:
        UserError: it cannot be read, is no such object, or is of another schema.
    """
    data = read_bytes(path, JSON_BYTES)
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise UserError(f"{path} is damaged: it is not a JSON file") from error
    return checked_schema(value, schema, path)


def checked_schema(value: Any, schema: int, source: Path | str) -> dict[str, Any]:
    """``value``, if it is an object of schema 1 to ``schema``.

    Raises:
        UserError: it is not; a newer one is called newer and not damaged.
    """
    if not isinstance(value, dict):
        raise UserError(f"{source} is damaged: it is not an object")
    found = value.get("schema_version")
    if type(found) is int and found > schema:
        said = f"(it has schema {found}, this one reads {schema})"
        raise UserError(f"{source} is of a newer elir-mobile {said}: update elir-mobile")
    if type(found) is not int or found < 1:
        raise UserError(f"{source} is damaged: it has schema {shortened(found)}, this version reads {schema}")
    return value


def read(kind: type[T], value: Any, source: Path | str) -> T:
    """``value``, decoded JSON, as the dataclass ``kind``; ``source`` is named in errors.

    Raises:
        UserError: a field is missing, mistyped or out of its limits.
    """
    try:
        found: T = _read(kind, value, "")
    except _Wrong as wrong:
        raise UserError(f"{source} is damaged: {' '.join(str(wrong).split())}") from None
    return found


class _Wrong(Exception):
    """What is wrong with which field."""

    @classmethod
    def place(cls, where: str, words: str) -> _Wrong:
        return cls(f"{where or 'it'} is not {words}")


_hints = lru_cache(maxsize=None)(lambda kind: get_type_hints(kind, include_extras=True))


def _read(kind: Any, value: Any, where: str) -> Any:
    """``value`` as ``kind``; ``where`` is its dotted path."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        base, *limits = arguments
        found = _scalar(base, value, where, limits[0].words) if base in _WORDS else _read(base, value, where)
        for limit in limits:
            if not limit.holds(found):
                raise _Wrong.place(where, limit.words)
        return found
    if type(None) in arguments:
        return None if value is None else _read(arguments[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _Wrong.place(where, "a list")
        return tuple(_read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict or is_dataclass(kind):
        if not isinstance(value, dict):
            raise _Wrong.place(where, "an object")
        prefix = where and f"{where}."
        if origin is dict:
            name, inner = arguments
            return {_read(name, k, f"{prefix}{k}"): _read(inner, v, f"{prefix}{k}") for k, v in value.items()}
        return kind(**dict(_fields(kind, value, prefix)))
    return _scalar(kind, value, where, _WORDS[kind])


def _fields(kind: Any, value: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for field in fields(kind):
        if field.name in value:
            yield field.name, _read(_hints(kind)[field.name], value[field.name], prefix + field.name)
        elif "optional" not in field.metadata:
            raise _Wrong(f"it has no {prefix}{field.name}")


_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number that is finite"}


def _scalar(kind: Any, value: Any, where: str, words: str) -> Any:
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise _Wrong.place(where, words)
    if isinstance(value, str) and len(value) > MOST_TEXT:
        raise _Wrong.place(where[:MOST_TEXT], f"text of at most {MOST_TEXT} characters")
    if kind is float:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise _Wrong.place(where, words)
    return value
