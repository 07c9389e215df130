"""exec and attach: a program's ends carried over a client's connection, by the protocols Kubernetes' clients speak.

`carry` is the same for both transports: a `Peer` gives what the client sends by channel, and takes what goes back. The
program is closed whatever ends it: its own end, the client's, or the server's.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import WSMsgType, web

from hotvirt.kube.errors import ApiError, InternalError
from hotvirt.kube.podstreams import Command, Output, Running
from hotvirt.server.spdy import Session, Stream

Document = dict[str, Any]
CHANNELS = ("stdin", "stdout", "stderr", "error", "resize")
CLOSE = 255  # v5: "the channel whose number follows has ended"
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
SOCKET_PROTOCOLS = (
    V5, V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io",
    "v4.base64.channel.k8s.io", "base64.channel.k8s.io",
)  # fmt: skip
SPDY_PROTOCOLS = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
OPEN_SECONDS = 30.0


class Peer(Protocol):
    async def receive(self) -> tuple[str, bytes] | None:
        """Channel and bytes, b"" at the channel's end; None when the client is gone."""
        ...

    async def send(self, channel: str, data: bytes) -> None: ...

    async def finish(self, status: Document) -> None:
        """The last word."""
        ...


async def carry(peer: Peer, program: Running, command: Command) -> None:
    try:
        fed = asyncio.create_task(_feed(peer, program, command))
        told = asyncio.create_task(_tell(peer, program, command))
        try:
            await asyncio.wait((fed, told), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (fed, told):
                task.cancel()
            outcomes = await asyncio.gather(fed, told, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
                raise outcome
    finally:
        await program.close()


async def _feed(peer: Peer, program: Running, command: Command) -> None:
    """Returns when the client is gone."""
    while (received := await peer.receive()) is not None:
        channel, data = received
        if channel == "stdin" and command.stdin:
            await (program.write(data) if data else program.end_input())
        elif channel == "resize" and (size := _size(data)):
            program.resize(*size)


async def _tell(peer: Peer, program: Running, command: Command) -> None:
    """Returns when the program has ended and all of it is told."""
    outputs: list[Output] = ["stdout"] if command.tty else ["stdout", "stderr"]
    async with asyncio.TaskGroup() as group:
        for output in outputs:
            group.create_task(_pump(peer, program, output, heard=getattr(command, output)))
    try:
        code = await program.wait()
    except ApiError as error:
        await peer.finish(error.to_status())
        return
    await peer.finish(outcome(code))


async def _pump(peer: Peer, program: Running, output: Output, *, heard: bool) -> None:
    while data := await program.read(output):
        if heard:
            await peer.send(output, data)


def outcome(code: int) -> Document:
    """The Status that tells an exit code. Pure."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _size(data: bytes) -> tuple[int, int] | None:
    try:
        found = msgspec.json.decode(data)
        columns, rows = int(found["Width"]), int(found["Height"])
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError):
        return None
    return (columns, rows) if 0 <= columns < 1 << 16 and 0 <= rows < 1 << 16 else None


def last_word(status: Document, protocol: str) -> bytes:
    """What goes over the error channel: a Status since v4, before that a sentence for failures alone. Pure."""
    if protocol.startswith(("v4.", "v5.")):
        return msgspec.json.encode(status)
    return b"" if status["status"] == "Success" else str(status["message"]).encode()


class SocketPeer:
    """Each message begins with its channel's number; with base64, that is a digit and the rest is coded text."""

    def __init__(self, socket: web.WebSocketResponse, protocol: str) -> None:
        self._socket, self._protocol = socket, protocol
        self._coded = "base64" in protocol

    async def greet(self, command: Command) -> None:
        """Old clients wait for a first, empty message to know that they are connected."""
        if self._protocol != V5:
            await self._message(1 if command.stdout else 2 if command.stderr else 3, b"")

    async def receive(self) -> tuple[str, bytes] | None:
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return None
            data = message.data.encode() if message.type is WSMsgType.TEXT else bytes(message.data)
            if not data:
                continue
            if data[0] == CLOSE and self._protocol == V5 and len(data) == 2 and data[1] < len(CHANNELS):
                return CHANNELS[data[1]], b""
            number = data[0] - ord("0") if self._coded else data[0]
            rest = self._decoded(data[1:])
            if rest and 0 <= number < len(CHANNELS):
                return CHANNELS[number], rest

    def _decoded(self, data: bytes) -> bytes:
        try:
            return base64.b64decode(data) if self._coded else data
        except binascii.Error:
            return b""

    async def send(self, channel: str, data: bytes) -> None:
        await self._message(CHANNELS.index(channel), data)

    async def finish(self, status: Document) -> None:
        await self.send("error", last_word(status, self._protocol))

    async def _message(self, number: int, data: bytes) -> None:
        if self._coded:
            await self._socket.send_str(str(number) + base64.b64encode(data).decode())
        else:
            await self._socket.send_bytes(bytes((number,)) + data)


class SpdyPeer:
    """A stream a channel. Made by `open`, which waits for all that the command needs."""

    def __init__(self, session: Session, protocol: str, streams: dict[str, Stream]) -> None:
        self._session, self._protocol, self._streams = session, protocol, streams
        self._received: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(16)
        self._readers = [
            asyncio.create_task(self._read(name, streams[name])) for name in ("stdin", "resize") if name in streams
        ]

    @classmethod
    async def open(cls, session: Session, protocol: str, command: Command) -> "SpdyPeer":
        needed = {"error"} | {name for name in ("stdin", "stdout", "stderr") if getattr(command, name)}
        if command.tty:
            needed.discard("stderr")
            needed |= {"resize"} if protocol.startswith(("v4.", "v3.")) else set()
        streams: dict[str, Stream] = {}
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                while needed - streams.keys():
                    stream = await session.accept()
                    if stream is None:
                        raise ConnectionResetError("the client is gone")
                    streams[stream.kind] = stream
        except TimeoutError:
            raise ConnectionResetError(f"the client opened no stream {needed - streams.keys()}") from None
        return cls(session, protocol, streams)

    async def receive(self) -> tuple[str, bytes] | None:
        return await self._received.get()

    async def send(self, channel: str, data: bytes) -> None:
        if channel in self._streams:
            await self._streams[channel].write(data)

    async def finish(self, status: Document) -> None:
        await self.send("error", last_word(status, self._protocol))
        for stream in self._streams.values():
            await stream.close()

    async def close(self) -> None:
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self, name: str, stream: Stream) -> None:
        while data := await stream.read():
            await self._received.put((name, data))
        if name == "stdin":
            await self._received.put((name, b""))


async def over_socket(socket: web.WebSocketResponse, protocol: str, program: Running, command: Command) -> None:
    peer = SocketPeer(socket, protocol)
    try:
        await peer.greet(command)
    except BaseException:
        await program.close()
        raise
    await carry(peer, program, command)


async def over_spdy(session: Session, protocol: str, program: Running, command: Command) -> None:
    """`session` is not run yet. Its end is the client's."""
    running = asyncio.create_task(session.run())
    try:
        peer = await SpdyPeer.open(session, protocol, command)
    except BaseException:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await program.close()
        raise
    carrying = asyncio.create_task(carry(peer, program, command))
    try:
        await asyncio.wait((running, carrying), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (running, carrying):
            task.cancel()
        await peer.close()
        outcomes: Sequence[Any] = await asyncio.gather(running, carrying, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
            raise InternalError(f"the stream ended: {outcome}") from outcome
