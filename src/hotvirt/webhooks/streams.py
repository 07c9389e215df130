"""A guest's byte stream over a WebSocket, as virtctl and noVNC speak it.

Frames carry raw bytes, with subprotocol `plain.kubevirt.io` or none. Two tasks per stream, one a direction; each
waits for its slower side (a full socket buffer stops the reading), so a stuck client costs a buffer, not memory.
The first direction to end ends both.
"""

import asyncio

from aiohttp import WSMsgType, web

from hotvirt.webhooks.guests import GuestStream

PROTOCOL = "plain.kubevirt.io"
CHUNK = 32 << 10


async def serve(request: web.Request, stream: GuestStream) -> web.WebSocketResponse:
    """Upgrades the request and copies until one side ends. Closes the stream."""
    socket = web.WebSocketResponse(protocols=(PROTOCOL,), heartbeat=30, compress=False)
    try:
        await socket.prepare(request)
        await _copy(socket, stream)
    finally:
        stream.writer.close()
    return socket


async def _copy(socket: web.WebSocketResponse, stream: GuestStream) -> None:
    from_guest = asyncio.create_task(_guest_to_client(stream.reader, socket))
    from_client = asyncio.create_task(_client_to_guest(socket, stream.writer))
    both = (from_guest, from_client)
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        # A broken pipe or reset is how a stream ends when the far side is gone: nobody is left to tell.
        outcomes = await asyncio.gather(*both, return_exceptions=True)
    await socket.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
            raise outcome


async def _guest_to_client(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
    while data := await reader.read(CHUNK):
        await socket.send_bytes(data)


async def _client_to_guest(socket: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            writer.write(message.data)
        elif message.type is WSMsgType.TEXT:
            writer.write(message.data.encode())
        else:
            return
        await writer.drain()
