"""VirtualMachineSnapshot -> its content -> a VolumeSnapshot for each disk, all of one instant.

The machine is locked first (`status.snapshotInProgress`), then the content is written with all that it is to hold, then
the VolumeSnapshots that it names, then the lock is taken away. Names come from uids, so that each step done twice is
done once. It is ready when all disks are; until the deadline what fails is tried again by whoever copies the disks.
Of one snapshot one worker does this at a time.
"""

from contextlib import suppress
from datetime import datetime

from hotvirt.api import snapshots
from hotvirt.controllers import snapshot_objects as objects
from hotvirt.kube import owners, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result, in_index
from hotvirt.kube.resources import (
    CLAIMS,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    STORAGE_CLASSES,
    VMIS,
    VMS,
    VOLUME_SNAPSHOT_CLASSES,
    VOLUME_SNAPSHOTS,
)
from hotvirt.kube.times import Clock

BY_SOURCE, BY_CLAIM = "snapshot-source", "vm-claim"
LOCKED = 5.0
"""Seconds between looks at a machine that something else has locked."""
UNHURRIED = 0.2
"""Seconds after an edit of a machine until what could be snapshotted of it is told: two writers of one status at a time
have one of them begin anew, and the guest waits for the other."""


class SnapshotController:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._snapshots, self._contents = informers.of(SNAPSHOTS), informers.of(SNAPSHOT_CONTENTS)
        self._volumes, self._classes = informers.of(VOLUME_SNAPSHOTS), informers.of(VOLUME_SNAPSHOT_CLASSES)
        self._vms, self._vmis, self._claims = informers.of(VMS), informers.of(VMIS), informers.of(CLAIMS)
        self._storage = informers.of(STORAGE_CLASSES)
        self._snapshots.add_index(BY_SOURCE, lambda snapshot: [str(_source(snapshot))])
        self._vms.add_index(BY_CLAIM, _claims_of)
        self.controller = Controller("vmsnapshot", self.reconcile)
        self.controller.watch(self._snapshots)
        self.controller.watch(self._contents, _of_content)
        self.controller.watch(self._volumes, self._of_volume)
        self.controller.watch(self._vms, in_index(self._snapshots, BY_SOURCE), when=_lock_moved)
        self.controller.needs(self._vmis, self._claims, self._storage, self._classes)
        self.statuses = Controller("volume-snapshot-statuses", self.reconcile_machine, workers=1)
        self.statuses.watch(self._vms, delay=UNHURRIED)  # who changed the machine waits for more than this
        self.statuses.watch(self._claims, in_index(self._vms, BY_CLAIM), when=_came_or_went)
        self.statuses.watch(self._classes, lambda _: map(key_of, self._vms.list()))
        self.statuses.needs(self._storage)

    # What could be in one

    async def reconcile_machine(self, key: Key) -> Result:
        vm = self._vms.get(key.name, key.namespace)
        if vm is None or vm["metadata"].get("deletionTimestamp"):
            return DONE
        claims = {v: self._claims.get(claim, key.namespace) for v, claim in snapshots.claims(vm).items()}
        found = objects.snapshotable(vm, claims, self._snapshot_classes())
        if found != ((vm.get("status") or {}).get("volumeSnapshotStatuses") or []):
            await statuses.write(self._client, self._vms, vm, {"volumeSnapshotStatuses": found or None})
        return DONE

    # Snapshots

    async def reconcile(self, key: Key) -> Result:
        snapshot = self._snapshots.get(key.name, key.namespace)
        if snapshot is None:
            return DONE
        vm = self._vms.get(snapshot["spec"]["source"]["name"], key.namespace)
        content = self._contents.get(objects.content_name(snapshot), key.namespace)
        if snapshot["metadata"].get("deletionTimestamp"):
            return await self._go(snapshot, vm, content)
        phase, now = (snapshot.get("status") or {}).get("phase"), self._clock()
        if phase in objects.FINAL:
            return await self._look_after(snapshot, vm, content, now)
        end = objects.ends_at(snapshot)
        if end is not None and now >= end:
            return await self._fail(snapshot, vm, content)
        if snapshots.SNAPSHOT_FINALIZER not in (snapshot["metadata"].get("finalizers") or ()):
            snapshot = await self._finalizers(snapshot, [snapshots.SNAPSHOT_FINALIZER])
        await self._go_on(snapshot, vm, content, now)
        left = (end - now).total_seconds() if end is not None else LOCKED
        return Result(requeue_after=max(0.1, min(LOCKED, left)))

    async def _go_on(self, snapshot: Document, vm: Document | None, content: Document | None, now: datetime) -> None:
        if vm is None:
            return await self._tell(snapshot, {"phase": "InProgress"}, progressing=(False, "Source does not exist"))
        held = _held_by(vm)
        if held and held != snapshot["metadata"]["name"]:
            return await self._tell(
                snapshot, {"phase": "InProgress"}, progressing=(False, f"Source is locked by {held}")
            )
        if not held:
            vm = await statuses.write(self._client, self._vms, vm, {"snapshotInProgress": snapshot["metadata"]["name"]})
        vmi = self._vmis.get(vm["metadata"]["name"], vm["metadata"]["namespace"])
        if content is None:
            content = await self._write_content(snapshot, vm)
        content = await self._copies(snapshot, content, vmi, now)
        status: Document = {
            "phase": "InProgress", "sourceUID": vm["metadata"]["uid"], **_of_content_status(content),
            "virtualMachineSnapshotContentName": content["metadata"]["name"],
        }  # fmt: skip
        if not (snapshot.get("status") or {}).get("phase"):
            status |= objects.indicated(objects.indications(vmi, memory=snapshots.wants_memory(snapshot)))
        if not status.get("creationTime"):
            words = "In error state" if status["error"] else "Source locked and operation in progress"
            return await self._tell(snapshot, status, progressing=(not status["error"], words))
        before = (snapshot.get("status") or {}).get("indications") or []
        status |= objects.indicated(objects.taken(before, content, self._found(content)))
        status |= {"phase": "Succeeded", "snapshotVolumes": objects.snapshot_volumes(vm, content)}
        await self._tell(snapshot, status, progressing=(False, "Operation complete"))
        await self._unlock(vm, snapshot)
        created = status["creationTime"]
        self._recorder.event(snapshot, "Normal", "SnapshotSucceeded", f"the disks are kept as they were at {created}")
        return None

    async def _write_content(self, snapshot: Document, vm: Document) -> Document:
        namespace, classes = vm["metadata"]["namespace"], self._snapshot_classes()
        backups = []
        for volume, name in snapshots.claims(vm).items():
            claim = self._claims.get(name, namespace)
            bound = ((claim or {}).get("status") or {}).get("phase") == "Bound"
            if claim is not None and bound and classes.get(claim["spec"].get("storageClassName") or ""):
                backups.append(objects.volume_backup(snapshot, volume, claim))
        if snapshots.keeps_state(vm) and not backups:
            words = "no claim of the VM is in it, so neither are its UEFI variables and what its TPM keeps"
            self._recorder.event(snapshot, "Warning", "StateNotKept", words)
        made = objects.content(snapshot, vm, backups)
        try:
            made = await self._client.create(SNAPSHOT_CONTENTS, made, namespace)
        except AlreadyExists:
            return await self._client.get(SNAPSHOT_CONTENTS, made["metadata"]["name"], namespace)
        self._contents.observe(made)
        name = made["metadata"]["name"]
        self._recorder.event(
            snapshot, "Normal", "SuccessfulVirtualMachineSnapshotContentCreate",
            f"VirtualMachineSnapshotContent {name} says what is in it",
        )  # fmt: skip
        return made

    async def _copies(self, snapshot: Document, content: Document, vmi: Document | None, now: datetime) -> Document:
        """Sees to the VolumeSnapshots; gives the content with its status."""
        namespace, found = content["metadata"]["namespace"], self._found(content)
        if any(each is None for each in found) and not (content.get("status") or {}).get("creationTime"):
            end = objects.ends_at(snapshot)
            is_frozen = objects.wants_freeze(vmi, memory=snapshots.wants_memory(content))
            left = (end - now).total_seconds() if end else snapshots.DEADLINE
            freeze = max(1.0, left) if is_frozen else None
            wanted = objects.volume_snapshots(content, classes=self._snapshot_classes(), freeze=freeze)
            for made, there in zip(wanted, found, strict=True):
                if there is None:
                    with suppress(AlreadyExists):
                        self._volumes.observe(await self._client.create(VOLUME_SNAPSHOTS, made, namespace))
            found = self._found(content)
        return await self._content_status(content, objects.content_status(content, found, now=now))

    async def _look_after(
        self, snapshot: Document, vm: Document | None, content: Document | None, now: datetime
    ) -> Result:
        """One that is over: whether it can (still) be restored."""
        if vm is not None:
            await self._unlock(vm, snapshot)
        if snapshot["status"]["phase"] == "Failed":
            return DONE
        if content is None:
            status: Document = {"readyToUse": False, "error": {"message": "its content was deleted"}}
        else:
            status_now = objects.content_status(content, self._found(content), now=now)
            content = await self._content_status(content, status_now)
            status = _of_content_status(content)
        await self._tell(snapshot, status, progressing=(False, "Operation complete"))
        return DONE

    async def _fail(self, snapshot: Document, vm: Document | None, content: Document | None) -> Result:
        if content is not None:
            with suppress(NotFound):
                await self._client.delete(
                    SNAPSHOT_CONTENTS, content["metadata"]["name"], content["metadata"]["namespace"]
                )
        await self._tell(
            snapshot, {"phase": "Failed", "readyToUse": False}, progressing=(False, "Operation failed"),
            failed="snapshot deadline exceeded",
        )  # fmt: skip
        if vm is not None:
            await self._unlock(vm, snapshot)
        error = ((snapshot.get("status") or {}).get("error") or {}).get("message") or "it was not done in time"
        self._recorder.event(snapshot, "Warning", "SnapshotFailed", f"snapshot deadline exceeded: {error}")
        return DONE

    async def _go(self, snapshot: Document, vm: Document | None, content: Document | None) -> Result:
        keeps = snapshot["spec"].get("deletionPolicy") == "Retain"
        is_whole = bool(((content or {}).get("status") or {}).get("readyToUse"))
        if content is not None and not (keeps and is_whole):
            with suppress(NotFound):
                await self._client.delete(
                    SNAPSHOT_CONTENTS, content["metadata"]["name"], content["metadata"]["namespace"]
                )
        if vm is not None:
            await self._unlock(vm, snapshot)
        if snapshot["metadata"].get("finalizers"):
            await self._finalizers(snapshot, [])
        return DONE

    # Writing

    async def _finalizers(self, snapshot: Document, ours: list[str]) -> Document:
        metadata = snapshot["metadata"]
        others = [f for f in metadata.get("finalizers") or () if f != snapshots.SNAPSHOT_FINALIZER]
        patch = {"metadata": {"finalizers": [*others, *ours], "resourceVersion": metadata["resourceVersion"]}}
        try:
            written = await self._client.patch(SNAPSHOTS, metadata["name"], patch, metadata["namespace"])
        except NotFound:
            return snapshot
        self._snapshots.observe(written)
        return written

    async def _tell(
        self, snapshot: Document, status: Document, *, progressing: tuple[bool, str], failed: str = ""
    ) -> None:
        old = snapshot.get("status") or {}
        new = {**old, "readyToUse": old.get("readyToUse", False), **status}
        new["conditions"] = objects.said(new, now=self._clock(), progressing=progressing, failed=failed)
        if changed := statuses.news(snapshot, new):
            with suppress(NotFound):
                await statuses.write(self._client, self._snapshots, snapshot, changed, guarded=False)

    async def _content_status(self, content: Document, status: Document) -> Document:
        if not (changed := statuses.news(content, status)):
            return content
        return await statuses.write(self._client, self._contents, content, changed, guarded=False)

    async def _unlock(self, vm: Document, snapshot: Document) -> None:
        if (vm.get("status") or {}).get("snapshotInProgress") == snapshot["metadata"]["name"]:
            with suppress(NotFound):
                await statuses.write(self._client, self._vms, vm, {"snapshotInProgress": None})

    # Small parts

    def _snapshot_classes(self) -> dict[str, str]:
        """By storage class."""
        known = list(self._classes.list())
        return {
            c["metadata"]["name"]: snapshots.class_of(str(c.get("provisioner")), known) for c in self._storage.list()
        }

    def _found(self, content: Document) -> list[Document | None]:
        """Its VolumeSnapshots, in the order of its backups."""
        names = [backup["volumeSnapshotName"] for backup in content["spec"].get("volumeBackups") or ()]
        return [self._volumes.get(name, content["metadata"]["namespace"]) for name in names]

    def _of_volume(self, volume: Document) -> list[Key]:
        owner = owners.controller_of(volume)
        if owner is None or owner.get("kind") != SNAPSHOT_CONTENTS.kind:
            return []
        content = self._contents.get(owner["name"], volume["metadata"]["namespace"])
        return _of_content(content) if content is not None else []


def _of_content(content: Document) -> list[Key]:
    name = (content.get("spec") or {}).get("virtualMachineSnapshotName")
    return [Key(content["metadata"]["namespace"], name)] if name else []


def _of_content_status(content: Document) -> Document:
    status = content.get("status") or {}
    found: Document = {"readyToUse": bool(status.get("readyToUse")), "error": status.get("error")}
    if status.get("creationTime"):
        found["creationTime"] = status["creationTime"]
    return found


def _held_by(vm: Document) -> str:
    """The snapshot or restore that has locked it."""
    status = vm.get("status") or {}
    return str(status.get("snapshotInProgress") or status.get("restoreInProgress") or "")


def _source(snapshot: Document) -> Key:
    return Key(snapshot["metadata"]["namespace"], str(((snapshot.get("spec") or {}).get("source") or {}).get("name")))


def _claims_of(vm: Document) -> list[str]:
    return [str(Key(vm["metadata"]["namespace"], claim)) for claim in snapshots.claims(vm).values()]


def _lock_moved(change: Change) -> bool:
    if change.old is None or change.new is None:
        return True
    return _held_by(change.old) != _held_by(change.new)


def _came_or_went(change: Change) -> bool:
    return change.old is None or change.new is None
