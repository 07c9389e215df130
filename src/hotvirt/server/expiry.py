"""Events are kept for an hour after they were last written. One timer for the next one that is due."""

import asyncio
import heapq
from collections.abc import Callable

from hotvirt.kube.admission import User
from hotvirt.kube.errors import NotFound
from hotvirt.server.calls import Call
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.verbs import Verbs
from hotvirt.server.work import Worker

KEPT_SECONDS = 3600.0
EVENTS = "/events"


class EventExpiry:
    """What was there at the start is given its hour from then on."""

    def __init__(self, verbs: Verbs, user: User, *, kept: float = KEPT_SECONDS) -> None:
        self._verbs, self._user, self._kept = verbs, user, kept
        self._due: list[tuple[float, int, Key]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._worker: Worker[Key] = Worker("event expiry", self._remove)
        self._end: Callable[[], object] | None = None

    def start(self) -> None:
        for entry in self._verbs.store.entries(EVENTS):
            self._expect(entry.revision, entry.key)
        self._end = self._verbs.store.listen(EVENTS, self._hear)
        self._worker.start()

    async def stop(self) -> None:
        if self._end:
            self._end()
        if self._timer:
            self._timer.cancel()
        await self._worker.stop()

    def _hear(self, event: Event) -> None:
        if event.type != "DELETED":
            self._expect(event.revision, event.key)

    def _expect(self, revision: int, key: Key) -> None:
        loop = asyncio.get_running_loop()
        heapq.heappush(self._due, (loop.time() + self._kept, revision, key))
        if self._timer is None:
            self._timer = loop.call_at(self._due[0][0], self._ring)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due and self._due[0][0] <= loop.time():
            _, revision, key = heapq.heappop(self._due)
            entry = self._verbs.store.get(key)
            if entry is not None and entry.revision == revision:
                self._worker.add(key)
        self._timer = loop.call_at(self._due[0][0], self._ring) if self._due else None

    async def _remove(self, key: Key) -> None:
        served = self._verbs.registry.by_store(EVENTS)
        if served is None:
            return
        call = Call(served=served, user=self._user, namespace=key.namespace, name=key.name)
        try:
            await self._verbs.delete(call)
        except NotFound:
            return
