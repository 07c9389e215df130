"""A server's end of one SPDY connection, over anything that carries bytes: streams that the client opens.

`Session.run` reads for all streams in one task, so a stream whose bytes nobody takes holds up the others: the same as
in the servers that clients of this protocol know, and what bounds memory. Writes of any task are whole frames.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from hotvirt.server import spdy_frames
from hotvirt.server.spdy_frames import Codec, Frame, SpdyError

MOST_STREAMS = 512
WAITING_CHUNKS = 16
CHUNK = 32 << 10


class Pipe(Protocol):
    async def read(self) -> bytes:
        """b"" when the other side is gone."""
        ...

    async def write(self, data: bytes) -> None:
        """Waits while too much is unsent. ConnectionError when nobody is left to read."""
        ...


class Stream:
    """One stream. `read` by one task."""

    def __init__(self, number: int, headers: dict[str, str], send: Callable[[bytes], Awaitable[None]]) -> None:
        self.number, self.headers, self._send = number, headers, send
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(WAITING_CHUNKS)
        self._ended = self.is_closed = False
        self._gone = asyncio.Event()

    @property
    def kind(self) -> str:
        return self.headers.get("streamtype", "")

    async def read(self) -> bytes:
        """b"" at its end, again and again."""
        if self._ended and self._chunks.empty():
            return b""
        chunk = await self._chunks.get()
        if not chunk:
            self._ended = True
        return chunk

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), CHUNK):
            if self.is_closed:
                raise ConnectionResetError("the stream is closed")
            await self._send(spdy_frames.data(self.number, data[at : at + CHUNK]))

    async def close(self) -> None:
        """No more from us."""
        if not self.is_closed:
            self.is_closed = True
            await self._send(spdy_frames.data(self.number, b"", fin=True))

    async def reset(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            await self._send(spdy_frames.reset(self.number))

    # -- the session's side

    async def put(self, data: bytes, *, fin: bool) -> None:
        if data:
            await self._put(data)
        if fin:
            await self._put(b"")

    async def _put(self, chunk: bytes) -> None:
        """Unless the stream is given up meanwhile."""
        if self._gone.is_set():
            return
        try:
            self._chunks.put_nowait(chunk)
        except asyncio.QueueFull:
            putting, gone = asyncio.ensure_future(self._chunks.put(chunk)), asyncio.ensure_future(self._gone.wait())
            try:
                await asyncio.wait((putting, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                putting.cancel()
                gone.cancel()

    def drop(self) -> None:
        """The other side reset it, or is gone."""
        self.is_closed = True
        self.forsake()
        if self._chunks.full():
            self._chunks.get_nowait()
        self._chunks.put_nowait(b"")

    def forsake(self) -> None:
        """Nobody reads it any more: what still comes is dropped."""
        self._gone.set()


class Session:
    """`run` it; `accept` gives the streams as they are opened, None when there will be no more."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._codec = pipe, Codec()
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Until the client is gone, or says what is no SPDY."""
        try:
            while data := await self._pipe.read():
                for frame in self._codec.feed(data):
                    await self._take(frame)
        except (SpdyError, ConnectionError):
            return
        finally:
            for stream in self._streams.values():
                stream.drop()
            self._streams.clear()
            self._opened.put_nowait(None)

    async def accept(self) -> Stream | None:
        return await self._opened.get()

    def forget(self, stream: Stream) -> None:
        """The stream is done with, on this side."""
        stream.forsake()
        self._streams.pop(stream.number, None)

    async def _take(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        if frame.kind == spdy_frames.SYN_STREAM:
            await self._open(frame)
        elif frame.kind == spdy_frames.PING:
            await self._send(spdy_frames.ping(frame.payload))
        elif stream is None:
            return
        elif frame.kind == spdy_frames.RST_STREAM:
            del self._streams[frame.stream]
            stream.drop()
        elif frame.kind in (0, spdy_frames.HEADERS):
            await stream.put(frame.payload, fin=frame.fin)

    async def _open(self, frame: Frame) -> None:
        if frame.stream in self._streams or not frame.stream % 2:
            raise SpdyError(f"stream {frame.stream} cannot be opened")
        if len(self._streams) >= MOST_STREAMS:
            await self._send(spdy_frames.reset(frame.stream, spdy_frames.REFUSED_STREAM))
            return
        stream = self._streams[frame.stream] = Stream(frame.stream, frame.headers, self._send)
        async with self._sending:  # header blocks in the order that they are sent
            await self._pipe.write(self._codec.reply(frame.stream, {}))
        if frame.fin:
            await stream.put(b"", fin=True)
        self._opened.put_nowait(stream)

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._pipe.write(data)
