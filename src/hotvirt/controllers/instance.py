"""VirtualMachineInstance -> launcher pod: carries out what `instance_phases` decides.

One worker has one instance at a time. Writes of the instance carry its resourceVersion, since the node agent writes
the same object: whoever comes second decides again on what is there then.
"""

import logging

from msgspec import structs

from hotvirt.controllers import launcherpod
from hotvirt.controllers import spec as specs
from hotvirt.controllers.instance_phases import Plan, Seen, decide, failed_to_create
from hotvirt.kube import statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result, owner
from hotvirt.kube.resources import CLAIMS, DATA_VOLUMES, KUBEVIRTS, PODS, STORAGE_CLASSES, VMIS
from hotvirt.kube.times import Clock

log = logging.getLogger(__name__)

BY_CLAIM = "claim"
LAUNCHERS = "kubevirt.io=virt-launcher"


class InstanceController:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._vmis, self._pods = informers.of(VMIS), informers.of(PODS)
        self._claims, self._classes = informers.of(CLAIMS), informers.of(STORAGE_CLASSES)
        self._kubevirts, self._data_volumes = informers.of(KUBEVIRTS), informers.of(DATA_VOLUMES)
        self._vmis.add_index(BY_CLAIM, _claims_of)
        self.controller = Controller("instance", self.reconcile)
        self.controller.watch(self._vmis)
        self.controller.watch(self._pods, owner("VirtualMachineInstance"))
        self.controller.watch(self._claims, self._users_of_claim)
        self.controller.watch(self._data_volumes, self._users_of_claim, when=_says_more)
        self.controller.needs(self._classes, self._kubevirts)

    async def reconcile(self, key: Key) -> Result:
        vmi = self._vmis.get(key.name, key.namespace)
        if vmi is None:
            return DONE
        seen = self._see(vmi)
        plan = decide(seen, self._clock())
        if plan.pod_gone and (pod := await self._pod_after_all(vmi)) is not None:
            seen = structs.replace(seen, pod=pod)
            plan = decide(seen, self._clock())
        await self._carry_out(seen, plan)
        return DONE

    def _see(self, vmi: Document) -> Seen:
        namespace = vmi["metadata"]["namespace"]
        kubevirts = self._kubevirts.list()
        claims = {c.name: self._claims.get(c.name, namespace) for c in specs.claims(vmi["spec"])}
        filled = {name: self._data_volumes.get(name, namespace) for name in claims}
        return Seen(
            vmi=vmi,
            pod=self._pods.get(launcherpod.name(vmi), namespace),
            claims=claims,
            data_volumes={name: volume for name, volume in filled.items() if volume is not None},
            classes={c["metadata"]["name"]: c for c in self._classes.list()},
            settings=launcherpod.Settings.of(kubevirts[0] if kubevirts else None),
        )

    async def _pod_after_all(self, vmi: Document) -> Document | None:
        """The pod's cache may lag behind the instance's. That a pod is gone ends a guest, so the API is asked."""
        if self._pods.get(launcherpod.name(vmi), vmi["metadata"]["namespace"]) is not None:
            return None
        try:
            pod = await self._client.get(PODS, launcherpod.name(vmi), vmi["metadata"]["namespace"])
        except NotFound:
            return None
        self._pods.observe(pod)
        return pod

    async def _carry_out(self, seen: Seen, plan: Plan) -> None:
        vmi = seen.vmi
        if plan.create_pod is not None:
            try:
                await self._create(plan.create_pod)
            except ApiError as error:
                refused = failed_to_create(seen, error.message, self._clock())
                await self._patch(vmi, refused.patch)
                self._say(vmi, refused)
                raise
        if plan.delete_pod and seen.pod is not None:
            await self._delete(seen.pod)
        await self._patch(vmi, plan.patch)
        self._say(vmi, plan)
        if plan.gate is not None and seen.pod is not None:
            await self._set_gate(seen.pod, plan.gate)
        if plan.resize is not None and seen.pod is not None:
            await self._resize(vmi, seen.pod, plan.resize)

    async def _create(self, pod: Document) -> None:
        namespace = pod["metadata"]["namespace"]
        try:
            self._pods.observe(await self._client.create(PODS, pod, namespace))
        except AlreadyExists:
            # Made before, and the cache does not know yet.
            found = await self._client.get(PODS, pod["metadata"]["name"], namespace)
            if not specs.owns({"metadata": {"uid": pod["metadata"]["ownerReferences"][0]["uid"]}}, found):
                raise
            self._pods.observe(found)

    async def _delete(self, pod: Document) -> None:
        metadata = pod["metadata"]
        try:
            await self._client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except NotFound:
            return

    async def _patch(self, vmi: Document, patch: Document | None) -> None:
        if patch is None:
            return
        metadata = vmi["metadata"]
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": metadata["resourceVersion"]}}
        try:
            self._vmis.observe(await self._client.patch(VMIS, metadata["name"], guarded, metadata["namespace"]))
        except NotFound:
            return  # the last finalizer fell meanwhile

    async def _set_gate(self, pod: Document, conditions: list[Document]) -> None:
        try:
            await statuses.write(self._client, self._pods, pod, {"conditions": conditions})
        except NotFound:
            return  # its end is seen next

    async def _resize(self, vmi: Document, pod: Document, patch: list[Document]) -> None:
        metadata = pod["metadata"]
        try:
            self._pods.observe(
                await self._client.patch(
                    PODS, metadata["name"], patch, metadata["namespace"], kind="json", subresource="resize"
                )
            )
        except (NotFound, Conflict):
            raise
        except ApiError as error:
            self._recorder.event(vmi, "Warning", "FailedGuaranteeResources", f"the pod was not resized: {error}")
            raise

    def _say(self, vmi: Document, plan: Plan) -> None:
        for note in plan.notes:
            self._recorder.event(vmi, note.kind, note.reason, note.message)

    def _users_of_claim(self, claim: Document) -> list[Key]:
        key = key_of(claim)
        return [key_of(vmi) for vmi in self._vmis.by_index(BY_CLAIM, str(key))]


def _says_more(change: Change) -> bool:
    """Not just how far it is."""
    old, new = ((each or {}).get("status") or {} for each in (change.old, change.new))
    return change.type != "MODIFIED" or any(old.get(field) != new.get(field) for field in ("phase", "conditions"))


def _claims_of(vmi: Document) -> list[str]:
    """Index values: the claims of an instance that may wait for one."""
    namespace = vmi["metadata"].get("namespace") or ""
    if specs.phase(vmi) not in ("", "Pending"):
        return []
    return [str(Key(namespace, claim.name)) for claim in specs.claims(vmi["spec"])]
