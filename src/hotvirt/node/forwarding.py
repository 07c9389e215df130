"""Connections from this machine to a port of a guest.

On a bridge the guest has its pod's address. With user-mode networking it has none, and QEMU carries the connection, see
`hotvirt.qemu.hostports`. UDP keeps its packets apart: one read is one packet. Any number may be open at once.
"""

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from typing import Any

from hotvirt.kube.errors import InternalError
from hotvirt.node.guest import Guest
from hotvirt.qemu import hostports, ids
from hotvirt.qemu.errors import HotplugError, QemuError
from hotvirt.qemu.hostports import Protocol
from hotvirt.qemu.streams import GuestStream

CONNECT_SECONDS = 10.0
LOOPBACK = "127.0.0.1"
UNREAD = 256
"""Packets that wait to be read; when there are more the oldest are lost, as UDP may lose them."""


async def dial(address: str, port: int, protocol: Protocol) -> GuestStream:
    """To a guest that has an address."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if protocol == "udp":
                return await _packets(address, port, AsyncExitStack())
            reader, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        raise InternalError(f"port {port}: the guest does not answer within {CONNECT_SECONDS:g} s") from None
    except OSError as error:
        raise InternalError(f"port {port}: {_why(error)}") from error
    return GuestStream(reader, writer)


async def dial_by_qemu(guest: Guest, interface: str, port: int, protocol: Protocol) -> GuestStream:
    """To a guest that QEMU alone reaches."""
    async with AsyncExitStack() as stack:
        try:
            host, there = await stack.enter_async_context(
                hostports.way(guest.monitor, ids.netdev_id(interface), address=LOOPBACK, port=port, protocol=protocol)
            )
            if protocol == "udp":
                # The way has to stay for as long as the stream.
                return await _packets(host, there, stack.pop_all())
            reader, writer = await asyncio.open_connection(host, there)
            if not await hostports.taken(guest.monitor, (host, there)):
                writer.transport.abort()
                raise InternalError(f"port {port}: refused: nothing listens there in the guest, or it has no network")
        except HotplugError as error:
            raise InternalError(f"port {port}: {error}") from error
        except (OSError, QemuError) as error:
            raise InternalError(f"port {port}: QEMU does not connect: {error}") from error
    return GuestStream(reader, writer)


async def _packets(host: str, port: int, held: AsyncExitStack) -> GuestStream:
    try:
        _, ends = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Packets(held), remote_addr=(host, port)
        )
    except BaseException:
        await held.aclose()
        raise
    return GuestStream(ends, ends)


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused: nothing listens there in the guest"
    return f"cannot be reached: {error.strerror or error}"


class Packets(asyncio.DatagramProtocol):
    """Both ends of a UDP stream; `held` is let go of when it is closed."""

    def __init__(self, held: AsyncExitStack) -> None:
        self._held = held
        self._waiting: deque[bytes] = deque(maxlen=UNREAD)
        self._came, self._over = asyncio.Event(), asyncio.Event()
        self._letting_go: asyncio.Task[None] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ARG002
        if data:  # an empty one would read as the end
            self._waiting.append(data)
            self._came.set()

    def error_received(self, exc: Exception) -> None:  # noqa: ARG002  nothing listens there (yet): UDP goes on
        return

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._over.set()
        self._came.set()
        self._letting_go = asyncio.create_task(self._held.aclose(), name="udp-way")

    async def read(self, limit: int, /) -> bytes:  # noqa: ARG002  a packet is read whole
        while not self._waiting and not self._over.is_set():
            self._came.clear()
            await self._came.wait()
        return self._waiting.popleft() if self._waiting else b""

    def write(self, data: bytes, /) -> None:
        if not self._over.is_set():
            self.transport.sendto(data)

    async def drain(self) -> None:
        return

    def close(self) -> None:
        self.transport.close()

    def is_closing(self) -> bool:
        return bool(self.transport.is_closing())

    async def wait_closed(self) -> None:
        await self._over.wait()
        if self._letting_go is not None:
            await asyncio.shield(self._letting_go)
