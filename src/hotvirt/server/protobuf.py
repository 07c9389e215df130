"""Request bodies in Kubernetes' protobuf, which kubectl and client-go send for built-in kinds: bytes to a document.

Only reading: answers are JSON, which every client that sends protobuf also takes. The fields of each message are in
`protobuf_fields.txt`, read on first use. What is malformed is a BadRequest; fields nobody knows are skipped.
"""

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import msgspec
from msgspec import Struct

from hotvirt.kube.errors import BadRequest, UnsupportedMediaType

MEDIA = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
MAX_DEPTH = 64
Document = dict[str, Any]
_GROUPS = {"rbac.authorization.k8s.io": "rbac"}


class Field(Struct, frozen=True):
    """`kind` is a scalar's or a message's name; `keeps_zero`: a zero is meant when sent; `is_inline`: the message's
    fields are the outer one's in JSON."""

    name: str
    kind: str
    shape: str = ""  # "", rep or map
    keeps_zero: bool = False
    is_inline: bool = False


def decode(body: bytes) -> Document:
    """The document in a body of `MEDIA`."""
    if not body.startswith(MAGIC):
        raise BadRequest("the body is not Kubernetes protobuf: it does not begin with k8s\\0")
    api_version = kind = ""
    raw = b""
    for number, value in _fields(body[len(MAGIC) :]):
        if number == 1 and isinstance(value, bytes):
            head = dict(_fields(value))
            api_version, kind = _text(head.get(1, b"")), _text(head.get(2, b""))
        elif number == 2 and isinstance(value, bytes):
            raw = value
    message = _message_of(api_version, kind)
    return {"apiVersion": api_version, "kind": kind, **_message(message, raw, 0)}


def _message_of(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    short = f"{_GROUPS.get(group, group.split('.')[0] or 'core')}/{version}"
    name = f"meta/v1.{kind}" if kind == "DeleteOptions" else f"{short}.{kind}"
    if name not in _table():
        raise UnsupportedMediaType(f"{kind} of {api_version} is not taken as protobuf: send application/json")
    return name


@cache
def _table() -> dict[str, dict[int, Field]]:
    text = resources.files(__package__).joinpath("protobuf_fields.txt").read_text()
    rows = [line.split("|") for line in text.splitlines() if not line.startswith("#")]
    return {name: dict(_field(cell) for cell in cells) for name, *cells in rows}


def _field(cell: str) -> tuple[int, Field]:
    name, number, kind, *flags = cell.split(" ")
    shape, _, inner = kind.rpartition(":")
    return int(number), Field(name, inner, shape, "?" in flags, "~" in flags)


def _message(name: str, data: bytes, depth: int) -> Document:
    if depth > MAX_DEPTH:
        raise BadRequest(f"the body nests messages more than {MAX_DEPTH} deep: flatten it")
    known = _table()[name]
    doc: Document = {}
    for number, value in _fields(data):
        field = known.get(number)
        if field is not None:
            _put(doc, field, value, depth)
    return doc


def _put(doc: Document, field: Field, value: int | bytes, depth: int) -> None:
    if field.shape == "map":
        entry = dict(_fields(_bytes(value)))
        doc.setdefault(field.name, {})[_text(entry.get(1, b""))] = _value(field.kind, entry.get(2, b""), depth)
        return
    found = _value(field.kind, value, depth)
    if field.shape == "rep":
        doc.setdefault(field.name, []).append(found)
    elif field.is_inline:
        doc.update(found)
    elif found or field.keeps_zero:
        doc[field.name] = found


def _value(kind: str, value: int | bytes, depth: int) -> Any:
    match kind:
        case "string":
            return _text(value)
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "bool":
            return bool(value)
        case "int32" | "int64":
            number = _number(value)
            return number - 2**64 if number >= 2**63 else number
        case _ if "." not in kind:
            return _number(value)
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(dict(_fields(_bytes(value))))
    inner = _message(kind, _bytes(value), depth + 1)
    return inner.get("items", []) if kind.endswith(".ExtraValue") else inner


def _time(fields: dict[int, Any]) -> str | None:
    if not fields:
        return None
    return _moment(fields).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(fields: dict[int, Any]) -> str | None:
    return _moment(fields).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if fields else None


def _moment(fields: dict[int, Any]) -> datetime:
    seconds = _number(fields.get(1, 0))
    try:
        moment = datetime.fromtimestamp(seconds - 2**64 if seconds >= 2**63 else seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise BadRequest(f"a time in the body is out of range: {seconds} seconds") from error
    return moment.replace(microsecond=min(_number(fields.get(2, 0)) // 1000, 999_999))


def _json(fields: dict[int, Any]) -> Any:
    try:
        return msgspec.json.decode(_bytes(fields.get(1, b"null")) or b"null")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"a raw field of the body is not valid JSON: {error}") from error


_SPECIAL: dict[str, Callable[[dict[int, Any]], Any]] = {
    "meta/v1.Time": _time,
    "meta/v1.MicroTime": _micro_time,
    "meta/v1.Duration": lambda fields: f"{_number(fields.get(1, 0)) / 1e9:g}s",
    "meta/v1.FieldsV1": _json,
    "runtime.RawExtension": _json,
    "resource.Quantity": lambda fields: _text(fields.get(1, b"")),
    "intstr.IntOrString": lambda fields: (
        _text(fields.get(3, b"")) if fields.get(1) == 1 else _value("int32", fields.get(2, 0), 0)
    ),
}  # fmt: skip


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values as they are on the wire."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise BadRequest(f"the body is not valid protobuf: wire type {wire}")
        if at + size > end:
            raise BadRequest("the body is not valid protobuf: it is cut off")
        part = data[at : at + size]
        yield number, part if wire == 2 else int.from_bytes(part, "little")
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & (2**64 - 1), at
        shift += 7
    raise BadRequest("the body is not valid protobuf: a number is cut off")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise BadRequest("the body is not valid protobuf: a number where text or a message belongs")


def _number(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise BadRequest("the body is not valid protobuf: text or a message where a number belongs")


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not valid protobuf: a text is not UTF-8") from error
