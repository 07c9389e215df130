"""The order of a merged list: the wish of whoever patches, and the server's for items only the server knows."""

from collections.abc import Callable, Hashable
from typing import Any


def interleave(
    merged: list[Any], wished: list[Hashable], before: list[Hashable], identify: Callable[[Any], Hashable]
) -> list[Any]:
    """`merged` sorted anew: items in `wished` come in that order, the others in the order of `before`; where both kinds
    were there `before`, an unwished item stays in front of the wished ones that it stood in front of."""
    wish = {key: index for index, key in reversed(list(enumerate(wished)))}
    old = {key: index for index, key in reversed(list(enumerate(before)))}
    end = len(old)
    named = sorted((i for i in merged if identify(i) in wish), key=lambda item: wish[identify(item)])
    others = sorted((i for i in merged if identify(i) not in wish), key=lambda item: old.get(identify(item), end))
    result: list[Any] = []
    for item in named:
        place = old.get(identify(item))
        while others and place is not None and old.get(identify(others[0]), end) < place:
            result.append(others.pop(0))
        result.append(item)
    return result + others
