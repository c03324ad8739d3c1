"""The code of docs/integrate.md, as it stands there, against the core, the runtimes and Android."""

from __future__ import annotations

import re
from pathlib import Path

from android_demo.tests.conftest import ROOT
from android_demo.toolchain import PLATFORM, kotlinc


def test_the_code_for_an_app_of_ones_own_compiles(apk: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"^```kotlin\n(.*?)^```$", (ROOT / "docs/integrate.md").read_text(), re.M | re.S)
    assert code.count("\n") <= 35
    source = tmp_path / "RestoreActivity.kt"
    source.write_text(code)
    built = apk.parent
    classpath = [built / "published.jar", built / "core.jar", PLATFORM.folder() / "android.jar"]
    kotlinc([source], classpath, tmp_path / "other.jar", "docs/integrate.md")
