"""The short notation that the built-in kinds' schemas are written in, and its reader.

One line a field, children indented below it: `name type description`. Types: `str`, `int`, `long`, `num`, `bool`,
`time`, `bytes`, `quantity`, `intstr`, `any`; `map` (texts by name), `atomicmap` (the same, owned as a whole),
`bytesmap`, `quantities`; `obj` (only the fields listed), `open` (others are kept too), `atomic` (as obj, but owned as a
whole); `str[]` and `obj[]` (lists replaced whole), `str{}` (a set), `obj[key]` and `obj[key,key]` (lists merged by
keys). `open` works wherever `obj` does. A `!` after the type makes a field required, a `?` lets it be null; `=value`
after it gives a default.
"""

import re
from typing import Any

_LINE = re.compile(
    r"(?P<indent> *)(?P<name>\S+) +(?P<type>\w+)(?P<list>\[[\w,]*\]|\{\})?"
    r"(?P<need>[!?]?)(?:=(?P<default>\S+))? *(?P<text>.*)"
)
_SCALARS: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "num": {"type": "number"},
    "bool": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
    "quantity": {"x-kubernetes-int-or-string": True, "format": "quantity"},
    "intstr": {"x-kubernetes-int-or-string": True},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "atomicmap": {
        "type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic",
    },
    "bytesmap": {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}},
    "quantities": {
        "type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True, "format": "quantity"},
    },
}  # fmt: skip


def read(text: str, parts: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Schemas by the name of each line that is not indented. A line `*part` stands for the fields of that part."""
    lines = [line for line in _expand(text.splitlines(), parts or {}) if line.strip()]
    found: dict[str, dict[str, Any]] = {}
    at = 0
    while at < len(lines):
        name, schema, at, _ = _node(lines, at)
        found[name] = schema
    return found


def _expand(lines: list[str], parts: dict[str, str]) -> list[str]:
    result: list[str] = []
    for line in lines:
        mark = line.strip()
        if mark.startswith("*"):
            indent = line[: len(line) - len(line.lstrip())]
            result += [indent + below for below in _expand(parts[mark[1:]].strip("\n").splitlines(), parts)]
        else:
            result.append(line)
    return result


def _node(lines: list[str], at: int) -> tuple[str, dict[str, Any], int, bool]:
    match = _LINE.fullmatch(lines[at])
    if match is None:
        raise ValueError(f"can't read the schema line {lines[at]!r}")
    depth = len(match["indent"])
    properties: dict[str, Any] = {}
    required: list[str] = []
    at += 1
    while at < len(lines) and len(lines[at]) - len(lines[at].lstrip()) > depth:
        name, below, at, needed = _node(lines, at)
        properties[name] = below
        if needed:
            required.append(name)
    schema = _listed(_typed(match["type"], properties, required), match["list"])
    if match["need"] == "?":
        schema["nullable"] = True
    if match["default"]:
        schema = {**schema, "default": _default(match["default"])}
    return match["name"], {**schema, "description": match["text"].strip()}, at, match["need"] == "!"


def _typed(kind: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if kind == "open":
        schema["x-kubernetes-preserve-unknown-fields"] = True
    if kind == "atomic":
        schema["x-kubernetes-map-type"] = "atomic"
    if required:
        schema["required"] = required
    if kind not in ("obj", "open", "atomic"):
        raise ValueError(f"{kind} is not a type of the schema notation")
    return schema


def _listed(items: dict[str, Any], mark: str | None) -> dict[str, Any]:
    if not mark:
        return items
    keys = mark[1:-1].split(",") if mark[1:-1] else []
    kind = "set" if mark == "{}" else "map" if keys else "atomic"
    made: dict[str, Any] = {"type": "array", "items": items, "x-kubernetes-list-type": kind}
    return {**made, "x-kubernetes-list-map-keys": keys} if keys else made


def _default(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdigit() else text
