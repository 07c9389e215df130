"""A local port whose connections become streams to a guest's display, each with a WebSocket of its own."""

import asyncio
from collections.abc import Callable

import aiohttp
import click

from hotvirt.cli import sockets
from hotvirt.cli.errors import CliError, explain
from hotvirt.kube.kubeconfig import Access


def run(access: Access, path: str, *, port: int, ready: Callable[[int], None]) -> None:
    """Serves until interrupted; `ready` is told the port."""
    try:
        asyncio.run(_serve(access, path, port, ready))
    except KeyboardInterrupt:
        return


async def _serve(access: Access, path: str, port: int, ready: Callable[[int], None]) -> None:
    async with sockets.connect(access, path):
        pass  # a VM that has no display to offer is told before a viewer hangs on it

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with sockets.connect(access, path) as socket:
                await _copy(socket, reader, writer)
        except Exception as error:  # noqa: BLE001  # this connection ends; the next may go better
            click.echo(f"error: {explain(error) or error}", err=True)
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(accept, "127.0.0.1", port)
    except OSError as error:
        raise CliError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}; choose another --port") from error
    async with server:
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()


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
