"""One resource's objects, kept current in memory by list and watch.

`run` (one task) lists, then watches from there; a closed stream goes on from the last version seen, a version that is
compacted lists again, an unreachable server is tried again with growing, jittered pauses. Readers see the cache of
the last known state all the while. Handlers are called synchronously, in order, after the cache has changed; they
must be short and must not raise (what they raise is logged, and the others still run).

All of it belongs to one event loop. Documents are shared with every reader and perhaps with the server's own store:
**never change one**.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from random import random
from typing import Literal, NamedTuple, NoReturn

from msgspec import Struct

from hotvirt.kube.backoff import Backoff
from hotvirt.kube.client import Client, Document, WatchEvent
from hotvirt.kube.errors import ApiError, Gone, Unreachable
from hotvirt.kube.resources import Resource

log = logging.getLogger(__name__)

RECONNECT = Backoff(base=0.2, cap=30.0, jitter=0.5)
PAGE = 500


class Key(NamedTuple):
    """Names one object of a known resource. Cluster-scoped objects have the namespace ""."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Change(Struct, frozen=True):
    """`old` is None when added, `new` when deleted (`old` is then the last state known). `relisted` says that a list
    brought it up, not an event: it may be old news."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    old: Document | None
    new: Document | None
    relisted: bool = False

    @property
    def object(self) -> Document:
        found = self.new if self.new is not None else self.old
        assert found is not None
        return found


Handler = Callable[[Change], None]
IndexFunction = Callable[[Document], Iterable[str]]
Documents = list[Document]


def key_of(obj: Document) -> Key:
    metadata = obj["metadata"]
    return Key(metadata.get("namespace") or "", metadata["name"])


class Informer:
    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, IndexFunction] | None = None,
        draw: Callable[[], float] = random,
    ) -> None:
        self.resource = resource
        self._client, self._namespace = client, namespace
        self._label_selector, self._field_selector = label_selector, field_selector
        self._draw = draw
        self._objects: dict[Key, Document] = {}
        self._indexers = dict(indexes or {})
        self._indexed: dict[str, dict[str, dict[Key, Document]]] = {name: {} for name in self._indexers}
        self._handlers: list[Handler] = []
        self._listed = asyncio.Event()
        self._version = ""
        self._failures = 0

    # The cache

    def get(self, name: str, namespace: str = "") -> Document | None:
        return self._objects.get(Key(namespace, name))

    def list(self, namespace: str | None = None) -> Documents:
        if namespace is None:
            return list(self._objects.values())
        return [obj for key, obj in self._objects.items() if key.namespace == namespace]

    def by_index(self, index: str, value: str) -> Documents:
        return list(self._indexed[index].get(value, {}).values())

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def has_synced(self) -> bool:
        return self._listed.is_set()

    async def synced(self) -> None:
        """Returns once the first list is in the cache and its handlers were called."""
        await self._listed.wait()

    def add_handler(self, handler: Handler) -> None:
        """Called for every change from now on, and now for each object known already."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            _call(handler, Change("ADDED", None, obj, relisted=True))

    def add_index(self, name: str, function: IndexFunction) -> None:
        """An index by the values that `function` names for an object. Known names are left as they are."""
        if name in self._indexers:
            return
        self._indexers[name], self._indexed[name] = function, {}
        for key, obj in self._objects.items():
            self._index(name, key, None, obj)

    def observe(self, obj: Document) -> None:
        """Takes over an answer to one's own write, so that the next reconcile does not decide on the state before it.
        What the watch has told already, or has told to be gone, is left as it is."""
        version, seen = _number(obj["metadata"].get("resourceVersion")), _number(self._version)
        if version is None or seen is None or version <= seen:
            return
        gone = obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers")
        if not gone and not _is_stale(self._objects.get(key_of(obj)), obj):
            self._store(obj, relisted=False)

    # Keeping it current

    async def run(self) -> NoReturn:
        """Runs until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Gone:
                log.debug("%s: version %s is compacted, listing again", self.resource.plural, self._version)
                self._version = ""
                if self._failures:
                    await self._pause("the watch's version was compacted again")
                self._failures += 1
            except (ApiError, Unreachable) as error:
                self._failures += 1
                await self._pause(str(error))

    async def _list(self) -> None:
        items: Documents = []
        token = ""
        while True:
            page = await self._client.list(
                self.resource, self._namespace, label_selector=self._label_selector,
                field_selector=self._field_selector, limit=PAGE, continue_token=token,
            )  # fmt: skip
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                break
        version = str(metadata.get("resourceVersion") or "")
        self._replace(items, version)
        self._version = version
        self._listed.set()

    async def _watch(self) -> None:
        """One watch stream, from the last version to its end. An end without a single event counts as a failure, or
        a server that closes at once would be asked without pause."""
        loop = asyncio.get_running_loop()
        began, heard = loop.time(), False
        events = self._client.watch(
            self.resource, self._namespace, resource_version=self._version,
            label_selector=self._label_selector, field_selector=self._field_selector,
        )  # fmt: skip
        try:
            async for event in events:
                heard, self._failures = True, 0
                self._apply(event)
        finally:
            if (close := getattr(events, "aclose", None)) is not None:  # a generator's connection ends with it
                await close()
        if not heard and loop.time() - began < 1.0:
            self._failures += 1
            await self._pause("the server closed the watch at once")

    async def _pause(self, why: str) -> None:
        delay = RECONNECT.delay(self._failures, self._draw)
        level = logging.WARNING if self._failures in (3, 10) else logging.DEBUG
        log.log(level, "cannot watch %s: %s; trying again in %.1f s", self.resource.plural, why, delay)
        await asyncio.sleep(delay)

    def _apply(self, event: WatchEvent) -> None:
        obj = event.object
        if version := obj["metadata"].get("resourceVersion"):
            self._version = version
        if event.type == "BOOKMARK":
            return
        known = self._objects.get(key_of(obj))
        if event.type == "DELETED":
            # A deletion may carry the version of the last state; only an object made anew since is not meant by it.
            if known is None or known["metadata"].get("uid") == obj["metadata"].get("uid"):
                self._remove(key_of(obj), obj, relisted=False)
        elif not _is_stale(known, obj):
            self._store(obj, relisted=False)

    def _replace(self, items: Iterable[Document], version: str) -> None:
        """What a list says: all that exists. Of what is newer than the list (a write of our own), the cache's stays."""
        found = {key_of(obj): obj for obj in items}
        listed = _number(version)
        for key, old in list(self._objects.items()):
            own = _number(old["metadata"].get("resourceVersion"))
            newer = own is not None and listed is not None and own > listed
            if key not in found and not newer:
                self._remove(key, old, relisted=True)
        for key, obj in found.items():
            known = self._objects.get(key)
            if known is None or not _is_stale(known, obj):
                self._store(obj, relisted=True)

    def _store(self, obj: Document, *, relisted: bool) -> None:
        key = key_of(obj)
        old = self._objects.get(key)
        self._objects[key] = obj
        for name in self._indexers:
            self._index(name, key, old, obj)
        self._tell(Change("ADDED" if old is None else "MODIFIED", old, obj, relisted=relisted))

    def _remove(self, key: Key, last: Document, *, relisted: bool) -> None:
        old = self._objects.pop(key, None)
        if old is None:
            return
        for name in self._indexers:
            self._index(name, key, old, None)
        self._tell(Change("DELETED", last, None, relisted=relisted))

    def _index(self, name: str, key: Key, old: Document | None, new: Document | None) -> None:
        table, function = self._indexed[name], self._indexers[name]
        for value in _values(function, old):
            bucket = table.get(value, {})
            bucket.pop(key, None)
            if not bucket:
                table.pop(value, None)
        for value in _values(function, new):
            table.setdefault(value, {})[key] = new  # type: ignore[assignment]  # None adds nothing

    def _tell(self, change: Change) -> None:
        for handler in self._handlers:
            _call(handler, change)


def _call(handler: Handler, change: Change) -> None:
    try:
        handler(change)
    except Exception:
        log.exception("a handler failed on %s", key_of(change.object))


def _values(function: IndexFunction, obj: Document | None) -> tuple[str, ...]:
    """One object that an index cannot make sense of must not end all that rests on the informer, again and again."""
    try:
        return tuple(function(obj)) if obj is not None else ()
    except Exception:
        log.exception("an index failed on %s", key_of(obj or {}))
        return ()


def _number(version: object) -> int | None:
    """Versions of one server are ordered numbers (Kubernetes guarantees it since 1.35); others are left alone."""
    return int(version) if isinstance(version, str) and version.isdigit() else None


def _is_stale(known: Document | None, obj: Document) -> bool:
    if known is None:
        return False
    ours, theirs = _number(known["metadata"].get("resourceVersion")), _number(obj["metadata"].get("resourceVersion"))
    return ours is not None and theirs is not None and ours >= theirs


class SharedInformers:
    """One informer a resource and selection, however many controllers read it. Ask for all before `run`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[tuple[Resource, str, str], Informer] = {}

    def of(self, resource: Resource, *, label_selector: str = "", field_selector: str = "") -> Informer:
        wanted = (resource, label_selector, field_selector)
        if wanted not in self._informers:
            self._informers[wanted] = Informer(
                self._client, resource, label_selector=label_selector, field_selector=field_selector
            )
        return self._informers[wanted]

    async def run(self) -> NoReturn:
        """Keeps all of them current until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers.values():
                group.create_task(informer.run(), name=f"informer-{informer.resource.plural}")
        raise AssertionError("informers never return")
