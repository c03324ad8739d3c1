"""A signed debug APK without Gradle: ``python -m android_demo.build --bundle out/bfr-demo``.

aapt (R.java) → javac → kotlinc → D8 → aapt (resources and assets) → dex and libraries → zipalign → apksigner.
Names and version numbers are read from the Gradle files, so that both builds make the same app; this one has
ExecuTorch only, another package's with older classes. So the app is compiled twice: against the signatures of
the versions that Gradle names, and against what is packed. :mod:`android_demo.pages` makes native libraries
fit pages of 16 KB, :mod:`android_demo.toolchain` says where everything comes from.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from android_demo.pages import aligned
from android_demo.toolchain import (
    CACHE,
    DEXER,
    EXECUTORCH,
    FBJNI,
    KOTLIN,
    PLATFORM,
    kotlinc,
    require,
    run,
)
from elir_mobile.bundle import Bundle, copy_bundle, read_bundle
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.runtimes.table import runtime_name

HERE = Path(__file__).parent
APP, RUNTIMES = HERE / "app", HERE / "runtimes"
PROGRAMS = ("java", "javac", "npm", "aapt", "zipalign", "apksigner")
PASSWORD = "android"  # of the debug key, as everywhere
ABI = "arm64-v8a"
# android.R.attr.initOrder and foregroundServiceType, and the values of the latter (ServiceInfo, API 35).
PLACEHOLDER, SERVICE_TYPE = 0x0101001A, 0x01010599
SERVICE_TYPES = {"dataSync": 1, "mediaProcessing": 1 << 13}


def gradle_facts() -> dict[str, str]:
    """Namespace, SDK levels and version of the app, as its Gradle file says."""
    text = (APP / "build.gradle.kts").read_text()
    names = ("namespace", "minSdk", "targetSdk", "versionCode", "versionName")
    return {name: re.search(rf'\b{name} = "?([\w.]+)', text)[1] for name in names}  # type: ignore[index]


def build_apk(bundle: Path, apk: Path, work: Path) -> Path:
    """Build ``apk`` with small files of ``bundle`` in its assets, using the scratch folder ``work``.

    Raises:
        UserError: a tool is missing, the bundle cannot be used, or a step fails.
    """
    require(PROGRAMS)
    facts = gradle_facts()
    platform, executorch = PLATFORM.folder() / "android.jar", EXECUTORCH.folder()
    assets = work / "assets"
    target = assets / "bundles" / bundle.resolve().name
    copy_bundle(small_files(read_bundle(bundle)), target, "android", ("executorch",))
    aapt, java = resources(work)
    classes = javac([*java, *(HERE / "shim").rglob("*.java")], work / "classes")
    signatures = compile_signatures(HERE / "stubs", work)
    core = kotlinc(sorted((HERE / "core/src/main").rglob("*.kt")), [platform], work / "core.jar", "the core")
    compile_app([core, *signatures, classes, platform], work / "published.jar")
    packed = executorch / "classes.jar"
    app_jar = compile_app([core, packed, *signatures, classes, platform], work / "app.jar")

    dex = work / "dex"
    dex.mkdir()
    stdlib = KOTLIN.folder() / "kotlin-stdlib.jar"
    inputs = [app_jar, core, packed, stdlib, *classes.rglob("*.class")]
    run(
        ["java", "-Xmx1500m", "-cp", DEXER.folder() / "bundletool.jar", "com.android.tools.r8.D8"]
        + ["--debug", "--min-api", facts["minSdk"], "--lib", platform, "--classpath", signatures[0]]
        + ["--output", dex, *inputs],
        "D8",
    )
    unaligned = work / "unaligned.apk"
    run([*aapt, "-A", assets, "-0", "pte", "-F", work / "resources.apk"], "aapt")
    with_service_type(work / "resources.apk", unaligned)
    with zipfile.ZipFile(unaligned, "a", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(dex.glob("*.dex")):
            archive.write(path, path.name)
        for path in native_libraries():
            entry = zipfile.ZipInfo(f"lib/{ABI}/{path.name}")
            archive.writestr(entry, aligned(path), zipfile.ZIP_DEFLATED)
    ready = work / "aligned.apk"
    run(["zipalign", "-f", "-p", "4", unaligned, ready], "zipalign")
    apk.parent.mkdir(parents=True, exist_ok=True)
    staged = apk.with_name(f".{apk.name}")
    run(
        ["apksigner", "sign", "--ks", _debug_key(), "--ks-pass", f"pass:{PASSWORD}"]
        + ["--min-sdk-version", facts["minSdk"], "--out", staged, ready],
        "apksigner",
    )
    staged.with_name(f"{staged.name}.idsig").unlink(missing_ok=True)
    return staged.rename(apk)


def with_service_type(given: Path, out: Path) -> None:
    """Copy an APK, its placeholder attribute of :func:`_manifest` become the newer one.

    A compiled manifest maps the names of attributes to the platform's numbers, by which alone a phone knows
    them.
    """
    with zipfile.ZipFile(given) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename == "AndroidManifest.xml":
                numbers = (PLACEHOLDER.to_bytes(4, "little"), SERVICE_TYPE.to_bytes(4, "little"))
                if data.count(numbers[0]) != 1:
                    raise UserError("the compiled manifest has no place for the type of the service")
                data = data.replace(*numbers)
            target.writestr(entry, data, entry.compress_type)


def small_files(bundle: Bundle) -> Bundle:
    """``bundle`` without the ExecuTorch files that are more than twice as large as the smallest: a phone's
    processor is no faster in float, and with them the APK would have 65 MB. They can be pushed."""
    files = [entry for entry in bundle.manifest["files"] if runtime_name(entry["target"]) == "executorch"]
    most = 2 * min((entry["bytes"] for entry in files), default=0)
    kept = [entry for entry in files if entry["bytes"] <= most]
    return replace(bundle, manifest={**bundle.manifest, "files": kept})


def native_libraries() -> list[Path]:
    """The arm64 libraries that are packed, as their packages have them."""
    return [EXECUTORCH.folder() / "libexecutorch.so", *sorted(FBJNI.folder().glob("*.so"))]


def resources(work: Path) -> tuple[list[object], list[Path]]:
    """The start of every aapt command, and R.java made with it in the scratch folder ``work``."""
    facts = gradle_facts()
    manifest, own = _manifest(facts, work), _runtime_names(work)
    aapt: list[object] = ["aapt", "package", "-f", "--auto-add-overlay", "-M", manifest]
    aapt += ["-S", own, "-S", APP / "src/main/res", "-I", PLATFORM.folder() / "android.jar"]
    aapt += ["--min-sdk-version", facts["minSdk"], "--target-sdk-version", facts["targetSdk"]]
    aapt += ["--version-code", facts["versionCode"], "--version-name", facts["versionName"]]
    java = work / "java"
    java.mkdir()
    run([*aapt, "-m", "-J", java], "aapt")
    return aapt, sorted(java.rglob("*.java"))


def javac(sources: list[Path], out: Path) -> Path:
    """Compile Java for the platform into the folder ``out``."""
    command = ["javac", "--release", "11", "-nowarn", "-cp", PLATFORM.folder() / "android.jar", "-d", out]
    run([*command, *sorted(sources)], "javac")
    return out


def compile_signatures(stubs: Path, work: Path) -> list[Path]:
    """What the app calls of ExecuTorch, of LiteRT, and of platform classes newer than ours, compiled."""
    platform = javac([*stubs.rglob("*.java")], work / "platform-stubs")
    runtimes = kotlinc(
        sorted(stubs.rglob("*.kt")), [PLATFORM.folder() / "android.jar"], work / "stubs.jar", "the stubs"
    )
    return [runtimes, platform]


def compile_app(classpath: list[Path], out: Path) -> Path:
    """Compile app and runtimes into ``out``; of two classes of one name the first on the path counts."""
    sources = [path for module in (APP, RUNTIMES) for path in (module / "src/main").rglob("*.kt")]
    return kotlinc(sorted(sources), classpath, out, "the app")


def _manifest(facts: dict[str, str], work: Path) -> Path:
    """The manifest with what Gradle adds: the package, and that libraries are extracted."""
    text = (APP / "src/main/AndroidManifest.xml").read_text()
    text = text.replace("<manifest ", f'<manifest package="{facts["namespace"]}" ', 1)
    # The platform that aapt has knows no foregroundServiceType: an attribute of numbers takes its place.
    flags = re.search(r'android:foregroundServiceType="([\w|]+)"', text)
    assert flags
    names: list[str] = flags[1].split("|")
    value = sum(SERVICE_TYPES[name] for name in names)
    text = text.replace(flags[0], f'android:initOrder="{value}"')
    path = work / "AndroidManifest.xml"
    path.write_text(text.replace("<application", '<application android:extractNativeLibs="true"', 1))
    return path


def _runtime_names(work: Path) -> Path:
    """The resources that say which runtimes are inside; Gradle makes them of its dependencies."""
    values = work / "res" / "values"
    values.mkdir(parents=True)
    absent = dict.fromkeys(("litert_version", "onnx_version"), "not in this build")
    texts = {"executorch_version": f"of {EXECUTORCH.name}", **absent}
    rows = "".join(f'<string name="{name}">{text}</string>' for name, text in texts.items())
    (values / "runtimes.xml").write_text(f"<resources>{rows}</resources>")
    return values.parent


def _debug_key() -> Path:
    """A key of this machine to sign with, made once."""
    key = CACHE / "debug.keystore"
    if not key.is_file():
        run(
            ["keytool", "-genkeypair", "-keystore", key, "-storepass", PASSWORD, "-keypass", PASSWORD]
            + ["-alias", "androiddebugkey", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000"]
            + ["-dname", "CN=Android Debug,O=Android,C=US"],
            "keytool",
        )
    return key


app = typer.Typer(add_completion=False)


@app.command()
@exits_with_2
def main(
    bundle: Annotated[Path, typer.Option(help="Bundle to ship, with an executorch file.")] = Path(
        "out/bfr-demo"
    ),
    apk: Annotated[Path, typer.Option(help="APK to write.")] = Path("out/android/elir-demo.apk"),
) -> None:
    """Build the demo app as a signed debug APK, with the bundle inside."""
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, tempfile.TemporaryDirectory() as work:
        progress.add_task("building the APK")
        build_apk(bundle, apk, Path(work))
    console.print(f"{apk} ({apk.stat().st_size / 1e6:.1f} MB): adb install -r {apk}")


if __name__ == "__main__":
    app()
