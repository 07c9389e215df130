"""A compiled expression as a tree, read from its serialized form (a cel.expr.CheckedExpr in an Any). Pure.

Macros are expanded by then: `all`, `exists`, `map` and the others are folds. Only what rules are judged by is kept.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

MAX_DEPTH = 400


class Node(Struct, frozen=True):
    """`kind` is const, ident, select, call, list, struct or fold. `name` is the identifier, field or function; `parts`
    the operands: a call's target first, of a fold the range, accumulator's start, condition, step and result."""

    kind: str
    name: str = ""
    parts: tuple["Node", ...] = ()
    size: int = 0  # of a constant text
    number: int = 0  # a constant that is one
    variables: tuple[str, ...] = ()  # of a fold: element, accumulator, second element
    is_test: bool = False  # has(a.b)
    value: str = ""  # of a constant text
    is_text: bool = False  # a constant that is one


_CONST = Node("const")


def parse(serialized: bytes) -> Node:
    """ValueError when it is nested too deep to be judged."""
    checked = dict(_fields(_bytes(dict(_fields(serialized)).get(2))))
    if not isinstance(checked.get(4), bytes):
        raise ValueError("the compiled expression can't be read: another version of the library is needed")
    return _expr(checked[4], 0)


def walk(node: Node) -> Iterator[Node]:
    yield node
    for part in node.parts:
        yield from walk(part)


def identifiers(node: Node, bound: frozenset[str] = frozenset()) -> set[str]:
    """The variables that are read and not made by the expression itself."""
    if node.kind == "ident":
        return set() if node.name in bound else {node.name}
    if node.kind == "fold":
        inside = bound | frozenset(node.variables)
        found = identifiers(node.parts[0], bound) | identifiers(node.parts[1], bound)
        return found.union(*(identifiers(part, inside) for part in node.parts[2:]))
    return set().union(*(identifiers(part, bound) for part in node.parts))


def fields_of(node: Node, variable: str) -> set[str]:
    """The fields that are read of a variable by name: `variables.a` reads a."""
    found: set[str] = set()
    for each in walk(node):
        if not each.parts or (each.parts[0].kind, each.parts[0].name) != ("ident", variable):
            continue
        if each.kind == "select":
            found.add(each.name)
        elif each.kind == "call" and len(each.parts) == 2 and each.parts[1].kind == "const":
            found.add(each.parts[1].value)  # variables['a'], variables.?a
    return found


def optional_results(serialized: bytes, functions: frozenset[str]) -> bytes:
    """The same expression, with each call of a function that gives a list replaced by an optional of its first item:
    no function of ours can give an optional, but `list[?0]` does."""
    fresh = itertools.count(1 << 40)  # expressions have numbers

    def inside(data: bytes, numbers: tuple[int, ...], work: Callable[[bytes], bytes]) -> bytes:
        return b"".join(
            _encoded(number, work(value) if number in numbers and isinstance(value, bytes) else value)
            for number, value in _fields(data)
        )

    def rewrite(data: bytes) -> bytes:
        found = inside(data, (5,), lambda each: inside(each, (1,), rewrite))
        found = inside(found, (6,), lambda each: inside(each, (1, 3), rewrite))
        found = inside(found, (7,), lambda each: inside(each, (1,), rewrite))
        found = inside(found, (8,), lambda each: inside(each, (2,), lambda entry: inside(entry, (3, 4), rewrite)))
        found = inside(found, (9,), lambda each: inside(each, (2, 4, 5, 6, 7), rewrite))
        call = _bytes(dict(_fields(found)).get(6))
        if _text(dict(_fields(call)).get(2)) not in functions:
            return found
        zero = _encoded(2, next(fresh)) + _encoded(3, _encoded(3, 0))
        first = _encoded(2, b"_[?_]") + _encoded(3, found) + _encoded(3, zero)
        return _encoded(2, next(fresh)) + _encoded(6, first)

    return inside(serialized, (2,), lambda checked: inside(checked, (4,), rewrite))


def _encoded(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint_bytes(number << 3) + _varint_bytes(value)
    return _varint_bytes(number << 3 | 2) + _varint_bytes(len(value)) + value


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _expr(data: bytes, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise ValueError(f"the expression nests more than {MAX_DEPTH} levels deep")
    for number, value in _fields(data):
        if isinstance(value, bytes) and (read := _READERS.get(number)):
            return read(value, depth + 1)
    return _CONST


def _const(data: bytes, _: int) -> Node:
    for number, value in _fields(data):
        if number == 3 and isinstance(value, int):
            return Node("const", number=min(value, 1 << 40))
        if number in (6, 7) and isinstance(value, bytes):
            return Node("const", size=len(value), value=value.decode("utf-8", "replace"), is_text=number == 6)
    return _CONST


def _ident(data: bytes, _: int) -> Node:
    return Node("ident", _text(dict(_fields(data)).get(1)).removeprefix("."))


def _select(data: bytes, depth: int) -> Node:
    fields = dict(_fields(data))
    return Node("select", _text(fields.get(2)), (_expr(_bytes(fields.get(1)), depth),), is_test=bool(fields.get(3)))


def _call(data: bytes, depth: int) -> Node:
    name, target, arguments = "", [], []
    for number, value in _fields(data):
        if number == 1:
            target.append(_expr(_bytes(value), depth))
        elif number == 2:
            name = _text(value)
        elif number == 3:
            arguments.append(_expr(_bytes(value), depth))
    return Node("call", name, (*target, *arguments))


def _list(data: bytes, depth: int) -> Node:
    return Node("list", parts=tuple(_expr(_bytes(value), depth) for number, value in _fields(data) if number == 1))


def _struct(data: bytes, depth: int) -> Node:
    parts = []
    for number, entry in _fields(data):
        if number == 2:
            parts += [_expr(_bytes(value), depth) for inner, value in _fields(_bytes(entry)) if inner in (3, 4)]
    return Node("struct", parts=tuple(parts))


def _fold(data: bytes, depth: int) -> Node:
    fields = dict(_fields(data))
    variables = tuple(name for number in (1, 3, 8) if (name := _text(fields.get(number))))
    parts = tuple(_expr(_bytes(fields.get(number)), depth) for number in (2, 4, 5, 6, 7))
    return Node("fold", parts=parts, variables=variables)


_READERS = {3: _const, 4: _ident, 5: _select, 6: _call, 7: _list, 8: _struct, 9: _fold}


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif wire == 2:
            length, at = _varint(data, at)
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            width = 8 if wire == 1 else 4
            yield tag >> 3, data[at : at + width]
            at += width


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""


def _text(value: Any) -> str:
    return _bytes(value).decode("utf-8", "replace")
