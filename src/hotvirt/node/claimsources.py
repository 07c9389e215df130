"""What a new claim is to begin as: the disk of a VolumeSnapshot that its `dataSource` names; embedded home only.

The file is made before the claim is bound, so that nobody ever finds a claim with half of it.
"""

import os
from hashlib import blake2s
from pathlib import Path

from msgspec import Struct

from hotvirt.api.volumesnapshots import GROUP
from hotvirt.images import bases, copying, disks, publish
from hotvirt.images.bases import Base
from hotvirt.kube.client import Document
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import VOLUME_SNAPSHOT_CONTENTS, VOLUME_SNAPSHOTS
from hotvirt.node.places import Places
from hotvirt.node.snapshotfiles import by_handle
from hotvirt.node.snapshotobjects import handle_of


class NotYet(Exception):
    """What the claim waits for; the text says what to do."""


class Image(Struct, frozen=True):
    path: Path
    format: str
    size: int


class ClaimSources:
    def __init__(self, informers: SharedInformers, *, places: Places) -> None:
        self._places = places
        self.snapshots = informers.of(VOLUME_SNAPSHOTS)
        self.contents = informers.of(VOLUME_SNAPSHOT_CONTENTS)

    def of(self, claim: Document) -> Image | None:
        """None for a claim that begins empty. NotYet while there is nothing to copy."""
        name = snapshot_name(claim)
        if not name:
            return None
        snapshot = self.snapshots.get(name, claim["metadata"]["namespace"])
        status = (snapshot or {}).get("status") or {}
        if snapshot is None:
            raise NotYet(f"spec.dataSource names VolumeSnapshot {name!r}, which does not exist: create it")
        if not status.get("readyToUse"):
            raise NotYet(f"VolumeSnapshot {name} is not ready yet: see kubectl describe volumesnapshot {name}")
        where = by_handle(self._places, handle_of(snapshot, self.contents))
        found = where[0].image(where[1]) if where else None
        if found is None:
            raise NotYet(f"VolumeSnapshot {name} has no disk in this home: take it again")
        path, about = found
        return Image(path, about.format, about.size)


def snapshot_name(claim: Document) -> str:
    """The VolumeSnapshot that it begins as; "" for none. Pure."""
    spec = claim.get("spec") or {}
    for field in ("dataSourceRef", "dataSource"):
        source = spec.get(field) or {}
        if source.get("kind") == "VolumeSnapshot" and source.get("apiGroup") == GROUP:
            return str(source.get("name") or "")
    return ""


async def fill(image: Image, directory: Path, volumes: Path, *, size: int, format: str) -> None:  # noqa: A002
    """The disk of a claim that begins as the image: a reflink where the file system has them, else an overlay of it.
    It appears when it is whole, of the size asked for; an image is never cut off."""
    if image.format == format == "raw" and bases.can_share(volumes):
        await _copy(image, directory / "disk.img", size=size)
        return
    base = _base(image, volumes)
    _keep(image, base)
    await bases.overlay(directory / "disk.qcow2", base, size)
    _keep(image, base)  # nobody named it until now, so it may have been cleared away


def mend(image: Image, disk: Path, volumes: Path) -> None:
    """Of a claim that a home which died was about to fill."""
    base = _base(image, volumes)
    if bases.backing(disk) == str(base.path):
        _keep(image, base)


def _base(image: Image, volumes: Path) -> Base:
    name = blake2s(str(image.path).encode(), digest_size=8).hexdigest()
    return Base(bases.folder(volumes) / f"snapshot-{name}" / f"disk.{image.format}", image.format)


def _keep(image: Image, base: Base) -> None:
    """The image is never written, so it becomes a base as it is: the same file under a second name, which lives as long
    as a disk is based on it, whatever becomes of the snapshot."""
    if base.path.exists():
        return
    base.path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    os.link(image.path, base.path)
    base.path.chmod(0o444)
    for each in (base.path.parent, base.path.parent.parent):
        publish.sync_path(each)


async def _copy(image: Image, target: Path, *, size: int) -> None:
    temporary = target.with_name(f".new-{target.name}")
    temporary.unlink(missing_ok=True)  # of an earlier home
    await copying.copy_disk(image.path, temporary)
    if size > image.size:
        await disks.grow(temporary, size, "raw")
    temporary.rename(target)
    publish.sync_path(target.parent)
