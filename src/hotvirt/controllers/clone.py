"""VirtualMachineClone: a snapshot of the source, restored into a machine of its own, and both cleared away then.

    SnapshotInProgress -> RestoreInProgress -> CreatingTargetVM -> Succeeded, or Failed

What it makes is named by its uid and owned by it, so that each step done twice is done once, and a clone that is
deleted takes with it what it had not finished. Of one clone one worker does this at a time.
"""

from contextlib import suppress

from hotvirt.api import snapshots
from hotvirt.controllers import clone_objects as objects
from hotvirt.kube import conditions, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result, owner
from hotvirt.kube.resources import CLAIMS, CLONES, RESTORES, SNAPSHOT_CONTENTS, SNAPSHOTS, VMS, Resource
from hotvirt.kube.times import Clock, stamp

FINAL = ("Succeeded", "Failed")
BY_SOURCE = "clone-source"
LOOK_AGAIN = 2.0


class CloneController:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._clones, self._snapshots = informers.of(CLONES), informers.of(SNAPSHOTS)
        self._contents, self._restores = informers.of(SNAPSHOT_CONTENTS), informers.of(RESTORES)
        self._vms, self._claims = informers.of(VMS), informers.of(CLAIMS)
        self._clones.add_index(BY_SOURCE, _source)
        self.controller = Controller("vmclone", self.reconcile)
        self.controller.watch(self._clones)
        self.controller.watch(self._snapshots, owner(CLONES.kind, CLONES.group))
        self.controller.watch(self._restores, owner(CLONES.kind, CLONES.group))
        for informer in (self._snapshots, self._vms):
            self.controller.watch(informer, self._of_source)
        self.controller.needs(self._contents, self._claims)

    async def reconcile(self, key: Key) -> Result:
        clone = self._clones.get(key.name, key.namespace)
        if clone is None or clone["metadata"].get("deletionTimestamp"):
            return DONE
        phase = (clone.get("status") or {}).get("phase")
        if phase == "Succeeded":
            return await self._clear(clone)
        if phase == "Failed":
            return DONE
        taken = await self._snapshot(clone)
        if taken is None:
            return DONE
        status = taken.get("status") or {}
        if status.get("phase") == "Failed":
            why = (status.get("error") or {}).get("message") or "snapshot deadline exceeded"
            return await self._fail(clone, f"snapshot {taken['metadata']['name']} failed: {why}")
        content = self._contents.get(str(status.get("virtualMachineSnapshotContentName")), key.namespace)
        if not status.get("readyToUse") or content is None:
            return await self._tell(clone, "SnapshotInProgress", {"snapshotName": taken["metadata"]["name"]})
        return await self._restore(clone, taken, content)

    async def _snapshot(self, clone: Document) -> Document | None:
        """The one to restore; None while its source is missing, which is said."""
        namespace, source = clone["metadata"]["namespace"], clone["spec"]["source"]
        if source["kind"] == SNAPSHOTS.kind:
            found = self._snapshots.get(source["name"], namespace)
            if found is None:
                await self._waits(clone, f"{SNAPSHOTS.kind} {source['name']} does not exist in namespace {namespace}")
            return found
        wanted = objects.snapshot(clone)
        found = self._snapshots.get(wanted["metadata"]["name"], namespace)
        if found is not None:
            return found
        if self._vms.get(source["name"], namespace) is None:
            await self._waits(clone, f"VirtualMachine {source['name']} does not exist in namespace {namespace}")
            return None
        return await self._create(SNAPSHOTS, wanted)

    async def _restore(self, clone: Document, taken: Document, content: Document) -> Result:
        namespace, name = clone["metadata"]["namespace"], objects.target_name(clone)
        patches = objects.patches(clone, content["spec"]["source"]["virtualMachine"])
        wanted = objects.restore(clone, taken["metadata"]["name"], patches)
        names = {"snapshotName": taken["metadata"]["name"], "restoreName": wanted["metadata"]["name"]}
        restore = self._restores.get(wanted["metadata"]["name"], namespace)
        if restore is None:
            if self._vms.get(name, namespace) is not None:
                return await self._fail(clone, f"VM {name} exists already: delete it, or name another target")
            restore = await self._create(RESTORES, wanted)
        failed = conditions.of(restore, "Failure")
        if failed is not None:
            return await self._fail(clone, f"restore {wanted['metadata']['name']} failed: {failed.get('reason')}")
        if not (restore.get("status") or {}).get("complete"):
            return await self._tell(clone, "RestoreInProgress", names)
        vm = self._vms.get(name, namespace)
        if vm is None:
            await self._tell(clone, "CreatingTargetVM", {**names, "targetName": name})
            return Result(requeue_after=LOOK_AGAIN)
        if not all(self._is_bound(namespace, claim) for claim in snapshots.claims(vm).values()):
            # They are copied when they are bound; until then the snapshot must stay.
            await self._tell(clone, "CreatingTargetVM", {**names, "targetName": name})
            return Result(requeue_after=LOOK_AGAIN)
        now = stamp(self._clock())
        source = clone["spec"]["source"]["name"]
        self._recorder.event(clone, "Normal", "TargetVMCreated", f"VM {name} is a copy of {source}")
        await self._tell(clone, "Succeeded", {"targetName": name, "creationTime": now})
        return await self._clear(clone)

    async def _clear(self, clone: Document) -> Result:
        namespace, uid = clone["metadata"]["namespace"], clone["metadata"]["uid"]
        for resource, name in ((RESTORES, f"tmp-restore-{uid}"), (SNAPSHOTS, f"tmp-snapshot-{uid}")):
            with suppress(NotFound):
                await self._client.delete(resource, name, namespace)
        return DONE

    async def _create(self, resource: Resource, wanted: Document) -> Document:
        metadata = wanted["metadata"]
        try:
            made = await self._client.create(resource, wanted, metadata["namespace"])
        except AlreadyExists:
            return await self._client.get(resource, metadata["name"], metadata["namespace"])
        (self._snapshots if resource is SNAPSHOTS else self._restores).observe(made)
        return made

    async def _fail(self, clone: Document, why: str) -> Result:
        self._recorder.event(clone, "Warning", "CloneFailed", why)
        await self._tell(clone, "Failed", {}, said=why)
        return await self._clear(clone)

    async def _waits(self, clone: Document, why: str) -> None:
        self._recorder.event(clone, "Warning", "SourceDoesNotExist", why)
        await self._tell(clone, "Unknown", {}, said=why)

    async def _tell(self, clone: Document, phase: str, status: Document, *, said: str = "") -> Result:
        old, now = clone.get("status") or {}, self._clock()
        is_done, is_on = phase == "Succeeded", phase not in (*FINAL, "Unknown")
        reason = said or ("Ready" if is_done else "Still processing")
        found = conditions.put(old.get("conditions"), "Progressing", is_on, now=now, reason=reason)
        found = conditions.put(found, "Ready", is_done, now=now, reason=reason)
        if changed := statuses.news(clone, {**status, "phase": phase, "conditions": found}):
            with suppress(NotFound):
                await statuses.write(self._client, self._clones, clone, changed, guarded=False)
        return DONE

    def _is_bound(self, namespace: str, name: str) -> bool:
        claim = self._claims.get(name, namespace)
        return claim is not None and (claim.get("status") or {}).get("phase") == "Bound"

    def _of_source(self, obj: Document) -> list[Key]:
        """Clones that wait for it."""
        metadata = obj["metadata"]
        found = self._clones.by_index(BY_SOURCE, f"{obj['kind']}/{metadata['namespace']}/{metadata['name']}")
        return [key_of(each) for each in found if (each.get("status") or {}).get("phase") not in FINAL]


def _source(clone: Document) -> list[str]:
    source = (clone.get("spec") or {}).get("source") or {}
    return [f"{source.get('kind')}/{clone['metadata']['namespace']}/{source.get('name')}"]
