"""VirtualMachineRestore: a snapshot back into its machine, or into a new one.

The claims come first and whole, then the machine's spec in one write, which marks the machine as restored; until that
write the machine is as it was. Names come from the restore's uid, or are marked with it, so that each step done twice
is done once. Only InPlace takes something away before: the old claims, whose names the new ones need. Of one restore
one worker does this at a time.
"""

from contextlib import suppress
from datetime import timedelta

from hotvirt.api import snapshots
from hotvirt.api.defaults import run_strategy
from hotvirt.controllers import restore_objects as objects
from hotvirt.controllers.restore_objects import RestoreError
from hotvirt.kube import conditions, owners, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.reconciler import DONE, Controller, Result, in_index
from hotvirt.kube.resources import (
    CLAIMS,
    DATA_VOLUMES,
    RESTORES,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    STORAGE_CLASSES,
    VMIS,
    VMS,
    VOLUME_SNAPSHOTS,
)
from hotvirt.kube.times import Clock, parse, stamp

BY_TARGET, BY_CLAIM = "restore-target", "restore-claim"
RETRY, LOOK_AGAIN = 5.0, 2.0
Said = tuple[bool, str]


class Waits(Exception):
    """What the restore waits for, in words."""


class RestoreController:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._restores, self._snapshots = informers.of(RESTORES), informers.of(SNAPSHOTS)
        self._contents, self._volumes = informers.of(SNAPSHOT_CONTENTS), informers.of(VOLUME_SNAPSHOTS)
        self._vms, self._vmis, self._claims = informers.of(VMS), informers.of(VMIS), informers.of(CLAIMS)
        self._classes = informers.of(STORAGE_CLASSES)
        self._restores.add_index(BY_TARGET, lambda restore: [str(_target(restore))])
        self._restores.add_index(BY_CLAIM, _claims_of)
        self.controller = Controller("vmrestore", self.reconcile)
        self.controller.watch(self._restores)
        of_target = in_index(self._restores, BY_TARGET)
        self.controller.watch(self._vms, of_target)
        self.controller.watch(self._vmis, of_target, when=lambda change: change.new is None or change.old is None)
        self.controller.watch(self._claims, in_index(self._restores, BY_CLAIM))
        self.controller.needs(self._snapshots, self._contents, self._volumes, self._classes)

    async def reconcile(self, key: Key) -> Result:
        restore = self._restores.get(key.name, key.namespace)
        if restore is None:
            return DONE
        status = restore.get("status") or {}
        vm = self._vms.get(restore["spec"]["target"]["name"], key.namespace)
        if restore["metadata"].get("deletionTimestamp"):
            return await self._go(restore, vm)
        if status.get("complete") or _failed(restore):
            if vm is not None:
                await self._unlock(vm, restore)
            return DONE
        if snapshots.RESTORE_FINALIZER not in (restore["metadata"].get("finalizers") or ()):
            restore = await self._own(restore, vm)
        try:
            return await self._go_on(restore, vm)
        except Waits as wait:
            await self._tell(restore, {}, (True, str(wait)), (False, str(wait)))
            return Result(requeue_after=LOOK_AGAIN)
        except (RestoreError, Invalid, Forbidden) as error:
            self._recorder.event(restore, "Warning", "VirtualMachineRestoreError", str(error))
            await self._tell(restore, {}, (False, str(error)), (False, str(error)))
            return Result(requeue_after=RETRY)

    async def _go_on(self, restore: Document, vm: Document | None) -> Result:
        if vm is not None and snapshots.is_restored(vm, restore):
            return await self._finish(restore, vm)
        if vm is not None and not await self._is_ready(restore, vm):
            return Result(requeue_after=LOOK_AGAIN)
        content = self._content(restore, vm)
        if vm is not None:
            vm = await self._lock(vm, restore)
        entries = (restore.get("status") or {}).get("restores")
        if entries is None:
            entries = objects.names(restore, content)
            said = "Waiting for new PVCs"
            restore = await self._tell(restore, {"restores": entries}, (True, "Creating new PVCs"), (False, said))
        machine = content["spec"]["source"]["virtualMachine"]
        spec = objects.machine_spec(machine, entries)
        if vm is not None and restore["spec"].get("volumeRestorePolicy") == "InPlace":
            vm = await self._part_from_data_volumes(vm, spec)
        await self._make_claims(restore, content, entries, vm)
        if vm is None:
            made = await self._create(objects.new_machine(spec, restore, content))
        else:
            gone = objects.deleted_data_volumes(vm, spec)
            if gone:
                restore = await self._tell(restore, {"deletedDataVolumes": gone}, None, None)
            made = await self._client.update(VMS, objects.changed_machine(vm, spec, restore, content))
        self._vms.observe(made)
        return await self._finish(restore, made)

    async def _part_from_data_volumes(self, vm: Document, spec: Document) -> Document:
        """Those whose claims are replaced under their names: their machine would make them anew as they go."""
        if not objects.deleted_data_volumes(vm, spec):
            return vm
        changed = await self._client.update(VMS, objects.with_spec(vm, spec))
        self._vms.observe(changed)
        return changed

    async def _create(self, machine: Document) -> Document:
        metadata = machine["metadata"]
        try:
            return await self._client.create(VMS, machine, metadata["namespace"])
        except AlreadyExists:
            raise RestoreError(f"VM {metadata['name']} was made meanwhile: delete it, or name another target") from None

    async def _finish(self, restore: Document, vm: Document) -> Result:
        status = restore.get("status") or {}
        if snapshots.state_from(vm)[0]:
            raise Waits("Waiting for what the machine keeps beside its disks")
        for volume in objects.data_volumes(vm, restore):
            with suppress(AlreadyExists):
                await self._client.create(DATA_VOLUMES, volume, vm["metadata"]["namespace"])
        if restore["spec"].get("volumeOwnershipPolicy") != "None":
            for entry in status.get("restores") or ():
                if not entry.get("dataVolumeName"):
                    await self._give(entry["persistentVolumeClaim"], vm)
        for name in status.get("deletedDataVolumes") or ():
            with suppress(NotFound):
                await self._client.delete(DATA_VOLUMES, name, vm["metadata"]["namespace"])
        await self._unlock(vm, restore)
        done = "Operation complete"
        await self._tell(restore, {"complete": True, "restoreTime": stamp(self._clock())}, (False, done), (True, done))
        name = restore["spec"]["virtualMachineSnapshotName"]
        self._recorder.event(
            restore, "Normal", "VirtualMachineRestoreComplete", f"VM {vm['metadata']['name']} is as in snapshot {name}"
        )
        return DONE

    async def _go(self, restore: Document, vm: Document | None) -> Result:
        if vm is not None:
            await self._unlock(vm, restore)
        metadata = restore["metadata"]
        left = [f for f in metadata.get("finalizers") or () if f != snapshots.RESTORE_FINALIZER]
        with suppress(NotFound):
            await self._client.patch(
                RESTORES, metadata["name"], {"metadata": {"finalizers": left}}, metadata["namespace"]
            )
        return DONE

    # What must hold first

    async def _is_ready(self, restore: Document, vm: Document) -> bool:
        """Whether the machine is stopped; what its policy says is done about one that is not."""
        metadata = vm["metadata"]
        if self._vmis.get(metadata["name"], metadata["namespace"]) is None:
            return True
        policy, waiting = restore["spec"].get("targetReadinessPolicy"), "Waiting for target to be ready"
        began = parse(restore["metadata"].get("creationTimestamp"))
        failure = ""
        if policy == "FailImmediate":
            failure = "Restore target not ready"
        elif policy == "StopTarget":
            if run_strategy(vm) != "Halted":
                await self._client.patch(
                    VMS, metadata["name"], {"spec": {"runStrategy": "Halted", "running": None}}, metadata["namespace"]
                )
        elif policy != "WaitEventually" and began and self._clock() >= began + timedelta(seconds=snapshots.DEADLINE):
            failure = "Restore target failed to be ready within 5m0s"
        if failure:
            self._recorder.event(restore, "Warning", "VirtualMachineRestoreError", f"{failure}: stop the VM first")
            await self._tell(restore, {}, (False, "Operation failed"), (False, "Operation failed"), failed=failure)
        else:
            if (conditions.of(restore, "Ready") or {}).get("reason") != waiting:
                self._recorder.event(restore, "Normal", "RestoreTargetNotReady", "Restore target VMI still exists")
            await self._tell(restore, {}, (False, waiting), (False, waiting))
        return False

    def _content(self, restore: Document, vm: Document | None) -> Document:
        """Of the snapshot, when that is whole and fits the machine."""
        namespace, name = restore["metadata"]["namespace"], restore["spec"]["virtualMachineSnapshotName"]
        snapshot = self._snapshots.get(name, namespace)
        if snapshot is None:
            raise RestoreError(f"VMSnapshot {name} does not exist")
        status = snapshot.get("status") or {}
        if status.get("phase") == "Failed":
            raise RestoreError(f"VMSnapshot {name} failed and is invalid to use")
        if not status.get("readyToUse"):
            raise Waits(f"VMSnapshot {name} not ready")
        if vm is not None and vm["metadata"]["uid"] != status.get("sourceUID"):
            raise RestoreError(
                "restore source and restore target are different but restore target already exists: name a target that "
                "does not exist yet"
            )
        content = self._contents.get(str(status.get("virtualMachineSnapshotContentName")), namespace)
        if content is None:
            raise RestoreError(f"the content of VMSnapshot {name} was deleted: take another one")
        return content

    # Claims

    async def _make_claims(
        self, restore: Document, content: Document, entries: list[Document], vm: Document | None
    ) -> None:
        """All of them bound when this returns; else Waits."""
        namespace = restore["metadata"]["namespace"]
        backups = {backup["volumeName"]: backup for backup in content["spec"].get("volumeBackups") or ()}
        waits: list[str] = []
        for entry in entries:
            name = entry["persistentVolumeClaim"]
            found = self._claims.get(name, namespace)
            if found is not None and not snapshots.is_restored(found, restore):
                if restore["spec"].get("volumeRestorePolicy") != "InPlace":
                    raise RestoreError(f"claim {name} exists already: delete it, or choose another name for it")
                await self._take_away(found, restore, keeps=str(entry.get("dataVolumeName") or ""))
                waits.append(name)
            elif found is None:
                await self._make_claim(restore, backups[entry["volumeName"]], entry, vm)
                waits.append(name)
            elif not self._is_bound(found):
                waits.append(name)
        if waits:
            raise Waits(f"Waiting for new PVCs: {', '.join(waits)}")

    async def _make_claim(self, restore: Document, backup: Document, entry: Document, vm: Document | None) -> None:
        namespace = restore["metadata"]["namespace"]
        taken = self._volumes.get(entry["volumeSnapshotName"], namespace)
        if taken is None:
            raise RestoreError(f"VolumeSnapshot {entry['volumeSnapshotName']} was deleted: take another snapshot")
        is_ours = restore["spec"].get("volumeOwnershipPolicy") != "None" and not entry.get("dataVolumeName")
        owned = vm is not None and is_ours
        owner = owners.reference(VMS, vm) if owned and vm is not None else None
        size = (taken.get("status") or {}).get("restoreSize")
        made = objects.claim(restore, backup, entry, size=size, owner=owner)
        with suppress(AlreadyExists):
            self._claims.observe(await self._client.create(CLAIMS, made, namespace))

    async def _take_away(self, claim: Document, restore: Document, *, keeps: str) -> None:
        """`keeps`: the data volume that is to take over the new claim, and must not make it itself meanwhile."""
        metadata = claim["metadata"]
        owner = next((o for o in metadata.get("ownerReferences") or () if o.get("kind") == "DataVolume"), None)
        with suppress(NotFound):
            if owner is not None and owner["name"] == keeps:
                mark = {"metadata": {"annotations": objects.prepopulated(keeps, restore)}}
                await self._client.patch(DATA_VOLUMES, keeps, mark, metadata["namespace"])
            elif owner is not None:
                await self._client.delete(DATA_VOLUMES, owner["name"], metadata["namespace"])
        if not metadata.get("deletionTimestamp"):
            with suppress(NotFound, Conflict):
                await self._client.delete(CLAIMS, metadata["name"], metadata["namespace"], uid=metadata["uid"])

    def _is_bound(self, claim: Document) -> bool:
        """Or will be only when a guest needs it, where its class says so."""
        phase = (claim.get("status") or {}).get("phase")
        if phase == "Lost":
            raise RestoreError(f"claim {claim['metadata']['name']} has lost its volume: delete it, and restore again")
        return phase == "Bound"

    async def _give(self, name: str, vm: Document) -> None:
        claim = self._claims.get(name, vm["metadata"]["namespace"])
        if claim is None or claim["metadata"].get("ownerReferences"):
            return
        patch = {"metadata": {"ownerReferences": [owners.reference(VMS, vm)]}}
        with suppress(NotFound):
            await self._client.patch(CLAIMS, name, patch, vm["metadata"]["namespace"])

    # Writing

    async def _own(self, restore: Document, vm: Document | None) -> Document:
        metadata = restore["metadata"]
        patch: Document = {
            "resourceVersion": metadata["resourceVersion"],
            "finalizers": [*(metadata.get("finalizers") or ()), snapshots.RESTORE_FINALIZER],
        }
        if vm is not None and not metadata.get("ownerReferences"):
            patch["ownerReferences"] = [owners.reference(VMS, vm)]
        written = await self._client.patch(RESTORES, metadata["name"], {"metadata": patch}, metadata["namespace"])
        self._restores.observe(written)
        return written

    async def _lock(self, vm: Document, restore: Document) -> Document:
        status, name = vm.get("status") or {}, restore["metadata"]["name"]
        held = status.get("restoreInProgress")
        if held == name:
            return vm
        if held or status.get("snapshotInProgress"):
            raise Waits(f"VM is locked by {held or status.get('snapshotInProgress')}")
        return await statuses.write(self._client, self._vms, vm, {"restoreInProgress": name})

    async def _unlock(self, vm: Document, restore: Document) -> None:
        if (vm.get("status") or {}).get("restoreInProgress") == restore["metadata"]["name"]:
            with suppress(NotFound):
                await statuses.write(
                    self._client, self._vms, vm, {"restoreInProgress": None, "memoryDumpRequest": None}
                )

    async def _tell(
        self, restore: Document, status: Document, progressing: Said | None, ready: Said | None, *, failed: str = ""
    ) -> Document:
        old, now = restore.get("status") or {}, self._clock()
        found = old.get("conditions")
        for kind, said in (("Progressing", progressing), ("Ready", ready)):
            if said is not None:
                found = conditions.put(found, kind, said[0], now=now, reason=said[1])
        if failed:
            found = conditions.put(found, "Failure", True, now=now, reason=failed)
        changed = statuses.news(restore, {"complete": False, **old, **status, "conditions": found})
        if not changed:
            return restore
        try:
            return await statuses.write(self._client, self._restores, restore, changed, guarded=False)
        except NotFound:
            return restore


def _target(restore: Document) -> Key:
    return Key(restore["metadata"]["namespace"], str(((restore.get("spec") or {}).get("target") or {}).get("name")))


def _claims_of(restore: Document) -> list[str]:
    entries = (restore.get("status") or {}).get("restores") or ()
    return [str(Key(restore["metadata"]["namespace"], entry["persistentVolumeClaim"])) for entry in entries]


def _failed(restore: Document) -> bool:
    return (conditions.of(restore, "Failure") or {}).get("status") == "True"
