"""What a verb's request says: its body, bounded and of known fields, and whether it is only to be tried.

Each verb names its fields in the notation of `hotvirt.api.schemas`. Whatever else is in a body is refused with its
path, all faults at once, as a misspelt option would be lost silently.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web
from msgspec import DecodeError, json

from hotvirt.api import schemas
from hotvirt.api.schemas import Kind
from hotvirt.kube.client import Document
from hotvirt.kube.errors import BadRequest, Cause, TooLarge

LARGEST = 64 << 10
DEEPEST = 20
Fields = Mapping[str, str]

DRY_RUN: Fields = {"dryRun": "[string]"}
NOTHING: Fields = {}
START: Fields = {"paused": "boolean", **DRY_RUN}
STOP: Fields = {"gracePeriod": "int64", **DRY_RUN}
RESTART: Fields = {"gracePeriodSeconds": "int64", **DRY_RUN}
MIGRATE: Fields = {"addedNodeSelector": "{string}", **DRY_RUN}
ADD_VOLUME: Fields = {"name": "string", "disk": "Disk", "volumeSource": "HotplugVolumeSource", **DRY_RUN}
REMOVE_VOLUME: Fields = {"name": "string", **DRY_RUN}
FREEZE: Fields = {"unfreezeTimeout": "duration", **DRY_RUN}
EVACUATE_CANCEL: Fields = {"evacuationNodeName": "string", **DRY_RUN}
MEMORY_DUMP: Fields = {
    "claimName": "string", "phase": "string", "remove": "boolean", "startTimestamp": "time", "endTimestamp": "time",
    "fileName": "string", "message": "string", **DRY_RUN,
}  # fmt: skip
OBJECT_GRAPH: Fields = {"includeOptionalNodes": "boolean", "labelSelector": "meta.LabelSelector"}
_OF_ANY: Fields = {"kind": "string", "apiVersion": "string"}


async def read(request: web.Request, fields: Fields) -> Document:
    """The options; {} for no body. `dryRun` of the query is as good as that of the body."""
    options = await document(request, largest=LARGEST)
    if found := list(faults(options, {**_OF_ANY, **fields}, "")):
        raise BadRequest(f"the request's body: {'; '.join(each.message for each in found)}", causes=found)
    options = {field: value for field, value in options.items() if value is not None}
    if asked := request.query.getall("dryRun", []):
        options = {**options, "dryRun": asked}
    if (options.get("dryRun") or []) not in ([], ["All"]):
        raise BadRequest(f"dryRun is {options['dryRun']!r}: it may only be [All]")
    return options


def is_dry_run(options: Document) -> bool:
    return bool(options.get("dryRun"))


async def document(request: web.Request, *, largest: int) -> Document:
    """The body as one JSON object, whatever it holds."""
    if (request.content_length or 0) > largest:
        raise TooLarge(f"the request's body is larger than {largest} bytes")
    body = await request.read()
    if len(body) > largest:
        raise TooLarge(f"the request's body is larger than {largest} bytes")
    if not body.strip():
        return {}
    try:
        found: Any = json.decode(body)
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"Can not unmarshal Request body to struct, error: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadRequest("the request's body must be a JSON object with the verb's options")
    return found


def flag(request: web.Request, name: str) -> bool:
    """A yes or no of the query."""
    value = request.query.get(name, "").lower()
    if value not in ("", "true", "false", "1", "0"):
        raise BadRequest(f"{name} is {value[:20]!r}: it may be true or false")
    return value in ("true", "1")


def faults(value: Document, fields: Fields, at: str, depth: int = DEEPEST) -> Iterator[Cause]:
    """What a document has that is unknown or of the wrong type. Pure."""
    for field, item in value.items():
        path = f"{at}.{field}" if at else field
        if field not in fields:
            yield Cause("FieldValueNotSupported", f"unknown field {path[:200]!r}", path[:200])
        elif item is not None:
            yield from _faults(item, schemas.read(fields[field]), path, depth)


def _faults(value: Any, kind: Kind, at: str, depth: int) -> Iterator[Cause]:
    if depth == 0:
        yield Cause("FieldValueInvalid", f"{at[:200]} is nested too deeply", at[:200])
    elif kind.shape == "list":
        if not isinstance(value, list):
            yield _wrong(at, "a list")
            return
        for index, item in enumerate(value):
            yield from _faults(item, Kind(kind.item), f"{at}[{index}]", depth - 1)
    elif kind.shape == "map":
        if not isinstance(value, dict):
            yield _wrong(at, "an object")
            return
        for key, item in value.items():
            yield from _faults(item, Kind(kind.item), f"{at}.{key}", depth - 1)
    elif kind.is_scalar:
        if not schemas.is_scalar(value, kind.item):
            yield _wrong(at, f"of type {kind.item}")
    elif not isinstance(value, dict):
        yield _wrong(at, "an object")
    else:
        yield from faults(value, schemas.types()[kind.item], at, depth - 1)


def _wrong(at: str, what: str) -> Cause:
    return Cause("FieldValueInvalid", f"{at[:200]} must be {what}", at[:200])
