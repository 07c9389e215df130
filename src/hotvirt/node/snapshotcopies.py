"""Copies of claims' disks: files for QEMU to copy into, and the copying itself where no guest has a disk open."""

import os
from pathlib import Path
from typing import Literal, cast

from msgspec import Struct

from hotvirt.images import copying, disks, threads
from hotvirt.node.snapshotfiles import DiskAbout
from hotvirt.qemu import backup, locks


class Source(Struct, frozen=True):
    """A claim's disk that is to be copied. `node`: of the guest that writes to it, "" for none."""

    snapshot: str
    path: Path
    about: DiskAbout
    node: str = ""


async def target(source: Source, directory: Path) -> backup.Copy:
    """For QEMU: blank, and with the room that the copy will take. A guest cannot write while what it overwrites has no
    room in the copy. The descriptor is the caller's. OSError when there is no room."""
    path = directory / source.about.file
    if source.about.format == "qcow2":
        await disks.create(path, source.about.size, "qcow2")
    else:
        path.touch(mode=0o600)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if source.about.format != "qcow2":
            await threads.to_its_end(_reserve, source.path, descriptor, source.about.size)
    except BaseException:
        os.close(descriptor)
        raise
    return backup.Copy(source.node, descriptor, cast("Literal['raw', 'qcow2']", source.about.format))


def _reserve(path: Path, descriptor: int, size: int) -> None:
    os.ftruncate(descriptor, size)
    source, at = os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0
    try:
        while at < size:
            try:
                at = os.lseek(source, at, os.SEEK_DATA)
            except OSError:  # a hole to the end
                return
            end = min(os.lseek(source, at, os.SEEK_HOLE), size)
            os.posix_fallocate(descriptor, at, end - at)
            at = end
    finally:
        os.close(source)


async def copy(source: Source, directory: Path) -> None:
    """Of a disk that no guest writes to, nor may begin to meanwhile. BlockingIOError when one does."""
    path = directory / source.about.file
    if source.about.format == "qcow2":
        # Flat, whatever it is an overlay of; qemu-img locks its source itself.
        await disks.convert(source.path, path, source_format="qcow2", target_format="qcow2")
        return
    with locks.unwritten(source.path) as opened:
        await copying.copy_disk(opened, path)
