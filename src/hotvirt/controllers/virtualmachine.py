"""VirtualMachine -> VirtualMachineInstance: starts, stops and updates the instance as the VM says.

Each reconcile compares the two, carries out what `runstrategy` and `liveupdate` decide, and writes the VM's status
once, if it differs. One worker has one VM at a time. The instance's name is the VM's, so nothing is made twice.
"""

from collections.abc import Callable
from random import random

from hotvirt.api.defaults import run_strategy
from hotvirt.controllers import (
    crashloop,
    liveupdate,
    newinstance,
    runstrategy,
    sizes_shown,
    virtualmachine_status,
    volumerequests,
)
from hotvirt.controllers import spec as specs
from hotvirt.controllers.instancetypes import Instancetypes
from hotvirt.controllers.instanceupdate import InstanceUpdate
from hotvirt.controllers.liveupdate import Update
from hotvirt.controllers.virtualmachine_status import Fault, Outcome
from hotvirt.kube import conditions, owners, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CONTROLLER_REVISIONS, VMIS, VMS
from hotvirt.kube.times import Clock

ORPHAN = "orphan"
BY_OWNER = "owner"
ALWAYS_RECREATED = ("Always", "RerunOnFailure", "Once")


class VirtualMachineController:
    def __init__(
        self,
        client: Client,
        informers: SharedInformers,
        *,
        recorder: Recorder,
        clock: Clock,
        guard_room: bool = True,
        draw: Callable[[], float] = random,
    ) -> None:
        self._client, self._recorder, self._clock, self._draw = client, recorder, clock, draw
        self._vms, self._vmis = informers.of(VMS), informers.of(VMIS)
        self._revisions = informers.of(CONTROLLER_REVISIONS)
        self._revisions.add_index(BY_OWNER, _owner_uid)
        self.controller = Controller("virtualmachine", self.reconcile)
        self.controller.watch(self._vms)
        self.controller.watch(self._vmis)  # same name; one that is not the VM's own stands in its way
        self._instance_update = InstanceUpdate(client, informers, guard_room=guard_room, wake=self.controller.queue.add)
        self.controller.needs(*self._instance_update.needs)
        self._sizes = Instancetypes(client, informers)
        self._sizes.attach(self.controller)

    async def reconcile(self, key: Key) -> Result:
        vm = self._vms.get(key.name, key.namespace)
        if vm is None:
            self._instance_update.forget(key)
            return DONE
        vmi = self._vmis.get(key.name, key.namespace)
        if vmi is not None and newinstance.is_adoptable(vm, vmi):
            vmi = await self._adopt(vm, vmi)
        foreign = vmi if vmi is not None and not specs.owns(vm, vmi) else None
        if specs.is_deleting(vm):
            return await self._delete(vm, None if foreign else vmi)
        if foreign is not None:
            return await self._report(vm, None, Outcome(fault=_taken(foreign)))
        if volumerequests.requests(vm):
            await self._edit_volumes(vm)
            return DONE  # what follows from it is decided anew
        return await self._keep(vm, vmi)

    async def _keep(self, vm: Document, vmi: Document | None) -> Result:
        now = self._clock()
        sized = await self._sizes.sized(vm)
        vm, unsized = sized.machine, sized.fault
        failure = crashloop.update(vm, vmi, now=now, draw=self._draw)
        step = runstrategy.decide(vm, vmi, failure=failure, now=now)
        update, started = None, False
        try:
            if unsized is not None and step.action in ("start", "leave"):
                pass  # neither made nor compared: nobody knows what it should be
            elif step.action == "start":
                vmi = await self._start(vm, paused=step.paused)
                started = True
            elif step.action == "stop" and vmi is not None:
                vmi = await self._stop(vm, vmi)
            elif step.action == "on":
                vm = await self._patch_vm(vm, {"spec": newinstance.switched_on(vm)})
                return DONE  # what follows from it is decided anew
            elif vmi is not None and not specs.is_deleting(vmi) and not specs.is_final(vmi):
                vmi, update = await self._update(vm, vmi)
        except ApiError as error:
            if isinstance(error, Conflict | NotFound):
                raise
            refused = _fault(step.action, error)
            self._say_fault(vm, refused)
            await self._report(vm, vmi, Outcome(failure=failure, fault=refused))
            raise
        fault = unsized or _held(update)
        if fault is not None:
            self._say_fault(vm, fault)
        vm = await self._finalized(vm)
        await self._report(vm, vmi, Outcome(failure=failure, started=started, update=update, fault=fault))
        if sized.refusal is not None:
            raise sized.refusal
        waits = (step.wait, crashloop.settles_in(failure, vmi, now))
        due = [wait for wait in waits if wait is not None]
        return Result(requeue_after=min(due)) if due else DONE

    async def _edit_volumes(self, vm: Document) -> None:
        """The template first: requests that are carried out twice change nothing the second time."""
        answer = volumerequests.answer(vm)
        if answer.patch:
            vm = await self._patch_vm(vm, {"spec": {"template": {"spec": answer.patch}}})
        for why in answer.refused:
            self._recorder.event(vm, "Warning", "VolumeRequestRefused", why)
        await self._write_status(vm, {"volumeRequests": None})

    # Start and stop

    async def _start(self, vm: Document, *, paused: bool) -> Document:
        """The revision first: an instance without one could not be compared with what it was started from."""
        namespace, name = vm["metadata"]["namespace"], vm["metadata"]["name"]
        await self._remember(vm)
        try:
            vmi = await self._client.create(VMIS, newinstance.render(vm, paused=paused), namespace)
        except AlreadyExists:
            # Made before, and the cache does not know yet; or one that is not this VM's.
            vmi = await self._client.get(VMIS, name, namespace)
            self._vmis.observe(vmi)
            if not specs.owns(vm, vmi):
                raise Conflict(_taken(vmi).message) from None
            return vmi
        self._vmis.observe(vmi)
        self._recorder.event(vm, "Normal", "SuccessfulCreate", f"Started the machine as instance {name}")
        return vmi

    async def _adopt(self, vm: Document, vmi: Document) -> Document:
        """One that was left behind by a machine of this name, or made without one."""
        metadata = vmi["metadata"]
        if (revision := self._revision_of(vmi)) is not None and owners.controller_of(revision) is None:
            await self._own(revision, [owners.reference(VMS, vm)])
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], **newinstance.adoption(vm, vmi)}}
        adopted = await self._client.patch(VMIS, metadata["name"], patch, metadata["namespace"])
        self._vmis.observe(adopted)
        return adopted

    async def _leave_behind(self, vm: Document, vmi: Document) -> None:
        """The instance outlives its machine: what it was started from goes with it, and not before."""
        revision, reference = self._revision_of(vmi), newinstance.dependence(vmi)
        if revision is not None and reference not in (revision["metadata"].get("ownerReferences") or ()):
            kept = [r for r in revision["metadata"].get("ownerReferences") or () if r["uid"] == vm["metadata"]["uid"]]
            await self._own(revision, [*kept, reference])

    def _revision_of(self, vmi: Document) -> Document | None:
        name = (vmi["metadata"].get("annotations") or {}).get(newinstance.REVISION)
        return self._revisions.get(name, vmi["metadata"]["namespace"]) if name else None

    async def _own(self, revision: Document, owners: list[Document]) -> None:
        metadata = revision["metadata"]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "ownerReferences": owners}}
        try:
            self._revisions.observe(
                await self._client.patch(CONTROLLER_REVISIONS, metadata["name"], patch, metadata["namespace"])
            )
        except NotFound:
            return

    async def _remember(self, vm: Document) -> None:
        wanted = newinstance.revision(vm)
        namespace, name = vm["metadata"]["namespace"], wanted["metadata"]["name"]
        mine = [
            each for each in self._revisions.by_index(BY_OWNER, vm["metadata"]["uid"])
            if each["metadata"]["name"].startswith(newinstance.REVISION_PREFIX)
        ]  # fmt: skip
        if all(revision["metadata"]["name"] != name for revision in mine):
            try:
                self._revisions.observe(await self._client.create(CONTROLLER_REVISIONS, wanted, namespace))
            except AlreadyExists:
                pass
        for revision in mine:
            if revision["metadata"]["name"] != name:
                try:
                    await self._client.delete(CONTROLLER_REVISIONS, revision["metadata"]["name"], namespace)
                except NotFound:
                    continue

    async def _stop(self, vm: Document, vmi: Document) -> Document | None:
        metadata = vmi["metadata"]
        try:
            last = await self._client.delete(VMIS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except NotFound:
            return None
        self._vmis.observe(last)
        self._recorder.event(vm, "Normal", "SuccessfulDelete", f"Stopped the machine's instance {metadata['name']}")
        return last

    # An edited VM, and its instance

    async def _update(self, vm: Document, vmi: Document) -> tuple[Document | None, Update | None]:
        if not specs.has_guest(vmi):
            return await self._made_anew(vm, vmi, self._instance_update.started(vmi))
        before = vmi["spec"]
        vmi, update = await self._instance_update.apply(vm, vmi)
        if changes := sizes_shown.changes(before, vmi["spec"]):
            self._recorder.event(vm, "Normal", "LiveUpdate", f"Changing the running guest: {changes}")
        self._say_refusals(vm, update)
        return vmi, update

    async def _made_anew(
        self, vm: Document, vmi: Document, started: Document | None
    ) -> tuple[Document | None, Update | None]:
        """No guest runs yet, so an edit is best followed by starting over: it may be the mend for what holds it up."""
        if not liveupdate.is_edited(vm, started):
            return vmi, Update()
        if run_strategy(vm) not in ALWAYS_RECREATED:
            restart = [{"action": "Stop", "uid": vmi["metadata"]["uid"]}, {"action": "Start"}]
            if runstrategy.requests_of(vm) != restart:
                await self._write_status(vm, {"stateChangeRequests": restart})
            return vmi, None
        return await self._stop(vm, vmi), None

    def _say_refusals(self, vm: Document, update: Update) -> None:
        if not update.refusals:
            return
        text = liveupdate.message(update, vm["metadata"]["name"])
        known = conditions.of(vm, "RestartRequired")
        if known is None or known.get("message") != text:
            self._recorder.event(vm, "Warning", "RestartRequired", text)

    def _say_fault(self, vm: Document, fault: Fault) -> None:
        known = conditions.of(vm, "Failure")
        if known is None or known.get("message") != fault.message:
            self._recorder.event(vm, "Warning", fault.reason, fault.message)

    # The VM itself

    async def _finalized(self, vm: Document) -> Document:
        """With our finalizer: the VM stays until its instance is gone."""
        metadata = vm["metadata"]
        if specs.VM_FINALIZER in (metadata.get("finalizers") or ()):
            return vm
        finalizers = [*(metadata.get("finalizers") or ()), specs.VM_FINALIZER]
        return await self._patch_vm(vm, {"metadata": {"finalizers": finalizers}})

    async def _delete(self, vm: Document, vmi: Document | None) -> Result:
        finalizers = vm["metadata"].get("finalizers") or []
        if vmi is not None and ORPHAN in finalizers:
            await self._leave_behind(vm, vmi)
        elif vmi is not None:
            if not specs.is_deleting(vmi):
                vmi = await self._stop_if_owned(vm, vmi)
            if vmi is not None:
                return await self._report(vm, vmi, Outcome())
        left = [finalizer for finalizer in finalizers if finalizer != specs.VM_FINALIZER]
        try:
            if len(left) < len(finalizers):
                vm = await self._patch_vm(vm, {"metadata": {"finalizers": left}})
            if left:
                await self._report(vm, vmi, Outcome())
        except NotFound:
            pass  # whoever else held it let go meanwhile
        return DONE

    async def _stop_if_owned(self, vm: Document, vmi: Document) -> Document | None:
        """The instance's cache may lag behind the machine's, which then would stop what was just left behind."""
        try:
            current = await self._client.get(VMIS, vmi["metadata"]["name"], vmi["metadata"]["namespace"])
        except NotFound:
            return None
        return await self._stop(vm, current) if specs.owns(vm, current) else None

    async def _patch_vm(self, vm: Document, patch: Document) -> Document:
        metadata = vm["metadata"]
        guarded = {**patch.get("metadata", {}), "resourceVersion": metadata["resourceVersion"]}
        patch = {**patch, "metadata": guarded}
        new = await self._client.patch(VMS, metadata["name"], patch, metadata["namespace"])
        self._vms.observe(new)
        return new

    async def _report(self, vm: Document, vmi: Document | None, outcome: Outcome) -> Result:
        status = virtualmachine_status.patch(vm, vmi, outcome, now=self._clock())
        if status is not None:
            await self._write_status(vm, status)
            for kind, reason, message in sizes_shown.story(vm, status):
                self._recorder.event(vm, kind, reason, message)
        return DONE

    async def _write_status(self, vm: Document, status: Document) -> None:
        """Under the version that was read, so that a start or stop asked for meanwhile is not overwritten."""
        await statuses.write(self._client, self._vms, vm, status)


def _held(update: Update | None) -> Fault | None:
    """What waits for room, as KubeVirt reports a hot-plug that did not come about."""
    if update is None or not update.held:
        return None
    reason = "HotPlugMemoryError" if update.held[0].id == "node.memory" else "HotPlugCPUError"
    return Fault(reason, "; ".join(str(each) for each in update.held))


def _taken(vmi: Document) -> Fault:
    name = vmi["metadata"]["name"]
    reference = owners.controller_of(vmi)
    whose = f"belongs to {reference['kind']} {reference['name']}" if reference else "belongs to no VM"
    return Fault(
        "FailedCreate",
        f"an instance named {name} exists and {whose}; delete it (kubectl delete vmi {name}) or rename this VM",
    )


def _fault(action: str, error: ApiError) -> Fault:
    reasons = {"start": "FailedCreate", "stop": "FailedDelete"}
    return Fault(reasons.get(action, "FailedUpdateError"), error.message)


def _owner_uid(obj: Document) -> list[str]:
    reference = owners.controller_of(obj)
    return [reference["uid"]] if reference else []
