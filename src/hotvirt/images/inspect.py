"""Looks into a disk image before any tool opens it: which format it is, and whether it is safe to use.

A qcow2 header can name any file of the host as its backing or data file, and QEMU would open it. So no image is given
to QEMU or qemu-img unseen, and neither is ever left to guess a format. The parsing (oslo.utils' format inspector, made
for this) runs in a short-lived process of its own, `probe.py`, under limits: it costs some 0.1 s once per file, keeps
16 MiB out of the home's memory, and a parser bug cannot reach the home.

`inspect` may be called concurrently; what was seen is remembered by the file's identity, size and times.
"""

import json
import os
import stat
import sys
from pathlib import Path

import msgspec

from hotvirt.images.errors import CorruptImage, ImageError, ImageNotFound, ToolFailed, UnsafeImage
from hotvirt.images.tools import MIB, run

MAX_VIRTUAL_SIZE = 64 << 40
"""64 TiB. More is a mistake or an attack: a few bytes that make a host try to allocate without end."""


class DiskInfo(msgspec.Struct, frozen=True):
    """What the image is, in QEMU's words (`raw`, `qcow2`, `vmdk`, `vpc`, `vhdx`, `vdi`)."""

    format: str
    virtual_size: int


_seen: dict[tuple[int, ...], DiskInfo] = {}
_REMEMBERED = 256


async def inspect(path: Path, expected_format: str | None = None) -> DiskInfo:
    """The image's format and virtual size, once it is known to be safe.

    Raises CorruptImage when it is not an image or not of the expected format, UnsafeImage when using it could reach
    beyond the file itself. With `expected_format="raw"`, a file that looks like another format is refused too: a
    guest could have written that header, and a later reader could believe it.
    """
    descriptor = _open(path)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise CorruptImage(f"{path} is not a regular file: give the path of a disk image")
        if facts.st_size == 0:
            raise CorruptImage(f"{path} is empty: copy or download the image again")
        identity = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        info = _seen.get(identity)
        if info is None:
            info = judge(await _probe(descriptor, path), path=path, size=facts.st_size)
            while len(_seen) >= _REMEMBERED:
                _seen.pop(next(iter(_seen)))
            _seen[identity] = info
    finally:
        os.close(descriptor)
    if expected_format is not None and info.format != expected_format:
        raise CorruptImage(
            f"{path} should be {expected_format}, and its content is {info.format}: "
            f"name the right format, or convert it with `hotvirt images import`"
        )
    return info


def judge(found: dict[str, object], *, path: Path, size: int) -> DiskInfo:
    """What to say about a probe's findings. Pure."""
    if why := found.get("unsafe"):
        raise UnsafeImage(f"{path} is refused: {why}")
    if why := found.get("corrupt"):
        raise CorruptImage(f"{path} is damaged or not a disk image: {why}; copy or download it again")
    kind, virtual_size = str(found["format"]), int(str(found["virtual_size"]))
    if kind == "raw":
        virtual_size = size
    if virtual_size <= 0:
        raise CorruptImage(f"{path} says that its disk has no size: copy or download it again")
    if virtual_size > MAX_VIRTUAL_SIZE:
        raise UnsafeImage(
            f"{path} is refused: it claims a disk of {virtual_size / (1 << 40):.0f} TiB, and more than "
            f"{MAX_VIRTUAL_SIZE >> 40} TiB is not believed; make a smaller image"
        )
    return DiskInfo(format=kind, virtual_size=virtual_size)


def _open(path: Path) -> int:
    try:
        # O_NONBLOCK: opening a FIFO somebody put there must not wait for its writer.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ImageNotFound(f"{path} does not exist") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read by this user: change its owner or mode") from None


async def _probe(descriptor: int, path: Path) -> dict[str, object]:
    """The file goes by descriptor: what is probed is what was opened, whatever the name means a moment later."""
    argv = [sys.executable, "-P", "-m", "hotvirt.images.probe"]
    try:
        output = await run(argv, deadline=30, stdin=descriptor, memory=1024 * MIB, cpu_seconds=20, file_size=0)
    except ToolFailed as error:
        raise CorruptImage(f"{path} could not be examined, so it is refused: {error}") from error
    found: dict[str, object] = json.loads(output)
    return found
