"""KubeVirt's object model as a table: each type's fields, in a notation of a line each.

`string int32 int64 boolean quantity time duration object any` are scalars, `[T]` lists, `{T}` string maps, any other
word a type of the table. `!` at the end: required. `T|A|B`: only these values. `[T]#name`: a list keyed by `name` (or
`#set`).
Names and types are facts of KubeVirt 1.9's API description; the words that explain fields are ours (`api.explain`).
"""

from functools import cache
from importlib.resources import files
from typing import Any

from msgspec import Struct, json

SCALARS = frozenset(
    ("string", "int32", "int64", "uint32", "number", "boolean", "quantity", "time", "duration", "object", "any",
     "bytes", "intstr")
)  # fmt: skip
TABLES = ("kubevirt", "replicas", "instancetypes", "migrations", "snapshots", "cdi")
"""Virtual machines and settings; replica sets and pools; instancetypes and preferences; migrations and policies;
snapshots, clones and exports; data volumes."""


class Kind(Struct, frozen=True):
    """A field's type, read from its notation. `shape`: "one", "list" or "map" of `item`."""

    item: str
    shape: str = "one"
    required: bool = False
    values: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def is_scalar(self) -> bool:
        return self.item in SCALARS


@cache
def types() -> dict[str, dict[str, str]]:
    """Type name -> field name -> notation."""
    found: dict[str, dict[str, str]] = {}
    for table in TABLES:
        found |= json.decode(files(__name__).joinpath(f"{table}.json").read_bytes())
    return found


@cache
def read(notation: str) -> Kind:
    """`[Disk]#name!` -> a required list of Disk, keyed by name."""
    text, required = notation.removesuffix("!"), notation.endswith("!")
    shape, keys = "one", tuple[str, ...]()
    if text[0] in "[{":
        close = text.rindex("]" if text[0] == "[" else "}")
        shape = "list" if text[0] == "[" else "map"
        keys = tuple(text[close + 1 :].removeprefix("#").split(",")) if text[close + 1 :] else ()
        text = text[1:close]
    item, *values = text.split("|")
    return Kind(item, shape, required, tuple(values), keys)


def fields(name: str) -> dict[str, Kind]:
    """The fields of one type of the table."""
    return {field: read(notation) for field, notation in types()[name].items()}


def fits(value: Any, name: str) -> bool:
    """Whether a document has the shapes of the table, so that it can be read without a look at each type. What is
    missing or unknown does no harm here, nor does null: both read as not said."""
    if not isinstance(value, dict):
        return value is None
    known = types()[name]
    return all(field not in known or _fits(each, read(known[field])) for field, each in value.items())


def is_scalar(value: Any, item: str) -> bool:
    """Whether a value is one of this scalar type."""
    return _is(value, Kind(item))


def _fits(value: Any, kind: Kind) -> bool:
    if value is None:
        return True
    if kind.shape == "list":
        return isinstance(value, list) and all(item is not None and _is(item, kind) for item in value)
    if kind.shape == "map":
        return isinstance(value, dict) and all(_is(item, kind) for item in value.values())
    return _is(value, kind)


def _is(value: Any, kind: Kind) -> bool:
    expected = _PYTHON.get(kind.item)
    if expected is None:
        return kind.item == "any" or fits(value, kind.item)
    return isinstance(value, expected) and (not isinstance(value, bool) or expected is bool)


_PYTHON: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("string", "time", "duration", "bytes"), str),
    **dict.fromkeys(("int32", "int64", "uint32"), int),
    **dict.fromkeys(("quantity", "intstr"), (str, int, float)),
    "number": (int, float),
    "boolean": bool,
    "object": dict,
}
