"""Weights and statistics that lie in other packages' files: found, never imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from elir_mobile.core.errors import UserError


def package_folder(package: str, metric: str, install: str) -> Path:
    """Folder of an installed ``package``, whose code is not run.

    Args:
        package: name to import.
        metric: what needs it, for the message.
        install: the command that installs it.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{metric} needs files of another package: {install}")
    return Path(spec.submodule_search_locations[0])
