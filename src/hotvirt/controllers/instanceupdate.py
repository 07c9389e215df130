"""Brings an edited VM's instance up to date: carries out what `liveupdate` decides.

Belongs to the VirtualMachine controller and runs in its workers, one VM at a time. Remembers which VMs wait for room on
their node, and brings them up again when room appears; that memory is only a hint, a restart finds them all anew.
"""

from collections.abc import Callable, Iterator
from functools import partial

from msgspec import structs

from hotvirt.controllers import launcherpod, livecards, liveupdate, livevolumes, newinstance
from hotvirt.controllers import spec as specs
from hotvirt.controllers.launcherpod import Settings
from hotvirt.controllers.liveupdate import Room, Update
from hotvirt.controllers.placement import Demand, demand, free, frees_room, node_changed, used
from hotvirt.kube.client import Client, Document
from hotvirt.kube.informer import Change, Key, SharedInformers, key_of
from hotvirt.kube.resources import CONTROLLER_REVISIONS, KUBEVIRTS, NODES, PODS, QUOTAS, VMIS, VMS
from hotvirt.preconditions import Facts, gather
from hotvirt.preconditions.facts import Quota


class InstanceUpdate:
    """`guard_room` where nobody else keeps a node from being promised twice (a cluster's kubelets do)."""

    def __init__(self, client: Client, informers: SharedInformers, *, guard_room: bool, wake: Callable[[Key], None]):
        self._client, self._wake, self._guard_room = client, wake, guard_room
        self._vmis, self._revisions = informers.of(VMIS), informers.of(CONTROLLER_REVISIONS)
        self._vms, self._kubevirts = informers.of(VMS), informers.of(KUBEVIRTS)
        self._kubevirts.add_handler(self._follow_settings)
        self._waiting: set[Key] = set()
        self._granted: dict[str, Demand] = {}
        self.needs = [self._revisions, self._kubevirts]
        if guard_room:
            self._pods, self._nodes, self._quotas = informers.of(PODS), informers.of(NODES), informers.of(QUOTAS)
            self.needs += [self._pods, self._nodes, self._quotas]
            self._quotas.add_handler(lambda _: self._wake_waiting())
            self._pods.add_handler(self._follow_pod)
            self._nodes.add_handler(self._follow_node)

    def started(self, vmi: Document) -> Document | None:
        """The template's spec that the instance was made from."""
        name = (vmi["metadata"].get("annotations") or {}).get(newinstance.REVISION)
        found = self._revisions.get(name, vmi["metadata"]["namespace"]) if name else None
        return newinstance.started_spec(found)

    async def apply(self, vm: Document, vmi: Document) -> tuple[Document, Update]:
        """The instance as it is then, and what is left to say. Conflict when the instance was written meanwhile."""
        kubevirts = self._kubevirts.list()
        kubevirt = kubevirts[0] if kubevirts else None
        settings, room = Settings.of(kubevirt), None
        # Claims and networks are none of the facts here: what waits for one is told of by the node.
        named = frozenset(livecards.named(specs.template_spec(vm), vm["metadata"]["namespace"]))
        facts = structs.replace(Facts.of_cluster(kubevirt), attachments=named)
        plan = partial(liveupdate.plan, vm, vmi, self.started(vmi), facts=facts, settings=settings)
        update = plan()
        if update.patch.get("domain"):  # seldom; and room is what all pods leave
            room = self._room(vmi)
            update = plan(room=room)
        (self._waiting.add if update.held else self._waiting.discard)(key_of(vm))
        generation = self._newer_generation(vm, vmi, update)
        notes = livevolumes.adopted(vm, vmi) | ({} if generation is None else {specs.GENERATION: generation})
        if not update.patch and not notes:
            return vmi, update
        if room is not None:
            self._granted[room.pod["metadata"]["uid"]] = liveupdate.asked(vmi, update, settings)
        metadata = vmi["metadata"]
        patch: Document = {"metadata": {"resourceVersion": metadata["resourceVersion"]}}
        if update.patch:
            patch["spec"] = update.patch
        if notes:
            patch["metadata"]["annotations"] = notes
        vmi = await self._client.patch(VMIS, metadata["name"], patch, metadata["namespace"])
        self._vmis.observe(vmi)
        return vmi, Update(refusals=update.refusals, waits=update.waits, held=update.held)

    def forget(self, key: Key) -> None:
        """The VM is gone."""
        self._waiting.discard(key)

    def _newer_generation(self, vm: Document, vmi: Document, update: Update) -> str | None:
        """The VM's generation, when the instance is older only by what is no part of the template."""
        current = str(vm["metadata"].get("generation") or 1)
        known = (vmi["metadata"].get("annotations") or {}).get(specs.GENERATION)
        same = update.settled and not liveupdate.is_edited(vm, self.started(vmi))
        return current if same and known is not None and known != current else None

    def _room(self, vmi: Document) -> Room | None:
        if not self._guard_room:
            return None
        pod = self._pods.get(launcherpod.name(vmi), vmi["metadata"]["namespace"])
        name = (pod or {}).get("spec", {}).get("nodeName") or ""
        node = self._nodes.get(name)
        if pod is None or node is None:
            return None
        pods, promised = self._pods.list(), self._promised(pod)
        here = sum((more for each, more in promised if each["spec"].get("nodeName") == name), Demand())
        left = free(node, used(pods).get(name, Demand())) - here
        return Room(left, pod, tuple(self._quota_lines(pod, promised)))

    def _promised(self, beside: Document) -> list[tuple[Document, Demand]]:
        """Growth that instances were given and that their pods do not show yet: no other may have it too."""
        found, outstanding = [], {}
        for pod in self._pods.list():
            uid = pod["metadata"]["uid"]
            granted = self._granted.get(uid)
            more = granted - demand(pod) if granted is not None else Demand()
            if granted is None or (more.memory <= 0 and more.cpu <= 0):
                continue
            outstanding[uid] = granted
            if pod is not beside:
                found.append((pod, Demand(max(0, more.cpu), max(0, more.memory))))
        self._granted = outstanding
        return found

    def _quota_lines(self, pod: Document, promised: list[tuple[Document, Demand]]) -> Iterator[Quota]:
        namespace = pod["metadata"]["namespace"]
        more = sum((each for other, each in promised if other["metadata"]["namespace"] == namespace), Demand())
        for obj in self._quotas.list(namespace):
            for line in gather.quota(obj):
                yield structs.replace(line, used=line.used + (more.memory if line.resource == "memory" else more.cpu))

    def _follow_pod(self, change: Change) -> None:
        if frees_room(change):
            self._wake_waiting()

    def _follow_node(self, change: Change) -> None:
        if node_changed(change):
            self._wake_waiting()

    def _follow_settings(self, change: Change) -> None:
        """What the cluster did not allow it may allow now: a gate, or the rollout strategy."""
        if change.old is not None and change.new is not None and change.old.get("spec") != change.new.get("spec"):
            for vm in self._vms.list():
                self._wake(key_of(vm))

    def _wake_waiting(self) -> None:
        for key in self._waiting:
            self._wake(key)
