"""The queue between informers and reconcilers: keys, never events.

A key is queued at most once however often it is added; while a worker has it, no other worker gets it, and an `add`
in that time marks it dirty so that it comes again when the worker is done. Failures wait exponentially per key, and
all retries together are bounded by a token bucket, so that one broken dependency cannot become a storm.

All methods belong to one event loop and are synchronous except `get`; a key handed out by `get` must come back
through `done`, also when the worker failed.
"""

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from msgspec import Struct

from hotvirt.kube.backoff import Backoff

K = TypeVar("K", bound=Hashable)

LIVE, RELIST = 0, -100
"""Priorities: what just happened goes before what a list (first or repeated) brings up."""

RETRY = Backoff(base=0.005, cap=300.0)


class Counters(Struct):
    """For metrics. `depth` counts keys ready to be handed out, `unfinished` those that workers have."""

    adds: int = 0
    retries: int = 0
    depth: int = 0
    unfinished: int = 0
    waiting: int = 0
    done: int = 0


class TokenBucket:
    """`rate` a second on average, `burst` at once. `reserve` says how long the taker has to wait for its turn."""

    __slots__ = ("_at", "_burst", "_rate", "_time", "_tokens")

    def __init__(self, *, rate: float, burst: int, time: Callable[[], float]) -> None:
        self._rate, self._burst, self._time = rate, burst, time
        self._tokens, self._at = float(burst), time()

    @property
    def used_at(self) -> float:
        """When it was last asked, by its own time."""
        return self._at

    def reserve(self) -> float:
        self._refill()
        self._tokens -= 1.0
        return 0.0 if self._tokens >= 0 else -self._tokens / self._rate

    def take(self) -> bool:
        """A token now, or False and nothing changed."""
        self._refill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _refill(self) -> None:
        now = self._time()
        passed = max(0.0, now - self._at)  # the clock that events go by may be set back
        self._tokens = min(float(self._burst), self._tokens + passed * self._rate)
        self._at = now


class WorkQueue(Generic[K]):
    def __init__(self, name: str = "", *, backoff: Backoff = RETRY, rate: float = 10.0, burst: int = 100) -> None:
        self.name, self.counters = name, Counters()
        self._backoff, self._rate, self._burst = backoff, rate, burst
        self._bucket: TokenBucket | None = None
        self._heap: list[tuple[int, int, K]] = []
        self._ready: dict[K, tuple[int, int]] = {}
        self._working: set[K] = set()
        self._dirty: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._getters: list[asyncio.Future[None]] = []
        self._order = 0

    def add(self, key: K, *, priority: int = LIVE) -> None:
        self.counters.adds += 1
        if key in self._working:
            self._dirty[key] = max(priority, self._dirty.get(key, priority))
            return
        queued = self._ready.get(key)
        if queued is not None and -queued[0] >= priority:
            return
        self._push(key, priority)

    def add_after(self, key: K, delay: float, *, priority: int = LIVE) -> None:
        """Adds the key once `delay` seconds have passed; of several pending delays of a key the earliest counts."""
        if delay <= 0:
            self.add(key, priority=priority)
            return
        loop = asyncio.get_running_loop()
        due, pending = loop.time() + delay, self._timers.get(key)
        if pending is not None:
            if pending.when() <= due:
                return
            pending.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key, priority)
        self.counters.waiting = len(self._timers)

    def add_rate_limited(self, key: K, *, at_least: float = 0.0) -> float:
        """Adds a key that failed, after its back-off and its turn in the overall limit. Returns the wait."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        if self._bucket is None:
            loop = asyncio.get_running_loop()
            self._bucket = TokenBucket(rate=self._rate, burst=self._burst, time=loop.time)
        delay = max(self._backoff.delay(failures), self._bucket.reserve(), at_least)
        self.counters.retries += 1
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure is a first one again."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """The next key by priority, then age. A key is lost by no cancellation: it is taken after the wait."""
        while not self._ready:
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()
                raise
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)
        return self._pop()

    def done(self, key: K) -> None:
        self._working.discard(key)
        self.counters.done += 1
        priority = self._dirty.pop(key, None)
        if priority is not None:
            self._push(key, priority)
        self._count()

    def close(self) -> None:
        """Drops what waits for its time, so that no timer outlives the queue's users."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._count()

    def _fire(self, key: K, priority: int) -> None:
        del self._timers[key]
        self.add(key, priority=priority)
        self._count()

    def _push(self, key: K, priority: int) -> None:
        # A key that rises in priority leaves its old heap entry behind; `_pop` knows it by the order number.
        self._order += 1
        entry = (-priority, self._order)
        self._ready[key] = entry
        heapq.heappush(self._heap, (*entry, key))  # order numbers differ, so keys are never compared
        self._count()
        self._wake()

    def _pop(self) -> K:
        while True:
            priority, order, key = heapq.heappop(self._heap)
            if self._ready.get(key) == (priority, order):
                break
        del self._ready[key]
        self._working.add(key)
        self._count()
        return key

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.pop(0)
            if not getter.done():
                getter.set_result(None)
                return

    def _count(self) -> None:
        counters = self.counters
        counters.depth, counters.unfinished, counters.waiting = len(self._ready), len(self._working), len(self._timers)
