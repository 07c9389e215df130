"""What a DELETE does to an object: gone at once, or marked and held by its finalizers and its grace. Pure."""

from datetime import datetime, timedelta
from typing import Any

from hotvirt.server.calls import DeleteOptions
from hotvirt.server.objectmeta import FOREGROUND, ORPHAN, timestamp
from hotvirt.server.registry import Served

Document = dict[str, Any]
DEFAULT_GRACE = 30


def mark(served: Served, old: Document, options: DeleteOptions, now: datetime) -> Document | None:
    """The object as it goes on existing, with a top level and metadata of its own; None to remove it now. Equal to
    `old` when it was marked before and nothing is new."""
    meta: Document = dict(old["metadata"])
    finalizers = _finalizers(meta.get("finalizers") or [], options)
    grace = grace_of(served, old, options)
    is_namespace = served.store == "/namespaces"
    held = bool(finalizers) or grace > 0 or (is_namespace and bool((old.get("spec") or {}).get("finalizers")))
    if not held:
        return None
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    if not meta.get("deletionTimestamp"):
        meta["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
        meta["deletionGracePeriodSeconds"] = grace
        if meta.get("generation"):
            meta["generation"] = int(meta["generation"]) + 1
    elif grace < int(meta.get("deletionGracePeriodSeconds") or 0):
        due = datetime.fromisoformat(meta["deletionTimestamp"])
        due -= timedelta(seconds=int(meta["deletionGracePeriodSeconds"]) - grace)
        meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"] = timestamp(due), grace
    marked = {**old, "metadata": meta}
    if is_namespace:
        marked["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
    return marked


def grace_of(served: Served, old: Document, options: DeleteOptions) -> int:
    """Seconds. Only pods have any, and only once they are on a node and not over: someone there must end them."""
    if served.store != "/pods":
        return 0
    spec, status, meta = old.get("spec") or {}, old.get("status") or {}, old["metadata"]
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.grace
    if meta.get("deletionTimestamp"):
        left = int(meta.get("deletionGracePeriodSeconds") or 0)
        return left if asked is None else min(left, max(asked, 0))
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds")
    return max(int(DEFAULT_GRACE if asked is None else asked), 0)


def _finalizers(present: list[str], options: DeleteOptions) -> list[str]:
    if not options.propagation:
        return list(present)
    wanted = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(options.propagation)
    kept = [each for each in present if each not in (FOREGROUND, ORPHAN) or each == wanted]
    return kept if wanted is None or wanted in kept else [*kept, wanted]
