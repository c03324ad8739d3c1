"""What the tests of the Android app share: the golden files, a small real bundle, the compiled core."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from android_demo.build import PROGRAMS, build_apk
from android_demo.toolchain import JAVA, KOTLIN, kotlinc, missing
from elir_mobile.bundle import building, file_entry, task_facts, write_golden, write_manifest, write_table
from elir_mobile.precision import RECIPES
from elir_mobile.runtimes.eager import eager_runner
from elir_mobile.runtimes.runner import open_runner
from elir_mobile.tasks import ALIGNED_FACE, get_task
from export.executorch import lower
from tests.app_fixtures import write_fixtures
from tests.conftest import (  # noqa: F401
    SIGMA_S,
    SIZE,
    STEPS,
    degraded,
    golden_budgets,
    overparametrized,
    programs,
    restorer,
)

ROOT = Path(__file__).parents[2]
CORE = ROOT / "android_demo" / "core" / "src"
JARS = ("com.android.json.jar", "junit4.jar", "hamcrest.jar")


def skip_without(*names: str) -> None:
    """Skip where ``names`` of the toolchain are not installed, and say which packages have them."""
    packages = missing(names)
    if packages:
        pytest.skip(f"not installed: apt-get install {' '.join(packages)}")


def tool(*command: object) -> str:
    """Run a program and return what it printed; in the UTF-8 of Java, as dexdump has it, 0 has two bytes."""
    done = subprocess.run([str(c) for c in command], check=True, capture_output=True)
    return done.stdout.decode(errors="backslashreplace")


@pytest.fixture(scope="session")
def fixtures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("app") / "fixtures"
    write_fixtures(folder)
    return folder


@pytest.fixture(scope="session")
def demo_bundle(programs, restorer, degraded, tmp_path_factory) -> Path:  # noqa: F811
    """The tiny network, exported for ExecuTorch and executed for its parity."""
    loop = {"steps": STEPS, "sigma_s": SIGMA_S}
    target = tmp_path_factory.mktemp("bundle") / "bfr-tiny"
    with building(target) as staging:
        path = staging / "executorch" / "fp32.pte"
        path.parent.mkdir()
        lower(programs, RECIPES["fp32"], {}, path)
        picture = degraded[0].mul(255).round() / 255  # as it is stored
        golden = write_golden(staging, eager_runner(restorer, STEPS), picture, **loop)
        runner = open_runner("executorch", path, programs.table)
        facts = {"target": "executorch", "precision": "fp32"}
        entry = file_entry(staging, path, **facts, parity=golden_budgets(golden, staging, runner, **loop))
        model = {"name": "tiny", "trained": False}
        table = write_table(staging, programs.table)
        facts = task_facts(get_task("bfr"), ALIGNED_FACE)
        manifest = {**facts, "model": model, "size": SIZE, **loop, "table": table, "golden": golden}
        write_manifest(staging, {**manifest, "files": [entry]})
    return target


@pytest.fixture(scope="session")
def core(tmp_path_factory) -> list[Path]:
    """Classpath of the core and its tests, compiled for the JVM without Android's classes."""
    skip_without("java", "npm", *JARS)
    folder = tmp_path_factory.mktemp("core")
    jars = [JAVA / name for name in JARS]
    main = kotlinc(sorted((CORE / "main").rglob("*.kt")), jars[:1], folder / "core.jar", "the core")
    test = kotlinc(sorted((CORE / "test").rglob("*.kt")), [main, *jars], folder / "test.jar", "its tests")
    return [main, test, KOTLIN.folder() / "kotlin-stdlib.jar", *jars]


@pytest.fixture(scope="session")
def apk(demo_bundle: Path, tmp_path_factory) -> Path:
    """The APK with that bundle, in the folder that it was built in."""
    skip_without(*PROGRAMS, "dexdump")
    folder = tmp_path_factory.mktemp("apk")
    return build_apk(demo_bundle, folder / "elir-demo.apk", folder)
