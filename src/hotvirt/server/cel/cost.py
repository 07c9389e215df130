"""How expensive an expression can get on given values: an upper bound, found before it is evaluated. Pure.

A rule of a few characters can take minutes and gigabytes (folds in folds over a long list, texts that double). Values
are measured by depth: the longest list and the largest content at each depth below a variable. The tree is then walked
with those bounds. One unit is about one step of the evaluator, or one byte that is copied, or ten that are looked at.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from hotvirt.server.cel import regex
from hotvirt.server.cel.syntax import Node, walk

PER_EVALUATION = 10_000_000
PER_WRITE = 40_000_000
SMALL = 100_000  # bytes of values that an expression without folds may be asked about unmeasured
_DEPTHS = 24
_CHEAP = frozenset(
    ("_&&_", "_||_", "!_", "_?_:_", "_[_]", "_?._", "_[?_]", "@not_strictly_false", "type", "optional.of",
     "optional.none", "hasValue", "orValue", "or", "value", "size", "duration", "timestamp")
)  # fmt: skip
_LOOKING = frozenset(
    ("_==_", "_!=_", "@in", "_<_", "_<=_", "_>_", "_>=_", "contains", "startsWith", "endsWith", "matches", "int",
     "double")
)  # fmt: skip  # and the result is small
_HANDED = frozenset(
    ("isSorted", "sum", "min", "max", "indexOf", "lastIndexOf", "join", "format", "cel.@mapInsert", "sort",
     "@sortByAssociatedKeys")
)  # fmt: skip  # to Python, element by element; or sorted
_PRODUCT = frozenset(("sets.contains", "sets.intersects", "sets.equivalent", "distinct"))
_UNKNOWN = 1 << 40
_GROWING = frozenset(("replace", "join"))  # the result can be the product of the operands


class Profile(Struct, frozen=True):
    """Of all values at one depth: the longest list, map or text, and the largest content of one."""

    lengths: tuple[int, ...]
    totals: tuple[int, ...]


class _Bound(Struct, frozen=True):
    length: int
    total: int
    depth: int = -1  # below a variable; -1 for what is made
    item: "_Bound | None" = None  # of what is made


def measure(values: Iterable[Any]) -> Profile:
    lengths, totals = [0] * (_DEPTHS + 1), [1] * (_DEPTHS + 1)
    for value in values:
        _measure(value, 0, lengths, totals)
    used = _DEPTHS + 1
    while used > 1 and totals[used - 1] == 1:
        used -= 1
    return Profile(tuple(map(_rounded, lengths[:used])), tuple(map(_rounded, totals[:used])))


def is_flat(node: Node) -> bool:
    """Whether the cost is linear in the size of the values, however they are shaped."""
    return all(
        each.kind != "fold" and each.name not in _GROWING and each.name not in ("find", "findAll", "lists.range")
        for each in walk(node)
    )


def _measure(value: Any, depth: int, lengths: list[int], totals: list[int]) -> int:
    kind = type(value)
    length = len(value) if kind in (str, bytes, list, dict) else 0
    total = 1 + length
    below = min(depth + 1, _DEPTHS)
    if kind is dict:
        keys = [len(key) if type(key) is str else 1 for key in value]
        longest = max(keys, default=0)
        lengths[below] = max(lengths[below], longest)
        totals[below] = max(totals[below], longest)
        total += sum(keys) + sum(_measure(child, below, lengths, totals) for child in value.values())
    elif kind is list:
        total += sum(_measure(child, below, lengths, totals) for child in value)
    lengths[depth] = max(lengths[depth], length)
    totals[depth] = max(totals[depth], total)
    return total


def _rounded(number: int) -> int:
    """Up to a quarter of a power of two, so that sizes that differ little share a judgement."""
    step = max(1, 1 << max(0, number.bit_length() - 3))
    return -(-number // step) * step


def bound(node: Node, profile: Profile) -> int:
    """The most that one evaluation can cost."""
    return _walk(node, profile, {})[0]


def _at(profile: Profile, depth: int) -> _Bound:
    if depth >= len(profile.totals):
        return _Bound(0, 1, len(profile.totals))
    return _Bound(profile.lengths[depth], profile.totals[depth], depth)


def _below(value: _Bound, profile: Profile) -> _Bound:
    return _at(profile, value.depth + 1) if value.depth >= 0 else value.item or value


_SMALL = _Bound(0, 1)


def _largest(values: Iterable[_Bound | None]) -> _Bound:
    return max((value for value in values if value), key=lambda value: (value.total, value.length), default=_SMALL)


def _walk(node: Node, profile: Profile, known: dict[str, _Bound]) -> tuple[int, _Bound]:
    if node.kind == "const":
        return 1, _Bound(node.size, node.size + 1)
    if node.kind == "ident":
        return 1, known.get(node.name) or _at(profile, 0)
    if node.kind == "fold":
        return _fold(node, profile, known)
    walked = [_walk(part, profile, known) for part in node.parts]
    spent, values = sum(cost for cost, _ in walked) + 1, [value for _, value in walked]
    if node.kind == "select":
        return spent, _SMALL if node.is_test else _below(values[0], profile)
    if node.kind in ("list", "struct"):
        total = sum(value.total for value in values) + 1
        return spent, _Bound(len(values), total, item=_largest(values))
    if node.name in ("find", "findAll") and len(values) > 1:
        program = regex.size(node.parts[1].value) if node.parts[1].kind == "const" else regex.LARGEST
        return spent + 10 * values[0].total * program, _Bound(values[0].total, values[0].total, item=values[0])
    if node.name == "lists.range":
        count = node.parts[0].number if node.parts and node.parts[0].kind == "const" else _UNKNOWN
        return spent + count, _Bound(count, count + 1, item=_SMALL)
    return _call(node.name, spent, values, profile)


def _call(name: str, spent: int, values: list[_Bound], profile: Profile) -> tuple[int, _Bound]:
    if name in ("_[_]", "_?._", "_[?_]"):
        return spent, _below(values[0], profile)
    if name in _CHEAP:
        return spent, _largest(values)
    total = sum(value.total for value in values)
    length = sum(value.length for value in values)
    if name in _LOOKING:
        pattern = values[1].total if name == "matches" and len(values) > 1 else 1
        return spent + total * max(pattern // 4, 1) // 10, _SMALL
    if name in _GROWING:
        for value in values:
            length, total = max(length, length * (value.length + 1)), max(total, total * (value.total + 1))
    if name in _PRODUCT:  # each element with each
        total += values[0].length * values[-1].length
    handed = 10 if name in _HANDED else 1
    return spent + handed * total, _Bound(length, total, item=_largest(_below(value, profile) for value in values))


def _fold(node: Node, profile: Profile, known: dict[str, _Bound]) -> tuple[int, _Bound]:
    spent, over = _walk(node.parts[0], profile, known)
    start_cost, start = _walk(node.parts[1], profile, known)
    times = over.length
    inside = {**known, **{name: _below(over, profile) for name in node.variables}}
    accumulator = node.variables[1] if len(node.variables) > 1 else ""
    inside[accumulator] = start
    condition, _ = _walk(node.parts[2], profile, inside)
    step, after = _walk(node.parts[3], profile, inside)
    grown = max(0, after.total - start.total)  # each step can add as much to what is gathered
    longer = max(0, after.length - start.length)
    inside[accumulator] = _Bound(start.length + times * longer, start.total + times * grown, item=after.item)
    result_cost, result = _walk(node.parts[4], profile, inside)
    if any(each.name == "cel.@mapInsert" for each in walk(node.parts[3])):  # which copies what there is
        spent += 5 * times * inside[accumulator].total
    return spent + start_cost + times * (condition + step + 1) + result_cost, result
