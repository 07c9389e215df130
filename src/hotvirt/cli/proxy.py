"""Local ports whose connections become streams of the API, each with a WebSocket of its own: TCP and UDP.

A TCP connection is copied both ways until either side ends. A UDP sender (address and port) has one stream while it is
active; each datagram is one frame. One loop, a task per direction of each stream.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import click
from msgspec import Struct

from hotvirt.cli import sockets
from hotvirt.cli.errors import CliError, explain
from hotvirt.kube.kubeconfig import Access

UDP_IDLE = 120.0
"""Seconds after which a sender of datagrams that is silent is forgotten, and its stream closed."""
UDP_QUEUE = 256
"""Datagrams that wait for a stream to open or to take them; what comes on top is lost, as UDP may be."""


class Forward(Struct, frozen=True, kw_only=True):
    """`port` 0: any free one."""

    path: str
    port: int
    protocol: str = "tcp"


def run(
    access: Access,
    forwards: Sequence[Forward],
    *,
    address: str,
    ready: Callable[[list[int]], None],
    probe: bool = True,
    until: Callable[[], None] | None = None,
) -> None:
    """Serves until interrupted, or until `until` (called in a thread) returns; `ready` is told the ports. With `probe`,
    a stream is opened first, so that a refusal is told at once rather than to each connection."""
    try:
        asyncio.run(_serve(access, forwards, address, ready, probe, until))
    except KeyboardInterrupt:
        return


async def _serve(
    access: Access,
    forwards: Sequence[Forward],
    address: str,
    ready: Callable[[list[int]], None],
    probe: bool,
    until: Callable[[], None] | None,
) -> None:
    if probe:
        async with sockets.connect(access, forwards[0].path):
            pass
    async with contextlib.AsyncExitStack() as stack:
        ports = [await _listen(stack, access, forward, address) for forward in forwards]
        ready(ports)
        await (asyncio.to_thread(until) if until else asyncio.Event().wait())


async def _listen(stack: contextlib.AsyncExitStack, access: Access, forward: Forward, address: str) -> int:
    loop = asyncio.get_running_loop()
    try:
        if forward.protocol == "udp":
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(access, forward.path, tasks), local_addr=(address, forward.port)
            )
            stack.callback(transport.close)
            return int(transport.get_extra_info("sockname")[1])
        server = await asyncio.start_server(_accept(access, forward.path), address, forward.port)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        place = f"{address}:{forward.port}"
        raise CliError(f"cannot listen on {place}: {why}; choose another port or --address") from error
    stack.callback(server.close)
    return int(server.sockets[0].getsockname()[1])


def _accept(access: Access, path: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with sockets.connect(access, path) as socket:
                await _copy(socket, reader, writer)
        except Exception as error:  # noqa: BLE001  # this connection ends; the next may go better
            click.echo(f"error: {explain(error) or error}", err=True)
        finally:
            writer.close()

    return accept


async def _copy(
    socket: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async def to_guest() -> None:
        while data := await reader.read(32 << 10):
            await socket.send_bytes(data)

    async def from_guest() -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                writer.write(message.data)
                await writer.drain()

    both = (asyncio.create_task(to_guest()), asyncio.create_task(from_guest()))
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


class _Datagrams(asyncio.DatagramProtocol):
    """One stream for each sender."""

    def __init__(self, access: Access, path: str, tasks: asyncio.TaskGroup) -> None:
        self._access, self._path, self._tasks = access, path, tasks
        self._senders: dict[tuple[str, int], asyncio.Queue[bytes]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # UDP's own kind
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        queue = self._senders.get(addr)
        if queue is None:
            queue = self._senders[addr] = asyncio.Queue(UDP_QUEUE)
            self._tasks.create_task(self._stream(addr, queue))
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(data)

    async def _stream(self, sender: tuple[str, int], queue: asyncio.Queue[bytes]) -> None:
        try:
            async with sockets.connect(self._access, self._path) as socket, asyncio.timeout(UDP_IDLE) as idle:
                await self._talk(sender, queue, socket, idle)
        except TimeoutError:
            pass  # silent for long enough
        except Exception as error:  # noqa: BLE001  # this sender's datagrams are lost; the next may go better
            click.echo(f"error: {explain(error) or error}", err=True)
        finally:
            del self._senders[sender]

    async def _talk(
        self,
        sender: tuple[str, int],
        queue: asyncio.Queue[bytes],
        socket: aiohttp.ClientWebSocketResponse,
        idle: asyncio.Timeout,
    ) -> None:
        loop = asyncio.get_running_loop()

        async def to_guest() -> None:
            while True:
                await socket.send_bytes(await queue.get())
                idle.reschedule(loop.time() + UDP_IDLE)

        sending = asyncio.create_task(to_guest())
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY and self._transport is not None:
                    self._transport.sendto(message.data, sender)
                    idle.reschedule(loop.time() + UDP_IDLE)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
