"""The order of a merged list: the wish of whoever patches or applies, and the server's for items it alone knows."""

from collections.abc import Callable, Hashable, Iterator, Sequence
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


def applied(before: Sequence[str], wished: Sequence[str]) -> Iterator[str]:
    """The keys of both after a server-side apply. Those that are not wished stay as far in front as they were; of those
    that are, the order of the wish holds, and new ones stand behind what was in front of their next known one."""
    known, wanted = set(before), set(wished)
    shared = iter([key for key in wished if key in known])
    ahead, at = next(shared, None), 0
    for key in wished:
        while at < len(before) and before[at] != ahead:
            if before[at] not in wanted:
                yield before[at]
            at += 1
        yield key
        if key == ahead:
            ahead, at = next(shared, None), at + 1
    yield from (key for key in before[at:] if key not in wanted)
