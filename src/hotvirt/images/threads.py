"""Work in a thread that whoever is cancelled waits for all the same.

`asyncio.to_thread` returns at once when it is cancelled, and the thread goes on. If it writes to a descriptor that is
closed then, its next write goes to whatever was opened under that number meanwhile: another guest's disk, for one.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `to_thread`, but the thread is through with it in any case when this ends. For work that takes no longer than
    one may wait at a cancellation."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):  # said again: it is on its way
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # nobody is left to be told of it
        raise
