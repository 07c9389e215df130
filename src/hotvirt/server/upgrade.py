"""Connections that stop being HTTP: WebSockets, and the raw upgrade to SPDY that older kubectls ask for.

Both give a `Pipe` of bytes or messages for as long as the handler runs. A client that goes away cancels its handler, as
with any other request.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from aiohttp import WSMsgType, web

from hotvirt.kube.errors import BadRequest, Forbidden

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

SPDY = "SPDY/3.1"
CHUNK = 64 << 10
VERSIONS = "X-Stream-Protocol-Version"


def wanted(request: web.Request) -> str:
    """`websocket`, `spdy` or nothing."""
    if "upgrade" not in request.headers.get("Connection", "").lower():
        return ""
    asked = request.headers.get("Upgrade", "").lower()
    return {"websocket": "websocket", SPDY.lower(): "spdy"}.get(asked, "")


def must_upgrade() -> BadRequest:
    return BadRequest("Upgrade request required: ask for a WebSocket, or for SPDY/3.1, as kubectl does")


def subprotocols(request: web.Request) -> list[str]:
    return [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if each.strip()]


def stream_versions(request: web.Request) -> list[str]:
    return [each.strip() for line in request.headers.getall(VERSIONS, []) for each in line.split(",")]


class SocketPipe:
    """The bytes that a WebSocket's messages carry."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                if message.data:
                    return bytes(message.data)
            elif message.type is not WSMsgType.TEXT:
                return b""

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)


class RawPipe:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(CHUNK)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


class Taken(web.StreamResponse):
    """What a handler gives back for a connection that it has taken over: nothing is left to send."""

    async def prepare(self, request: web.BaseRequest) -> "AbstractStreamWriter | None":  # noqa: ARG002
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002
        return


class _Handover(asyncio.StreamReaderProtocol):
    """Reads in place of the HTTP protocol, which still hears of the end."""

    def __init__(self, reader: asyncio.StreamReader, before: asyncio.Protocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._before.connection_lost(exc)


@asynccontextmanager
async def spdy(request: web.Request, versions: Sequence[str]) -> AsyncIterator[tuple[RawPipe, str]]:
    """The connection as raw bytes and the version agreed on, from the 101 on. Closed at the end."""
    offered = stream_versions(request)
    version = next((each for each in offered if each in versions), None) if offered else ""
    if version is None:
        raise Forbidden(f"none of the stream protocols {', '.join(offered)} is spoken: use {', '.join(versions)}")
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    reader = asyncio.StreamReader(limit=CHUNK)
    protocol = _Handover(reader, cast("asyncio.Protocol", request.protocol))
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {SPDY}"]
    lines += [f"{VERSIONS}: {version}"] if version else []
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        yield RawPipe(reader, writer), version
    finally:
        writer.close()


@asynccontextmanager
async def websocket(request: web.Request, protocols: Sequence[str]) -> AsyncIterator[tuple[web.WebSocketResponse, str]]:
    """The socket and the protocol agreed on; "" for a client that named none."""
    offered = [each for each in subprotocols(request) if not each.startswith("base64url.bearer.")]
    chosen = next((each for each in offered if each in protocols), "")
    if offered and not chosen:
        raise BadRequest(f"none of the protocols {', '.join(offered)} is spoken: use {', '.join(protocols)}")
    socket = web.WebSocketResponse(protocols=(chosen,) if chosen else (), compress=False)
    await socket.prepare(request)
    try:
        yield socket, chosen
    finally:
        await socket.close()
