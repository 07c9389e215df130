"""The OpenAPI v2 document in protobuf (gnostic's OpenAPIv2), which kubectl before 1.25 takes and nothing else.

Writes what those clients read: definitions with their extensions, and the operations with their query parameters, by
which they learn what the server can do. Field numbers are those of OpenAPIv2.proto. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

# Asked for under either name; answered under the one that is a media type (no token may hold an @).
MEDIA = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ASKED_FOR = (MEDIA, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
Document = Mapping[str, Any]
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def encode(doc: Document) -> bytes:
    """The Document message of an OpenAPI v2 document."""
    info = doc["info"]
    paths = b"".join(_message(2, _named(path, _path_item(item))) for path, item in doc["paths"].items())
    schemas = b"".join(_message(1, _named(name, _schema(found))) for name, found in doc["definitions"].items())
    return b"".join(
        (
            _text(1, doc["swagger"]),
            _message(2, _text(1, info["title"]) + _text(2, info["version"])),
            _message(8, paths),
            _message(9, schemas),
        )
    )


def _path_item(item: Document) -> bytes:
    operations = b"".join(_message(n, _operation(item[method])) for method, n in _METHODS.items() if method in item)
    return operations + _parameters(9, item.get("parameters") or ()) + _extensions(10, item)


def _operation(found: Document) -> bytes:
    return b"".join(
        (
            _text(3, found.get("description")),
            _text(5, found.get("operationId")),
            _texts(6, found.get("produces") or ()),
            _texts(7, found.get("consumes") or ()),
            _parameters(8, found.get("parameters") or ()),
            _message(
                9, b"".join(_message(1, _response(code, r)) for code, r in (found.get("responses") or {}).items())
            ),
            _extensions(13, found),
        )
    )


def _response(code: str, found: Document) -> bytes:
    schema = _message(2, _message(1, _schema(found["schema"]))) if "schema" in found else b""
    return _named(code, _message(1, _text(1, found.get("description") or "OK") + schema))


def _parameters(number: int, found: Iterable[Document]) -> bytes:
    return b"".join(_message(number, _message(1, _parameter(each))) for each in found if "$ref" not in each)


def _parameter(found: Document) -> bytes:
    if found.get("in") == "body":
        head = _text(1, found.get("description")) + _text(2, found["name"]) + _text(3, "body")
        return _message(1, head + _flag(4, found.get("required")) + _message(5, _schema(found.get("schema") or {})))
    is_path = found.get("in") == "path"
    # A path parameter has no allow_empty_value, so all that follows is one number lower.
    kind_number = 5 if is_path else 6
    body = b"".join(
        (
            _flag(1, found.get("required")),
            _text(2, found.get("in")),
            _text(3, found.get("description")),
            _text(4, found["name"]),
            _text(kind_number, found.get("type")),
        )
    )
    return _message(2, _message(4 if is_path else 3, body))


def _schema(found: Document) -> bytes:
    parts = [
        _text(1, found.get("$ref")),
        _text(2, found.get("format")),
        _text(4, found.get("description")),
        _any(5, found["default"]) if "default" in found else b"",
        _texts(19, found.get("required") or ()),
        b"".join(_any(20, each) for each in found.get("enum") or ()),
        _extensions(31, found),
    ]
    more = found.get("additionalProperties")
    if isinstance(more, Mapping):
        parts.append(_message(21, _message(1, _schema(more))))
    elif more is not None:
        parts.append(_message(21, _flag(2, more)))
    if found.get("type"):
        parts.append(_message(22, _text(1, found["type"])))
    if isinstance(found.get("items"), Mapping):
        parts.append(_message(23, _message(1, _schema(found["items"]))))
    if found.get("properties"):
        inner = b"".join(_message(1, _named(name, _schema(below))) for name, below in found["properties"].items())
        parts.append(_message(25, inner))
    return b"".join(parts)


def _extensions(number: int, found: Document) -> bytes:
    return b"".join(
        _message(number, _text(1, key) + _any(2, value)) for key, value in found.items() if key.startswith("x-")
    )


def _any(number: int, value: Any) -> bytes:
    """As YAML text, which JSON is."""
    return _message(number, _text(2, msgspec.json.encode(value).decode() + "\n"))


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _message(2, value)


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _text(number: int, value: str | None) -> bytes:
    return _message(number, value.encode()) if value else b""


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(_message(number, value.encode()) for value in values)


def _flag(number: int, value: Any) -> bytes:
    return _varint(number << 3) + b"\x01" if value else b""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
