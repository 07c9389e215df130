"""Documents as values of CEL: escaped property names, points in time, durations and bytes by format, doubles.

`compile_conversion` gives one closure a schema node, or None where the document is the value already, as most are.
`compile_alignment` brings an old value's unordered lists into the new one's order, so that `==` compares them as sets.
Pure; documents are never changed.
"""

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from hotvirt.server.cel import times
from hotvirt.server.cel.names import escape
from hotvirt.server.cel.types import kind_of, properties_of

Document = dict[str, Any]
Convert = Callable[[Any], Any]
Align = Callable[[Any, Any], Any]
_encode = msgspec.json.Encoder(order="sorted").encode


def compile_conversion(schema: Document, *, is_resource: bool = False) -> Convert | None:
    kind = kind_of(schema)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind == "list":
        item = _below(schema["items"])
        return _list(item) if item else None
    if kind == "map":
        value = _below(schema["additionalProperties"])
        return _map(value) if value else None
    if kind != "object":
        return None
    names: dict[str, str] = {}
    inner: dict[str, Convert] = {}
    for name, below in properties_of(schema, is_resource=is_resource).items():
        written = escape(name)
        if written is not None and written != name:
            names[name] = written
        if convert := _below(below):
            inner[name] = convert
    return _object(names, inner) if names or inner else None


def _below(schema: Document) -> Convert | None:
    return compile_conversion(schema, is_resource=bool(schema.get("x-kubernetes-embedded-resource")))


def _double(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _int(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


def _tolerant(parse: Callable[[str], Any]) -> Convert:
    """What is not of its format was reported by the schema; a rule then sees the text."""

    def convert(value: Any) -> Any:
        try:
            return parse(value) if type(value) is str else value
        except ValueError:
            return value

    return convert


_SCALARS: dict[str, Convert] = {
    "double": _double,
    "int": _int,
    "bytes": _tolerant(base64.b64decode),
    "timestamp": _tolerant(times.timestamp),
    "duration": _tolerant(times.duration),
}


def _list(item: Convert) -> Convert:
    return lambda value: [item(each) for each in value] if type(value) is list else value


def _map(convert: Convert) -> Convert:
    return lambda value: {k: convert(v) for k, v in value.items()} if type(value) is dict else value


def _object(names: dict[str, str], inner: dict[str, Convert]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not dict:
            return value
        found = {**value, **{name: step(value[name]) for name, step in inner.items() if name in value}}
        return {names.get(name, name): each for name, each in found.items()} if names else found

    return convert


def compile_alignment(schema: Document) -> Align | None:
    """(old, new) to old. None where nothing below is unordered."""
    kind = schema.get("type")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return _aligned_list(schema)
    inner = {name: align for name, below in (schema.get("properties") or {}).items()
             if (align := compile_alignment(below))}  # fmt: skip
    more = schema.get("additionalProperties")
    rest = compile_alignment(more) if isinstance(more, dict) else None
    if not inner and not rest:
        return None

    def align_object(old: Any, new: Any) -> Any:
        if type(old) is not dict or type(new) is not dict:
            return old
        found = dict(old)
        for name in old.keys() & new.keys():
            if step := inner.get(name, rest):
                found[name] = step(old[name], new[name])
        return found

    return align_object


def _aligned_list(schema: Document) -> Align | None:
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if list_type not in ("set", "map"):
        return None
    item = compile_alignment(schema["items"])

    def align(old: Any, new: Any) -> Any:
        if type(old) is not list or type(new) is not list:
            return old
        before = {identity(each, keys): each for each in old}
        order = [identity(each, keys) for each in new]
        if len(old) != len(new) or before.keys() != set(order):
            return old  # they differ in any order
        found = [before[key] for key in order]
        return [item(was, now) for was, now in zip(found, new, strict=True)] if item else found

    return align


def identity(item: Any, keys: list[str]) -> bytes:
    """What makes an item of a list the same in another: its keys in a list-type=map, else all of it."""
    return _encode([item.get(key) for key in keys] if keys and type(item) is dict else item)
