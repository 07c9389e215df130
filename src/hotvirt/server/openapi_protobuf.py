"""The OpenAPI v2 document in the protobuf form that kubectl asks for, older ones without an alternative.

The form is gnostic's `openapi.v2.Document` (its field numbers are below). Anything that form has no field for travels
as YAML text, for which JSON does. Pure.
"""

import struct
from collections.abc import Callable
from typing import Any

import msgspec

ACCEPTED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""What clients ask for."""
CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What they are answered: Go can't parse a media type with an @ in it."""

Document = dict[str, Any]
_VARINT, _DOUBLE, _BYTES = 0, 1, 2

# For each message: JSON name -> (field number, type). A type in brackets is repeated, `{T}` is a map of named T.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Document": {
        "swagger": (1, "text"), "info": (2, "Info"), "schemes": (5, "[text]"), "paths": (8, "Paths"),
        "definitions": (9, "{Schema}"), "security": (12, "[Security]"), "securityDefinitions": (13, "{SecurityKind}"),
    },
    "Info": {"title": (1, "text"), "version": (2, "text"), "description": (3, "text")},
    "PathItem": {
        "get": (2, "Operation"), "put": (3, "Operation"), "post": (4, "Operation"), "delete": (5, "Operation"),
        "patch": (8, "Operation"), "parameters": (9, "[Parameter]"), "x-": (10, "extension"),
    },
    "Operation": {
        "tags": (1, "[text]"), "description": (3, "text"), "operationId": (5, "text"), "produces": (6, "[text]"),
        "consumes": (7, "[text]"), "parameters": (8, "[Parameter]"), "responses": (9, "Responses"),
        "schemes": (10, "[text]"), "x-": (13, "extension"),
    },
    "BodyParameter": {
        "description": (1, "text"), "name": (2, "text"), "in": (3, "text"), "required": (4, "flag"),
        "schema": (5, "Schema"),
    },
    "QueryParameter": {
        "required": (1, "flag"), "in": (2, "text"), "description": (3, "text"), "name": (4, "text"),
        "type": (6, "text"), "format": (7, "text"), "uniqueItems": (20, "flag"),
    },
    "PathParameter": {
        "required": (1, "flag"), "in": (2, "text"), "description": (3, "text"), "name": (4, "text"),
        "type": (5, "text"), "format": (6, "text"), "uniqueItems": (19, "flag"),
    },
    "Response": {"description": (1, "text"), "schema": (2, "SchemaItem"), "x-": (5, "extension")},
    "Schema": {
        "$ref": (1, "text"), "format": (2, "text"), "title": (3, "text"), "description": (4, "text"),
        "default": (5, "any"), "multipleOf": (6, "number"), "maximum": (7, "number"), "exclusiveMaximum": (8, "flag"),
        "minimum": (9, "number"), "exclusiveMinimum": (10, "flag"), "maxLength": (11, "count"),
        "minLength": (12, "count"), "pattern": (13, "text"), "maxItems": (14, "count"), "minItems": (15, "count"),
        "uniqueItems": (16, "flag"), "maxProperties": (17, "count"), "minProperties": (18, "count"),
        "required": (19, "[text]"), "enum": (20, "[any]"), "additionalProperties": (21, "Additional"),
        "type": (22, "Type"), "items": (23, "Items"), "properties": (25, "{Schema}"), "x-": (31, "extension"),
    },
    "SecurityKey": {"type": (1, "text"), "name": (2, "text"), "in": (3, "text"), "description": (4, "text")},
}  # fmt: skip


def encode(document: Document) -> bytes:
    """The document, as `openapi.v2` makes it, in protobuf."""
    return _message("Document", document)


def _varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _field(number: int, body: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(body)) + body


def _named(name: str, body: bytes) -> bytes:
    return _field(1, name.encode()) + _field(2, body)


def _any(value: Any) -> bytes:
    return _field(2, msgspec.json.encode(value))


def _message(kind: str, value: Document) -> bytes:
    fields = _MESSAGES[kind]
    extensions = fields.get("x-")
    out: list[bytes] = []
    for name, below in value.items():
        if name in fields:
            out.append(_value(*fields[name], below))
        elif name.startswith("x-") and extensions:
            out.append(_field(extensions[0], _named(name, _any(below))))
    return b"".join(out)


def _value(number: int, kind: str, value: Any) -> bytes:
    if kind[0] == "[":
        return b"".join(_value(number, kind[1:-1], item) for item in value)
    if kind[0] == "{":
        entries = (_field(1, _named(name, _body(kind[1:-1], below))) for name, below in value.items())
        return _field(number, b"".join(entries))
    if kind in ("flag", "count"):
        return _tag(number, _VARINT) + _varint(int(value))
    if kind == "number":
        return _tag(number, _DOUBLE) + struct.pack("<d", value)
    return _field(number, _body(kind, value))


def _body(kind: str, value: Any) -> bytes:
    special = _SPECIAL.get(kind)
    return special(value) if special else _message(kind, value)


def _paths(paths: Document) -> bytes:
    return b"".join(_field(2, _named(path, _message("PathItem", item))) for path, item in paths.items())


def _parameter(parameter: Document) -> bytes:
    if parameter["in"] == "body":
        return _field(1, _field(1, _message("BodyParameter", parameter)))
    if parameter["in"] == "path":
        return _field(1, _field(2, _field(4, _message("PathParameter", parameter))))
    return _field(1, _field(2, _field(3, _message("QueryParameter", parameter))))


def _responses(responses: Document) -> bytes:
    return b"".join(_field(1, _named(code, _field(1, _message("Response", r)))) for code, r in responses.items())


def _additional(value: Any) -> bytes:
    if isinstance(value, bool):
        return _tag(2, _VARINT) + _varint(int(value))
    return _field(1, _message("Schema", value))


def _security(requirement: Document) -> bytes:
    named = (_named(name, b"".join(_field(1, s.encode()) for s in scopes)) for name, scopes in requirement.items())
    return b"".join(_field(1, each) for each in named)


_SPECIAL: dict[str, Callable[[Any], bytes]] = {
    "text": lambda value: str(value).encode(),
    "any": _any,
    "Paths": _paths,
    "Parameter": _parameter,
    "Responses": _responses,
    "Additional": _additional,
    "SchemaItem": lambda value: _field(1, _message("Schema", value)),
    "Type": lambda value: _field(1, str(value).encode()),
    "Items": lambda value: _field(1, _message("Schema", value)),
    "Security": _security,
    "SecurityKind": lambda value: _field(2, _message("SecurityKey", value)),
}
