"""port-forward: connections to a pod's ports, over a client's connection.

Three ways that clients speak: SPDY (kubectl to 1.30), SPDY inside a WebSocket's messages (kubectl since), and plain
channels, two for each port that the URL names (the Python client). What cannot be connected is told on the error stream
of that connection; the others go on.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import WSMsgType, web

from hotvirt.kube.errors import ApiError
from hotvirt.kube.podstreams import Dialled
from hotvirt.server.spdy import Session, Stream

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"
CHANNELS = ("v4.channel.k8s.io", "portforward.k8s.io")
CHUNK = 32 << 10
MOST_PORTS = 64
Dial = Callable[[int], Awaitable[Dialled]]
Send = Callable[[bytes], Awaitable[None]]


async def over_spdy(session: Session, dial: Dial) -> None:
    """Until the client is gone."""
    waiting: dict[str, dict[str, Stream]] = {}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(session.run())
        connections: set[asyncio.Task[None]] = set()
        while (stream := await session.accept()) is not None:
            pair = waiting.setdefault(stream.headers.get("requestid", ""), {})
            if stream.kind in pair or stream.kind not in ("data", "error"):
                await stream.reset()
                session.forget(stream)
                continue
            pair[stream.kind] = stream
            if len(pair) == 2:
                del waiting[stream.headers.get("requestid", "")]
                task = group.create_task(_connection(session, pair["data"], pair["error"], dial))
                connections.add(task)
                task.add_done_callback(connections.discard)
        for task in (running, *connections):
            task.cancel()


async def _connection(session: Session, data: Stream, error: Stream, dial: Dial) -> None:
    try:
        complaint = await _dialled(
            data.headers.get("port", ""), dial, data.read, data.write, data.close
        )  # fmt: skip
        if complaint:
            await error.write(complaint.encode())
            await data.reset()
        await data.close()
        await error.close()
    except ConnectionError:
        return
    finally:
        session.forget(data)
        session.forget(error)


async def _dialled(
    port: str, dial: Dial, read: Callable[[], Awaitable[bytes]], write: Send, end: Callable[[], Awaitable[None]]
) -> str:
    """Connects and copies both ways; what went wrong, for a person."""
    if not port.isdecimal() or not 0 < int(port) < 65536:
        return f"{port!r} is not a port: use 1 to 65535"
    try:
        reader, writer = await dial(int(port))
    except ApiError as problem:
        return problem.message

    async def up() -> None:
        while chunk := await read():
            writer.write(chunk)
            await writer.drain()
        if isinstance(writer, asyncio.StreamWriter) and writer.can_write_eof():
            writer.write_eof()

    async def down() -> None:
        while chunk := await reader.read(CHUNK):
            await write(chunk)
        await end()

    sending = asyncio.create_task(up())
    try:
        # The far side's end is the connection's: what the client would still send has no reader.
        await down()
    except OSError as problem:
        return f"port {port}: the connection broke: {problem}"
    finally:
        sending.cancel()
        writer.close()  # before anything is waited for: whoever is cancelled here once more would leave it open
        await asyncio.gather(sending, return_exceptions=True)
    return ""


async def over_channels(socket: web.WebSocketResponse, ports: Sequence[int], dial: Dial) -> None:
    """Channel 2n carries the data of the nth port, 2n+1 its errors; each begins with the port's number. Until the
    client is gone, or the last of the connections has ended."""
    inputs: list[asyncio.Queue[bytes]] = [asyncio.Queue(16) for _ in ports]
    for number, port in enumerate(ports):
        for channel in (2 * number, 2 * number + 1):
            await socket.send_bytes(bytes((channel,)) + struct.pack("<H", port))
    open_ones = set(range(len(ports)))
    all_ended = asyncio.Event()

    async def serve(number: int) -> None:
        await _channel(socket, number, ports[number], inputs[number], dial)
        open_ones.discard(number)
        if not open_ones:
            all_ended.set()
        while True:  # so that what still comes for it holds up no other
            await inputs[number].get()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(serve(number)) for number in range(len(ports))]
        ends = [group.create_task(_distribute(socket, inputs)), group.create_task(_wait(all_ended))]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, *ends):
            task.cancel()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _distribute(socket: web.WebSocketResponse, inputs: Sequence[asyncio.Queue[bytes]]) -> None:
    while True:
        message = await socket.receive()
        if message.type is not WSMsgType.BINARY:
            return
        if len(message.data) > 1 and message.data[0] % 2 == 0 and message.data[0] // 2 < len(inputs):
            await inputs[message.data[0] // 2].put(bytes(message.data[1:]))


async def _channel(
    socket: web.WebSocketResponse, number: int, port: int, given: "asyncio.Queue[bytes]", dial: Dial
) -> None:
    async def write(data: bytes) -> None:
        await socket.send_bytes(bytes((2 * number,)) + data)

    async def end() -> None:
        return

    try:
        if complaint := await _dialled(str(port), dial, given.get, write, end):
            await socket.send_bytes(bytes((2 * number + 1,)) + complaint.encode())
    except ConnectionError:
        return
