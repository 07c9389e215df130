"""Watches: from the store's events to one watcher's, beginning at a revision, with bookmarks.

A `Watch` is a push: `deliver` is called on the event loop with each event that concerns the selection, in order and
without gaps; it must not block. `Bookmarks` is one timer for all watches that want them.
"""

import asyncio
from collections.abc import Callable

from hotvirt.kube.errors import BadRequest, Gone
from hotvirt.server.calls import Call
from hotvirt.server.events import Event, Type
from hotvirt.server.selection import Selection
from hotvirt.server.store import Store

BOOKMARK_SECONDS = 60.0
Deliver = Callable[[Type, Event, bool], None]


class Watch:
    """`deliver(type, event, as_before)`: the type as this selection sees it; with `as_before` the object is to be
    shown as it was before the event, since it has left the selection."""

    def __init__(self, store: Store, call: Call, selection: Selection, deliver: Deliver) -> None:
        self._store, self._call, self._selection, self._deliver = store, call, selection, deliver
        self._waiting: list[Event] | None = []
        self._end: Callable[[], object] | None = None
        self.revision = 0  # the newest event that was looked at

    async def start(self, version: str, *, initial: bool | None = None) -> None:
        """Begins after `version`; "" and "0", or `initial`, first deliver everything that exists as ADDED. Gone when
        the version is compacted."""
        if version and not version.isdecimal():
            raise BadRequest(f"invalid resource version: {version!r} is not a number that this server gave out")
        since = int(version or 0)
        if (
            since > self._store.revision
        ):  # of a state that was since replaced by a backup: what is known is worth nothing
            raise Gone(f"Too large resource version: {since}, current: {self._store.revision}: list again")
        resource = self._call.served.store
        self._end = self._store.listen(resource, self._hear)
        try:
            if initial or (initial is None and since == 0):
                self.revision = self._store.revision
                for entry in self._selection.pick(self._store.entries(resource, self._selection.namespace)):
                    self._deliver("ADDED", Event("ADDED", entry.key, entry.revision, entry.body, None), False)
            else:
                self.revision = since or self._store.revision
                if since:
                    for event in await self._store.events_since(since, resource):
                        self._pass_on(event)
                        event.seal()  # the store keeps it: what was decoded for this watch alone must not stay with it
            waiting, self._waiting = self._waiting or [], None
            for event in waiting:
                self._pass_on(event)
            self.revision = max(self.revision, self._store.revision)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._end:
            self._end()
            self._end = None

    def _hear(self, event: Event) -> None:
        if self._waiting is not None:
            self._waiting.append(event)
        else:
            self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        if event.revision <= self.revision:
            return
        self.revision = event.revision
        seen = self._selection.sees(event)
        if seen is not None:
            self._deliver(seen[0], event, seen[1])


class Bookmarks:
    """Tells every watcher that asked, once a minute, how far the store is: what it need not ask for again."""

    def __init__(self, store: Store, *, every: float = BOOKMARK_SECONDS) -> None:
        self._store, self._every = store, every
        self._watchers: set[Callable[[int], None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, tell: Callable[[int], None]) -> Callable[[], None]:
        self._watchers.add(tell)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._every, self._tell)
        return lambda: self._watchers.discard(tell)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        self._timer = None
        for tell in tuple(self._watchers):
            tell(self._store.revision)
        if self._watchers:
            self._timer = asyncio.get_running_loop().call_later(self._every, self._tell)
