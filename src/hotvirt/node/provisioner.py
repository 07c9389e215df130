"""Claims of the directory storage classes -> PersistentVolumes that are files here; embedded home only.

A claim gets a directory with one sparse disk file and a PV for it, named by the claim's uid, so that doing it twice
does it once. The file comes first and whole (temporary name, fsync, rename), then the PV, then the binding. A claim
that something is put into (`imports`) is bound once that file is there. One of a class that waits for its first
consumer is left alone until a machine's instance or a pod names it. A PV whose claim is gone goes, with its file, if
its reclaim policy says so, and a base that no disk needs any more goes with it.

A claim that asks for more than it has grows, if its class allows that: its PV says the new size first, and then the
file is made as large, here when no guest has it open, else by that guest's QEMU (`attachments`), which shows it.
"""

import logging
import shutil
from pathlib import Path

from hotvirt.api import datavolumes
from hotvirt.api.quantity import format_bytes, parse_bytes
from hotvirt.images import bases, disks
from hotvirt.images.errors import ImageError
from hotvirt.kube import conditions, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CLAIMS, PODS, STORAGE_CLASSES, VMIS, VMS, VOLUMES
from hotvirt.kube.times import Clock
from hotvirt.node import claimsources
from hotvirt.node.claimsources import ClaimSources, Image, NotYet
from hotvirt.node.directoryclaims import (
    KEEP_FREE,
    asked_size,
    claim_of,
    disk_format,
    disk_name,
    fault,
    growth,
    in_use,
    is_bound,
    is_filled_elsewhere,
    named_by_instance,
    named_by_pod,
    named_for_dump,
    parsed,
    persistent_volume,
    volume_name,
)
from hotvirt.node.places import Places
from hotvirt.node.volumes import CLAIM_FILES, OWNED, PROVISIONER

log = logging.getLogger(__name__)

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
PENDING = "FileSystemResizePending"
GROWING = 0.5
"""Seconds between looks at a file that a guest's QEMU is to grow."""
USED = "claim-of-provisioner"
LOOK_AGAIN = 15.0
"""Seconds between looks at a file whose claim is gone and which a guest still has open."""


class Provisioner:
    def __init__(
        self, client: Client, informers: SharedInformers, *, node: str, places: Places, recorder: Recorder,
        clock: Clock, look_again: float = LOOK_AGAIN,
    ) -> None:  # fmt: skip
        self._look_again = look_again
        self._client, self._node, self._places, self._recorder, self._clock = client, node, places, recorder, clock
        self._claims, self._volumes = informers.of(CLAIMS), informers.of(VOLUMES)
        self._classes = informers.of(STORAGE_CLASSES)
        self._sources = ClaimSources(informers, places=places)
        self.controller = Controller("provisioner", self.reconcile, workers=2)
        self.controller.watch(self._claims)
        self.controller.watch(self._volumes, claim_of)
        self.controller.watch(self._sources.snapshots, self._begins_as)
        self.controller.needs(self._sources.contents)
        self.controller.watch(self._classes, lambda _: [key_of(c) for c in self._claims.list() if not is_bound(c)])
        self._users = informers.of(VMIS), informers.of(PODS), informers.of(VMS)
        for informer, names in zip(self._users, (named_by_instance, named_by_pod, named_for_dump), strict=True):
            informer.add_index(USED, names)
            self.controller.watch(informer, lambda user, names=names: map(parsed, names(user)))  # type: ignore[misc]

    async def reconcile(self, key: Key) -> Result:
        claim = self._claims.get(key.name, key.namespace)
        is_held = await self._reclaim(key, claim)
        if claim is not None and is_bound(claim) and self._has_lost_its_volume(claim):
            return await self._lose(claim)
        result = await self._grow(claim) if claim is not None and is_bound(claim) else await self._provide(claim)
        return Result(requeue_after=self._look_again) if is_held and result == DONE else result

    async def _provide(self, claim: Document | None) -> Result:
        if claim is None or claim["metadata"].get("deletionTimestamp") or is_bound(claim):
            return DONE
        storage_class = self._class_of(claim)
        if storage_class is None or claim["spec"].get("volumeName"):
            return DONE
        if datavolumes.waits_for_consumer(claim, storage_class):
            await self._choose(claim)
            return DONE  # what follows from it is decided anew
        if (wrong := fault(claim)) is not None:
            self._recorder.event(claim, "Warning", "ProvisioningFailed", wrong)
            return DONE
        name, size, kind = volume_name(claim), asked_size(claim), disk_format(storage_class)
        directory = self._places.volumes / name
        if is_filled_elsewhere(claim) and bases.disk_in(directory) is None:
            return DONE  # whoever fills it touches the claim
        try:
            source = self._sources.of(claim)
        except NotYet as error:
            self._recorder.event(claim, "Normal", "ExternalProvisioning", str(error))
            return Result(requeue_after=15)
        try:
            await self._make(directory, size, kind, source=source)
        except (ImageError, OSError) as error:
            self._recorder.event(claim, "Warning", "ProvisioningFailed", f"the disk file could not be made: {error}")
            return Result(requeue_after=30)
        volume = persistent_volume(claim, storage_class, name=name, path=directory, size=size, node=self._node)
        try:
            self._volumes.observe(await self._client.create(VOLUMES, volume))
        except AlreadyExists:
            pass
        await self._bind(claim, volume, storage_class)
        return DONE

    async def _choose(self, claim: Document) -> None:
        """Of a class that waits: this node, once somebody there is to use the claim."""
        key = str(key_of(claim))
        if not any(informer.by_index(USED, key) for informer in self._users):
            message = "waiting for first consumer to be created before binding"
            self._recorder.event(claim, "Normal", "WaitForFirstConsumer", message)
            return
        metadata = claim["metadata"]
        patch = {"metadata": {"annotations": {datavolumes.SELECTED_NODE: self._node}}}
        self._claims.observe(await self._client.patch(CLAIMS, metadata["name"], patch, metadata["namespace"]))

    def _has_lost_its_volume(self, claim: Document) -> bool:
        """Somebody deleted the PersistentVolume of one of ours."""
        volume = claim["spec"].get("volumeName")
        return volume == volume_name(claim) and self._volumes.get(volume) is None

    async def _lose(self, claim: Document) -> Result:
        try:
            self._volumes.observe(await self._client.get(VOLUMES, claim["spec"]["volumeName"]))
        except NotFound:
            await self._claim_status(claim, {"phase": "Lost"})
            message = "its PersistentVolume is gone: delete the claim, and make it anew"
            self._recorder.event(claim, "Warning", "ClaimLost", message)
        return DONE

    async def _grow(self, claim: Document) -> Result:
        volume = self._volumes.get(claim["spec"].get("volumeName") or "")
        size = growth(claim)
        if volume is None or not size or (volume["metadata"].get("annotations") or {}).get(OWNED) != PROVISIONER:
            return DONE
        directory = Path(volume["spec"]["local"]["path"])
        found = next(((directory / name, kind) for name, kind in CLAIM_FILES if (directory / name).exists()), None)
        if found is None:
            return DONE
        has = bases.virtual_size(found[0])
        if why := self._obstacle(claim, size - has):
            self._recorder.event(claim, "Warning", "VolumeResizeFailed", why)
            return Result(requeue_after=30)
        if parse_bytes(volume["spec"]["capacity"]["storage"]) < size:
            patch = {"spec": {"capacity": {"storage": format_bytes(size)}}}
            self._volumes.observe(await self._client.patch(VOLUMES, volume["metadata"]["name"], patch))
        if has < size and in_use(directory):
            await self._growing(claim)
            return Result(requeue_after=GROWING)
        try:
            if has < size:
                await disks.grow(found[0], size, found[1])
        except (ImageError, OSError) as error:
            self._recorder.event(claim, "Warning", "VolumeResizeFailed", f"the disk file could not grow: {error}")
            return Result(requeue_after=GROWING)  # a guest may just have started with it
        await self._grown(claim, size)
        return DONE

    def _obstacle(self, claim: Document, more: int) -> str:
        storage_class = next(
            (c for c in self._classes.list() if c["metadata"]["name"] == claim["spec"].get("storageClassName")), None
        )
        if storage_class is None or not storage_class.get("allowVolumeExpansion"):
            named = claim["spec"].get("storageClassName")
            return f"storage class {named} does not let claims grow: set its allowVolumeExpansion to true"
        free = shutil.disk_usage(self._places.volumes).free
        if more > free - KEEP_FREE:
            return (
                f"it would grow by {format_bytes(more)}, and {format_bytes(free >> 20 << 20)} are free in "
                f"{self._places.volumes}: ask for less, or make room there"
            )
        return ""

    async def _growing(self, claim: Document) -> None:
        """Kubernetes' word for: the rest is done where the volume is in use."""
        old = (claim.get("status") or {}).get("conditions")
        message = "the guest that uses it is given the new size"
        new = conditions.put(old, PENDING, True, now=self._clock(), message=message)
        if new != list(old or ()):
            await self._claim_status(claim, {"conditions": new})

    async def _grown(self, claim: Document, size: int) -> None:
        was = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
        left = conditions.remove((claim.get("status") or {}).get("conditions"), PENDING)
        await self._claim_status(claim, {"capacity": {"storage": format_bytes(size)}, "conditions": left or None})
        message = f"grew from {was} to {format_bytes(size)}"
        self._recorder.event(claim, "Normal", "FileSystemResizeSuccessful", message)

    async def _claim_status(self, claim: Document, status: Document) -> None:
        await statuses.write(self._client, self._claims, claim, status, guarded=False)

    def _begins_as(self, snapshot: Document) -> list[Key]:
        """Claims that wait for a snapshot to be ready."""
        name, namespace = snapshot["metadata"]["name"], snapshot["metadata"]["namespace"]
        return [
            key_of(c) for c in self._claims.list(namespace) if not is_bound(c) and claimsources.snapshot_name(c) == name
        ]

    async def _make(self, directory: Path, size: int, kind: str, *, source: Image | None = None) -> None:
        if (disk := bases.disk_in(directory)) is not None:
            if source is not None:
                claimsources.mend(source, disk, self._places.volumes)
            return  # of whatever format: somebody has filled it
        if source is not None and size < source.size:
            raise ImageError(
                f"spec.resources.requests.storage asks for {format_bytes(size)}, and the snapshot it begins as has "
                f"{format_bytes(source.size)}: ask for at least that"
            )
        free = shutil.disk_usage(self._places.volumes).free
        if size > free - KEEP_FREE:
            raise ImageError(
                f"spec.resources.requests.storage asks for {format_bytes(size)}, and {format_bytes(free >> 20 << 20)} "
                f"are free in {self._places.volumes}: ask for less, or make room there"
            )
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        file = directory / disk_name(kind)
        if source is None:
            await disks.create(file, size, kind)
        else:
            await claimsources.fill(source, directory, self._places.volumes, size=size, format=kind)

    async def _bind(self, claim: Document, volume: Document, storage_class: Document) -> None:
        metadata = claim["metadata"]
        name, capacity = volume["metadata"]["name"], volume["spec"]["capacity"]
        await self._client.patch(VOLUMES, name, {"status": {"phase": "Bound"}}, subresource="status")
        spec: Document = {"volumeName": name}
        if not claim["spec"].get("storageClassName"):
            spec["storageClassName"] = storage_class["metadata"]["name"]
        annotations = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
        patch = {"metadata": {"annotations": annotations}, "spec": spec}
        await self._client.patch(CLAIMS, metadata["name"], patch, metadata["namespace"])
        status = {"phase": "Bound", "accessModes": claim["spec"]["accessModes"], "capacity": capacity}
        await self._claim_status(claim, status)
        self._recorder.event(claim, "Normal", "ProvisioningSucceeded", f"made {name}, {capacity['storage']}")

    async def _reclaim(self, key: Key, claim: Document | None) -> bool:
        """Volumes whose claim is gone. Whether one must wait, as a guest still uses it."""
        is_held = False
        for volume in self._volumes.list():
            reference = volume["spec"].get("claimRef") or {}
            if (reference.get("namespace"), reference.get("name")) != (key.namespace, key.name):
                continue
            if claim is not None and claim["metadata"]["uid"] == reference.get("uid"):
                continue
            if (volume["metadata"].get("annotations") or {}).get(OWNED) != PROVISIONER:
                continue
            name = volume["metadata"]["name"]
            if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
                path = Path(volume["spec"]["local"]["path"])
                if in_use(path):
                    is_held = True
                    await self._release(volume)
                    continue
                await self._release(volume)
                if path.parent == self._places.volumes and path.name == name:
                    shutil.rmtree(path, ignore_errors=True)
                    bases.collect(self._places.volumes)
                try:
                    await self._client.delete(VOLUMES, name)
                except NotFound:
                    pass
            else:
                await self._release(volume)
        return is_held

    async def _release(self, volume: Document) -> None:
        if (volume.get("status") or {}).get("phase") != "Released":
            name = volume["metadata"]["name"]
            await self._client.patch(VOLUMES, name, {"status": {"phase": "Released"}}, subresource="status")

    def _class_of(self, claim: Document) -> Document | None:
        """The claim's storage class if it is ours. "" asks for a volume made by hand."""
        named = claim["spec"].get("storageClassName")
        for each in self._classes.list():
            is_default = (each["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
            if each["metadata"]["name"] == named or (named is None and is_default):
                return each if each.get("provisioner") == PROVISIONER else None
        return None
