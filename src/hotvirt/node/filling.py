"""Puts into a new claim what it is to begin with: an image from elsewhere, an upload that arrived, a copy of a claim.

All of it is made below `work/` in the volume's directory, and the disk appears under its name when it is whole. Of one
claim one call at a time.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from hotvirt.api import disks as api_disks
from hotvirt.api.datavolumes import Request
from hotvirt.images import bases, copying, disks, download, taking
from hotvirt.images.errors import CorruptImage, ImageError
from hotvirt.kube.client import Client, Document
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import CLAIMS, STORAGE_PROFILES, VMIS, VOLUMES
from hotvirt.node import importsources
from hotvirt.node.directoryclaims import KEEP_FREE, disk_name
from hotvirt.node.importrequests import NotYet
from hotvirt.node.places import Places
from hotvirt.node.volumes import OWNED, PROVISIONER, path_of
from hotvirt.qemu import locks

WORK = "work"
RECEIVED = f"received-{download.boot()[:8]}"
"""An upload that has arrived. After a crash of the machine nobody knows whether all of it did: it has another name."""


def most(size: int) -> int:
    """Bytes that an image may have as it arrives, for a claim of this size: formats have tables, snapshots and more."""
    return 2 * size + (1 << 30)


class Given(Exception):
    """Trying again is useless; the text says what to do."""


class Job(Struct, frozen=True, kw_only=True):
    """One claim that is to be filled."""

    claim: Document
    request: Request
    directory: Path
    format: str
    size: int

    @property
    def work(self) -> Path:
        return self.directory / WORK

    @property
    def target(self) -> Path:
        return self.directory / disk_name(self.format)


class Filling:
    def __init__(
        self, client: Client, informers: SharedInformers, *, places: Places, user: int | None, stall: float
    ) -> None:  # fmt: skip
        """`user`: who converts what came from outside, None for ourselves. `stall`: seconds without a byte after which
        a download is given up."""
        self._client, self._places, self._user, self._stall = client, places, user, stall
        self._claims, self._pvs = informers.of(CLAIMS), informers.of(VOLUMES)
        self._vmis, self._profiles = informers.of(VMIS), informers.of(STORAGE_PROFILES)
        self.needs = (self._pvs, self._vmis, self._profiles)

    async def fill(self, job: Job, tell: Callable[[float], None]) -> None:
        """The claim's disk is there afterwards. `tell` is given how much of it is done, 0 to 1, from any thread.
        NotYet, Given, ImageError, OSError, ApiError."""
        job.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        job.work.mkdir(mode=0o711, exist_ok=True)
        bases.mend(job.directory)
        match job.request.kind:
            case "blank":
                self._room(job, job.size)
                await disks.create(job.target, job.size, job.format)
            case "http":
                await self._http(job, tell)
            case "registry":
                await self._registry(job, tell)
            case "upload":
                await self._take(job, job.work / RECEIVED, lambda f: tell(0.5 + f / 2))
            case "pvc":
                await self._clone(job, tell)
            case other:
                raise Given(f"source {other} is not offered here")

    async def _http(self, job: Job, tell: Callable[[float], None]) -> None:
        source = await importsources.http(self._client, job.claim["metadata"]["namespace"], job.request)
        file = job.work / "download"
        await download.fetch(
            source, file, most=most(job.size), stall=self._stall,
            tell=lambda has, total: tell(0.9 * has / total if total else 0.0),
        )  # fmt: skip
        try:
            await self._take(job, file, lambda f: tell(0.9 + f / 10))
        except CorruptImage:
            download.forget(file)  # what is there is of no use: it is fetched anew
            raise

    async def _registry(self, job: Job, tell: Callable[[float], None]) -> None:
        pulled = await importsources.registry(
            self._client, job.claim["metadata"]["namespace"], job.request, cache=self._places.images,
            tell=lambda _step, fraction: tell(0.9 * fraction if fraction else 0.0),
        )  # fmt: skip
        copy = job.work / "image"
        copy.unlink(missing_ok=True)
        await copying.copy_disk(pulled, copy)
        await self._take(job, copy, lambda f: tell(0.9 + f / 10))

    async def _take(self, job: Job, file: Path, tell: Callable[[float], None]) -> None:
        self._room(job, 0)
        await taking.take(file, job.target, kind=job.format, size=job.size, user=self._user, tell=tell)

    def _room(self, job: Job, more: int) -> None:
        free = shutil.disk_usage(self._places.volumes).free - KEEP_FREE
        if more > free:
            raise ImageError(
                f"{job.size >> 20} MiB are asked for, and {max(0, free) >> 20} MiB are free for it in "
                f"{self._places.volumes}: make room there, or ask for less"
            )

    # Copies of claims

    async def _clone(self, job: Job, tell: Callable[[float], None]) -> None:
        source = self._source(job)
        directory, is_ours = self._path(source)
        if is_ours:
            bases.mend(directory)
        disk = bases.disk_in(directory)
        # A link or a pipe may be a guest's that has the directory as a file system.
        if disk is None or disk.is_symlink() or not disk.is_file():
            raise Given(f"claim {source['metadata']['name']!r} has no disk in {directory}")
        if disk.suffix == ".qcow2":
            await bases.looked_into(disk, self._places.volumes)
        size = bases.virtual_size(disk)
        if size > job.size:
            raise Given(
                f"target resources requests storage size is smaller than the source: {job.size} < {size}; "
                f"ask for {size >> 20}Mi"
            )
        if not self._is_free(source, directory):
            name = source["metadata"]["name"]
            raise NotYet("CloneSourceInUse", f"claim {name!r} is in use: it is copied once its machine has stopped")
        strategy = self._strategy(job)
        if strategy != "copy" and bases.can_share(self._places.volumes):
            await self._reflink(job, disk)
        elif strategy != "copy" and is_ours and len(bases.chain(disk, self._places.volumes)) < bases.DEEPEST:
            try:
                base = await bases.freeze(
                    directory, self._places.volumes, size=size, is_free=lambda: self._is_free(source, directory)
                )
            except bases.Busy:
                raise NotYet("CloneSourceInUse", f"claim {source['metadata']['name']!r} is in use") from None
            await bases.overlay(job.directory / "disk.qcow2", base, job.size)
        else:
            await self._copy(job, disk, tell)

    async def _reflink(self, job: Job, disk: Path) -> None:
        made = job.work / disk.name
        made.unlink(missing_ok=True)
        with locks.unwritten(disk) as opened:
            await copying.copy_disk(opened, made)
        kind = "qcow2" if disk.suffix == ".qcow2" else "raw"
        await taking.show(made, job.directory / disk.name, kind=kind, size=job.size)

    async def _copy(self, job: Job, disk: Path, tell: Callable[[float], None]) -> None:
        self._room(job, disk.stat().st_blocks * 512)
        made = job.work / f"copy.{job.format}"
        made.unlink(missing_ok=True)
        if disk.suffix == ".img" and job.format == "raw":
            with locks.unwritten(disk) as opened:
                await copying.copy_disk(opened, made, progress=tell)
        else:
            await bases.flatten(disk, made, kind=job.format)
        await taking.show(made, job.target, kind=job.format, size=job.size)

    def _source(self, job: Job) -> Document:
        name, namespace = str(job.request.source.get("name")), str(job.request.source.get("namespace"))
        source = self._claims.get(name, namespace)
        if source is None:
            raise NotYet("CloneSourceMissing", f"there is no claim {name!r} in namespace {namespace}: create it")
        if (source.get("status") or {}).get("phase") != "Bound":
            raise NotYet("CloneSourceUnbound", f"claim {name!r} in namespace {namespace} is not bound yet")
        return source

    def _path(self, claim: Document) -> tuple[Path, bool]:
        """The claim's directory, and whether we made it: files in another's stay where they are."""
        name, volume = claim["metadata"]["name"], self._pvs.get(claim["spec"]["volumeName"])
        path = path_of(volume)
        if path is None:
            raise Given(f"claim {name!r} is no directory of this node")
        if path.is_block_device():
            raise Given(f"claim {name!r} is a block device, which is not copied here: export it, and import that")
        return path, ((volume or {})["metadata"].get("annotations") or {}).get(OWNED) == PROVISIONER

    def _is_free(self, claim: Document, directory: Path) -> bool:
        """Nobody has the disk open, nor is about to."""
        disk = bases.disk_in(directory)
        if disk is not None and locks.taken(disk, read_only=False, shareable=False):
            return False
        metadata = claim["metadata"]
        for vmi in self._vmis.list(metadata["namespace"]):
            if (vmi.get("status") or {}).get("phase") in ("Scheduled", "Running"):
                names = [api_disks.claim(volume) for volume in vmi["spec"].get("volumes") or ()]
                if metadata["name"] in names:
                    return False
        return True

    def _strategy(self, job: Job) -> str:
        profile = self._profiles.get(str(job.claim["spec"].get("storageClassName")))
        return str(((profile or {}).get("spec") or {}).get("cloneStrategy") or "")
