"""What a command wrote into a folder, and from what: a record of each file in the hidden folder beside it.

A picture whose record names the same source, model and options is done; one whose record names others is made
again; and a file that has no record, or is no longer the one that was recorded, is somebody's own and never
replaced unasked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import named, write_json, written
from elir_mobile.core.manifest import sha256_of
from elir_mobile.core.reader import load_object
from elir_mobile.images import RECORDS

SCHEMA_VERSION = 1
COMPARISON = "comparison"
COMPARED = "-compare.png"  # how the name of one ends
State = Literal["absent", "done", "stale", "foreign"]


def record_of(path: Path) -> dict[str, Any]:
    """The record of the file at ``path``; empty where there is none that can be read."""
    try:
        return load_object(path.parent / RECORDS / named(path.name, ".json"), SCHEMA_VERSION)
    except UserError:
        return {}


def state(path: Path, facts: dict[str, Any]) -> State:
    """Whether ``path`` was written from ``facts``, from others, or by somebody else.

    Args:
        facts: what the file's bytes depend on, as JSON.
    """
    if not (path.exists() or path.is_symlink()):
        return "absent"
    record = record_of(path)
    try:
        found = sha256_of(path)
    except UserError:
        return "foreign"
    if found == record.get("sha256") and json.loads(json.dumps(facts)) == record.get("facts"):
        return "done"
    return "stale" if found in (record.get("sha256"), record.get("before")) else "foreign"


@contextmanager
def recorded(path: Path, facts: dict[str, Any]) -> Iterator[Path]:
    """:func:`elir_mobile.core.files.written` of a file, and its record.

    The record is on the disk before the file is in its place, and has the digest of the one that is replaced
    too, if that is another: whenever the process is killed, what lies there is known to be its own.
    """
    with written(path) as staged:
        yield staged
        digest, before = sha256_of(staged), sha256_of(path) if path.is_file() else None
        record = {"facts": facts, "sha256": digest, "before": None if before == digest else before}
        place = path.parent / RECORDS / named(path.name, ".json")
        write_json(place, {"schema_version": SCHEMA_VERSION, **record})


def comparison(path: Path) -> str | None:
    """What kind of file it is, in words, if it is a comparison and no picture: for
    :func:`elir_mobile.images.list_images`."""
    facts = record_of(path).get("facts")
    return "comparisons" if isinstance(facts, dict) and facts.get("kind") == COMPARISON else None
