"""Keeps a part of the home running: a bug in one part must not take the others, and the guests' API, down.

One task per part. A part that fails, or returns although it should run for ever, is started again after a delay that
doubles while it keeps failing and falls back once it has run well for a while. Cancelling the task ends the part.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("hotvirt.home")

FIRST_DELAY, LONGEST_DELAY, RAN_WELL = 1.0, 30.0, 60.0


async def keep_running(part: str, run: Callable[[], Awaitable[None]]) -> None:
    """Never returns. Says each new failure with its traceback, and a repeated one in a line."""
    loop = asyncio.get_running_loop()
    delay, last = FIRST_DELAY, ""
    while True:
        began = loop.time()
        try:
            await run()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if said == last:
                log.error("part failed again as before", extra={"part": part, "error": said})
            else:
                log.exception("part failed", extra={"part": part})
            last = said
        else:
            log.error("part ended by itself", extra={"part": part})
        if loop.time() - began >= RAN_WELL:
            delay, last = FIRST_DELAY, ""
        log.info("part starts again soon", extra={"part": part, "seconds": delay})
        await asyncio.sleep(delay)
        delay = min(delay * 2, LONGEST_DELAY)
