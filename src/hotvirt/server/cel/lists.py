"""Kubernetes' list and set libraries, and cel-go's, over Python lists. Pure. ValueError has the words to show."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

MOST = 10_000


def is_sorted(items: list[Any]) -> bool:
    _check_comparable(items)
    return all(left <= right for left, right in pairwise(items))


def total(items: list[Any]) -> Any:
    if not all(isinstance(item, int | float | timedelta) and not isinstance(item, bool) for item in items):
        raise ValueError("no such overload: sum needs a list of numbers or of durations")
    if not items:
        return 0
    found = sum(items[1:], items[0])
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        raise ValueError("integer overflow")
    return found


def least(items: list[Any]) -> Any:
    _check_comparable(items)
    if not items:
        raise ValueError("min called on empty list")
    return min(items)


def greatest(items: list[Any]) -> Any:
    _check_comparable(items)
    if not items:
        raise ValueError("max called on empty list")
    return max(items)


def _check_comparable(items: list[Any]) -> None:
    if len({float if isinstance(item, float) else type(item) for item in items}) > 1 or any(
        isinstance(item, list | dict) or item is None for item in items
    ):
        raise ValueError("no such overload: the elements must be of one type that can be compared")


def distinct(items: list[Any]) -> list[Any]:
    return list({_identity(item): item for item in reversed(items)}.values())[::-1]


def _identity(item: Any) -> Any:
    """The same for what CEL holds equal, and hashable."""
    if isinstance(item, list):
        return ("list", *map(_identity, item))
    if isinstance(item, dict):
        return "map", frozenset((_identity(key), _identity(value)) for key, value in item.items())
    return isinstance(item, bool), bytes(item) if isinstance(item, bytearray) else item


def flatten(items: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise ValueError("level must be non-negative")
    flat: list[Any] = []
    for item in items:
        if isinstance(item, list):
            flat += flatten(item, depth - 1) if depth > 1 else item if depth else [item]
        else:
            flat.append(item)
    return flat


def cut(items: list[Any], start: int, end: int) -> list[Any]:
    if not 0 <= start <= end <= len(items):
        raise ValueError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def ordered(items: list[Any]) -> list[Any]:
    _check_comparable(items)
    return sorted(items)


def counted(number: int) -> list[int]:
    if number > MOST:
        raise ValueError(f"lists.range: at most {MOST}")
    return list(range(number))


def has_all(items: list[Any], wanted: list[Any]) -> bool:
    return set(map(_identity, wanted)) <= set(map(_identity, items))


def has_any(items: list[Any], wanted: list[Any]) -> bool:
    return not set(map(_identity, wanted)).isdisjoint(map(_identity, items))


def is_equivalent(items: list[Any], others: list[Any]) -> bool:
    return has_all(items, others) and has_all(others, items)
