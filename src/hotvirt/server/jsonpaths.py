"""The JSONPath subset of printer columns, scale and selectable fields: compiled once, then called per object.

Understood: `.a.b`, `['a']`, `.a\\.b`, `[0]`, `[-1]`, `[0:2]`, `[*]`, `.*`, `..a`, and filters such as
`[?(@.type=="Ready")]`, `[?(@.n > 3)]`, `[?(@.on)]`. Pure; a `Path` is safe from any thread.
"""

import operator
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

Step = Callable[[Iterable[Any]], list[Any]]

_STEPS = re.compile(
    r"""
      \.\.(?P<deep>(?:\\.|[^.\[\]\s'"*])+)
    | \.(?P<name>(?:\\.|[^.\[\]\s'"*])+)
    | (?P<star>\.\*|\[\*\])
    | \[\s*(?P<index>-?\d+)\s*\]
    | \[\s*(?P<start>-?\d*)\s*:\s*(?P<stop>-?\d*)\s*\]
    | \[\s*(?P<quoted>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\s*\]
    | \[\?\(\s*@(?P<left>[^=!<>&|]*?)\s*(?:(?P<sign>==|!=|<=|>=|<|>)\s*(?P<right>'[^']*'|"[^"]*"|[^\s'")]+))?\s*\)\]
    """,
    re.VERBOSE,
)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Path:
    """A compiled path: `find(document)` gives every value it leads to."""

    __slots__ = ("_names", "_steps", "text")

    def __init__(self, text: str, steps: list[Step], names: tuple[str, ...] | None) -> None:
        self.text = text
        self._steps = steps
        self._names = names  # a path of names alone is walked without lists

    def find(self, document: Any) -> list[Any]:
        if self._names is not None:
            found = self.first(document)
            return [] if found is None else [found]
        nodes: list[Any] = [document]
        for step in self._steps:
            nodes = step(nodes)
        return nodes

    def first(self, document: Any) -> Any:
        """The first value, None when there is none."""
        if self._names is None:
            return next(iter(self.find(document)), None)
        for name in self._names:
            if type(document) is not dict:
                return None
            document = document.get(name)
        return document

    @property
    def names(self) -> tuple[str, ...] | None:
        """The path as field names; None when it has indexes or filters."""
        return self._names


@lru_cache(maxsize=2048)
def parse(text: str) -> Path:
    """Compile `text`. ValueError says from where it can't be read. `{.a.b}` is taken too."""
    body = text.strip()
    if body.startswith("{") and body.endswith("}"):
        body = body[1:-1].strip()
    body = body.removeprefix("$")
    if body and body[0] not in ".[":
        body = "." + body
    steps: list[Step] = []
    names: list[str] | None = []
    at = 0
    while at < len(body) and body != ".":
        match = _STEPS.match(body, at)
        if match is None:
            raise ValueError(f"can't read {body[at:]!r} in the JSON path {text!r}")
        name = match["name"] or (match["quoted"] or "")[1:-1]
        if (match["name"] or match["quoted"]) and names is not None:
            names.append(_plain(name))
        else:
            names = None
        steps.append(_step(match, name))
        at = match.end()
    return Path(text, steps, None if names is None else tuple(names))


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _step(match: re.Match[str], name: str) -> Step:
    if name:
        return _named(_plain(name))
    if match["deep"]:
        return _deep(_plain(match["deep"]))
    if match["star"]:
        return _every
    if match["index"]:
        return _at(int(match["index"]))
    if match["start"] is not None:
        return _slice(match["start"], match["stop"])
    return _filter(match["left"], match["sign"], match["right"])


def _named(name: str) -> Step:
    return lambda nodes: [node[name] for node in nodes if type(node) is dict and name in node]


def _every(nodes: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for node in nodes:
        if type(node) is list:
            found += node
        elif type(node) is dict:
            found += node.values()
    return found


def _deep(name: str) -> Step:
    def walk(node: Any, found: list[Any]) -> None:
        if type(node) is dict:
            if name in node:
                found.append(node[name])
            for child in node.values():
                walk(child, found)
        elif type(node) is list:
            for child in node:
                walk(child, found)

    def step(nodes: Iterable[Any]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            walk(node, found)
        return found

    return step


def _at(index: int) -> Step:
    return lambda nodes: [n[index] for n in nodes if type(n) is list and -len(n) <= index < len(n)]


def _slice(start: str, stop: str) -> Step:
    part = slice(int(start) if start else None, int(stop) if stop else None)
    return lambda nodes: [child for node in nodes if type(node) is list for child in node[part]]


def _filter(left: str, sign: str | None, right: str | None) -> Step:
    path = parse(left or ".")
    wanted = _literal(right) if right is not None else None
    compare = _SIGNS[sign] if sign else None

    def fits(node: Any) -> bool:
        found = path.find(node)
        if compare is None:
            return bool(found)
        try:
            return bool(found) and compare(found[0], wanted)
        except TypeError:
            return False

    return lambda nodes: [c for node in nodes if type(node) is list for c in node if fits(c)]


def _literal(text: str) -> Any:
    if text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return float(text)  # a ValueError here goes to whoever parses the path
