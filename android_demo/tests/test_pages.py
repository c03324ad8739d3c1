"""Every native library that the APK carries can be loaded where memory pages have 16 KB."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from android_demo import pages
from android_demo.build import ABI, native_libraries
from android_demo.tests.conftest import skip_without, tool
from elir_mobile.core.errors import UserError

SMALL = 0x1000


@pytest.fixture(scope="module")
def libraries() -> dict[str, Path]:
    skip_without("npm", "readelf")
    return {path.name: path for path in native_libraries()}


def mapped(data: bytes, page: int) -> dict[int, bytes]:
    """What a loader that maps whole pages puts at the address of each PT_LOAD, but for the file's headers."""
    memory: dict[int, bytes] = {}
    found = pages.segments(data)
    headers = 64 + 56 * len(found)  # they say where in the file things are
    data = bytes(headers) + data[headers:]
    for s in (s for s in found if s.type == 1):
        start = s.vaddr // page * page
        assert s.offset % page == s.vaddr % page
        assert not any(start < at + len(there) for at, there in memory.items() if at <= s.vaddr)
        whole = data[s.offset // page * page : s.offset + s.filesz]
        memory[s.vaddr] = whole[s.vaddr - start :] + bytes(s.memsz - s.filesz)
    return memory


def test_the_packed_ones_are_aligned(apk: Path, tmp_path: Path) -> None:
    """As Android's documentation has it checked: with readelf, not with the module that moved them."""
    skip_without("readelf")
    with zipfile.ZipFile(apk) as packed:
        names = [name for name in packed.namelist() if name.endswith(".so")]
        packed.extractall(tmp_path, names)
    assert len(names) == 3
    for name in names:
        assert name.startswith(f"lib/{ABI}/")
        loads = re.findall(r"LOAD\s+(0x\w+) (0x\w+) .* (0x\w+)\n", tool("readelf", "-lW", tmp_path / name))
        assert len(loads) >= 2
        for offset, address, align in ([int(number, 16) for number in row] for row in loads):
            assert align >= 0x4000, name
            assert (address - offset) % 0x4000 == 0, name
        assert not pages.faults((tmp_path / name).read_bytes())


def test_which_packages_are_aligned_by_themselves(libraries: dict[str, Path]) -> None:
    as_they_come = {name for name, path in libraries.items() if not pages.faults(path.read_bytes())}
    assert as_they_come == {"libexecutorch.so", "libc++_shared.so"}


def test_moving_segments_changes_nothing_that_is_loaded(libraries: dict[str, Path], tmp_path: Path) -> None:
    original = libraries["libfbjni.so"]
    moved = tmp_path / original.name
    moved.write_bytes(pages.aligned(original))
    with pytest.raises(AssertionError):
        mapped(original.read_bytes(), pages.PAGE)
    for page in (SMALL, pages.PAGE):  # it must go on loading with small pages, too
        assert mapped(moved.read_bytes(), page) == mapped(original.read_bytes(), SMALL)
    for what in ("--dyn-syms", "--dynamic", "--relocs", "--notes", "-wf"):
        assert shown(what, moved) == shown(what, original), what
    dynamic = re.search(r"\.dynamic\s+DYNAMIC\s+\w+ (\w+)", tool("readelf", "-SW", moved))
    header = re.search(r"DYNAMIC\s+0x(\w+)", tool("readelf", "-lW", moved))
    assert int(dynamic[1], 16) == int(header[1], 16)  # type: ignore[index]
    assert "GNU_RELRO" not in tool("readelf", "-lW", moved)


def shown(what: str, path: Path) -> str:
    """What readelf says, without where in the file it stands."""
    return re.sub(r"at offset 0x\w+", "", tool("readelf", "-W", what, path)).replace(str(path), "")


def test_what_needs_another_link_is_refused(libraries: dict[str, Path], tmp_path: Path) -> None:
    """A second segment that starts in the page in which the first ends."""
    data = bytearray(libraries["libfbjni.so"].read_bytes())
    first = next(i for i, s in enumerate(pages.segments(bytes(data))) if s.type == 1)
    data[64 + first * 56 + 40 : 64 + first * 56 + 48] = (0x28001).to_bytes(8, "little")  # p_memsz
    path = tmp_path / "libother.so"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"libother\.so .* share a page.* take another build"):
        pages.aligned(path)
