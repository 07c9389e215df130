"""A guest's byte stream over a WebSocket, as virtctl and noVNC speak it.

Frames carry raw bytes, with subprotocol `plain.kubevirt.io` or none, and whatever the Origin. Two tasks per stream, one
a direction; each waits for its slower side (a full socket buffer stops the reading), so a stuck client costs a buffer,
not memory. The first direction to end ends both, after what the guest said last was sent.
"""

import asyncio
import socket as sockets
from collections.abc import Awaitable, Callable

from aiohttp import WSCloseCode, WSMsgType, web

from hotvirt.kube.errors import BadRequest
from hotvirt.webhooks.guests import GuestStream

PROTOCOL = "plain.kubevirt.io"
CHUNK = 32 << 10
PING_SECONDS = 20.0
"""Also what tells of a client that is gone while the guest reads nothing."""
FLUSH_SECONDS = 1.0
CLOSE_SECONDS = 10.0
KEEP_ALIVE = ((sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1), (sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE, 30),
              (sockets.IPPROTO_TCP, sockets.TCP_KEEPINTVL, 10), (sockets.IPPROTO_TCP, sockets.TCP_KEEPCNT, 3),
              (sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT, 300_000))  # fmt: skip
"""A client whose machine vanished is noticed within a minute; one that reads nothing, after five."""


async def serve(
    request: web.Request, dial: Callable[[], Awaitable[GuestStream]], *, displaces: bool
) -> web.StreamResponse:
    """Connects, upgrades the request, and copies until one side ends. What `dial` raises is the answer, also for one
    who asks without an upgrade to read it, as clients must whose WebSockets give them but a number; unless connecting
    `displaces` another."""
    socket = web.WebSocketResponse(protocols=(PROTOCOL,), compress=False)
    if not socket.can_prepare(request):
        if not displaces:
            await _let_go(await dial())
        raise BadRequest("this is a stream: connect to it with a WebSocket (virtctl, hotvirt and noVNC do)")
    stream = await dial()
    try:
        _notice_dead_peers(request)
        await socket.prepare(request)
        await _copy(socket, stream)
    finally:
        await _let_go(stream)
    return socket


async def _copy(socket: web.WebSocketResponse, stream: GuestStream) -> None:
    from_guest = asyncio.create_task(_guest_to_client(stream, socket))
    others = (asyncio.create_task(_client_to_guest(socket, stream)), asyncio.create_task(_ping(socket)))
    tasks = (from_guest, *others)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        guest_ended = from_guest.done()
        for task in tasks:
            task.cancel()
        # A broken pipe or reset is how a stream ends when the far side is gone: nobody is left to tell.
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    # virtctl shows the reason of any close but a normal one.
    code = WSCloseCode.GOING_AWAY if guest_ended and stream.is_lasting else WSCloseCode.OK
    await _close(socket, code, stream.why() if guest_ended else "")
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
            raise outcome


async def _guest_to_client(stream: GuestStream, socket: web.WebSocketResponse) -> None:
    while data := await stream.reader.read(CHUNK):
        await socket.send_bytes(data)


async def _client_to_guest(socket: web.WebSocketResponse, stream: GuestStream) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            stream.writer.write(message.data)
        elif message.type is WSMsgType.TEXT:
            stream.writer.write(message.data.encode())
        else:
            return
        await stream.writer.drain()


async def _ping(socket: web.WebSocketResponse) -> None:
    while True:
        await asyncio.sleep(PING_SECONDS)
        await socket.ping()


async def _close(socket: web.WebSocketResponse, code: WSCloseCode, why: str) -> None:
    """A client that reads nothing is not waited for."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close(code=code, message=why.encode()[:120])
    except TimeoutError:
        pass


async def _let_go(stream: GuestStream) -> None:
    """What the client sent last still goes to a guest that reads; one that does not must not hold the device."""
    stream.writer.close()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await stream.writer.wait_closed()
    except OSError:  # TimeoutError is one
        stream.writer.transport.abort()


def _notice_dead_peers(request: web.Request) -> None:
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connection is not None and connection.family in (sockets.AF_INET, sockets.AF_INET6):
        for level, option, value in KEEP_ALIVE:
            connection.setsockopt(level, option, value)
