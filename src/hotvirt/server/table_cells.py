"""What columns of built-in kinds are made of: a cell from a path, a count, pairs, and the words for nothing. Pure."""

from collections.abc import Callable
from typing import Any

from hotvirt.server.tables import NAME, Column, Columns

Doc = dict[str, Any]
NONE = "<none>"


def at(doc: Any, *path: str) -> Any:
    for name in path:
        doc = doc.get(name) if isinstance(doc, dict) else None
    return doc


def column(
    name: str, read: Callable[[Doc], Any], description: str = "", *, wide: bool = False, kind: str = "string"
) -> Column:
    return Column(name, read, type=kind, description=description, priority=int(wide))


def field(name: str, *path: str, empty: Any = "", wide: bool = False, kind: str = "string") -> Column:
    def read(doc: Doc) -> Any:
        value = at(doc, *path)
        return empty if value is None or value == "" else value

    return column(name, read, f"From {'.'.join(path)}.", wide=wide, kind=kind)


def count(name: str, *path: str) -> Column:
    return column(name, lambda doc: len(at(doc, *path) or ()), f"How many entries {path[-1]} has.", kind="integer")


def columns(*given: Column) -> Columns:
    return Columns((NAME, *given))


def pairs(*path: str) -> Callable[[Doc], str]:
    def read(doc: Doc) -> str:
        return ",".join(f"{key}={value}" for key, value in sorted((at(doc, *path) or {}).items())) or NONE

    return read
