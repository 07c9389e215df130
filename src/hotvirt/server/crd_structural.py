"""Whether a CRD's openAPIV3Schema is structural: each node typed, nothing that pruning and defaulting can't follow.

The rules are those of Kubernetes' documentation ("Specifying a structural schema"). A schema that passes compiles.
"""

from collections.abc import Callable, Iterator
from typing import Any

from hotvirt.kube.errors import Cause
from hotvirt.server import schema as schemas
from hotvirt.server.schema_checks import INVALID, NOT_SUPPORTED, REQUIRED, shown
from hotvirt.server.schema_formats import compile_pattern

Add = Callable[[str, str, str], None]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_FORBIDDEN = (
    "$ref", "$schema", "additionalItems", "definitions", "dependencies", "deprecated", "discriminator", "id",
    "patternProperties", "readOnly", "writeOnly", "xml",
)  # fmt: skip
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_NOT_IN_JUNCTORS = ("additionalProperties", "default", "description", "nullable", "title", "type")
_SCALARS = ("boolean", "integer", "number", "string")
_KINDS: tuple[tuple[str, type, str], ...] = (
    ("properties", dict, "an object of schemas"), ("required", list, "a list of property names"),
    ("enum", list, "a list of values"), ("allOf", list, "a list of schemas"), ("anyOf", list, "a list of schemas"),
    ("oneOf", list, "a list of schemas"), ("nullable", bool, "a boolean"), ("exclusiveMinimum", bool, "a boolean"),
    ("exclusiveMaximum", bool, "a boolean"), ("x-kubernetes-validations", list, "a list of rules"),
    ("x-kubernetes-list-map-keys", list, "a list of property names"), ("pattern", str, "a regular expression"),
)  # fmt: skip
_MAX_DEPTH = 60


def check_structural(openapi: Any, field: str) -> list[Cause]:
    """Every fault of the schema at `field`, such as `spec.versions[0].schema.openAPIV3Schema`."""
    causes: list[Cause] = []

    def add(at: str, reason: str, message: str) -> None:
        causes.append(Cause(reason, message, at))

    if not isinstance(openapi, dict):
        add(field, REQUIRED, "Required value: schemas are required")
        return causes
    if openapi.get("type") != "object":
        add(f"{field}.type", INVALID, f"Invalid value: {shown(openapi.get('type', ''))}: must be object at the root")
    if openapi.get("nullable"):
        add(f"{field}.nullable", "FieldValueForbidden", "Forbidden: nullable cannot be true at the root")
    _check_metadata(_mapping(openapi, "properties").get("metadata"), f"{field}.properties[metadata]", add)
    _check_node(openapi, field, add, depth=0)
    if not causes:
        causes += _check_defaults(openapi, field)
    return causes


def _mapping(node: dict[str, Any], name: str) -> dict[str, Any]:
    found = node.get(name)
    return found if isinstance(found, dict) else {}


def _names(node: dict[str, Any], name: str) -> list[Any]:
    found = node.get(name)
    return found if isinstance(found, list) else []


def _check_metadata(node: Any, at: str, add: Add) -> None:
    if not isinstance(node, dict):
        return
    extra = set(_mapping(node, "properties")) - {"name", "generateName"}
    if extra:
        add(at, "FieldValueForbidden", "Forbidden: must not specify anything other than name and generateName")


def _check_node(node: Any, at: str, add: Add, *, depth: int) -> None:
    if not isinstance(node, dict):
        add(at, INVALID, f"Invalid value: {shown(node)}: must be a schema object")
        return
    if depth > _MAX_DEPTH:
        add(at, INVALID, f"Invalid value: the schema nests more than {_MAX_DEPTH} levels deep")
        return
    _check_type(node, at, add)
    _check_shape(node, at, add)
    _check_values(node, at, add)
    if _list_type(node):
        _check_list(node, at, add)
    for below_at, below in _children(node, at):
        _check_node(below, below_at, add, depth=depth + 1)
    for name, branch in _branches(node):
        _check_branch(branch, f"{at}.{name}", add, depth=depth + 1)


def _children(node: dict[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    for name, below in _mapping(node, "properties").items():
        yield f"{at}.properties[{name}]", below
    if "items" in node:
        yield f"{at}.items", node["items"]
    if isinstance(node.get("additionalProperties"), dict):
        yield f"{at}.additionalProperties", node["additionalProperties"]


def _branches(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for word in _JUNCTORS:
        for index, branch in enumerate(_names(node, word)):
            yield f"{word}[{index}]", branch
    if "not" in node:
        yield "not", node["not"]


def _check_type(node: dict[str, Any], at: str, add: Add) -> None:
    kind = node.get("type")
    if node.get("x-kubernetes-int-or-string"):
        if kind:
            add(
                f"{at}.type",
                INVALID,
                f"Invalid value: {shown(kind)}: must be empty if x-kubernetes-int-or-string is true",
            )
    elif not kind:
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            where = "array items" if at.endswith(".items") else "specified object fields"
            add(f"{at}.type", REQUIRED, f"Required value: must not be empty for {where}")
    elif kind not in _TYPES:
        names = ", ".join(f'"{name}"' for name in _TYPES)
        add(f"{at}.type", NOT_SUPPORTED, f"Unsupported value: {shown(kind)}: supported values: {names}")


def _check_shape(node: dict[str, Any], at: str, add: Add) -> None:
    for word in _FORBIDDEN:
        if word in node:
            add(f"{at}.{word}", "FieldValueForbidden", f"Forbidden: {word} is not supported")
    if node.get("uniqueItems"):
        message = "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        add(f"{at}.uniqueItems", "FieldValueForbidden", message)
    if node.get("type") == "array" and "items" not in node:
        add(f"{at}.items", REQUIRED, "Required value: must be specified")
    if node.get("properties") and "additionalProperties" in node:
        message = "Forbidden: additionalProperties and properties are mutual exclusive"
        add(f"{at}.additionalProperties", "FieldValueForbidden", message)
    if node.get("additionalProperties") is False:
        add(
            f"{at}.additionalProperties",
            "FieldValueForbidden",
            "Forbidden: additionalProperties cannot be set to false",
        )
    if node.get("x-kubernetes-embedded-resource") and node.get("type") != "object":
        message = "Invalid value: must be object if x-kubernetes-embedded-resource is true"
        add(f"{at}.type", INVALID, message)
    if node.get("x-kubernetes-preserve-unknown-fields") is False:
        add(f"{at}.x-kubernetes-preserve-unknown-fields", INVALID, "Invalid value: false: must be true or undefined")


def _check_values(node: dict[str, Any], at: str, add: Add) -> None:
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        try:
            compile_pattern(pattern)
        except ValueError as error:
            add(
                f"{at}.pattern",
                INVALID,
                f"Invalid value: {shown(pattern)}: must be a valid regular expression: {error}",
            )
    for word, kind, words in _KINDS:
        if word in node and not isinstance(node[word], kind):
            add(f"{at}.{word}", INVALID, f"Invalid value: {shown(node[word])}: must be {words}")
    if not all(isinstance(name, str) for name in _names(node, "required")):
        add(f"{at}.required", INVALID, "Invalid value: must hold property names")
    for bound in ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "multipleOf"):
        value = node.get(bound)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            add(f"{at}.{bound}", INVALID, f"Invalid value: {shown(value)}: must be a number")


def _list_type(node: dict[str, Any]) -> Any:
    return node.get("x-kubernetes-list-type") or node.get("x-kubernetes-list-map-keys")


def _check_list(node: dict[str, Any], at: str, add: Add) -> None:
    kind = node.get("x-kubernetes-list-type")
    keys = [key for key in _names(node, "x-kubernetes-list-map-keys") if isinstance(key, str)]
    items = _mapping(node, "items")
    if node.get("type") != "array":
        add(f"{at}.type", INVALID, "Invalid value: must be array if x-kubernetes-list-type is specified")
    if kind not in ("atomic", "set", "map"):
        message = f'Unsupported value: {shown(kind)}: supported values: "atomic", "map", "set"'
        add(f"{at}.x-kubernetes-list-type", NOT_SUPPORTED, message)
    if kind != "map":
        if keys:
            message = "Forbidden: may only be used when x-kubernetes-list-type is map"
            add(f"{at}.x-kubernetes-list-map-keys", "FieldValueForbidden", message)
        return
    if not keys:
        message = "Required value: must not be empty if x-kubernetes-list-type is map"
        add(f"{at}.x-kubernetes-list-map-keys", REQUIRED, message)
    properties = _mapping(items, "properties")
    for index, key in enumerate(keys):
        key_at = f"{at}.x-kubernetes-list-map-keys[{index}]"
        if key not in properties:
            add(key_at, INVALID, f"Invalid value: {shown(key)}: must be one of the item's properties")
        elif _mapping(properties, key).get("type") not in _SCALARS:
            add(key_at, INVALID, f"Invalid value: {shown(key)}: the property must be a scalar")
        elif key not in _names(items, "required") and "default" not in properties[key]:
            name_at = f"{at}.items.properties[{key}].default"
            add(name_at, REQUIRED, "Required value: this property is in x-kubernetes-list-map-keys, so it must have a "
                "default or be a required property")  # fmt: skip


def _check_branch(branch: Any, at: str, add: Add, *, depth: int) -> None:
    """A branch of allOf, anyOf, oneOf or not: it may narrow values, never shape them."""
    if not isinstance(branch, dict):
        add(at, INVALID, f"Invalid value: {shown(branch)}: must be a schema object")
        return
    if depth > _MAX_DEPTH:
        return
    for word in branch:
        typed = word == "type" and branch["type"] in ("integer", "string")  # the form of int-or-string
        if (word in _NOT_IN_JUNCTORS and not typed) or word.startswith("x-kubernetes-"):
            add(
                f"{at}.{word}",
                "FieldValueForbidden",
                f"Forbidden: must be empty to be structural: move {word} out of {at}",
            )
    _check_values(branch, at, add)
    for below_at, below in _children(branch, at):
        _check_branch(below, below_at, add, depth=depth + 1)
    for name, below in _branches(branch):
        _check_branch(below, f"{at}.{name}", add, depth=depth + 1)


def _check_defaults(node: dict[str, Any], at: str) -> list[Cause]:
    causes: list[Cause] = []
    if "default" in node:
        causes += _check_default(node, at)
    for below_at, below in _children(node, at):
        causes += _check_defaults(below, below_at)
    return causes


def _check_default(node: dict[str, Any], at: str) -> list[Cause]:
    wrapped = schemas.compile_schema({"type": "object", "properties": {"default": node}})
    kept, unknown = wrapped.prune({"default": node["default"]})
    causes = [
        Cause(INVALID, f"Invalid value: {shown(node['default'])}: must not have unknown fields", f"{at}.{path}")
        for path in unknown
    ]
    faults = wrapped.validate(wrapped.default(kept))
    return causes + [Cause(fault.reason, fault.message, f"{at}.{fault.field}") for fault in faults]
