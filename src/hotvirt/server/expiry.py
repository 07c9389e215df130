"""Events are kept for an hour after they were last written. One timer for the next one that is due."""

import asyncio
from collections import OrderedDict

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
        self._due: OrderedDict[Key, float] = OrderedDict()  # all are kept equally long: the first is due first
        self._timer: asyncio.TimerHandle | None = None
        self._worker: Worker[Key] = Worker("event expiry", self._remove)

    def start(self) -> None:
        for entry in self._verbs.store.entries(EVENTS):
            self._expect(entry.key)
        self._worker.start(self._verbs.store.listen(EVENTS, self._hear))

    def __len__(self) -> int:
        """How many events wait for their end."""
        return len(self._due)

    async def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
        await self._worker.stop()

    def _hear(self, event: Event) -> None:
        self._due.pop(event.key, None)
        if event.type != "DELETED":
            self._expect(event.key)

    def _expect(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        self._due[key] = loop.time() + self._kept
        if self._timer is None:
            self._timer = loop.call_later(self._kept, self._ring)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due and next(iter(self._due.values())) <= loop.time():
            self._worker.add(self._due.popitem(last=False)[0])
        self._timer = loop.call_at(next(iter(self._due.values())), self._ring) if self._due else None

    async def _remove(self, key: Key) -> None:
        served = self._verbs.registry.by_store(EVENTS)
        if served is None:
            return
        call = Call(served=served, user=self._user, namespace=key.namespace, name=key.name)
        try:
            await self._verbs.delete(call)
        except NotFound:
            return
