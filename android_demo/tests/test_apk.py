"""The APK that is built without Gradle: signed, complete, and calling the runtime it carries."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from android_demo.build import gradle_facts, small_files
from android_demo.tests.conftest import skip_without, tool
from android_demo.toolchain import EXECUTORCH, FBJNI
from elir_mobile.bundle import read_bundle

LIBRARIES = ("libc++_shared.so", "libexecutorch.so", "libfbjni.so")


@pytest.fixture(scope="module")
def dex(apk: Path) -> str:
    return tool("dexdump", "-d", apk)


def test_it_is_signed_with_schemes_two_and_three(apk: Path) -> None:
    said = tool("apksigner", "verify", "--verbose", apk)
    assert "v2 scheme (APK Signature Scheme v2): true" in said
    assert "v3 scheme (APK Signature Scheme v3): true" in said
    assert "Verification successful" in tool("zipalign", "-c", "-v", "-p", "4", apk)


def test_it_carries_the_runtime_and_a_bundle_that_verifies(apk: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(apk) as packed:
        names = packed.namelist()
        packed.extractall(tmp_path)
        program = packed.getinfo("assets/bundles/bfr-tiny/executorch/fp32.pte")
    assert {name for name in names if name.startswith("lib/")} == {f"lib/arm64-v8a/{n}" for n in LIBRARIES}
    assert program.compress_type == zipfile.ZIP_STORED
    # The demo bundle's small files, golden vectors and detector take 18 MB; all is to be 30 at most.
    assert apk.stat().st_size - program.file_size < 12e6
    bundle = read_bundle(tmp_path / "assets" / "bundles" / "bfr-tiny")
    assert [entry["target"] for entry in bundle.manifest["files"]] == ["executorch"]
    for name in LIBRARIES:
        header = (tmp_path / "lib" / "arm64-v8a" / name).read_bytes()[:20]
        assert (header[:5], header[18]) == (b"\x7fELF\x02", 183), name  # 64-bit, AArch64


def test_float_files_are_left_out_beside_smaller_ones(demo_bundle: Path) -> None:
    sizes = {"w8a8": 5_700_000, "mixed": 5_800_000, "fp16": 21_500_000, "fp32": 21_600_000}
    files = [{"path": name, "target": "executorch", "bytes": size} for name, size in sizes.items()]
    files.append({"path": "other", "target": "litert", "bytes": 1})
    bundle = read_bundle(demo_bundle)
    kept = small_files(replace(bundle, manifest={**bundle.manifest, "files": files}))
    assert [entry["path"] for entry in kept.manifest["files"]] == ["w8a8", "mixed"]
    assert small_files(bundle).manifest == bundle.manifest


def test_the_manifest_is_what_gradle_would_make(apk: Path) -> None:
    facts = gradle_facts()
    said = tool("aapt", "dump", "badging", apk)
    assert f"name='{facts['namespace']}' versionCode='{facts['versionCode']}'" in said
    assert f"sdkVersion:'{facts['minSdk']}'" in said
    assert f"targetSdkVersion:'{facts['targetSdk']}'" in said
    assert f"launchable-activity: name='{facts['namespace']}.MainActivity'" in said
    tree = tool("aapt", "dump", "xmltree", apk, "AndroidManifest.xml")
    service = tree.partition("E: service")[2].partition("E: ")[0]
    assert '".WorkService"' in service
    assert re.search(r"\(0x01010599\)=\(type 0x1\d\)0x2001\b", service)  # dataSync or mediaProcessing
    for name in ("FOREGROUND_SERVICE", "FOREGROUND_SERVICE_DATA_SYNC", "FOREGROUND_SERVICE_MEDIA_PROCESSING"):
        assert f"uses-permission: name='android.permission.{name}'" in said
    instrumentation = tree.partition("E: instrumentation")[2]
    assert '".JobInstrumentation"' in instrumentation
    assert f'targetPackage(0x01010021)="{facts["namespace"]}"' in instrumentation
    assert f'package="{facts["namespace"]}"' in tree


def test_its_own_code_loads_and_executes_programs(dex: str) -> None:
    descriptor = "'Lorg/elir/mobile/runtimes/ExecuTorchPrograms;'"
    (own,) = (part for part in dex.split("Class #") if descriptor in part[:200])
    for method in ("load", "loadMethod", "execute"):
        assert re.search(rf"invoke-\w+ .*Lorg/pytorch/executorch/Module;\.{method}:", own), method


def test_every_class_that_the_libraries_look_up_is_there(dex: str) -> None:
    """fbjni finds its Java half by name; a missing class would show on a phone only."""
    defined = set(re.findall(r"Class descriptor\s*: 'L([\w/$]+);'", dex))
    folders = (EXECUTORCH.folder() / "libexecutorch.so", FBJNI.folder() / "libfbjni.so")
    for library in folders:
        looked_up = set(
            re.findall(rb"L?(com/facebook/jni/[\w/$]+|org/pytorch/executorch/[A-Z]\w+)", library.read_bytes())
        )
        assert looked_up
        assert {name.decode() for name in looked_up} <= defined, library.name


def test_litert_is_used_but_not_packed(dex: str) -> None:
    assert "Lcom/google/ai/edge/litert/CompiledModel;.run:" in dex
    assert not re.search(r"Class descriptor\s*: 'L(com/google/ai/edge/litert|ai/onnxruntime)/", dex)


def test_nothing_of_the_platform_is_packed(dex: str) -> None:
    assert not re.search(r"Class descriptor\s*: 'L(android|java)/", dex)


def test_every_symbol_that_the_runtime_needs_of_its_neighbours_is_there() -> None:
    skip_without("npm", "nm")

    def symbols(path: Path, which: str) -> set[str]:
        listed = tool("nm", "--dynamic", which, path).splitlines()
        return {line.split()[-1].partition("@")[0] for line in listed}

    needed = {
        name
        for name in symbols(EXECUTORCH.folder() / "libexecutorch.so", "--undefined-only")
        if name.startswith("_Z")
    }
    defined = {name for path in FBJNI.folder().glob("*.so") for name in symbols(path, "--defined-only")}
    assert any("facebook3jni" in name for name in needed)
    assert needed <= defined
    fbjni, libcxx = (FBJNI.folder() / name for name in ("libfbjni.so", "libc++_shared.so"))
    needed = {name for name in symbols(fbjni, "--undefined-only") if name.startswith("_Z")}
    assert needed and needed <= symbols(libcxx, "--defined-only")
