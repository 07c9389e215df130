"""SPDY as kubectl speaks it: frames, streams, and what a hostile client cannot do."""

import asyncio
import struct
import zlib

import pytest

from hotvirt.server import spdy, spdy_frames
from hotvirt.server.spdy import Session
from hotvirt.server.spdy_frames import DICTIONARY, Codec, SpdyError


class Client:
    """The other end of a pipe in memory."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._reader = Codec()
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.got: asyncio.Queue[spdy_frames.Frame] = asyncio.Queue()

    # -- the pipe that the session has

    async def read(self) -> bytes:
        return await self.sent.get()

    async def write(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self.got.put_nowait(frame)

    # -- what a client does

    def open(self, number: int, *, fin: bool = False, **headers: str) -> bytes:
        block = struct.pack("!I", len(headers))
        for text in (part for pair in headers.items() for part in pair):
            block += struct.pack("!I", len(text)) + text.encode()
        coded = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        payload = struct.pack("!IIH", number, 0, 0) + coded
        return struct.pack("!II", 1 << 31 | 3 << 16 | 1, int(fin) << 24 | len(payload)) + payload


def test_the_dictionary_is_the_protocols() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_frames_are_read_however_they_arrive() -> None:
    client, codec = Client(), Codec()
    sent = client.open(1, streamtype="data", port="22") + spdy_frames.data(1, b"hello", fin=True)
    sent += struct.pack("!II", 1 << 31 | 3 << 16 | 4, 4) + bytes(4)  # settings mean nothing
    sent += client.open(3, streamtype="error")  # the same compression goes on
    frames = [frame for byte in sent for frame in codec.feed(bytes((byte,)))]
    assert [(f.kind, f.stream, f.fin, f.headers, f.payload) for f in frames] == [
        (1, 1, False, {"streamtype": "data", "port": "22"}, b""), (0, 1, True, {}, b"hello"),
        (1, 3, False, {"streamtype": "error"}, b""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("!II", 1 << 31 | 2 << 16 | 1, 10) + bytes(10),
        struct.pack("!II", 1 << 31 | 3 << 16 | 1, 14) + bytes(14),
        struct.pack("!II", 1 << 31 | 3 << 16 | 3, 1) + bytes(1),
        struct.pack("!II", 1, 0xFFFFFF),
        Client().open(1, streamtype="x" * spdy_frames.LONGEST_HEADERS),
    ],
    ids=["http", "version", "no zlib", "short", "long", "many headers"],
)
def test_what_is_no_spdy_is_refused(data: bytes) -> None:
    with pytest.raises(SpdyError):
        Codec().feed(data)


async def test_streams_carry_both_ways_and_end() -> None:
    client = Client()
    session = Session(client)
    running = asyncio.create_task(session.run())
    client.sent.put_nowait(client.open(1, streamtype="data"))
    stream = await session.accept()
    assert stream is not None
    assert stream.kind == "data"
    assert (await client.got.get()).kind == spdy_frames.SYN_REPLY
    client.sent.put_nowait(spdy_frames.data(1, b"abc") + spdy_frames.data(1, b"", fin=True))
    assert [await stream.read(), await stream.read(), await stream.read()] == [b"abc", b"", b""]
    await stream.write(b"z" * (spdy.CHUNK + 1))
    await stream.close()
    frames = [await client.got.get() for _ in range(3)]
    assert [(len(f.payload), f.fin) for f in frames] == [(spdy.CHUNK, False), (1, False), (0, True)]
    client.sent.put_nowait(spdy_frames.ping(b"\0\0\0\7"))
    assert (await client.got.get()).payload == b"\0\0\0\7"
    client.sent.put_nowait(b"")
    await running
    assert await session.accept() is None
    with pytest.raises(ConnectionError):
        await stream.write(b"late")


async def test_a_stream_that_nobody_reads_holds_its_client_up_until_it_is_given_up() -> None:
    client = Client()
    session = Session(client)
    running = asyncio.create_task(session.run())
    client.sent.put_nowait(client.open(1, streamtype="data"))
    stream = await session.accept()
    assert stream is not None
    for _ in range(spdy.WAITING_CHUNKS + 5):
        client.sent.put_nowait(spdy_frames.data(1, b"x"))
    await asyncio.sleep(0)
    client.sent.put_nowait(client.open(3, streamtype="data"))
    session.forget(stream)
    other = await session.accept()
    assert other is not None
    client.sent.put_nowait(spdy_frames.reset(3) + b"")
    assert await other.read() == b""
    client.sent.put_nowait(b"")
    await running


async def test_more_streams_than_are_allowed_are_refused() -> None:
    client = Client()
    session = Session(client)
    running = asyncio.create_task(session.run())
    for number in range(spdy.MOST_STREAMS + 1):
        client.sent.put_nowait(client.open(2 * number + 1, streamtype="data"))
    client.sent.put_nowait(b"")
    await running
    kinds = [client.got.get_nowait().kind for _ in range(client.got.qsize())]
    assert kinds.count(spdy_frames.RST_STREAM) == 1
    assert kinds[-1] == spdy_frames.RST_STREAM
