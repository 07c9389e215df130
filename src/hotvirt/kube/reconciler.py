"""Controllers as controller-runtime has them: watches name keys, workers bring each key's world to what is wanted.

A `reconcile` is given a key, never an event: it reads the state from caches, compares, acts on the difference, and
may be called at any time, again and for nothing. Of one controller, a key is with one worker at a time; different
keys run concurrently.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.kube.errors import ApiError, Conflict, TooManyRequests, Unreachable
from hotvirt.kube.informer import Change, Informer, Key, key_of
from hotvirt.kube.owners import controller_of
from hotvirt.kube.workqueue import LIVE, RELIST, WorkQueue

log = logging.getLogger(__name__)


class Result(Struct, frozen=True):
    """Done for now. `requeue_after`: look again in so many seconds, for what no event will tell."""

    requeue_after: float | None = None


DONE = Result()


class TerminalError(Exception):
    """Trying again is useless until an object changes."""


Reconcile = Callable[[Key], Awaitable[Result]]
Mapper = Callable[[Document], Iterable[Key]]
Predicate = Callable[[Change], bool]


def itself(obj: Document) -> Iterable[Key]:
    return (key_of(obj),)


def owner(kind: str, group: str = "kubevirt.io") -> Mapper:
    """Maps an object to the controller that owns it, when that is of `kind`."""

    def mapper(obj: Document) -> Iterable[Key]:
        found = controller_of(obj)
        if found and found["kind"] == kind and str(found["apiVersion"]).rpartition("/")[0] == group:
            yield Key(obj["metadata"].get("namespace") or "", found["name"])

    return mapper


def in_index(informer: Informer, index: str) -> Mapper:
    """Maps an object to those that the index of `informer` has under its key."""
    return lambda obj: [key_of(each) for each in informer.by_index(index, str(key_of(obj)))]


class Controller:
    """`watch` what concerns it, then `run` it beside its informers (which others may share)."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int = 4, queue: WorkQueue[Key] | None = None):
        self.name, self.queue = name, queue or WorkQueue(name)
        self._reconcile, self._workers = reconcile, workers
        self._informers: list[Informer] = []

    def watch(
        self, informer: Informer, mapper: Mapper = itself, *, when: Predicate | None = None, delay: float = 0.0
    ) -> None:
        """Changes of the informer's objects bring up the keys that `mapper` names for the state before and after.
        `delay`: so many seconds later, together with what comes until then."""

        def handle(change: Change) -> None:
            if when is not None and not when(change):
                return
            priority = RELIST if change.relisted else LIVE
            keys = {key for obj in (change.old, change.new) if obj is not None for key in mapper(obj)}
            for key in keys:
                self.queue.add_after(key, delay, priority=priority)

        if informer not in self._informers:
            self._informers.append(informer)
        informer.add_handler(handle)

    def needs(self, *informers: Informer) -> None:
        """Caches that must be filled before the first reconcile, but whose changes bring nothing up."""
        self._informers += [informer for informer in informers if informer not in self._informers]

    async def run(self) -> NoReturn:
        """Waits until the caches are filled, then works until cancelled."""
        for informer in self._informers:
            await informer.synced()
        try:
            async with asyncio.TaskGroup() as workers:
                for number in range(self._workers):
                    workers.create_task(self._work(), name=f"{self.name}-{number}")
        finally:
            self.queue.close()
        raise AssertionError("workers never return")

    async def _work(self) -> NoReturn:
        while True:
            key = await self.queue.get()
            try:
                await self._once(key)
            finally:
                self.queue.done(key)

    async def _once(self, key: Key) -> None:
        try:
            result = await self._reconcile(key)
        except TerminalError as error:
            self.queue.forget(key)
            log.warning("%s: %s: %s; waiting for a change", self.name, key, error)
        except (Conflict, Unreachable) as error:
            # Someone else wrote first, or the server is away: neither is a fault worth a warning for each key.
            self._retry(key, error, level=logging.DEBUG)
        except ApiError as error:
            at_least = error.retry_after if isinstance(error, TooManyRequests) else 0
            self._retry(key, error, level=logging.WARNING, at_least=at_least)
        except Exception as error:
            log.exception("%s: %s failed", self.name, key)
            self._retry(key, error, level=logging.DEBUG)
        else:
            self.queue.forget(key)
            if result.requeue_after is not None:
                self.queue.add_after(key, result.requeue_after)

    def _retry(self, key: Key, error: Exception, *, level: int, at_least: float = 0.0) -> None:
        delay = self.queue.add_rate_limited(key, at_least=at_least)
        log.log(level, "%s: %s: %s: %s; again in %.3f s", self.name, key, type(error).__name__, error, delay)
