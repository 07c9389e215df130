"""The two faces of an Event: `v1` (as kept) and `events.k8s.io/v1`. Pure; a result has a top level of its own."""

from typing import Any

_RENAMED = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
_BACK = {core: new for new, core in _RENAMED.items()}


def to_core(doc: dict[str, Any]) -> dict[str, Any]:
    return {_RENAMED.get(key, key): value for key, value in doc.items()} | {"apiVersion": "v1"}


def from_core(doc: dict[str, Any]) -> dict[str, Any]:
    renamed = {_BACK.get(key, key): value for key, value in doc.items()}
    return renamed | {"apiVersion": "events.k8s.io/v1"}
