"""VirtualMachineInstanceReplicaSet -> VirtualMachineInstances: so many guests that are alike, however each one ends.

`plan` decides from what there is; the controller carries it out. One worker has one set at a time, and sees at once
what it made itself (`Informer.observe`), so that a lagging cache does not make it make more. Which guests go first is
decided by what they are and not by chance, so that a repeated decision picks the same ones.
"""

from collections.abc import Callable
from datetime import datetime
from random import choice

from msgspec import Struct

from hotvirt.controllers import replicas
from hotvirt.controllers import spec as specs
from hotvirt.controllers.replicas import BURST, BY_CONTROLLER, Claimed, Failure
from hotvirt.kube import conditions, owners, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, Conflict
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result, owner
from hotvirt.kube.resources import REPLICA_SETS, VMIS
from hotvirt.kube.times import Clock

REST = 10.0
"""Seconds before a guest that failed soon after its start is replaced: without, one that cannot run would be made again
without end."""
EARLY = 60.0
LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""For names: none that make words, or look like another."""
PAUSED = Failure("Paused", "the replica set is paused: nothing is made or deleted")


class Plan(Struct, frozen=True):
    """`wait`: seconds until one that failed is replaced."""

    create: int = 0
    delete: tuple[Document, ...] = ()
    wait: float | None = None


def plan(owner: Document, mine: tuple[Document, ...], now: datetime) -> Plan:
    """What is to be made and deleted; `mine` are the set's guests."""
    if replicas.is_paused(owner) or specs.is_deleting(owner):
        return Plan()
    rests = {vmi["metadata"]["uid"]: _rest(vmi, now) for vmi in mine if specs.is_final(vmi) or _loses_its_pod(vmi)}
    over = [vmi for vmi in mine if rests.get(vmi["metadata"]["uid"]) == 0 and not specs.is_deleting(vmi)]
    living = active(mine)
    resting = [left for left in rests.values() if left > 0]
    missing = replicas.wanted(owner) - len(living) - len(resting)
    surplus = sorted(living, key=_worth)[: max(0, len(living) - replicas.wanted(owner))]
    return Plan(min(BURST, max(0, missing)), (*over, *surplus)[:BURST], min(resting, default=None))


def active(mine: tuple[Document, ...]) -> list[Document]:
    """Those that count: neither ended nor on their way out."""
    return [
        vmi for vmi in mine if not (specs.is_final(vmi) or specs.is_deleting(vmi) or _loses_its_pod(vmi))
    ]  # fmt: skip


def _loses_its_pod(vmi: Document) -> bool:
    """Somebody deleted the pod: the guest shuts down for as long as it is given, and is not waited for."""
    return (conditions.of(vmi, "Ready") or {}).get("reason") == "PodTerminating"


def _rest(vmi: Document, now: datetime) -> float:
    """Seconds that an ended guest still keeps its place."""
    failed = specs.reached(vmi, "Failed")
    if specs.phase(vmi) != "Failed" or failed is None or _loses_its_pod(vmi):
        return 0.0
    ran = specs.reached(vmi, "Running")
    if ran is not None and (failed - ran).total_seconds() >= EARLY:
        return 0.0
    return max(0.0, REST - (now - failed).total_seconds())


def _worth(vmi: Document) -> tuple[object, ...]:
    """What is worth least goes first: not running, not ready, young."""
    age = [-ord(letter) for letter in str(vmi["metadata"].get("creationTimestamp") or "")]
    return specs.phase(vmi) == "Running", replicas.is_ready(vmi), age, vmi["metadata"]["name"]


def render(owner: Document, suffix: str) -> Document:
    """A guest of the set."""
    metadata, template = owner["metadata"], owner["spec"].get("template") or {}
    given = template.get("metadata") or {}
    base = given.get("generateName") or f"{metadata['name']}-"
    return {
        "apiVersion": VMIS.api_version,
        "kind": VMIS.kind,
        "metadata": {
            "name": f"{base}{suffix}",
            "namespace": metadata["namespace"],
            "labels": dict(given.get("labels") or {}),
            "annotations": dict(given.get("annotations") or {}),
            "finalizers": [specs.VMI_FINALIZER],
            "ownerReferences": [owners.reference(REPLICA_SETS, owner)],
        },
        "spec": template.get("spec") or {},
    }


class ReplicaSetController:
    def __init__(
        self,
        client: Client,
        informers: SharedInformers,
        *,
        recorder: Recorder,
        clock: Clock,
        letter: Callable[[str], str] = choice,
    ) -> None:
        self._client, self._recorder, self._clock, self._letter = client, recorder, clock, letter
        self._sets, self._vmis = informers.of(REPLICA_SETS), informers.of(VMIS)
        self._vmis.add_index(BY_CONTROLLER, replicas.controllers_of)
        self.controller = Controller("replicaset", self.reconcile)
        self.controller.watch(self._sets)
        self.controller.watch(self._vmis, owner(REPLICA_SETS.kind), delay=replicas.GATHER)
        self.controller.watch(self._vmis, self._could_be_of)

    async def reconcile(self, key: Key) -> Result:
        found = self._sets.get(key.name, key.namespace)
        if found is None:
            return DONE
        candidates = (found["metadata"]["uid"], replicas.nobody(key.namespace))
        claimed = replicas.claim(
            found, [vmi for each in candidates for vmi in self._vmis.by_index(BY_CONTROLLER, each)]
        )
        error = await self._settle(found, claimed)
        mine = (*claimed.mine, *claimed.adopt)
        todo = plan(found, mine, self._clock())
        refused = {
            "FailedUpdate": error,
            "FailedDelete": await replicas.at_once([self._delete(found, vmi) for vmi in todo.delete]),
            "FailedCreate": await replicas.at_once([self._create(found) for _ in range(todo.create)]),
        }
        told = [Failure(why, each.message) for why, each in refused.items() if each and not isinstance(each, Conflict)]
        await self._report(found, told[-1] if told else None)
        error = next((each for each in refused.values() if each), None)
        if error is not None:
            raise error
        if len(todo.delete) == BURST or todo.create == BURST:
            return Result(requeue_after=0)
        return Result(requeue_after=todo.wait) if todo.wait is not None else DONE

    async def _settle(self, found: Document, claimed: Claimed) -> ApiError | None:
        """Takes in those that match and are nobody's, lets go those that match no more."""
        reference = owners.reference(REPLICA_SETS, found)
        calls = [self._patch(vmi, replicas.adopted(vmi, reference)) for vmi in claimed.adopt]
        calls += [self._patch(vmi, replicas.released(vmi, found["metadata"]["uid"])) for vmi in claimed.release]
        return await replicas.at_once(calls)

    async def _create(self, found: Document) -> None:
        suffix = "".join(self._letter(LETTERS) for _ in range(5))
        wanted = render(found, suffix)
        try:
            made = await self._client.create(VMIS, wanted, found["metadata"]["namespace"])
        except AlreadyExists:
            raise Conflict(f"an instance named {wanted['metadata']['name']} exists") from None
        except ApiError as error:
            self._recorder.event(found, "Warning", "FailedCreate", error.message)
            raise
        self._vmis.observe(made)
        self._recorder.event(found, "Normal", "SuccessfulCreate", f"Started instance {made['metadata']['name']}")

    async def _delete(self, found: Document, vmi: Document) -> None:
        metadata = vmi["metadata"]
        try:
            last = await self._client.delete(VMIS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except ApiError as error:
            if not isinstance(error, Conflict):
                self._recorder.event(found, "Warning", "FailedDelete", f"{metadata['name']}: {error.message}")
            raise
        self._vmis.observe(last)
        ended = f", which {specs.phase(vmi).lower()}" if specs.is_final(vmi) else ""
        self._recorder.event(found, "Normal", "SuccessfulDelete", f"Deleted instance {metadata['name']}{ended}")

    async def _patch(self, vmi: Document, patch: Document) -> None:
        metadata = vmi["metadata"]
        self._vmis.observe(await self._client.patch(VMIS, metadata["name"], patch, metadata["namespace"]))

    async def _report(self, found: Document, failure: Failure | None) -> None:
        """As it is after what was done."""
        metadata = found["metadata"]
        mine = replicas.claim(found, self._vmis.by_index(BY_CONTROLLER, metadata["uid"])).mine
        living = active(mine)
        ready = sum(replicas.is_ready(vmi) for vmi in living)
        patch = replicas.status(
            found, replicas=len(living), ready=ready, failure=failure, paused=PAUSED, now=self._clock()
        )
        if patch is None:
            return
        for note in notes(found, patch):
            self._recorder.event(found, "Normal", *note)
        await statuses.write(self._client, self._sets, found, patch)

    def _could_be_of(self, vmi: Document) -> list[Key]:
        """Sets that a guest without an owner may join."""
        if owners.controller_of(vmi) is not None:
            return []
        namespace = vmi["metadata"].get("namespace") or ""
        return [key_of(each) for each in self._sets.list(namespace) if replicas.claim(each, [vmi]).adopt]


def notes(found: Document, patch: Document) -> list[tuple[str, str]]:
    """Reason and message of the events that a change of the status is."""
    if "conditions" not in patch:
        return []
    before, after = (
        any(condition["type"] == replicas.PAUSED for condition in known or ())
        for known in ((found.get("status") or {}).get("conditions"), patch["conditions"])
    )
    if before == after:
        return []
    return [("SuccessfulPaused", "Paused")] if after else [("SuccessfulResumed", "Resumed")]
