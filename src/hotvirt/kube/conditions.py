"""Reading and changing a `status.conditions` list: pure, the list given is never changed.

`lastTransitionTime` moves only when `status` does, and a list in which nothing changed compares equal to the old one,
so that "write only what differs" needs no more than `!=`.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from hotvirt.kube.client import Document
from hotvirt.kube.times import stamp

Conditions = Sequence[Document]


def get(conditions: Conditions | None, kind: str) -> Document | None:
    return next((c for c in conditions or () if c.get("type") == kind), None)


def of(obj: Document | None, kind: str) -> Document | None:
    """The condition of an object, by its status."""
    return get(((obj or {}).get("status") or {}).get("conditions"), kind)


def is_true(conditions: Conditions | None, kind: str) -> bool:
    found = get(conditions, kind)
    return found is not None and found.get("status") == "True"


def put(
    conditions: Conditions | None,
    kind: str,
    status: bool | str,
    *,
    now: datetime,
    reason: str = "",
    message: str = "",
) -> list[Document]:
    """With the condition set, in its old place or at the end."""
    word = status if isinstance(status, str) else str(status)
    old = get(conditions, kind)
    moved = old is None or old.get("status") != word
    new: Document = {
        "type": kind,
        "status": word,
        "lastProbeTime": None,
        "lastTransitionTime": stamp(now) if moved or old is None else old.get("lastTransitionTime"),
    }
    if reason:
        new["reason"] = reason
    if message:
        new["message"] = message
    return _replaced(conditions, kind, new)


def copy(conditions: Conditions | None, condition: Document) -> list[Document]:
    """With another object's condition taken over as it is, times included."""
    return _replaced(conditions, condition["type"], condition)


def remove(conditions: Conditions | None, *kinds: str) -> list[Document]:
    return [c for c in conditions or () if c.get("type") not in kinds]


def keep(conditions: Conditions | None, kinds: Iterable[str]) -> list[Document]:
    wanted = set(kinds)
    return [c for c in conditions or () if c.get("type") in wanted]


def _replaced(conditions: Conditions | None, kind: str, new: Document) -> list[Document]:
    old = get(conditions, kind)
    if old is None:
        return [*(conditions or ()), new]
    # Some servers drop `lastProbeTime: null` when they store it; that alone is no difference worth a write.
    if {k: v for k, v in old.items() if v is not None} == {k: v for k, v in new.items() if v is not None}:
        new = old
    return [new if c is old else c for c in conditions or ()]
