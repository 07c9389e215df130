"""Structural schemas at work: prune what a schema does not know, fill in its defaults, find every fault.

`compile_schema` turns an OpenAPI v3 structural schema (of a CRD version, or of a built-in kind) into closures once; a
`Schema` is then immutable and safe from any thread. Documents are never changed: a result shares the parts that stayed
as they were, so write only into copies of it. The order is Kubernetes': prune, default, validate.

CEL rules (x-kubernetes-validations) are kept in `Schema.rules`; an evaluator handed to `compile_schema` (that of
`cel_rules`) is asked at the end of `validate`, unless the document is not even of the right shape.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from msgspec import Struct

from hotvirt.kube.errors import Cause, Invalid
from hotvirt.server.patches.copies import fresh
from hotvirt.server.schema_checks import (
    INVALID,
    NOT_SUPPORTED,
    REQUIRED,
    TOO_LONG,
    TOO_MANY,
    TYPE,
    Check,
    Fault,
    Place,
    compile_check,
    digest,
    path_text,
)
from hotvirt.server.schema_meta import OBJECT_META

Prune = Callable[[Any, Place, list[str]], Any]
Default = Callable[[Any], Any]
_BLOCKING = frozenset((NOT_SUPPORTED, REQUIRED, TOO_LONG, TOO_MANY, TYPE))
_UNCHECKED = Cause(
    INVALID, "Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
    "existing errors to complete validation", "<nil>",
)  # fmt: skip


class RuleSite(Struct, frozen=True):
    """CEL rules of one node. `path` holds property names, "[]" for a list's items, "{}" for a map's values."""

    path: tuple[str, ...]
    rules: tuple[dict[str, Any], ...]


Evaluator = Callable[[tuple[RuleSite, ...]], Callable[[dict[str, Any], dict[str, Any] | None], list[Cause]]]


class Schema:
    """A compiled structural schema. `openapi` is the source, for those who need list types or descriptions."""

    __slots__ = ("_check", "_default", "_evaluate", "_prune", "openapi", "rules")

    def __init__(self, openapi: dict[str, Any], evaluator: Evaluator | None = None) -> None:
        self.openapi = openapi
        self.rules = tuple(_rule_sites(openapi, ()))
        self._prune = _compile_prune(openapi, root=True)
        self._default = _compile_default(openapi)
        self._check = compile_check(openapi, meta=_META_CHECK, root=True)
        self._evaluate = evaluator(self.rules) if evaluator and self.rules else None

    def prune(self, doc: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """`doc` without the fields the schema does not know, and their paths (`spec.foo`). Nulls of fields that are not
        nullable go too (a default may take their place), unreported."""
        unknown: list[str] = []
        return (self._prune(doc, None, unknown) if self._prune else doc), tuple(unknown)

    def default(self, doc: dict[str, Any]) -> dict[str, Any]:
        """`doc` with the schema's defaults where a field is absent."""
        return self._default(doc) if self._default else doc

    def validate(self, doc: dict[str, Any], old: dict[str, Any] | None = None) -> list[Cause]:
        """Every fault. With `old`, what is wrong but was so before and did not change is let through, so that a schema
        may become stricter without locking stored objects."""
        faults: list[Fault] = []
        if self._check:
            self._check(doc, None, None, faults, old)
        if faults and old is not None:
            faults = [fault for fault in faults if not _unchanged(fault, doc, old)]
        causes = [Cause(reason, message, path_text(at, key)) for reason, message, at, key in faults]
        if self._evaluate:
            blocked = any(cause.reason in _BLOCKING for cause in causes)
            causes += [_UNCHECKED] if blocked else self._evaluate(doc, old)
        return causes


def compile_schema(openapi: dict[str, Any], *, evaluator: Evaluator | None = None) -> Schema:
    """The schema of one served version. ValueError names a pattern that can't be used."""
    return Schema(openapi, evaluator)


def invalid(causes: Sequence[Cause], *, kind: str, name: str, group: str = "") -> Invalid:
    """The 422 that Kubernetes words so: `VirtualMachine.kubevirt.io "web" is invalid: spec.x: Required value`."""
    lines = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes]
    what = f"{kind}.{group}" if group else kind
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    return Invalid(f'{what} "{name}" is invalid: {text}', causes=list(causes), group=group, kind=kind, name=name)


def field_warnings(unknown: Iterable[str], duplicate: Iterable[str] = ()) -> list[str]:
    """What fieldValidation=Warn says in Warning headers, one a field."""
    return [f'unknown field "{path}"' for path in unknown] + [f'duplicate field "{path}"' for path in duplicate]


def strict_error(unknown: Iterable[str], duplicate: Iterable[str] = ()) -> str | None:
    """What fieldValidation=Strict refuses with, in the words kubectl looks for; None when there is nothing."""
    found = field_warnings(unknown, duplicate)
    return f"strict decoding error: {', '.join(found)}" if found else None


_pruners: WeakValueDictionary[tuple[bytes, bool], Prune] = WeakValueDictionary()


def _compile_prune(schema: Mapping[str, Any], *, root: bool = False) -> Prune | None:
    key = (digest(schema), root)
    prune = _pruners.get(key)
    if prune is None:
        prune = _pruner(schema, root=root)
        if prune is not None:
            _pruners[key] = prune
    return prune


def _pruner(schema: Mapping[str, Any], *, root: bool) -> Prune | None:
    if schema.get("type") == "array" or "items" in schema:
        item = _compile_prune(schema["items"]) if isinstance(schema.get("items"), dict) else None
        return _prune_list(item) if item else None
    known: dict[str, tuple[Prune | None, bool]] = {
        name: (_compile_prune(below), _drops_null(below)) for name, below in (schema.get("properties") or {}).items()
    }
    if root or schema.get("x-kubernetes-embedded-resource"):
        known |= {"apiVersion": (None, False), "kind": (None, False), "metadata": (_META_PRUNE, True)}
    preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    more = schema.get("additionalProperties")
    rest: tuple[Prune | None, bool] | None = None
    if isinstance(more, dict):
        rest = (_compile_prune(more), _drops_null(more))
    elif more is True or preserve:
        rest = (None, False)
    if schema.get("type") != "object" and not known and rest is None:
        return None
    if not known and rest == (None, False):
        return None
    return _prune_object(known, rest)


def _drops_null(schema: Mapping[str, Any]) -> bool:
    return not schema.get("nullable") and not (
        schema.get("x-kubernetes-preserve-unknown-fields") and "type" not in schema
    )


def _prune_list(item: Prune) -> Prune:
    def prune(value: Any, at: Place, unknown: list[str]) -> Any:
        if type(value) is not list:
            return value
        changed: list[Any] | None = None
        for index, child in enumerate(value):
            kept = item(child, (at, index), unknown)
            if kept is not child:
                changed = value[:] if changed is None else changed
                changed[index] = kept
        return value if changed is None else changed

    return prune


def _prune_object(known: dict[str, tuple[Prune | None, bool]], rest: tuple[Prune | None, bool] | None) -> Prune:
    find = known.get

    def prune(value: Any, at: Place, unknown: list[str]) -> Any:
        if type(value) is not dict:
            return value
        changed: dict[str, Any] | None = None
        for key, child in value.items():
            entry = find(key, rest)
            if entry is None:
                changed = dict(value) if changed is None else changed
                del changed[key]
                unknown.append(path_text(at, key))
            elif child is None:
                if entry[1]:
                    changed = dict(value) if changed is None else changed
                    del changed[key]
            elif entry[0] is not None:
                kept = entry[0](child, (at, key), unknown)
                if kept is not child:
                    changed = dict(value) if changed is None else changed
                    changed[key] = kept
        return value if changed is None else changed

    return prune


def _compile_default(schema: Mapping[str, Any]) -> Default | None:
    """The defaulting of a node's inside; None where nothing below it has a default."""
    if isinstance(schema.get("items"), dict):
        item = _compile_default(schema["items"])
        return _default_list(item) if item else None
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties") or {}
    absent = {
        name: (below["default"], not below.get("nullable")) for name, below in properties.items() if "default" in below
    }
    inner = {name: step for name, below in properties.items() if (step := _compile_default(below))}
    more = schema.get("additionalProperties")
    rest = _compile_default(more) if isinstance(more, dict) else None
    return _default_object(absent, inner, rest) if absent or inner or rest else None


def _default_list(item: Default) -> Default:
    def default(value: Any) -> Any:
        if type(value) is not list:
            return value
        filled = [item(child) for child in value]
        return filled if any(new is not old for new, old in zip(filled, value, strict=True)) else value

    return default


def _default_object(absent: dict[str, tuple[Any, bool]], inner: dict[str, Default], rest: Default | None) -> Default:
    def default(value: Any) -> Any:
        if type(value) is not dict:
            return value
        changed: dict[str, Any] | None = None
        for name, (fallback, replaces_null) in absent.items():
            if name not in value or (replaces_null and value[name] is None):
                changed = dict(value) if changed is None else changed
                changed[name] = fresh(fallback) if isinstance(fallback, dict | list) else fallback
        now = value if changed is None else changed
        steps = [(name, step) for name, step in inner.items() if name in now]
        if rest is not None:
            steps += [(name, rest) for name in now if name not in inner]
        for name, step in steps:
            child = now[name]
            filled = step(child)
            if filled is not child:
                if changed is None:
                    changed = now = dict(value)
                changed[name] = filled
        return value if changed is None else changed

    return default


def _unchanged(fault: Fault, doc: Any, old: Any) -> bool:
    """Whether the value that the fault lies in is the same in `old`. List items are found by equality, then index."""
    reason, _, at, key = fault
    keys: list[Any] = [] if reason == REQUIRED else [key]
    while at is not None:
        at, key = at
        keys.append(key)
    for step in reversed(keys):
        if step is None:
            continue
        try:
            doc = doc[step]
            if type(step) is int and doc in old:
                return True
            old = old[step]
        except (KeyError, IndexError, TypeError):
            return False
    return bool(doc == old)


def _rule_sites(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterable[RuleSite]:
    if rules := schema.get("x-kubernetes-validations"):
        yield RuleSite(path, tuple(rules))
    for name, below in (schema.get("properties") or {}).items():
        yield from _rule_sites(below, (*path, name))
    if isinstance(schema.get("items"), dict):
        yield from _rule_sites(schema["items"], (*path, "[]"))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _rule_sites(schema["additionalProperties"], (*path, "{}"))


_META_PRUNE = _compile_prune(OBJECT_META)
_META_CHECK: Check | None = compile_check(OBJECT_META)
