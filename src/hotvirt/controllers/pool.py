"""VirtualMachinePool -> VirtualMachines: so many machines from one template, each with a number in its name.

What is to be done is decided by `pool_plan` from what there is; this carries it out. One worker has one pool at a time,
and sees at once what it made itself. A revision of the pool (a ControllerRevision) is written before any machine
refers to it.
"""

from datetime import datetime
from functools import partial

from hotvirt.controllers import pool_objects, pool_plan, replicas
from hotvirt.controllers import spec as specs
from hotvirt.controllers.pool_objects import FINALIZER
from hotvirt.controllers.pool_plan import Seen
from hotvirt.controllers.replicas import BY_CONTROLLER, Failure
from hotvirt.controllers.replicaset import notes
from hotvirt.kube import owners
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result, owner
from hotvirt.kube.resources import CLAIMS, CONTROLLER_REVISIONS, DATA_VOLUMES, POOLS, VMIS, VMS, Resource
from hotvirt.kube.times import Clock

BY_POOL = "pool"
PAUSED = Failure("SuccessfulPaused", "the pool is paused: nothing is made, changed or deleted")


class PoolController:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._pools, self._vms, self._vmis = informers.of(POOLS), informers.of(VMS), informers.of(VMIS)
        self._revisions = informers.of(CONTROLLER_REVISIONS)
        self._vms.add_index(BY_CONTROLLER, replicas.controllers_of)
        self._revisions.add_index(BY_POOL, replicas.controllers_of)
        self.controller = Controller("pool", self.reconcile)
        self.controller.watch(self._pools)
        self.controller.watch(self._vms, owner(POOLS.kind, POOLS.group), delay=replicas.GATHER)
        self.controller.watch(self._vmis, self._pool_of_instance, delay=replicas.GATHER)
        self.controller.needs(self._revisions)

    async def reconcile(self, key: Key) -> Result:
        pool = self._pools.get(key.name, key.namespace)
        if pool is None:
            return DONE
        if specs.is_deleting(pool):
            await self._let_go(pool)
            return DONE
        refused, wait = await self._work(pool, self._clock())
        told = [(why, each) for why, each in refused if not isinstance(each, Conflict)]
        await self._report(pool, Failure(told[0][0], told[0][1].message) if told else None)
        if refused:
            raise refused[0][1]
        return Result(requeue_after=wait) if wait is not None else DONE

    async def _work(self, pool: Document, now: datetime) -> tuple[list[tuple[str, ApiError]], float | None]:
        """What the API refused, and when to look again. Each step sees what the one before has made."""
        refused: list[tuple[str, ApiError]] = []
        claimed = replicas.claim(pool, self._members(pool), adopts=False)
        error = await replicas.at_once([self._release(pool, vm) for vm in claimed.release])
        if error:
            refused.append(("FailedUpdate", error))
        if replicas.is_paused(pool):
            return refused, None
        pool = await self._marked(pool)
        scale = pool_plan.scale(self._see(pool), now)
        if scale.delete and (error := await replicas.at_once([self._delete(pool, vm) for vm in scale.delete])):
            refused.append(("FailedScaleIn", error))
        if scale.create:
            if error := await self._create(pool, scale.create):
                refused.append(("FailedScaleOut", error))
        elif error := await replicas.at_once([self._let_out(pool, vm) for vm in scale.let_out]):
            refused.append(("FailedScaleIn", error))
        if refused or scale.create or scale.delete:
            return refused, 0.0 if scale.more else scale.wait
        if error := await self._update(pool):
            refused.append(("FailedUpdate", error))
        return refused, scale.wait

    async def _update(self, pool: Document) -> ApiError | None:
        update = pool_plan.update(self._see(pool))
        if update.write:
            name = await self._revision(pool)
            return await replicas.at_once([self._rewrite(pool, vm, name) for vm in update.write])
        calls = [self._restart(pool, vm, vmi) for vm, vmi in update.restart]
        calls += [self._relabel(vmi, name) for vmi, name in update.relabel]
        calls += [self._delete(pool, vm) for vm in update.replace]
        if error := await replicas.at_once(calls):
            return error
        unused = pool_plan.unused(self._see(pool))
        return await replicas.at_once([
            self._client.delete(CONTROLLER_REVISIONS, name, pool["metadata"]["namespace"]) for name in unused
        ])  # fmt: skip

    # What there is

    def _members(self, pool: Document) -> list[Document]:
        return self._vms.by_index(BY_CONTROLLER, pool["metadata"]["uid"])

    def _see(self, pool: Document) -> Seen:
        namespace = pool["metadata"]["namespace"]
        members = replicas.claim(pool, self._members(pool), adopts=False).mine
        found = {vm["metadata"]["name"]: self._vmis.get(vm["metadata"]["name"], namespace) for vm in members}
        return Seen(
            pool=pool,
            vms=tuple(sorted(members, key=pool_objects.number)),
            vmis={vm["metadata"]["name"]: vmi for vm in members
                  if (vmi := found[vm["metadata"]["name"]]) is not None and specs.owns(vm, vmi)},
            revisions={
                each["metadata"]["name"]: each.get("data") or {}
                for each in self._revisions.by_index(BY_POOL, pool["metadata"]["uid"])
            },
        )  # fmt: skip

    def _pool_of_instance(self, vmi: Document) -> list[Key]:
        reference = owners.controller_of(vmi)
        if reference is None or reference.get("kind") != VMS.kind:
            return []
        vm = self._vms.get(reference["name"], vmi["metadata"].get("namespace") or "")
        return list(owner(POOLS.kind, POOLS.group)(vm)) if vm is not None else []

    # Machines

    async def _create(self, pool: Document, count: int) -> ApiError | None:
        namespace = pool["metadata"]["namespace"]
        taken = {key_of(vm).name for vm in self._vms.list(namespace)}
        name = await self._revision(pool)
        numbers = pool_plan.free_numbers(pool["metadata"]["name"], taken, count)
        return await replicas.at_once([self._make(pool, pool_objects.render(pool, each, name)) for each in numbers])

    async def _make(self, pool: Document, wanted: Document) -> None:
        name = wanted["metadata"]["name"]
        try:
            self._vms.observe(await self._client.create(VMS, wanted, wanted["metadata"]["namespace"]))
        except AlreadyExists:
            raise Conflict(f"a machine named {name} exists") from None
        except ApiError as error:
            self._recorder.event(pool, "Warning", "FailedCreate", f"{name}: {error.message}")
            raise
        self._recorder.event(pool, "Normal", "SuccessfulCreate", f"Made machine {name}")

    async def _delete(self, pool: Document, vm: Document) -> None:
        metadata = vm["metadata"]
        try:
            last = await self._client.delete(VMS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except ApiError as error:
            if not isinstance(error, Conflict | NotFound):
                self._recorder.event(pool, "Warning", "FailedDelete", f"{metadata['name']}: {error.message}")
            raise
        self._vms.observe(last)
        self._recorder.event(pool, "Normal", "SuccessfulDelete", f"Deleted machine {metadata['name']}")
        if FINALIZER in (last["metadata"].get("finalizers") or ()):
            await self._let_out(pool, last)

    async def _let_out(self, pool: Document, vm: Document) -> None:
        """A machine on its way out keeps what is to outlast it."""
        if pool_objects.preserves(pool):
            for resource, name in pool_objects.disks(vm):
                await self._disown(resource, name, vm)
        await self._patch(VMS, vm, pool_objects.unmarked(vm))

    async def _disown(self, resource: str, name: str, vm: Document) -> None:
        kind = CLAIMS if resource == "claim" else DATA_VOLUMES
        try:
            obj = await self._client.get(kind, name, vm["metadata"]["namespace"])
            if specs.owns(vm, obj):
                await self._patch(kind, obj, replicas.released(obj, vm["metadata"]["uid"]))
        except NotFound:
            return

    async def _rewrite(self, pool: Document, vm: Document, revision: str) -> None:
        name = vm["metadata"]["name"]
        old = (self._see(pool).revisions.get(pool_objects.revision_of(vm)) or {}).get("virtualMachineTemplate")
        try:
            await self._patch(VMS, vm, pool_objects.rewritten(pool, vm, revision, old=old))
        except ApiError as error:
            if not isinstance(error, Conflict):
                self._recorder.event(pool, "Warning", "FailedUpdate", f"{name}: {error.message}")
            raise
        self._recorder.event(pool, "Normal", "SuccessfulUpdate", f"Updated machine {name}")

    async def _restart(self, pool: Document, vm: Document, vmi: Document) -> None:
        metadata = vmi["metadata"]
        if pool_plan.restarts_by_request(vm):
            requests = [{"action": "Stop", "uid": metadata["uid"]}, {"action": "Start"}]
            await self._patch(VMS, vm, {"status": {"stateChangeRequests": requests}}, subresource="status")
        else:
            self._vmis.observe(
                await self._client.delete(VMIS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
            )
        self._recorder.event(pool, "Normal", "SuccessfulUpdate", f"Restarted machine {metadata['name']} to update it")

    async def _relabel(self, vmi: Document, revision: str) -> None:
        await self._patch(VMIS, vmi, {"metadata": {"labels": {pool_objects.REVISION: revision}}})

    async def _release(self, pool: Document, vm: Document) -> None:
        patch = replicas.released(vm, pool["metadata"]["uid"])
        await self._patch(VMS, vm, {"metadata": {**pool_objects.unmarked(vm)["metadata"], **patch["metadata"]}})

    # The pool itself

    async def _marked(self, pool: Document) -> Document:
        """Pool and machines with our finalizer while disks are to outlast machines, and without it else."""
        wanted = pool_objects.preserves(pool)
        for vm in self._see(pool).vms:
            if wanted != pool_objects.is_marked(vm) and not specs.is_deleting(vm):
                await self._patch(VMS, vm, pool_objects.marked(vm) if wanted else pool_objects.unmarked(vm))
        if wanted == pool_objects.is_marked(pool):
            return pool
        return await self._patch(POOLS, pool, pool_objects.marked(pool) if wanted else pool_objects.unmarked(pool))

    async def _let_go(self, pool: Document) -> None:
        """A pool on its way out holds up no machine."""
        marked = [vm for vm in self._members(pool) if pool_objects.is_marked(vm)]
        error = await replicas.at_once([self._patch(VMS, vm, pool_objects.unmarked(vm)) for vm in marked])
        if error is not None:
            raise error
        if pool_objects.is_marked(pool):
            await self._patch(POOLS, pool, pool_objects.unmarked(pool))

    async def _revision(self, pool: Document) -> str:
        wanted = pool_objects.revision(pool)
        name: str = wanted["metadata"]["name"]
        if self._revisions.get(name, pool["metadata"]["namespace"]) is None:
            make = partial(self._client.create, CONTROLLER_REVISIONS, wanted, pool["metadata"]["namespace"])
            try:
                self._revisions.observe(await make())
            except AlreadyExists:
                self._revisions.observe(
                    await self._client.get(CONTROLLER_REVISIONS, name, pool["metadata"]["namespace"])
                )
        return name

    async def _report(self, pool: Document, failure: Failure | None) -> None:
        metadata = pool["metadata"]
        pool = self._pools.get(metadata["name"], metadata["namespace"]) or pool
        members = [vm for vm in self._see(pool).vms if not specs.is_deleting(vm)]
        ready = sum(replicas.is_ready(vm) for vm in members)
        patch = replicas.status(
            pool, replicas=len(members), ready=ready, failure=failure, paused=PAUSED, now=self._clock()
        )
        if patch is None:
            return
        for reason, message in notes(pool, patch):
            self._recorder.event(pool, "Normal", reason.replace("Resumed", "Resume"), message)
        await self._patch(POOLS, pool, {"status": patch}, subresource="status")

    async def _patch(self, resource: Resource, obj: Document, patch: Document, *, subresource: str = "") -> Document:
        """Under the version that was read."""
        metadata = obj["metadata"]
        known = {"resourceVersion": metadata["resourceVersion"]}
        guarded = {**patch, "metadata": {**(patch.get("metadata") or {}), **known}}
        new = await self._client.patch(
            resource, metadata["name"], guarded, metadata["namespace"], subresource=subresource
        )
        for informer in (self._pools, self._vms, self._vmis):
            if informer.resource is resource:
                informer.observe(new)
        return new
