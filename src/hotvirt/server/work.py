"""A set of keys to look at, for the server's own controllers: each once, one after the other, again when it failed.

`Worker.add` may be called from store listeners. One task handles the keys; what fails is tried again after a delay that
doubles, while others go on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from hotvirt.kube.errors import ApiError, Conflict, NotFound

FIRST_DELAY, LONGEST_DELAY = 0.05, 30.0
K = TypeVar("K", bound=Hashable)
_log = logging.getLogger(__name__)


class Worker(Generic[K]):
    def __init__(self, name: str, handle: Callable[[K], Awaitable[None]]) -> None:
        self._name, self._handle = name, handle
        self._waiting: dict[K, None] = {}
        self._failures: dict[K, int] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ends: tuple[Callable[[], object], ...] = ()

    def start(self, *ends: Callable[[], object]) -> None:
        """`ends` end the listening that adds keys: called when this stops."""
        self._ends = ends
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        for end in self._ends:
            end()
        for timer in self._timers:
            timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def add(self, key: K) -> None:
        self._waiting[key] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                del self._waiting[key]
                await self._attempt(key)

    async def _attempt(self, key: K) -> None:
        try:
            await self._handle(key)
        except ApiError as error:
            if not isinstance(error, Conflict | NotFound):
                _log.warning("%s: %s: %s", self._name, key, error.message)
            self._again(key)
        except Exception:  # noqa: BLE001  logged, and tried again
            _log.exception("%s: %s", self._name, key)
            self._again(key)
        else:
            self._failures.pop(key, None)

    def _again(self, key: K) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(FIRST_DELAY * 2 ** (failures - 1), LONGEST_DELAY)

        def retry() -> None:
            self._timers.discard(timer)
            self.add(key)

        timer = asyncio.get_running_loop().call_later(delay, retry)
        self._timers.add(timer)
