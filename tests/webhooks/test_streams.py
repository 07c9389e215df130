"""A guest's stream over a WebSocket: slow and stuck sides, ends, and who is told why."""

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from hotvirt.kube.errors import ApiError, Conflict
from hotvirt.webhooks import streams
from hotvirt.webhooks.guests import GuestStream


@contextlib.asynccontextmanager
async def console(talk, *, why="the guest stopped", displaces=True, is_lasting=False):
    """A WebSocket client of a stream whose far side is `talk(reader, writer)`."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=theirs)
    guest = asyncio.create_task(talk(reader, writer))
    seen = SimpleNamespace(dials=0, stream=None)

    async def dial():
        seen.dials += 1
        seen.stream = GuestStream(*await asyncio.open_connection(sock=ours), lambda: why, is_lasting)
        return seen.stream

    async def front(request):
        try:
            return await streams.serve(request, dial, displaces=displaces)
        except ApiError as error:
            return web.json_response(error.to_status(), status=error.code)

    app = web.Application()
    app.router.add_get("/", front)
    async with TestClient(TestServer(app)) as client:
        try:
            yield client, seen
        finally:
            guest.cancel()
            await asyncio.gather(guest, return_exceptions=True)
            writer.close()
    if not seen.dials:
        ours.close()


async def test_who_asks_without_a_websocket_displaces_nobody():
    async with console(lambda reader, writer: asyncio.sleep(0, writer.close())) as (client, seen):
        answer = await client.get("/")
        assert (answer.status, seen.dials) == (400, 0)
        assert "connect to it with a WebSocket" in (await answer.json())["message"]


async def test_who_asks_without_a_websocket_learns_whether_it_could_be_had():
    async with console(lambda reader, writer: asyncio.sleep(0, writer.close()), displaces=False) as (client, seen):
        answer = await client.get("/")
        assert (answer.status, seen.dials, seen.stream.writer.is_closing()) == (400, 1, True)


@pytest.mark.parametrize(("is_lasting", "code"), [(True, 1001), (False, 1000)])
async def test_what_the_guest_said_last_comes_before_the_end_and_its_reason(is_lasting, code):
    async def talk(reader, writer):
        writer.write(b"x" * 300_000)
        writer.close()

    async with (
        console(talk, is_lasting=is_lasting) as (client, _),
        client.ws_connect("/", headers={"Origin": "http://any.where"}) as ws,
    ):
        heard = 0
        while (message := await ws.receive()).type is WSMsgType.BINARY:
            heard += len(message.data)
        assert (heard, message.type, message.data, message.extra) == (
            300_000,
            WSMsgType.CLOSE,
            code,
            "the guest stopped",
        )


async def test_what_the_client_sent_last_reaches_the_guest():
    got = asyncio.get_running_loop().create_future()

    async def talk(reader, writer):
        got.set_result(len(await reader.read(-1)))
        writer.close()

    async with console(talk) as (client, _):
        async with client.ws_connect("/") as ws:
            await ws.send_bytes(b"x" * 200_000)
        async with asyncio.timeout(5):
            assert await got == 200_000


async def test_a_reader_that_reads_nothing_holds_the_guest_back_and_costs_a_buffer():
    written = 0

    async def talk(reader, writer):
        nonlocal written
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with console(talk) as (client, _), client.ws_connect("/") as ws:
        before = -1
        while before != written:  # until nothing more goes
            before = written
            await asyncio.sleep(0.1)
        assert written < 16 << 20
        heard = 0
        while heard < before:
            heard += len((await ws.receive()).data)


async def test_a_guest_that_reads_nothing_holds_the_client_back_and_is_let_go_of(monkeypatch):
    monkeypatch.setattr(streams, "FLUSH_SECONDS", 0.05)
    stuck = asyncio.Event()

    async def talk(reader, writer):
        await stuck.wait()

    async with console(talk) as (client, seen):
        ws = await client.ws_connect("/")

        async def paste():
            for _ in range(1000):
                await ws.send_bytes(b"x" * 65536)

        pasting = asyncio.create_task(paste())
        await asyncio.wait([pasting], timeout=0.3)
        assert not pasting.done(), "64 MiB were taken for a guest that reads nothing"
        assert seen.stream.writer.transport.get_write_buffer_size() < 4 << 20
        pasting.cancel()
        await asyncio.gather(pasting, return_exceptions=True)
        monkeypatch.setattr(streams, "PING_SECONDS", 0.01)
        ws._response.connection.transport.abort()
        await asyncio.sleep(0)
        seen.stream.writer.transport.abort()  # as whoever comes next displaces it
        async with asyncio.timeout(5):
            while not seen.stream.writer.is_closing():
                await asyncio.sleep(0.01)


async def test_a_client_that_vanished_is_noticed_while_the_guest_reads_nothing(monkeypatch):
    monkeypatch.setattr(streams, "PING_SECONDS", 0.02)
    monkeypatch.setattr(streams, "FLUSH_SECONDS", 0.05)

    async def talk(reader, writer):
        await asyncio.Event().wait()

    async with console(talk) as (client, seen):
        ws = await client.ws_connect("/")
        for _ in range(20):
            await ws.send_bytes(b"x" * 65536)
        ws._response.connection.transport.abort()
        async with asyncio.timeout(5):
            while not seen.stream.writer.is_closing():
                await asyncio.sleep(0.01)


async def test_what_dialling_raises_is_the_answer():
    async def dial():
        raise Conflict("there is an active VNC connection")

    async def front(request):
        try:
            return await streams.serve(request, dial, displaces=True)
        except ApiError as error:
            return web.json_response(error.to_status(), status=error.code)

    app = web.Application()
    app.router.add_get("/", front)
    async with TestClient(TestServer(app)) as client:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        answer = await client.get("/", headers=headers)
        assert (answer.status, (await answer.json())["message"]) == (409, "there is an active VNC connection")


@pytest.mark.parametrize("protocols", [("plain.kubevirt.io",), ("v4.channel.k8s.io", "plain.kubevirt.io"), ()])
async def test_subprotocols(protocols):
    async def talk(reader, writer):
        writer.write(await reader.read(10))
        await reader.read(-1)
        writer.close()

    async with console(talk) as (client, _), client.ws_connect("/", protocols=protocols) as ws:
        assert ws.protocol == ("plain.kubevirt.io" if protocols else None)
        await ws.send_bytes(b"\x00\xff")
        assert (await ws.receive()).data == b"\x00\xff"
