"""Server-side tables: what `kubectl get` prints, as `meta.k8s.io/v1` Table documents.

`columns_for` picks the columns of a built-in kind, or compiles a CRD's additionalPrinterColumns; `render` fills them.
Pure: the time that ages are counted to is an argument.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from hotvirt.kube.resources import Resource
from hotvirt.server import jsonpaths

Read = Callable[[dict[str, Any]], Any]
ReadAt = Callable[[dict[str, Any], datetime], Any]


class Column(Struct, frozen=True):
    """One column: `read` takes a cell from an object, `read_at` one that depends on the time as well. `priority` 1
    shows with `-o wide` only."""

    name: str
    read: Read | None = None
    read_at: ReadAt | None = None
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0

    def cell(self, doc: dict[str, Any], now: datetime) -> Any:
        try:
            if self.read_at is not None:
                return self.read_at(doc, now)
            return self.read(doc) if self.read is not None else None
        except (AttributeError, KeyError, TypeError, ValueError):
            return "<invalid>"  # one malformed object must not hide all others of a list

    def header(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description or f"{self.name} of the object.",
            "priority": self.priority,
        }


class Columns(Struct, frozen=True):
    """The columns of one kind, in order."""

    columns: tuple[Column, ...]

    def headers(self) -> list[dict[str, Any]]:
        return [column.header() for column in self.columns]

    def cells(self, doc: dict[str, Any], now: datetime) -> list[Any]:
        return [column.cell(doc, now) for column in self.columns]


def columns_for(resource: Resource, crd_columns: Sequence[dict[str, Any]] | None = None) -> Columns:
    """The columns of `resource`: its CRD's when `crd_columns` is given (an empty list gives name and age), else those
    of the built-in kind, else name and time of creation."""
    from hotvirt.server import table_kinds  # imports this module

    if crd_columns is not None:
        given = [_printer_column(column) for column in crd_columns]
        return Columns((NAME, *given)) if given else Columns((NAME, AGE))
    built_in = table_kinds.COLUMNS.get((resource.group, resource.plural))
    return built_in or Columns((NAME, CREATED_AT))


def render(
    columns: Columns,
    docs: Iterable[dict[str, Any]],
    now: datetime,
    include_object: str = "Metadata",
    *,
    metadata: dict[str, Any] | None = None,
    headers: bool = True,
) -> dict[str, Any]:
    """The Table of `docs`. `include_object` is None, Metadata or Object, as a client asks with includeObject=.
    `metadata` is the list's (resourceVersion, continue); a watch leaves `headers` out after its first event."""
    rows = []
    for doc in docs:
        row: dict[str, Any] = {"cells": columns.cells(doc, now)}
        if include_object == "Object":
            row["object"] = doc
        elif include_object != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": doc.get("metadata") or {},
            }
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata or {},
        "columnDefinitions": columns.headers() if headers else [],
        "rows": rows,
    }


def human_duration(seconds: float) -> str:
    """A span as kubectl prints ages: `45s`, `9m5s`, `23m`, `5h10m`, `30h`, `2d3h`, `40d`, `2y5d`."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(whole, 0)}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days, years = hours // 24, hours // (24 * 365)
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if years < 2:
        return f"{days}d"
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def age_of(timestamp: Any, now: datetime) -> str:
    """How long ago an RFC 3339 time was, or `<unknown>`."""
    if not timestamp:
        return "<unknown>"
    try:
        moment = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return "<invalid>"
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return human_duration((now - moment).total_seconds())


def _printer_column(column: dict[str, Any]) -> Column:
    kind = str(column.get("type") or "string")
    path = jsonpaths.parse(str(column.get("jsonPath") or "."))
    convert = _CELLS.get(kind, _text)
    return Column(
        name=str(column.get("name") or ""),
        read=None if kind == "date" else lambda doc: convert(path.first(doc)),
        read_at=(lambda doc, now: _date(path.first(doc), now)) if kind == "date" else None,
        type=kind,
        format=str(column.get("format") or ""),
        description=str(column.get("description") or ""),
        priority=int(column.get("priority") or 0),
    )


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: Any) -> Any:
    return None if _number(value) is None else int(value)


def _boolean(value: Any) -> Any:
    return value if isinstance(value, bool) else None


def _date(value: Any, now: datetime) -> Any:
    return age_of(value, now) if isinstance(value, str) else None


_CELLS: dict[str, Callable[[Any], Any]] = {
    "string": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}


def _metadata(doc: dict[str, Any], name: str) -> Any:
    return (doc.get("metadata") or {}).get(name)


NAME = Column(
    "Name", lambda doc: _metadata(doc, "name") or "", format="name", description="Unique for its kind in a namespace."
)
AGE = Column(
    "Age",
    read_at=lambda doc, now: age_of(_metadata(doc, "creationTimestamp"), now),
    description="Time since the object was created.",
)
CREATED_AT = Column(
    "Created At",
    lambda doc: _metadata(doc, "creationTimestamp") or "<unknown>",
    type="date",
    description="When the object was created.",
)
