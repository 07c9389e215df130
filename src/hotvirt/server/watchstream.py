"""Watches over HTTP: frames go straight to the connection, without a task or a queue per watcher.

A watcher that does not read what it is sent is cut off when too much waits for it; it comes back and goes on from
where it was. Streams end by their own timeout, when the client goes, or when the server stops.
"""

import asyncio
import random
from collections import deque

from aiohttp import web

from hotvirt.server import queries
from hotvirt.server.calls import Call
from hotvirt.server.events import Event, Type
from hotvirt.server.forms import Renderer
from hotvirt.server.negotiation import Form
from hotvirt.server.registry import Registry, Served
from hotvirt.server.responses import warning
from hotvirt.server.selection import select
from hotvirt.server.store import Store
from hotvirt.server.watch import Bookmarks, Watch

MOST_WAITING = 8 * 1024 * 1024
SLICE = 256 * 1024
SHORTEST_STREAM = 1800


class WatchStreams:
    def __init__(
        self, store: Store, registry: Registry, renderer: Renderer, bookmarks: Bookmarks, closed: asyncio.Event
    ) -> None:
        self._store, self._registry, self._renderer, self._bookmarks = store, registry, renderer, bookmarks
        self._ends: dict[asyncio.Future[None], Served] = {}
        self._closed = closed
        self._waiter: asyncio.Task[None] | None = None
        registry.on_change(self._end_unserved)

    async def serve(self, request: web.Request, call: Call, form: Form) -> web.StreamResponse:
        query = request.query
        options = queries.list_options(query, watch=True)
        initial = queries.flag(query, "sendInitialEvents")
        selection = select(call, label_selector=options.label_selector, field_selector=options.field_selector)
        timeout = queries.number(query, "timeoutSeconds") or random.randint(SHORTEST_STREAM, 2 * SHORTEST_STREAM)  # noqa: S311
        stream = _Stream(request, call, form, self._renderer, include=queries.include_object(query))
        watch = Watch(self._store, call, selection, stream.deliver)
        version = options.version if not initial else "0"
        await watch.start(version, initial=initial or None)  # raises before anything was sent
        wants_bookmarks = queries.flag(query, "allowWatchBookmarks")
        forget = self._bookmarks.add(stream.bookmark) if wants_bookmarks else None
        end = self._end_of(stream, call.served)
        try:
            response = await stream.open()
            if initial:
                stream.bookmark(watch.revision, initial_end=True)
            await asyncio.wait((end,), timeout=timeout)
            if wants_bookmarks and not end.done():
                stream.bookmark(self._store.revision)
            return response
        finally:
            watch.stop()
            if forget:
                forget()
            self._ends.pop(end, None)

    def _end_of(self, stream: "_Stream", served: Served) -> "asyncio.Future[None]":
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_task(self._end_all())
        self._ends[stream.end] = served
        return stream.end

    def _end_unserved(self) -> None:
        for end, served in tuple(self._ends.items()):
            if not end.done() and not self._registry.still_serves(served):
                end.set_result(None)

    async def _end_all(self) -> None:
        await self._closed.wait()
        for end in tuple(self._ends):
            if not end.done():
                end.set_result(None)


class _Stream:
    def __init__(self, request: web.Request, call: Call, form: Form, renderer: Renderer, *, include: str) -> None:
        self._request, self._call, self._form, self._renderer = request, call, form, renderer
        self._include = include
        self._variant = renderer.variant_of(call.served, form, include)
        self._headers = True
        self._early: deque[bytes | tuple[Type, Event, bool]] | None = deque()
        self._behind = 0
        self._transport: asyncio.Transport | None = None
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        for text in self._call.warnings:
            response.headers.add("Warning", warning(text))
        response.enable_chunked_encoding()
        await response.prepare(self._request)
        self._transport = self._request.transport
        await self._catch_up()
        return response

    async def _catch_up(self) -> None:
        """What there is at first may be far more than a connection, or even memory, should hold: it is made and goes
        out as the client reads."""
        while self._early and not self.end.done():
            part: list[bytes] = []
            size = 0
            while self._early and size < SLICE:
                first = self._early.popleft()
                if isinstance(first, bytes):
                    frame = first
                else:
                    frame = self._frame(*first)
                    first[1].seal()
                part.append(frame)
                size += len(frame)
            self._send(b"".join(part))
            await self._request.writer.drain()
        self._early = None

    def deliver(self, type_: Type, event: Event, as_before: bool) -> None:
        if self._early is not None and self._transport is None:
            self._early.append((type_, event, as_before))
        else:
            self._write(self._frame(type_, event, as_before))

    def _frame(self, type_: Type, event: Event, as_before: bool) -> bytes:
        frame = self._renderer.frame(
            self._call.served, self._form, event, type_, as_before=as_before, include=self._include,
            headers=self._headers, variant=self._variant,
        )  # fmt: skip
        self._headers = False if self._form.kind == "table" else self._headers
        return frame

    def bookmark(self, revision: int, *, initial_end: bool = False) -> None:
        self._write(self._renderer.bookmark(self._call.served, self._form, revision, initial_end=initial_end))

    def _write(self, frame: bytes) -> None:
        if self._early is None:
            self._send(frame)
            return
        self._early.append(frame)
        if self._transport is not None:  # happened while the client was still reading what was there at first
            self._behind += len(frame)
            if self._behind > MOST_WAITING:
                self._cut_off(self._transport)

    def _send(self, frame: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            self._finish()
            return
        transport.write(frame)
        if transport.get_write_buffer_size() > MOST_WAITING:
            self._cut_off(transport)

    def _cut_off(self, transport: asyncio.Transport) -> None:
        transport.abort()
        self._finish()

    def _finish(self) -> None:
        if not self.end.done():
            self.end.set_result(None)
