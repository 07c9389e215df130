"""RFC 7386 JSON merge patch: objects merge, null removes, everything else (lists too) replaces."""

from typing import Any

from hotvirt.kube import errors
from hotvirt.server.patches.copies import fresh


def merge_patch(doc: Any, patch: Any) -> Any:
    """`doc` changed as `patch` says. An API object stays an object, so a patch that is not one is refused."""
    if not isinstance(patch, dict):
        raise errors.BadRequest("a merge patch is a JSON object with the fields to change")
    return _merge(doc if isinstance(doc, dict) else {}, fresh(patch))


def _merge(doc: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """What the patch does not name is doc's own, not a copy: all that compares the two afterwards (generation, managed
    fields, whether anything changed) is spared looking into it. A fifth of the time of a small patch of a large object.
    """
    merged = dict(doc)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = doc.get(key)
            merged[key] = _merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged
