"""Writes a cpio archive (`newc`), as the Linux kernel unpacks for an initramfs. Pure: no file, no clock, no owner.

Written here because the archive then needs no cpio program, no root for device nodes, and comes out byte for byte the
same for the same content.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Archive:
    """A tree by path; missing parent directories are added when it is rendered."""

    _entries: dict[str, tuple[int, bytes, tuple[int, int]]] = field(default_factory=dict)

    def file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self._entries[_clean(path)] = (stat.S_IFREG | mode, data, (0, 0))

    def directory(self, path: str, *, mode: int = 0o755) -> None:
        self._entries[_clean(path)] = (stat.S_IFDIR | mode, b"", (0, 0))

    def symlink(self, path: str, target: str) -> None:
        self._entries[_clean(path)] = (stat.S_IFLNK | 0o777, target.encode(), (0, 0))

    def char_device(self, path: str, *, major: int, minor: int, mode: int = 0o600) -> None:
        self._entries[_clean(path)] = (stat.S_IFCHR | mode, b"", (major, minor))

    def __contains__(self, path: str) -> bool:
        return _clean(path) in self._entries

    def render(self) -> bytes:
        """The archive. Paths are sorted, so a directory comes before what is in it."""
        entries = dict(self._entries)
        for path in self._entries:
            for parent in _parents(path):
                entries.setdefault(parent, (stat.S_IFDIR | 0o755, b"", (0, 0)))
        out = bytearray()
        for number, path in enumerate(sorted(entries), start=1):
            mode, data, device = entries[path]
            _append(out, path, mode=mode, data=data, device=device, inode=number)
        _append(out, "TRAILER!!!", mode=0, data=b"", device=(0, 0), inode=0)
        return bytes(out)


def _clean(path: str) -> str:
    return path.strip("/")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rsplit("/", 1)[0]
        yield path


def _append(out: bytearray, path: str, *, mode: int, data: bytes, device: tuple[int, int], inode: int) -> None:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    numbers = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    out += bytes(-len(out) % 4)
    out += data
    out += bytes(-len(out) % 4)
