"""Kubernetes' list library over Python lists. Pure. ValueError has the words to show."""

from datetime import timedelta
from itertools import pairwise
from typing import Any


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


def inserted(found: dict[Any, Any], key: Any, value: Any = None) -> dict[Any, Any]:
    """A step of transformMap: a key with its value, or a map of such."""
    more = key if isinstance(key, dict) else {key: value}
    for name in more:
        if name in found:
            raise ValueError(f"insert failed: key '{name}' already exists")
    return {**found, **more}
