"""pods/eviction: a pod goes if the disruption budgets that are about it allow it.

An eviction takes its place in the budget before the pod is deleted, in one write that fails if another was first, so no
two take the same place. The note in `disruptedPods` keeps the place taken until the pod is seen to be on its way.
"""

from typing import Any

import msgspec

from hotvirt.kube.errors import BadRequest, Cause, Conflict, InternalError, TooManyRequests
from hotvirt.server import objectmeta
from hotvirt.server.calls import Call, DeleteOptions
from hotvirt.server.selectors import from_object
from hotvirt.server.store import Entry
from hotvirt.server.verbs import Verbs

Document = dict[str, Any]
BUDGETS = "policy/poddisruptionbudgets"
RETRY_SECONDS = 10
ATTEMPTS = 4
_NOT_DISRUPTED = ("Pending", "Succeeded", "Failed")


async def evict(verbs: Verbs, call: Call, eviction: Document) -> None:
    """TooManyRequests, with the budget as its cause, when the pod has to stay for now."""
    named = (eviction.get("metadata") or {}).get("name")
    if named and named != call.name:
        raise BadRequest(f"name in URL does not match name in Eviction object: {call.name} and {named}")
    pod = verbs.store.doc(await verbs.get(call))
    await verbs.admit_eviction(call, eviction, pod)
    options = eviction.get("deleteOptions") or {}
    preconditions = options.get("preconditions") or {}
    main = msgspec.structs.replace(call, subresource="")
    wish = DeleteOptions(
        grace=options.get("gracePeriodSeconds"), propagation=options.get("propagationPolicy") or "",
        uid=preconditions.get("uid") or pod["metadata"]["uid"],
        resource_version=preconditions.get("resourceVersion") or "",
    )  # fmt: skip
    found = [] if _goes_anyhow(pod) else budgets_of(verbs, call, pod)
    if len(found) > 1:
        raise InternalError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support: "
            + ", ".join(entry.key.name for entry in found)
        )
    for entry in found:
        # What would be refused anyway takes no place.
        await verbs.delete(msgspec.structs.replace(main, dry_run=True), wish)
        await _take_place(verbs, call, entry, pod)
    await verbs.delete(main, wish)


def _goes_anyhow(pod: Document) -> bool:
    """Nothing is disrupted that does not run, or is on its way out."""
    return bool(pod["metadata"].get("deletionTimestamp")) or (pod.get("status") or {}).get("phase") in _NOT_DISRUPTED


def budgets_of(verbs: Verbs, call: Call, pod: Document) -> list[Entry]:
    labels, found = pod["metadata"].get("labels") or {}, []
    for entry in verbs.store.entries(BUDGETS, call.namespace):
        selector = (verbs.store.doc(entry).get("spec") or {}).get("selector")
        if selector is not None and from_object(selector).matches(labels):
            found.append(entry)
    return found


async def _take_place(verbs: Verbs, call: Call, entry: Entry, pod: Document) -> None:
    served = verbs.registry.by_store(BUDGETS)
    if served is None:
        return
    write = Call(
        served=served, user=call.user, namespace=call.namespace, name=entry.key.name, subresource="status",
        dry_run=call.dry_run, field_validation="Ignore",
    )  # fmt: skip
    now = objectmeta.timestamp(verbs.now())

    def change(budget: Document) -> Document:
        return taken(budget, pod, call, now)

    for attempt in range(ATTEMPTS):
        try:
            await verbs.change(write, change)
        except Conflict:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return


def taken(budget: Document, pod: Document, call: Call, now: str) -> Document:
    """The budget with one place less. TooManyRequests when it has none. Pure."""
    status, meta = budget.get("status") or {}, budget["metadata"]
    spec = budget.get("spec") or {}
    if (status.get("observedGeneration") or 0) < (meta.get("generation") or 0):
        why = f"The disruption budget {meta['name']} is still being processed by the server."
        raise _too_many(meta["name"], call, why, retry_after=RETRY_SECONDS)
    needs, has = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
    if not _is_ready(pod) and (spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow" or has >= needs > 0):
        return budget  # one that is not well does not count among those that are needed
    allowed = int(status.get("disruptionsAllowed") or 0)
    if allowed < 1:
        why = f"The disruption budget {meta['name']} needs {needs} healthy pods and has {has} currently"
        raise _too_many(meta["name"], call, why)
    noted = {**(status.get("disruptedPods") or {}), pod["metadata"]["name"]: now}
    return {**budget, "status": {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": noted}}


def _is_ready(pod: Document) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _too_many(name: str, call: Call, why: str, *, retry_after: int = 0) -> TooManyRequests:
    """Without a time to retry after when nobody knows it: clients would wait it out on their own."""
    return TooManyRequests(
        f"Cannot evict pod as it would violate the pod's disruption budget {name}.",
        causes=[Cause("DisruptionBudget", why)], retry_after=retry_after, **call.about(call.name),
    )  # fmt: skip
