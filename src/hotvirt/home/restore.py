"""`hotvirt restore`: another state in the place of a home's, with the home stopped for as long as that takes.

Nothing is stopped before the file is known to be good. Guests go on; the home that starts again finds those that the
restored state has, and ends the others as it does with any pod that is not there any more.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from hotvirt.home import detach, down, lock
from hotvirt.home.errors import HomeError
from hotvirt.home.paths import Paths


def restore(place: Paths, source: Path, *, say: Callable[[str], None]) -> Path | None:
    """Where the replaced state is kept, None when there was none. HomeError when it can't be; then nothing was
    replaced, and a home that ran runs again."""
    from hotvirt.server import backups
    from hotvirt.server.database import StateFileError, check_file

    try:
        check_file(source)
        place.prepare()
        running = lock.holder(place.lock)
        if running is not None:
            asyncio.run(down.stop_home(running, say))
        try:
            with lock.hold(place.lock):
                kept = backups.restore(source, place.database)
                say(f"restored {source}")
        finally:
            if running is not None:
                say(f"the API answers again at {detach.start(place, [], say=lambda _: None)}")
    except StateFileError as error:
        raise HomeError(str(error)) from error
    return kept
