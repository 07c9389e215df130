"""What replica sets and pools have in common: whose objects are whose, how many are told of, writing to many at once.

The decisions are pure; `at_once` is the one thing here that does something.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from datetime import datetime

from msgspec import Struct

from hotvirt.api import labelselectors
from hotvirt.controllers import spec as specs
from hotvirt.kube import conditions, owners
from hotvirt.kube.client import Document
from hotvirt.kube.errors import ApiError, NotFound

FAILURE, PAUSED = "ReplicaFailure", "ReplicaPaused"
BURST = 50
"""Most objects that are made or deleted in one go; the rest follows in the next."""
GATHER = 0.1
"""Seconds for which the changes of a set's objects are gathered: with hundreds, each would cost a look at all."""
BY_CONTROLLER = "controller"


class Failure(Struct, frozen=True):
    reason: str
    message: str


class Claimed(Struct, frozen=True):
    """`mine` are the owner's and match, `adopt` match and are nobody's, `release` are the owner's and match no more."""

    mine: tuple[Document, ...] = ()
    adopt: tuple[Document, ...] = ()
    release: tuple[Document, ...] = ()


def claim(owner: Document, objects: Iterable[Document], *, adopts: bool = True) -> Claimed:
    """Whose the objects of the owner's namespace are, by its selector and their owner references."""
    selector = (owner.get("spec") or {}).get("selector")
    mine: list[Document] = []
    adopt: list[Document] = []
    release: list[Document] = []
    for obj in objects:
        fits = labelselectors.matches(selector, obj["metadata"].get("labels"))
        reference = owners.controller_of(obj)
        if reference is None:
            over = specs.is_deleting(obj) or specs.is_final(obj) or specs.is_deleting(owner)
            if fits and adopts and not over:
                adopt.append(obj)
        elif reference.get("uid") == owner["metadata"]["uid"]:
            (mine if fits else release).append(obj)
    return Claimed(tuple(mine), tuple(adopt), tuple(release))


def controllers_of(obj: Document) -> list[str]:
    """Index values: the uid of an object's controller, or its namespace's nobody."""
    reference = owners.controller_of(obj)
    return [str(reference["uid"]) if reference else nobody(obj["metadata"].get("namespace") or "")]


def nobody(namespace: str) -> str:
    return f"nobody in {namespace}"


def adopted(obj: Document, owner: Document) -> Document:
    """The merge patch that gives the object its owner, of the kind that the reference says."""
    return _owned(obj, [*(obj["metadata"].get("ownerReferences") or ()), owner])


def released(obj: Document, uid: str) -> Document:
    """The merge patch that takes an owner from the object."""
    return _owned(obj, [each for each in obj["metadata"].get("ownerReferences") or () if each.get("uid") != uid])


def _owned(obj: Document, references: list[Document]) -> Document:
    metadata = obj["metadata"]
    return {"metadata": {"resourceVersion": metadata["resourceVersion"], "ownerReferences": references or None}}


def wanted(owner: Document) -> int:
    count = (owner.get("spec") or {}).get("replicas")
    return 1 if count is None else max(0, int(count))


def is_paused(owner: Document) -> bool:
    return bool((owner.get("spec") or {}).get("paused"))


def is_ready(obj: Document) -> bool:
    return conditions.is_true((obj.get("status") or {}).get("conditions"), "Ready")


def status(
    owner: Document, *, replicas: int, ready: int, failure: Failure | None, paused: Failure, now: datetime
) -> Document | None:
    """The merge patch of the owner's status, None when it says all this. `paused`: the words for that."""
    old = owner.get("status") or {}
    found = conditions.remove(old.get("conditions"), *((FAILURE,) if failure is None else ()))
    if failure is not None:
        found = conditions.put(found, FAILURE, True, now=now, reason=failure.reason, message=failure.message)
    if is_paused(owner):
        found = conditions.put(found, PAUSED, True, now=now, reason=paused.reason, message=paused.message)
    else:
        found = conditions.remove(found, PAUSED)
    new = {
        "replicas": replicas,
        "readyReplicas": ready,
        "labelSelector": labelselectors.text((owner.get("spec") or {}).get("selector")),
        "conditions": found or None,
    }
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    return changed or None


async def at_once(calls: Sequence[Awaitable[object]]) -> ApiError | None:
    """Makes the calls concurrently, to the end of each. The first refusal; what is gone already is no refusal."""
    refusals: list[ApiError] = []

    async def make(call: Awaitable[object]) -> None:
        try:
            await call
        except NotFound:
            return
        except ApiError as error:
            refusals.append(error)

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(make(call))
    return refusals[0] if refusals else None
