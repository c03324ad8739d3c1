"""The app against the signatures of the libraries that Gradle resolves, which cannot be had here."""

from __future__ import annotations

import re
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest

from android_demo.build import HERE, compile_app, compile_signatures
from android_demo.tests.conftest import JAVA, tool
from android_demo.toolchain import KOTLIN, PLATFORM
from elir_mobile.core.errors import UserError

# What the sources call their last links: without load, say, the compiler does not look at execute any more.
LAST = """
    displayCutout systemBars bottom left right top
    CPU GPU NPU numThreads cpuOptions readFloat writeFloat
    createInputBuffer createInputBuffers createOutputBuffer createOutputBuffers
    LOAD_MODE_MMAP dataAsFloatArray destroy from fromBlob getMethods loadMethod
    addConfigEntry createSession createTensor getLibraryPath registerExecutionProviderLibrary
    setIntraOpNumThreads createNotificationChannel notify startForeground stopForeground
"""


@pytest.fixture(scope="module")
def built(apk: Path) -> Path:
    """The folder that the APK was built in."""
    return apk.parent


def test_the_apps_libraries_are_the_versions_that_the_python_package_writes_files_with() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = dict(line.split("==") for row in ("executorch", "litert") for line in project[row])
    gradle = [(HERE / module / "build.gradle.kts").read_text() for module in ("app", "runtimes")]
    listed = (HERE / "stubs/signatures.txt").read_text()
    pinned |= {line.split("==")[0]: line.split("==")[1] for line in project["onnx-qnn"]}
    for package, name in (("onnxruntime", "onnx"), ("onnxruntime-qnn", "qnn")):
        assert all(f'val {name}Version = "{pinned[package]}"' in text for text in gradle)
        assert f"{pinned[package]}" in listed
    for package, title in (("executorch", "ExecuTorch"), ("ai-edge-litert", "LiteRT")):
        named = f"{title} {pinned[package]}"
        assert all(f'val {title.lower()}Version = "{pinned[package]}"' in text for text in gradle)
        (stubs,) = HERE.glob(f"stubs/{title.lower()}/*.kt")
        assert f"The part of {named}'s " in stubs.read_text()
        assert named in listed


def test_gradle_compiles_with_the_kotlin_of_these_checks() -> None:
    version = re.search(r'kotlin\("jvm"\) version "(.+?)"', (HERE / "build.gradle.kts").read_text())
    assert KOTLIN.name == f"kotlin-compiler-{version[1]}"  # type: ignore[index]


def test_the_app_uses_these_signatures_and_no_others(built: Path) -> None:
    with zipfile.ZipFile(built / "published.jar") as jar:
        names = [name.removesuffix(".class") for name in jar.namelist() if name.endswith(".class")]
    said = tool("javap", "-c", "-p", "-cp", built / "published.jar", *names)
    owners = "android/graphics/Insets|android/view/WindowInsets|com/google/ai|org/pytorch|ai/onnxruntime"
    owners += "|android/app/Service|android/app/Notification"
    used = set(re.findall(rf"// ((?:Interface)?(?:Method|Field) (?:{owners})\S+)", said))
    lines = (HERE / "stubs/signatures.txt").read_text().splitlines()
    assert used == {line for line in lines if not line.startswith("#")}


def test_without_any_of_these_names_the_app_does_not_compile(built: Path, tmp_path: Path) -> None:
    """One letter of each is changed, all at once: every one must be missed."""
    names = set(LAST.split())
    stubs = tmp_path / "stubs"
    shutil.copytree(HERE / "stubs", stubs)
    for path in [*stubs.rglob("*.kt"), *stubs.rglob("*.java")]:
        changed = re.sub(rf"\b({'|'.join(names)})\b", lambda name: name[0][:-1] + "_", path.read_text())
        path.write_text(changed)
    classpath = [built / "core.jar", *compile_signatures(stubs, tmp_path), built / "classes"]
    with pytest.raises(UserError) as refused:
        compile_app([*classpath, PLATFORM.folder() / "android.jar"], tmp_path / "app.jar")
    assert set(re.findall(r"error: .*?'(\w+)'", str(refused.value))) >= names


def test_a_runtime_that_cannot_be_loaded_is_told_from_one_that_is_not_there(
    built: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    script = tmp_path / "Open.java"
    script.write_text(OPEN)

    def said(*libraries: Path) -> list[str]:
        own = [built / "published.jar", built / "core.jar"]
        others = [KOTLIN.folder() / "kotlin-stdlib.jar", JAVA / "com.android.json.jar"]
        path = ":".join(map(str, [*own, *libraries, *others]))
        return tool("java", "-cp", path, script, demo_bundle).splitlines()

    absent = "This build has no {}: build it with Gradle, or choose another"
    refused = "This phone cannot load {} (compiled without {}): choose another runtime"
    names = (
        ("executorch", "ExecuTorch"),
        ("litert", "LiteRT"),
        ("onnx", "ONNX Runtime"),
        ("onnx/qnn", "ONNX Runtime"),
    )
    assert said() == [absent.format(name) for name, _ in names for _ in range(2)]
    assert said(built / "stubs.jar", built / "platform-stubs") == [
        refused.format(*both) for both in names for _ in range(2)
    ]


# Opens the first file of a bundle with each runtime, twice: the second time the JVM says less.
OPEN = """
import java.io.File;
import java.util.Map;
import org.elir.mobile.core.Artifact;
import org.elir.mobile.core.Bundle;
import org.elir.mobile.runtimes.PhoneRuntimes;

class Open {
    public static void main(String[] arguments) {
        Bundle bundle = Bundle.Companion.read(new File(arguments[0]));
        Artifact file = bundle.getArtifacts().get(0);
        for (String runtime : new String[] {"executorch", "litert", "onnx", "onnx/qnn"}) {
            Artifact other = new Artifact(file.getPath(), file.getSha256(), 1, runtime, "fp32", Map.of());
            for (int i = 0; i < 2; i++) {
                try {
                    PhoneRuntimes.INSTANCE.open(bundle, other, 1);
                } catch (Exception error) {
                    System.out.println(error.getMessage());
                }
            }
        }
    }
}
"""
