"""The objects: current ones in memory as JSON bytes, every write on disk before it is acknowledged.

Runs on the event loop; only the writer's thread touches the file. Revisions are given out on the loop in the order of
calls, and become visible (to reads and watchers) in that order once they are durable. Calls on one key must not
overlap: hold `locked(key)` from reading to the end of writing. Reads never wait.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from hotvirt.kube.errors import Cause, Gone, InternalError, StorageFull, Timeout
from hotvirt.server.database import Database, Full, Row
from hotvirt.server.events import Document, Event
from hotvirt.server.keys import Key
from hotvirt.server.writer import Writer

RING_BYTES = 8 * 1024 * 1024
DECODED = 256
KEPT_REVISIONS = 10_000
KEPT_SECONDS = 300.0
COMPACT_EVERY = 1_000
_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_log = logging.getLogger(__name__)
Listener = Callable[[Event], None]


class Entry(Struct, frozen=True, gc=False):
    """One object as stored: `body` is its JSON, `revision` the resourceVersion in it."""

    key: Key
    revision: int
    body: bytes


class _Pending(Struct, gc=False):
    event: Event
    future: "asyncio.Future[Entry]"


class Store:
    """`await Store.open(path)`, then `close()`. `clock` tells how old history is, in seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._index: dict[str, dict[str, dict[str, Entry]]] = {}
        for row in database.current():
            self._set(Entry(row.key, row.revision, row.body))
        self.revision = self._next = database.revision()
        self.compacted = database.fact("compacted")
        self._ring: deque[Event] = deque()
        self._ring_bytes = 0
        self._ring_after = self.revision  # the ring holds every event after this revision
        self._pending: dict[int, _Pending] = {}
        self._unfinished: dict[Key, asyncio.Future[Entry]] = {}
        self._locks: dict[Key, tuple[asyncio.Lock, int]] = {}
        self._listeners: dict[str, set[Listener]] = {}
        self._everything: dict[Listener, None] = {}
        self._decoded: OrderedDict[int, Document] = OrderedDict()
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), self.revision)])
        self._compaction: asyncio.Task[None] | None = None
        self._database = database
        self._writer = Writer(database, self._committed)

    @classmethod
    async def open(cls, path: Path, *, clock: Callable[[], float] = time.monotonic) -> "Store":
        """Raises StateFileError when the file can't be used."""
        return cls(Database(path), clock=clock)

    async def close(self) -> None:
        if self._compaction is not None:
            self._compaction.cancel()
            await asyncio.gather(self._compaction, return_exceptions=True)
        await self._writer.close()
        self._database.close()

    # -- reading

    def get(self, key: Key) -> Entry | None:
        return self._index.get(key.resource, {}).get(key.namespace, {}).get(key.name)

    def doc(self, entry: Entry) -> Document:
        """The decoded object, shared with others: never change it."""
        if entry.revision and (found := self._decoded.get(entry.revision)) is not None:
            self._decoded.move_to_end(entry.revision)
            return found
        document: Document = _decode(entry.body)
        if entry.revision:
            self._remember(entry.revision, document)
        return document

    def entries(self, resource: str, namespace: str = "") -> list[Entry]:
        """In the order of namespace and name; all namespaces for ""."""
        spaces = self._index.get(resource, {})
        names = [namespace] if namespace else sorted(spaces)
        return [by_name[name] for space in names if (by_name := spaces.get(space)) for name in sorted(by_name)]

    def count(self, resource: str, namespace: str = "") -> int:
        spaces = self._index.get(resource, {})
        return len(spaces.get(namespace, ())) if namespace else sum(map(len, spaces.values()))

    def resources(self) -> list[str]:
        """Those that have had an object since the start."""
        return list(self._index)

    async def list_at(self, resource: str, namespace: str, revision: int) -> Sequence[Entry]:
        """The list as it was at `revision`: the present one with later events undone."""
        if revision > self.revision:
            raise too_new(revision, self.revision)
        present = {entry.key: entry for entry in self.entries(resource, namespace)}
        events = await self.events_since(revision, resource)
        for event in reversed(events):
            if namespace and event.key.namespace != namespace:
                continue
            if event.before is None:
                present.pop(event.key, None)
            else:
                present[event.key] = Entry(event.key, revision_of(event.before), event.before)
        return [present[key] for key in sorted(present)] if events else list(present.values())

    async def events_since(self, revision: int, resource: str | None = None) -> Sequence[Event]:
        """What happened after `revision` up to now, in order. Does not suspend while memory reaches back that far."""
        if revision < self.compacted:
            raise _gone(revision, self.compacted)
        if revision >= self._ring_after:
            recent = itertools.takewhile(lambda event: event.revision > revision, reversed(self._ring))
            found = [event for event in recent if resource is None or event.key.resource == resource]
            return found[::-1]
        upto = self.revision
        rows = await self._writer.run(lambda db: db.history(resource, after=revision, upto=upto))
        if revision < self.compacted:
            raise _gone(revision, self.compacted)
        return [_event(row, before) for row, before in rows]

    def listen(self, resource: str | None, listener: Listener) -> Callable[[], object]:
        """Calls `listener` with each event of `resource` (None: of all, and before the others) as it becomes visible.
        Listeners must not raise or block. Returns what ends it."""
        if resource is None:
            self._everything[listener] = None
            return lambda: self._everything.pop(listener, None)
        listeners = self._listeners.setdefault(resource, set())
        listeners.add(listener)
        return lambda: listeners.discard(listener)

    # -- writing

    @contextlib.asynccontextmanager
    async def locked(self, key: Key) -> AsyncIterator[None]:
        """One at a time per key, first come first served. A write that its caller was cancelled out of holds the key
        until it is visible: the next one must build on it."""
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = (lock, users + 1)
        try:
            await lock.acquire()
        except BaseException:
            self._forget(key)
            raise
        try:
            yield
        finally:
            pending = self._unfinished.get(key)
            if pending is None or pending.done():
                self._release(key)
            else:
                pending.add_done_callback(lambda _: self._release(key))

    def _release(self, key: Key) -> None:
        self._locks[key][0].release()
        self._forget(key)

    def _forget(self, key: Key) -> None:
        lock, users = self._locks[key]
        if users == 1:
            del self._locks[key]
        else:
            self._locks[key] = (lock, users - 1)

    def put(self, key: Key, doc: Document) -> Awaitable[Entry]:
        """Stores `doc`, whose metadata.resourceVersion is set here. Done when durable and visible."""
        before = self.get(key)
        return self._submit("MODIFIED" if before else "ADDED", key, doc, before)

    def remove(self, key: Key, doc: Document) -> Awaitable[Entry]:
        """Removes the object; `doc` is its last state, told to watchers."""
        return self._submit("DELETED", key, doc, self.get(key))

    async def snapshot(self) -> BinaryIO:
        """A complete copy, as an open file that has no name. StorageFull when there is no room for it."""
        try:
            return await self._writer.run(lambda db: db.snapshot())
        except Full as error:
            raise StorageFull(
                "there is no room for a copy beside the home's state file; free space, try again"
            ) from error

    async def backup(self, target: Path) -> None:
        await self._writer.run(lambda db: db.backup(target))

    async def run(self, job: Callable[[Database], Any]) -> Any:
        """A job on the state file, in the writer's thread, after all that was submitted."""
        return await self._writer.run(job)

    def _submit(self, type_: Any, key: Key, doc: Document, before: Entry | None) -> "asyncio.Future[Entry]":
        revision = self._next + 1
        doc["metadata"]["resourceVersion"] = str(revision)
        body = _encode(doc)  # may raise; only now is the revision taken
        self._next = revision
        event = Event(type_, key, revision, body, before.body if before else None, doc)
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._pending[revision] = _Pending(event, future)
        self._unfinished[key] = future
        self._writer.submit(Row(revision, key, type_ == "DELETED", before.revision if before else 0, body))
        # The write goes on when whoever waits is cancelled: it may be durable already.
        return asyncio.ensure_future(asyncio.shield(future))

    def _committed(self, rows: Sequence[Row], error: Exception | None) -> None:
        for row in rows:
            pending = self._pending.pop(row.revision)
            self._unfinished.pop(row.key, None)
            if error is not None:
                if not pending.future.done():
                    pending.future.set_exception(_explain(error))
                    pending.future.exception()  # whoever waited may be gone
                continue
            entry = Entry(row.key, row.revision, row.body)
            self._apply(entry, pending.event)
            if not pending.future.done():
                pending.future.set_result(entry)
        self._compact_when_due()

    def _apply(self, entry: Entry, event: Event) -> None:
        if event.type == "DELETED":
            self._index[entry.key.resource][entry.key.namespace].pop(entry.key.name, None)
        else:
            self._set(entry)
            self._remember(entry.revision, event.doc)
        self.revision = entry.revision
        for listener in (*self._everything, *self._listeners.get(entry.key.resource, ())):
            try:
                listener(event)
            except Exception:  # noqa: BLE001  one listener must not keep the others from hearing
                _log.exception("a listener of the store failed on %s", entry.key)
        event.seal()
        self._ring.append(event)
        self._ring_bytes += event.size
        while self._ring_bytes > RING_BYTES and len(self._ring) > 1:
            oldest = self._ring.popleft()
            self._ring_bytes -= oldest.size
            self._ring_after = oldest.revision

    def _set(self, entry: Entry) -> None:
        _, namespace, name = entry.key
        self._index.setdefault(entry.key.resource, {}).setdefault(namespace, {})[name] = entry

    def _remember(self, revision: int, doc: Document) -> None:
        self._decoded[revision] = doc
        if len(self._decoded) > DECODED:
            self._decoded.popitem(last=False)

    # -- compaction

    def _compact_when_due(self) -> None:
        now = self._clock()
        if self.revision - self._marks[-1][1] < COMPACT_EVERY or self._compaction is not None:
            return
        self._marks.append((now, self.revision))
        upto = 0
        while self._marks and self._marks[0][0] <= now - KEPT_SECONDS:
            upto = self._marks.popleft()[1]
        upto = min(upto, self.revision - KEPT_REVISIONS)
        if upto > self.compacted:
            self._compaction = asyncio.get_running_loop().create_task(self._compact(upto))

    async def _compact(self, upto: int) -> None:
        try:
            await self.compact(upto)
        except (StorageFull, InternalError) as error:
            _log.warning("history could not be compacted: %s", error)
        finally:
            self._compaction = None

    async def compact(self, upto: int) -> None:
        """Forgets what was before `upto`, in small steps, so that writes need not wait long."""
        upto = min(upto, self.revision)
        self.compacted = max(self.compacted, upto)
        try:
            while await self._writer.run(lambda db: db.compact(upto)):
                pass
        except Exception as error:
            raise _explain(error) from error


def revision_of(body: bytes) -> int:
    return int(_head(body).metadata.resourceVersion or 0)


class _Meta(Struct, gc=False):
    resourceVersion: str = ""  # noqa: N815


class _Head(Struct, gc=False):
    metadata: _Meta


_head = msgspec.json.Decoder(_Head).decode


def _event(row: Row, before: bytes | None) -> Event:
    kind: Any = "DELETED" if row.deleted else "MODIFIED" if row.previous else "ADDED"
    return Event(kind, row.key, row.revision, row.body, before)


def _explain(error: Exception) -> StorageFull | InternalError:
    if isinstance(error, Full):
        return StorageFull("nothing was stored: the disk of the home's state file is full; free space and try again")
    return InternalError(f"nothing was stored: the home's state file can't be written ({error}); check its disk")


def _gone(revision: int, compacted: int) -> Gone:
    return Gone(f"too old resource version: {revision} ({compacted}): list again and watch from there")


def too_new(revision: int, current: int) -> Timeout:
    """The cause is what client-go looks for before it asks for the latest instead."""
    message = f"Too large resource version: {revision}, current: {current}"
    return Timeout(message, causes=[Cause("ResourceVersionTooLarge", "Too large resource version")], retry_after=1)
