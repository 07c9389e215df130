"""A client of the guest agent (qemu-ga) over its unix socket.

Everything that comes out is the *guest's* word: replies are bounded in length and time, text is cut and cleaned before
it is returned, and a reply that is not the protocol drops the connection. One command is on its way at a time (a
lock); a batch sends several at once, as the agent answers in order.

After a timeout or a reconnect an old answer may still arrive. So the next command is preceded by guest-sync-delimited:
the agent sends a byte 0xFF, which cannot occur in JSON, and our own number; whatever came before is thrown away. Bytes
written before the guest has opened its side wait there, so `wait_ready` writes one such command and waits: no polling.
"""

import asyncio
import base64
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from hotvirt.qemu import guestprograms, sockets
from hotvirt.qemu.errors import AgentError, AgentGone, AgentLacks, AgentNonsense, AgentRefused, AgentTimeout

MAX_REPLY = 1 << 20
MAX_STALE = 8 << 20
CHUNK = 192 << 10
_TEXT_LIMIT = 256

Command = tuple[str, dict[str, Any]]


class AgentInfo(Struct, frozen=True):
    version: str
    commands: frozenset[str]
    """Those the guest's administrator left enabled."""


class Vcpu(Struct, frozen=True):
    logical_id: int
    online: bool
    can_offline: bool


class MemoryBlock(Struct, frozen=True):
    index: int
    online: bool
    can_offline: bool


def clean(value: object, limit: int = _TEXT_LIMIT) -> str:
    """Text of the guest, fit to be shown: printable, one line, not longer than `limit`."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value)[:limit])


class GuestAgent:
    """`path` is the listening socket QEMU holds. Connects by itself when first used, and again after it was lost.

    Keep one for a guest, and open: while nobody is connected the agent in the guest naps for 100 ms at a time, which
    the first command then waits for.
    """

    def __init__(self, path: str | Path, *, timeout: float = 10.0) -> None:
        self._path = str(path)
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._synced = False
        self._closed = False
        # The answers to a home that died may yet come: its numbers must not be ours.
        self._numbers = itertools.count(secrets.randbits(48))

    async def wait_ready(self, *, timeout: float | None = None) -> None:
        """Until the agent in the guest answers. AgentGone when QEMU went away meanwhile. After a `timeout` the next try
        is on a new connection: what was sent on this one may be lost."""
        await self.batch([("guest-ping", {})], timeout=timeout, patient=True)

    async def call(self, command: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """One command; underscores in argument names become dashes. Returns what the guest said, unchecked."""
        spelled = {key.rstrip("_").replace("_", "-"): value for key, value in arguments.items()}
        answer = (await self.batch([(command, spelled)], timeout=timeout))[0]
        if isinstance(answer, AgentRefused):
            raise answer
        return answer

    async def batch(
        self, commands: Sequence[Command], *, timeout: float | None = None, patient: bool = False
    ) -> list[Any]:
        """Several commands in one go; an AgentRefused stands in the place of each answer that is an error.

        `timeout` None: the client's own, or for ever when `patient`.
        """
        limit = timeout if timeout is not None or patient else self._timeout
        async with self._turn():
            try:
                async with asyncio.timeout(limit):
                    return await self._exchange(commands)
            except TimeoutError as error:
                self._synced = False
                if patient:
                    self._drop()
                raise AgentTimeout(
                    f"the guest agent did not answer {commands[0][0]} within {limit:g} s; is qemu-guest-agent running?"
                ) from error
            except (OSError, EOFError, asyncio.LimitOverrunError) as error:
                self._drop()
                raise AgentGone(f"the guest agent's socket closed: {error!r}") from error
            except AgentNonsense:
                self._drop()
                raise
            except BaseException:
                self._synced = False  # an answer may be on its way: the next caller must not take it for its own
                raise

    def close(self) -> None:
        """For good: whoever waits for his turn, or is just connecting, must leave no connection behind."""
        self._closed = True
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One caller at a time, and none after `close`, whatever had begun."""
        async with self._lock:
            if self._closed:
                raise AgentGone("the connection to the guest agent was closed here")
            try:
                yield
            finally:
                if self._closed:
                    self._drop()

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        if self._writer is None or self._reader is None or self._reader.at_eof():
            self._drop()
            sock = await sockets.connected(self._path)
            self._reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_REPLY)
        if not self._synced:
            await self._sync()
        for command, arguments in commands:
            self._send(command, arguments)
        await self._writer.drain()
        return [_outcome(command, await self._receive()) for command, _arguments in commands]

    async def _sync(self) -> None:
        assert self._writer is not None
        number = next(self._numbers)
        # The leading 0xFF ends whatever half a command a predecessor may have left in the agent's parser.
        self._writer.write(b"\xff")
        self._send("guest-sync-delimited", {"id": number})
        await self._writer.drain()
        while True:
            await self._skip_to_delimiter()
            if (await self._receive()).get("return") == number:
                self._synced = True
                return

    async def _skip_to_delimiter(self) -> None:
        assert self._reader is not None
        skipped = 0
        while skipped <= MAX_STALE:
            try:
                await self._reader.readuntil(b"\xff")
                return
            except asyncio.LimitOverrunError as error:
                skipped += len(await self._reader.readexactly(error.consumed))
        raise AgentNonsense("the guest agent sends data without end")

    def _send(self, command: str, arguments: dict[str, Any]) -> None:
        assert self._writer is not None
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self._writer.write(msgspec.json.encode(message) + b"\n")

    async def _receive(self) -> dict[str, Any]:
        assert self._reader is not None
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            raise AgentNonsense(f"the guest agent's answer is longer than {MAX_REPLY} bytes") from error
        try:
            answer = msgspec.json.decode(line.lstrip(b"\xff"))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise AgentNonsense("the guest agent's answer is not JSON") from error
        if not isinstance(answer, dict):
            raise AgentNonsense("the guest agent's answer is not an object")
        return answer

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None
        self._synced = False

    # -- what the agent can do ---------------------------------------------------------------------------------------

    async def ping(self, *, timeout: float | None = None) -> None:
        await self.call("guest-ping", timeout=timeout)

    async def info(self) -> AgentInfo:
        found = _object(await self.call("guest-info"))
        commands = _objects(found.get("supported_commands"))
        names = frozenset(clean(c.get("name", "")) for c in commands if c.get("enabled"))
        return AgentInfo(clean(found.get("version", "")), names)

    async def get_vcpus(self) -> list[Vcpu]:
        found = _objects(await self.call("guest-get-vcpus"))
        return [
            Vcpu(_int(v.get("logical-id")), v.get("online") is True, v.get("can-offline") is not False) for v in found
        ]

    async def set_vcpus(self, online: dict[int, bool]) -> int:
        """Take vCPUs on- or offline by logical id; returns how many the guest changed until one that it would not."""
        wanted = [{"logical-id": number, "online": value} for number, value in online.items()]
        return _int(await self.call("guest-set-vcpus", vcpus=wanted))

    async def set_time(self, seconds: float) -> None:
        """Since 1970, in UTC. The guest writes it to the machine's clock, too."""
        await self.call("guest-set-time", time=int(seconds * 1e9))

    async def get_memory(self) -> tuple[int, list[MemoryBlock]]:
        """The size of a memory block, bytes, and all blocks the guest has."""
        size, blocks = await self.batch([("guest-get-memory-block-info", {}), ("guest-get-memory-blocks", {})])
        for answer in (size, blocks):
            if isinstance(answer, AgentRefused):
                raise answer
        return _int(_object(size).get("size")), [
            MemoryBlock(_int(b.get("phys-index")), b.get("online") is True, b.get("can-offline") is True)
            for b in _objects(blocks)
        ]

    async def set_memory_blocks(self, online: dict[int, bool]) -> int:
        """Returns how many blocks the guest changed."""
        wanted = [{"phys-index": number, "online": value} for number, value in online.items()]
        found = _objects(await self.call("guest-set-memory-blocks", timeout=60.0, **{"mem-blks": wanted}))
        return sum(block.get("response") == "success" for block in found)

    async def network_interfaces(self) -> list[dict[str, Any]]:
        """As the agent gives them: name, hardware-address, ip-addresses[{ip-address, ip-address-type, prefix}]."""
        return [_cleaned(i) for i in _objects(await self.call("guest-network-get-interfaces"))[:256]]

    async def osinfo(self) -> dict[str, str]:
        found = _object(await self.call("guest-get-osinfo"))
        return {clean(key, 64): clean(value) for key, value in list(found.items())[:32]}

    async def hostname(self) -> str:
        return clean(_object(await self.call("guest-get-host-name")).get("host-name", ""))

    async def timezone(self) -> str:
        return clean(_object(await self.call("guest-get-timezone")).get("zone", ""))

    async def users(self) -> list[dict[str, Any]]:
        return [_cleaned(u) for u in _objects(await self.call("guest-get-users"))[:256]]

    async def fsinfo(self) -> list[dict[str, Any]]:
        return [_cleaned(f) for f in _objects(await self.call("guest-get-fsinfo"))[:256]]

    async def shutdown(self, *, mode: str = "powerdown") -> None:
        """powerdown, reboot or halt. The agent answers nothing when it succeeds, so this does not wait for one."""
        async with self._turn():
            try:
                async with asyncio.timeout(self._timeout):
                    if not self._synced:
                        await self._exchange([("guest-ping", {})])
                    self._send("guest-shutdown", {"mode": mode})
                    assert self._writer is not None
                    await self._writer.drain()
            except TimeoutError as error:
                raise AgentTimeout("the guest agent does not answer, so it cannot be told to shut down") from error
            except (OSError, EOFError) as error:
                self._drop()
                raise AgentGone(f"the guest agent's socket closed: {error!r}") from error
            finally:
                self._synced = False

    async def fsfreeze_freeze(self) -> int:
        return _int(await self.call("guest-fsfreeze-freeze", timeout=60.0))

    async def fsfreeze_thaw(self) -> int:
        return _int(await self.call("guest-fsfreeze-thaw", timeout=60.0))

    async def fsfreeze_status(self) -> str:
        return clean(await self.call("guest-fsfreeze-status"))

    async def exec(
        self, path: str, arguments: Sequence[str] = (), *, stdin: bytes = b"", timeout: float = 30.0
    ) -> tuple[int, bytes, bytes]:
        """Run a program in the guest: exit status (minus the signal), stdout, stderr; output beyond MAX_REPLY fails.
        One that takes longer is ended there."""
        options: dict[str, Any] = {"path": path, "arg": list(arguments), "capture-output": True}
        if stdin:
            options["input-data"] = base64.b64encode(stdin).decode()
        started = asyncio.ensure_future(self.call("guest-exec", **options))
        try:
            async with asyncio.timeout(timeout):
                pid = _int(_object(await asyncio.shield(started)).get("pid"))
                pause = 0.01
                while True:
                    # The agent has no way to wait for the end of a program: ask, ever less often.
                    state = _object(await self.call("guest-exec-status", pid=pid))
                    if state.get("exited") is True:
                        break
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.5)
        except (TimeoutError, AgentTimeout, asyncio.CancelledError):
            guestprograms.end_later(self, started)
            raise
        status = -_int(state["signal"]) if "signal" in state else _int(state.get("exitcode", 0))
        return status, _base64(state.get("out-data", "")), _base64(state.get("err-data", ""))

    async def file_read(self, path: str, *, limit: int = CHUNK) -> bytes:
        """The first `limit` bytes of a file of the guest."""
        found = (await self.files_read([path], limit=limit))[0]
        if isinstance(found, AgentRefused):
            raise found
        return found

    async def files_read(self, paths: Sequence[str], *, limit: int = CHUNK) -> list[bytes | AgentRefused]:
        """Several small files in two exchanges, however many they are."""
        handles = await self.batch([("guest-file-open", {"path": path}) for path in paths])
        opened = [handle for handle in handles if isinstance(handle, int)]
        reads: list[Command] = [("guest-file-read", {"handle": h, "count": min(limit, CHUNK)}) for h in opened]
        closes: list[Command] = [("guest-file-close", {"handle": h}) for h in opened]
        answers = iter(await self.batch([*reads, *closes]) if opened else [])
        contents: list[bytes | AgentRefused] = []
        for handle in handles:
            found = next(answers) if isinstance(handle, int) else handle
            if isinstance(found, AgentRefused):
                contents.append(found)
            else:
                contents.append(_base64(_object(found).get("buf-b64", "")))
        return contents

    async def file_write(self, path: str, data: bytes) -> None:
        """Replace a file's content (also of sysfs, where one write is one command)."""
        handle = _int(await self.call("guest-file-open", path=path, mode="w"))
        write = {"handle": handle, "buf-b64": base64.b64encode(data).decode()}
        close: Command = ("guest-file-close", {"handle": handle})
        answers = await self.batch([("guest-file-write", write), ("guest-file-flush", {"handle": handle}), close])
        for answer in answers:
            if isinstance(answer, AgentRefused):
                raise answer


def _outcome(command: str, answer: dict[str, Any]) -> Any:
    if "return" in answer:
        return answer["return"]
    error = answer.get("error")
    if not isinstance(error, dict):
        raise AgentNonsense("the guest agent's answer is neither a return nor an error")
    kind = clean(error.get("class", ""), 64)
    lacks = kind == "CommandNotFound" or "has been disabled" in str(error.get("desc", ""))
    return (AgentLacks if lacks else AgentRefused)(command, kind, clean(error.get("desc", "")))


def _object(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise AgentNonsense("the guest agent's answer has the wrong form")


def _objects(value: object) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise AgentNonsense("the guest agent's answer has the wrong form")


def _int(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise AgentNonsense("the guest agent's answer has the wrong form")


def _base64(value: object) -> bytes:
    try:
        return base64.b64decode(str(value))
    except ValueError as error:
        raise AgentNonsense("the guest agent's answer has the wrong form") from error


def _cleaned(value: Any, depth: int = 6) -> Any:
    """The same document with every text in it fit to be shown."""
    if isinstance(value, dict) and depth:
        return {clean(key, 64): _cleaned(item, depth - 1) for key, item in list(value.items())[:64]}
    if isinstance(value, list) and depth:
        return [_cleaned(item, depth - 1) for item in value[:256]]
    return value if isinstance(value, bool | int | float | None) else clean(value)


__all__ = ["AgentError", "AgentInfo", "GuestAgent", "MemoryBlock", "Vcpu", "clean"]
