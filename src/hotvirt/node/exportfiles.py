"""Disks of claims and snapshots as bytes to be downloaded; embedded home only.

A raw file is read where it is, while no guest writes to it or can begin to. Another is converted for the download, into
a sparse file without a name, which is gone with its reader however that ends.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from hotvirt.api.exports import DUMP, Disk
from hotvirt.images import bases, disks
from hotvirt.images.errors import ImageError
from hotvirt.kube.client import Document
from hotvirt.kube.errors import Conflict, InternalError, NotFound
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import CLAIMS, VOLUME_SNAPSHOT_CONTENTS, VOLUME_SNAPSHOTS, VOLUMES
from hotvirt.node.places import Places
from hotvirt.node.snapshotfiles import by_handle
from hotvirt.node.snapshotobjects import handle_of
from hotvirt.node.volumes import CLAIM_FILES, path_of
from hotvirt.qemu import locks

CHUNK = 1 << 20
TEMPORARY = ".export-"


class Opened(Struct, frozen=True):
    """`descriptor` belongs to who opened it."""

    descriptor: int
    size: int
    name: str = ""

    async def chunks(self) -> AsyncIterator[bytes]:
        at = 0
        while at < self.size:
            chunk = await asyncio.to_thread(os.pread, self.descriptor, min(CHUNK, self.size - at), at)
            if not chunk:
                raise InternalError("the disk became shorter while it was read")
            at += len(chunk)
            yield chunk


class LocalExportFiles:
    def __init__(self, informers: SharedInformers, *, places: Places) -> None:
        self._places = places
        self._claims, self._pvs = informers.of(CLAIMS), informers.of(VOLUMES)
        self._snapshots, self._contents = informers.of(VOLUME_SNAPSHOTS), informers.of(VOLUME_SNAPSHOT_CONTENTS)

    def sweep(self) -> None:
        """What an earlier home left."""
        for path in self._places.volumes.parent.glob(f"{TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def size(self, namespace: str, disk: Disk) -> int:
        """What a guest sees of it."""
        path, kind = self._file(namespace, disk)
        if kind == "raw":
            with path.open("rb") as opened:
                return _length(opened.fileno())
        return bases.virtual_size(path)

    @asynccontextmanager
    async def open(self, namespace: str, disk: Disk) -> AsyncIterator[Opened]:
        path, kind = self._file(namespace, disk)
        try:
            if kind == "raw":
                with locks.unwritten(path) as descriptor:
                    yield Opened(descriptor, _length(descriptor), path.name)
                return
            descriptor = await self._converted(path, kind)
        except BlockingIOError:
            raise Conflict(f"{disk.volume} is in use by a guest: stop its VM, or export a snapshot of it") from None
        except (ImageError, OSError) as error:
            raise InternalError(f"{disk.volume}: {error}") from error
        try:
            yield Opened(descriptor, os.fstat(descriptor).st_size, path.name)
        finally:
            os.close(descriptor)

    async def _converted(self, path: Path, kind: str) -> int:
        await bases.looked_into(path, self._places.volumes)
        target = self._places.volumes.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            await disks.convert(path, target, source_format=kind, target_format="raw")
            return os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            target.unlink(missing_ok=True)

    def _file(self, namespace: str, disk: Disk) -> tuple[Path, str]:
        found = self._snapshot(namespace, disk) if disk.kind == "VolumeSnapshot" else self._claim(namespace, disk)
        if found is None:
            raise NotFound(f"{disk.kind} {disk.name} has no disk in this home", name=disk.name)
        return found

    def _claim(self, namespace: str, disk: Disk) -> tuple[Path, str] | None:
        claim: Document = self._claims.get(disk.name, namespace) or {}
        volume: Document = self._pvs.get((claim.get("spec") or {}).get("volumeName") or "") or {}
        where = path_of(volume)
        if where is None:
            return None
        if where.is_block_device():
            return None if disk.kind == DUMP else (where, "raw")
        if disk.kind == DUMP:
            dumps = sorted(filter(_is_file, where.glob("*.memory.dump")), key=lambda path: path.stat().st_mtime)
            return (dumps[-1], "raw") if dumps else None
        return next(((where / name, kind) for name, kind in CLAIM_FILES if _is_file(where / name)), None)

    def _snapshot(self, namespace: str, disk: Disk) -> tuple[Path, str] | None:
        snapshot = self._snapshots.get(disk.name, namespace)
        handle = handle_of(snapshot, self._contents) if snapshot is not None else ""
        where = by_handle(self._places, handle)
        found = where[0].image(where[1]) if where else None
        return (found[0], found[1].format) if found else None


def _length(descriptor: int) -> int:
    """Of a file or a block device, whose status tells nothing."""
    return os.lseek(descriptor, 0, os.SEEK_END)


def _is_file(path: Path) -> bool:
    """A link may be a guest's, which has the directory as a file system."""
    return path.is_file() and not path.is_symlink()
