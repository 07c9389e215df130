"""Sets of fields, as managedFields writes them (FieldsV1), and how two versions of an object differ in such terms.

A set is a tree of dicts: a key is `f:<field>`, `k:<the item's keys as JSON>` or `v:<the value as JSON>`; "." in a node
says that the node itself is a member. On the wire a node that is only itself is written `{}`.

Which lists and maps are looked into is the schema's say (x-kubernetes-list-type, -map-type). Where there is no schema,
objects are looked into and lists are not, as Kubernetes does. Pure; nothing given is changed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hotvirt.kube import errors
from hotvirt.server.schema_meta import OBJECT_META

Set = dict[str, Any]
Schema = Mapping[str, Any]

_SELF = "."
_UNKNOWN: Schema = {}
_ABSENT = object()
_ENCODE = msgspec.json.Encoder(order="sorted").encode
_DECODE = msgspec.json.decode


def parse(wire: Any) -> Set:
    """A set from its written form."""
    if not isinstance(wire, dict) or not wire:
        return {_SELF: True}
    return {key: True if key == _SELF else parse(below) for key, below in wire.items()}


def write(fields: Set) -> dict[str, Any]:
    """The written form."""
    if len(fields) == 1 and _SELF in fields:
        return {}
    return {key: {} if key == _SELF else write(fields[key]) for key in sorted(fields)}


def is_valid(wire: Any, *, top: bool = True) -> bool:
    """Whether `wire` can be a written set."""
    if not isinstance(wire, dict) or (top and not wire):
        return False
    return all(_is_valid_key(key) and is_valid(below, top=False) for key, below in wire.items())


def _is_valid_key(key: str) -> bool:
    kind, colon, text = key.partition(":")
    if kind in ("k", "v") and colon:
        try:
            return isinstance(_DECODE(text), dict) or kind == "v"
        except msgspec.DecodeError:
            return False
    return key == _SELF or (kind in ("f", "i") and bool(colon))


def union(one: Set, other: Set) -> Set:
    """Both; `one` itself when it holds all of `other`."""
    if not one:
        return other
    result: Set | None = None
    for key, below in other.items():
        here = one.get(key)
        both = below if here is None or key == _SELF else union(here, below)
        if both is not here:
            result = dict(one) if result is None else result
            result[key] = both
    return one if result is None else result


def difference(one: Set, other: Set) -> Set:
    """What is in `one` and not in `other`; `one` itself when nothing is taken away."""
    result: Set | None = None
    for key in one.keys() & other.keys():
        left = {} if key == _SELF else difference(one[key], other[key])
        if left is one[key]:
            continue
        result = dict(one) if result is None else result
        if left:
            result[key] = left
        else:
            del result[key]
    return one if result is None else result


def intersection(one: Set, other: Set) -> Set:
    result: Set = {}
    for key in one.keys() & other.keys():
        if key == _SELF:
            result[key] = True
        elif below := intersection(one[key], other[key]):
            result[key] = below
    return result


def members(fields: Set, at: str = "") -> Iterator[str]:
    """The path of each member as conflicts name it: `.spec.containers[name="a"].image`."""
    for key in sorted(fields):
        if key == _SELF:
            yield at or "."
            continue
        kind, _, text = key.partition(":")
        if kind == "f":
            here = f"{at}.{text}"
        elif kind == "k":
            here = f"{at}[{','.join(f'{k}={_ENCODE(v).decode()}' for k, v in sorted(_DECODE(text).items()))}]"
        else:
            here = f"{at}[={text}]"
        yield from members(fields[key], here)


# --- what a schema says of a node


def root_schema(schema: Schema | None) -> Schema:
    """The schema with `metadata` described, which a CRD never does."""
    base = schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {**base, "properties": {**(base.get("properties") or {}), "metadata": OBJECT_META}}


def below_field(schema: Schema, name: str) -> Schema:
    found = (schema.get("properties") or {}).get(name)
    if found is None:
        found = schema.get("additionalProperties")
    if not isinstance(found, dict):
        return _UNKNOWN
    return root_schema(found) if found.get("x-kubernetes-embedded-resource") else found


def below_items(schema: Schema) -> Schema:
    items = schema.get("items")
    return items if isinstance(items, dict) else _UNKNOWN


def is_struct_field(schema: Schema, name: str) -> bool:
    return name in (schema.get("properties") or ())


def is_open_map(schema: Schema) -> bool:
    return schema.get("x-kubernetes-map-type") != "atomic"


def list_type(schema: Schema) -> str:
    return str(schema.get("x-kubernetes-list-type") or "atomic")


def item_key(schema: Schema, item: Any) -> str:
    """`k:{...}` or `v:...` of a list item. A key that is absent counts with its default."""
    if list_type(schema) == "set":
        return "v:" + _ENCODE(item).decode()
    fields = below_items(schema).get("properties") or {}
    known: dict[str, Any] = {}
    for name in schema.get("x-kubernetes-list-map-keys") or ():
        value = item.get(name) if isinstance(item, dict) else None
        value = (fields.get(name) or {}).get("default") if value is None else value
        if value is not None:
            known[name] = value
    return "k:" + _ENCODE(known).decode()


def keyed(schema: Schema, items: list[Any]) -> dict[str, Any]:
    """The items by key; of twins the last."""
    return {item_key(schema, item): item for item in items}


# --- sets of whole values, and of what changed


def of_applied(value: Any, schema: Schema, at: str = "") -> Set:
    """The fields that somebody who applies `value` lays claim to: leaves, items and the entries of maps. Invalid when
    a list has two items of one key."""
    if type(value) is dict and is_open_map(schema):
        result: Set = {}
        for name, child in value.items():
            below = of_applied(child, below_field(schema, name), f"{at}.{name}")
            entry = not is_struct_field(schema, name)
            result[f"f:{name}"] = {_SELF: True, **below} if not below or entry else below
        return result
    if type(value) is list and list_type(schema) != "atomic":
        inner = below_items(schema)
        keys = keyed(schema, value)
        if len(keys) != len(value):
            raise _twins(schema, value, at.removeprefix("."))
        if list_type(schema) == "set" or not value:
            return {key: {_SELF: True} for key in keys} or {_SELF: True}
        return {key: {_SELF: True, **of_applied(child, inner, at + key)} for key, child in keys.items()}
    return {_SELF: True}


def _twins(schema: Schema, items: list[Any], at: str) -> errors.Invalid:
    keys = [item_key(schema, item) for item in items]
    index = next(index for index, key in enumerate(keys) if key in keys[:index])
    message = f"Duplicate value: {keys[index][2:]}"
    cause = errors.Cause("FieldValueDuplicate", message, f"{at}[{index}]")
    return errors.Invalid(f"what is applied is invalid: {cause.field}: {message}: name each item once", causes=[cause])


def of_all(value: Any, schema: Schema) -> Set:
    """Every node of `value` that can be owned, containers too."""
    result: Set = {_SELF: True}
    for key, child, inner in _children(value, schema):
        result[key] = of_all(child, inner)
    return result


def _children(value: Any, schema: Schema) -> Iterator[tuple[str, Any, Schema]]:
    if type(value) is dict and is_open_map(schema):
        for name, child in value.items():
            yield f"f:{name}", child, below_field(schema, name)
    elif type(value) is list and list_type(schema) != "atomic":
        inner = below_items(schema) if list_type(schema) == "map" else _LEAF
        for key, child in keyed(schema, value).items():
            yield key, child, inner


_LEAF: Schema = {"x-kubernetes-map-type": "atomic"}


def changes(old: Any, new: Any, schema: Schema) -> tuple[Set, Set]:
    """What `new` has added or changed over `old`, and what it removed."""
    if old is new or (old == new and type(old) is type(new)):
        return {}, {}
    looked_into = type(old) is type(new) and (
        is_open_map(schema) if type(new) is dict else type(new) is list and list_type(schema) != "atomic"
    )
    if not looked_into:
        # A container that became a leaf, or the other way: what was below is gone.
        removed = {key: of_all(child, inner) for key, child, inner in _children(old, schema)}
        return ({_SELF: True}, {}) if not removed else (of_all(new, schema), removed)
    if type(new) is dict:
        return _map_changes(old, new, schema)
    return _list_changes(old, new, schema)


def _map_changes(old: dict[str, Any], new: dict[str, Any], schema: Schema) -> tuple[Set, Set]:
    changed: Set = {}
    removed: Set = {}
    for name, child in new.items():
        before = old.get(name, _ABSENT)
        if child is before:
            continue
        if before is _ABSENT:
            changed[f"f:{name}"] = of_all(child, below_field(schema, name))
        elif child != before:
            _note(f"f:{name}", changes(before, child, below_field(schema, name)), changed, removed)
        elif type(child) is not type(before):  # 1 and True are equal in Python
            changed[f"f:{name}"] = {_SELF: True}
    for name, child in old.items():
        if name not in new:
            removed[f"f:{name}"] = of_all(child, below_field(schema, name))
    return changed, removed


def _list_changes(old: list[Any], new: list[Any], schema: Schema) -> tuple[Set, Set]:
    changed: Set = {}
    removed: Set = {}
    inner = below_items(schema) if list_type(schema) == "map" else _LEAF
    before, after = keyed(schema, old), keyed(schema, new)
    for key, child in after.items():
        if key not in before:
            changed[key] = of_all(child, inner)
        else:
            _note(key, changes(before[key], child, inner), changed, removed)
    for key, child in before.items():
        if key not in after:
            removed[key] = of_all(child, inner)
    return changed, removed


def _note(key: str, found: tuple[Set, Set], changed: Set, removed: Set) -> None:
    if found[0]:
        changed[key] = found[0]
    if found[1]:
        removed[key] = found[1]
