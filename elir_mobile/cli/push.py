"""Bundles to where the demo apps find them: ``elir-mobile push BUNDLE --android``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elir_mobile.cli import options
from elir_mobile.core.errors import UserError, exits_with_2

app = options.command_app()


@app.callback()
def commands() -> None:
    """Bundles: what one command writes and every device reads."""


@app.command("push")
@exits_with_2
def main(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", hidden=True)],
    android: Annotated[bool, typer.Option("--android", help="To the app on a phone, by adb.")] = False,
    serial: Annotated[
        str | None, typer.Option(metavar="SERIAL", help="Which phone, where several are connected.")
    ] = None,
    android_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="To be built into the Android app.")
    ] = None,
    ios_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="To be built into the iOS app.")
    ] = None,
) -> None:
    """Copy the folder BUNDLE to where the demo apps find it.

    The files that the app can run, and the advice which of them it should, are what is copied.
    """
    from elir_mobile.terminal import Terminal

    if not (android or android_folder or ios_folder):
        raise UserError("say where to: --android, --android-folder PATH or --ios-folder PATH")
    console = Terminal()
    with console.status("copying"):
        from elir_mobile.bundle import copied_advice, copy_bundle, push_to_phone, read_bundle

        bundle = read_bundle(folder)
        name = folder.resolve().name
        if android_folder:
            console.print(str(copy_bundle(bundle, android_folder / name, "android")))
        if ios_folder:
            console.print(str(copy_bundle(bundle, ios_folder / name, "ios")))
        if android:
            console.print(push_to_phone(bundle, serial))
        for kind, asked in (("android", android or android_folder), ("ios", ios_folder)):
            for line in copied_advice(bundle, kind) if asked else ():
                console.print(line, soft_wrap=True)
