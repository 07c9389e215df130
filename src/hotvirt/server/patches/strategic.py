"""Kubernetes' strategic merge patch, for built-in kinds: lists merge by key, and directives steer the rest.

Understood: `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/<field>`,
`$setElementOrder/<field>`. Custom resources have no merge keys; Kubernetes refuses this patch type for them, and so
does the server before it gets here.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import msgspec

from hotvirt.kube import errors
from hotvirt.server.patches.copies import fresh
from hotvirt.server.patches.merge_keys import Merge, of_kind, of_type
from hotvirt.server.patches.orders import interleave

_PATCH, _RETAIN = "$patch", "$retainKeys"
_DELETE_PRIMITIVES, _ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"
_PLAIN = Merge()


def strategic_merge(doc: Any, patch: Any, kind: str) -> Any:
    """`doc`, an object of the built-in `kind`, changed as `patch` says."""
    if not isinstance(patch, dict):
        raise errors.BadRequest("a strategic merge patch is a JSON object with the fields to change")
    target = fresh(doc)
    return _merge_map(target if isinstance(target, dict) else {}, fresh(patch), of_kind(kind), "")


def _merge_map(target: dict[str, Any], patch: dict[str, Any], fields: Mapping[str, Merge], path: str) -> dict[str, Any]:
    directive = patch.pop(_PATCH, "merge")
    if directive == "delete":
        return {}
    if directive == "replace":
        return _merge_map({}, patch, fields, path)
    if directive != "merge":
        raise errors.BadRequest(f"$patch: {directive!r} at {path or 'the top'}: use replace, delete or merge")
    retained = patch.pop(_RETAIN, None)
    if retained is not None:
        _retain(target, patch, retained, path)
    orders = {key.removeprefix(_ORDER): patch.pop(key) for key in list(patch) if key.startswith(_ORDER)}
    for key in [key for key in patch if key.startswith(_DELETE_PRIMITIVES)]:
        _delete_primitives(target, key.removeprefix(_DELETE_PRIMITIVES), patch.pop(key), path)
    for key, value in patch.items():
        _merge_field(target, key, value, fields.get(key, _PLAIN), orders.get(key), f"{path}.{key}")
    for key in orders.keys() - patch.keys():
        _merge_field(target, key, [], fields.get(key, _PLAIN), orders[key], f"{path}.{key}")
    return target


def _retain(target: dict[str, Any], patch: dict[str, Any], retained: Any, path: str) -> None:
    if not isinstance(retained, list):
        raise errors.BadRequest(f"$retainKeys at {path or 'the top'} must be a list of field names")
    missing = [key for key, value in patch.items() if key not in retained and value is not None and key[0:1] != "$"]
    if missing:
        raise errors.BadRequest(
            f"$retainKeys at {path or 'the top'} must name every field of the patch, {missing[0]} too"
        )
    for key in list(target):
        if key not in retained:
            del target[key]


def _delete_primitives(target: dict[str, Any], key: str, gone: Any, path: str) -> None:
    if not isinstance(gone, list):
        raise errors.BadRequest(f"{_DELETE_PRIMITIVES}{key} at {path or 'the top'} must be a list of values")
    if isinstance(target.get(key), list):
        target[key] = [value for value in target[key] if value not in gone]


def _merge_field(target: dict[str, Any], key: str, value: Any, merge: Merge, order: Any, path: str) -> None:
    present = target.get(key)
    if value is None:
        target.pop(key, None)
    elif isinstance(value, dict):
        deletes = value.get(_PATCH) == "delete"
        merged = _merge_map(present if isinstance(present, dict) else {}, value, of_type(merge.of), path)
        if deletes:
            target.pop(key, None)
        else:
            target[key] = merged
    elif isinstance(value, list) and (merge.key or merge.primitive):
        before = present if isinstance(present, list) else []
        if not value and order is not None and not before:
            return  # nothing to order
        target[key] = _merge_list(before, value, merge, order, path)
    elif order is None or value:
        target[key] = value


def _merge_list(before: list[Any], patch: list[Any], merge: Merge, order: Any, path: str) -> list[Any]:
    wished = order if isinstance(order, list) else patch
    identify: Callable[[Any], Hashable]
    if merge.primitive:
        identify = _primitive
        merged = before + [value for index, value in enumerate(patch) if value not in before + patch[:index]]
    else:
        identify = _identify_by(merge.key)
        for item in patch + wished:
            if identify(item) is None and not _replaces(item):
                name = path.lstrip(".")
                raise errors.BadRequest(f"an item of {name} has no {merge.key}, by which this list merges: add it")
        if any(_replaces(item) for item in patch):
            before, patch = [], [item for item in patch if not _replaces(item)]
            wished = patch
        merged = _merge_items(before, patch, merge, path)
    return interleave(merged, [identify(item) for item in wished], [identify(item) for item in before], identify)


def _merge_items(before: list[Any], patch: list[Any], merge: Merge, path: str) -> list[Any]:
    identify = _identify_by(merge.key)
    fields = of_type(merge.of)
    merged = list(before)
    for change in patch:
        wanted = identify(change)
        if change.get(_PATCH) == "delete":
            merged = [item for item in merged if identify(item) != wanted]
            continue
        at = next((index for index, item in enumerate(merged) if identify(item) == wanted), None)
        below = f"{path}[{merge.key}={change[merge.key]}]"
        if at is None:
            merged.append(_merge_map({}, change, fields, below))
        else:
            merged[at] = _merge_map(merged[at], change, fields, below)
    return merged


def _replaces(item: Any) -> bool:
    return isinstance(item, dict) and item.get(_PATCH) == "replace"


def _primitive(value: Any) -> Hashable:
    return value if isinstance(value, str | int) else msgspec.json.encode(value)


def _identify_by(key: str) -> Callable[[Any], Hashable]:
    """What tells list items apart; None for an item without the key."""
    return lambda item: _primitive(item[key]) if isinstance(item, dict) and key in item else None
