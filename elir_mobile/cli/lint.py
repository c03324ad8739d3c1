"""Hazards of written files, before a phone meets them: ``elir-mobile lint FILE...``, or of a whole bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2

LIMIT_S = 300.0  # for one file


@exits_with_2
def main(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", hidden=True)],
    target: options.AnyTarget = None,
) -> None:
    """Say what in FILEs a phone's chip is known to do wrongly, slowly or not at all.

    Of a bundle all files. What each is for says the manifest, else --target, else its suffix.
    Exit code 1 where there is a finding.
    """
    from elir_mobile.core.manifest import MANIFEST, read_manifest
    from elir_mobile.devices.process import Apart
    from export.lint import lint, title_without_reader

    asked: list[Path] = []
    bad = []
    for path in files:
        try:
            entries = read_manifest(path)["files"] if (path / MANIFEST).is_file() else None
        except UserError as error:
            bad.append(error)
            continue
        for entry in entries or ():
            if title := title_without_reader(entry["target"]):
                typer.echo(
                    f"{path / entry['path']}: not looked into: there is no reader of {title} files here"
                )
            else:
                asked.append(path / entry["path"])
        if entries is None:
            asked.append(path)
    found = 0
    with Apart(LIMIT_S) as apart:
        for path in asked:
            try:
                findings = apart(lint, path, target)
            except UserError as error:
                bad.append(error)
                continue
            for finding in findings:
                typer.echo(
                    f"{path}: {finding.program}: {finding.operator} ({finding.name}): {finding.what}: "
                    f"{finding.why}: {finding.source}"
                )
            found += len(findings)
    for wrong in bad:
        print(f"error: {wrong}", file=sys.stderr)
    if bad:
        raise SystemExit(2)
    typer.echo(f"{len(asked)} files, {found} findings")
    if found:
        raise typer.Exit(1)
