"""Reads the little of ELF that building a guest needs: needed libraries, a module's own facts, a kernel's PVH entry.

Pure functions over bytes; 64-bit little-endian only, as our guests are. `NotElf` for anything else.
"""

import struct
from collections.abc import Iterator

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_DT_NEEDED, _DT_STRTAB = 1, 5
_XEN_PHYS32_ENTRY = 18


class NotElf(ValueError):
    """Not a 64-bit little-endian ELF file, or one cut short."""


def needed(data: bytes) -> list[str]:
    """The sonames this program or library asks the loader for."""
    segments = list(_segments(data))
    for kind, offset, _address, size in segments:
        if kind != _PT_DYNAMIC:
            continue
        entries = [struct.unpack_from("<QQ", data, at) for at in range(offset, offset + size, 16)]
        strings = next((_offset(segments, value) for tag, value in entries if tag == _DT_STRTAB), None)
        if strings is not None:
            return [_text(data, strings + value) for tag, value in entries if tag == _DT_NEEDED]
    return []


def interpreter(data: bytes) -> str | None:
    """The dynamic loader's path, for a dynamically linked program."""
    return next((_text(data, offset) for kind, offset, _, _ in _segments(data) if kind == _PT_INTERP), None)


def has_pvh_entry(data: bytes) -> bool:
    """Whether QEMU can start this kernel directly, with nothing to unpack first."""
    for kind, offset, _address, size in _segments(data):
        if kind != _PT_NOTE:
            continue
        at, end = offset, offset + size
        while at + 12 <= end:
            name_size, value_size, note = struct.unpack_from("<III", data, at)
            if note == _XEN_PHYS32_ENTRY and data[at + 12 : at + 15] == b"Xen":
                return True
            at += 12 + -(-name_size // 4) * 4 + -(-value_size // 4) * 4
    return False


def module_facts(data: bytes) -> dict[str, list[str]]:
    """A kernel module's `.modinfo`: name, depends, alias, ... each with its values in order."""
    section = _section(data, ".modinfo")
    facts: dict[str, list[str]] = {}
    for item in section.split(b"\0"):
        key, found, value = item.decode(errors="replace").partition("=")
        if found:
            facts.setdefault(key, []).append(value)
    return facts


def _header(data: bytes) -> None:
    if len(data) < 64 or data[:6] != b"\x7fELF\x02\x01":
        raise NotElf("not a 64-bit little-endian ELF file")


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(kind, file offset, address, size in the file) of each program header."""
    _header(data)
    (table,) = struct.unpack_from("<Q", data, 32)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    for index in range(count):
        at = table + index * entry_size
        if at + 56 > len(data):
            raise NotElf("ELF program headers are cut short")
        kind, _flags, offset, address, _physical, size = struct.unpack_from("<IIQQQQ", data, at)
        if offset + size > len(data):
            raise NotElf("ELF segments are cut short")
        yield kind, offset, address, size


def _offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise NotElf("an ELF address lies outside every segment")


def _section(data: bytes, wanted: str) -> bytes:
    _header(data)
    (table,) = struct.unpack_from("<Q", data, 40)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 58)
    if table + count * entry_size > len(data):
        raise NotElf("ELF section headers are cut short")
    headers = [struct.unpack_from("<IIQQQQ", data, table + index * entry_size) for index in range(count)]
    names = headers[names_index][4]
    for header in headers:
        if _text(data, names + header[0]) == wanted:
            return data[header[4] : header[4] + header[5]]
    return b""


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode(errors="replace")
