"""RFC 7386 JSON merge patch: objects merge, null removes, everything else (lists too) replaces."""

from typing import Any

from hotvirt.kube import errors
from hotvirt.server.patches.copies import fresh


def merge_patch(doc: Any, patch: Any) -> Any:
    """`doc` changed as `patch` says. An API object stays an object, so a patch that is not one is refused."""
    if not isinstance(patch, dict):
        raise errors.BadRequest("a merge patch is a JSON object with the fields to change")
    target = fresh(doc)
    return _merge(target if isinstance(target, dict) else {}, fresh(patch))


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            below = target.get(key)
            target[key] = _merge(below if isinstance(below, dict) else {}, value)
        else:
            target[key] = value
    return target
