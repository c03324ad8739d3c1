"""Native libraries on devices whose memory pages have 16 KB, as Google Play asks of apps since Android 15.

A loader maps each PT_LOAD segment of a library page by page from its place in the file, so place and address
must agree modulo the size of a page, and no page may belong to two segments. A library linked for pages of 4
KB whose segments lie far enough apart in memory need not be linked again: :func:`aligned` moves them apart in
the file. The rules are those of the System V ABI, "Program Loading", and of bionic's ``linker_phdr.cpp``.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from pathlib import Path

from elir_mobile.core.errors import UserError

PAGE = 0x4000
_LOAD, _RELRO = 1, 0x6474E552  # p_type
_WRITABLE = 2  # of p_flags
# Of 64-bit ELF: e_phoff and e_shoff; e_phentsize to e_shnum; a program header; a section header.
_OFFSETS, _COUNTS, _PROGRAM, _SECTION = "<QQ", "<HHHH", "<IIQQQQQQ", "<IIQQQQIIQQ"
_OFFSETS_AT, _COUNTS_AT = 32, 54


@dataclass
class Segment:
    """A program header; the fields of ELF's ``Elf64_Phdr`` without their ``p_``, in its order."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int

    @property
    def end(self) -> int:
        """First address after the segment."""
        return self.vaddr + self.memsz


def segments(data: bytes) -> list[Segment]:
    """The program headers of a 64-bit little-endian ELF file.

    Raises:
        ValueError: it is none.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF file")
    start, _ = struct.unpack_from(_OFFSETS, data, _OFFSETS_AT)
    size, count, _, _ = struct.unpack_from(_COUNTS, data, _COUNTS_AT)
    return [Segment(*struct.unpack_from(_PROGRAM, data, start + i * size)) for i in range(count)]


def faults(data: bytes) -> list[str]:
    """Why the ELF file cannot be loaded where pages have 16 KB; empty: it can."""
    found = segments(data)
    loads = sorted((s for s in found if s.type == _LOAD), key=lambda s: s.vaddr)
    said = []
    for load in loads:
        if load.align < PAGE or (load.vaddr - load.offset) % PAGE:
            said.append(f"the segment at {load.vaddr:#x} is aligned to {load.align:#x}")
    for first, second in itertools.pairwise(loads):
        if _page_end(first.end) > second.vaddr // PAGE * PAGE:
            said.append(f"the segments at {first.vaddr:#x} and {second.vaddr:#x} share a page")
    for fixed in (s for s in found if s.type == _RELRO):
        # The loader takes the right to write from whole pages: nothing else that is written may lie in them.
        end = _page_end(fixed.end)
        if any(s.flags & _WRITABLE and max(s.vaddr, fixed.end) < min(s.end, end) for s in loads):
            said.append(f"data behind {fixed.end:#x} shares a page with what becomes read-only")
    return said


def _page_end(address: int) -> int:
    """The start of the first page at or after ``address``."""
    return -(-address // PAGE) * PAGE


def aligned(path: Path) -> bytes:
    """The library at ``path`` as it can be loaded everywhere: as it is, or with its segments moved apart.

    What is read-only after relocation (PT_GNU_RELRO) and shares a page of 16 KB with data that is written
    remains writable. Addresses, and so code and symbols, stay as they are.

    Raises:
        UserError: its segments share pages of 16 KB, so that it has to be linked again.
    """
    data = path.read_bytes()
    if not faults(data):
        return data
    moved = bytearray(data)
    added: list[tuple[int, int]] = []  # at an offset of the original: bytes put in before it
    shift = 0
    found = segments(data)
    for load in sorted((s for s in found if s.type == _LOAD), key=lambda s: s.offset):
        gap = (load.vaddr - load.offset - shift) % PAGE
        at = load.offset + shift
        moved[at:at] = bytes(gap)
        shift += gap
        added.append((load.offset, gap))

    def place(offset: int) -> int:
        return offset + sum(gap for at, gap in added if at <= offset)

    programs, sections = struct.unpack_from(_OFFSETS, data, _OFFSETS_AT)
    program_size, program_count, section_size, section_count = struct.unpack_from(_COUNTS, data, _COUNTS_AT)
    struct.pack_into(_OFFSETS, moved, _OFFSETS_AT, programs, place(sections))
    for i, s in enumerate(found):
        kind, align = (0 if s.type == _RELRO else s.type), (PAGE if s.type == _LOAD else s.align)
        fields = (kind, s.flags, place(s.offset), s.vaddr, s.paddr, s.filesz, s.memsz, align)
        struct.pack_into(_PROGRAM, moved, programs + i * program_size, *fields)
    for i in range(section_count):  # bionic compares the place of .dynamic with its program header's
        at = place(sections) + i * section_size
        section = list(struct.unpack_from(_SECTION, moved, at))
        section[4] = place(section[4])
        struct.pack_into(_SECTION, moved, at, *section)
    left = faults(bytes(moved))
    if left:
        reasons = "; ".join(left)
        raise UserError(f"{path.name} does not fit pages of 16 KB ({reasons}): take another build of it")
    return bytes(moved)
