"""A connection to one QEMU's monitor, on the `qemu.qmp` package.

One `Monitor` a guest, on the home's loop. Any number of tasks may `execute` at once (QEMU answers in order); events fan
out to every open `events()` subscription. When the connection ends, every waiting call raises `QemuGone`, `closed` is
resolved, and the Monitor is of no more use: to talk to a QEMU that still runs, `connect` again. Nothing is lost by
that, since whoever uses it reads the state anew (`state.observe`) and relies on no event it may have missed.

QEMU serves one client per QMP socket: a second one connects and gets no greeting until the first has left.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec import Struct
from qemu.qmp import EventListener, ExecInterruptedError, Message, QMPClient, Runstate
from qemu.qmp.error import QMPError
from qemu.qmp.protocol import ConnectError, StateError
from qemu.qmp.qmp_client import BadReplyError, ExecuteError

from hotvirt.qemu import sockets
from hotvirt.qemu.errors import NotThere, QemuGone, QemuTimeout, QmpError

log = logging.getLogger(__name__)

_UNREAD_EVENTS = 1000
BURST, A_SECOND = 1000, 250
"""Events that are taken at once, and then each second. A guest can have QEMU report things without end; what it reports
too fast waits in QEMU, and with it the answers to what is asked of that guest, which are nobody else's."""


class Event(Struct, frozen=True):
    """`name` such as DEVICE_DELETED; `at` is QEMU's wall clock in seconds."""

    name: str
    data: dict[str, Any]
    at: float = 0.0


class Pace(Struct):
    """How fast events are taken. Time is an argument."""

    room: float = float(BURST)
    since: float = 0.0

    def take(self, now: float) -> float:
        """Seconds to wait for this one."""
        self.room = min(float(BURST), self.room + (now - self.since) * A_SECOND) - 1
        self.since = now
        return max(0.0, -self.room / A_SECOND)


class _Client(QMPClient):  # type: ignore[misc]
    """Knows when its own output is flushed: a descriptor must be sent between two commands, not inside one. Takes
    events at a pace that leaves the loop to others."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._pace = Pace()
        # The library reports every lost connection as an error; here it is how a guest ends.
        self.logger = logging.getLogger(f"{__name__}.wire")
        self.logger.setLevel(logging.CRITICAL)

    async def _do_recv(self) -> Any:
        message = await super()._do_recv()
        if "event" in message:
            await asyncio.sleep(self._pace.take(asyncio.get_running_loop().time()))
        return message

    def _cb_outbound(self, msg: Message) -> Message:
        return msg  # the library's prints each message for a log, which costs more than all else about it

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def flushed(self) -> bool:
        writer = self._writer
        return writer is not None and self._outgoing.empty() and writer.transport.get_write_buffer_size() == 0

    async def drain(self) -> None:
        await self._outgoing.join()
        if self._writer is not None:
            await self._writer.drain()


class Subscription:
    """Events since it was opened, oldest first. Bounded: a reader that sleeps loses the oldest, and re-reads the state
    as it would after a reconnect."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._queue: deque[Event] = deque(maxlen=_UNREAD_EVENTS)
        self._arrived = asyncio.Event()
        self._gone: QemuGone | None = None

    def offer(self, event: Event) -> None:
        if not self._names or event.name in self._names:
            self._queue.append(event)
            self._arrived.set()

    def end(self, error: QemuGone) -> None:
        self._gone = error
        self._arrived.set()

    async def get(self) -> Event:
        """The next event; QemuGone once the connection ended and all were read."""
        while not self._queue:
            if self._gone:
                raise QemuGone(str(self._gone)) from self._gone
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    async def get_within(self, seconds: float) -> Event | None:
        """The next event, or None when none came in time."""
        try:
            async with asyncio.timeout(seconds):
                return await self.get()
        except TimeoutError:
            return None

    async def wait_for(self, matches: Callable[[Event], bool]) -> Event:
        while True:
            event = await self.get()
            if matches(event):
                return event

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            try:
                event = await self.get()
            except QemuGone:
                return
            yield event


class Monitor:
    """See the module's text. Made by `connect`."""

    def __init__(self, client: _Client, sock: socket.socket, name: str) -> None:
        self.name = name
        self.closed: asyncio.Future[QemuGone | None] = asyncio.get_running_loop().create_future()
        """Done when the connection ended: with the reason, or None after `close()`."""
        self.known: dict[str, Any] = {}
        """Answers that hold as long as this QEMU runs: who asks first leaves them here."""
        self._client = client
        self._socket = sock
        self._descriptor_lock = asyncio.Lock()
        self._subscriptions: set[Subscription] = set()
        self._close_asked = asyncio.Event()
        version = client.greeting.QMP.version["qemu"] if client.greeting else {}
        self.version = (int(version.get("major", 0)), int(version.get("minor", 0)), int(version.get("micro", 0)))
        self._listener = EventListener()
        client.register_listener(self._listener)
        self._pump = asyncio.create_task(self._pump_events(), name=f"qmp-events {name}")
        self._watch = asyncio.create_task(self._watch_end(), name=f"qmp-watch {name}")

    @classmethod
    async def connect(cls, path: str | Path, *, name: str = "", timeout: float = 10.0) -> Self:
        """Connect to a QMP socket by path. QemuGone: nobody listens there; QemuTimeout: no greeting came."""
        name = name or str(path)
        client, sock = _Client(name), None
        try:
            async with asyncio.timeout(timeout):
                sock = await sockets.connected(path)
                # A duplicate, since the transport owns the one it is given, and descriptors go out on the side.
                own = sock.dup()
                try:
                    await client.connect(sock)
                except BaseException:
                    own.close()
                    raise
        except TimeoutError as error:
            await _discard(client, sock)
            raise QemuTimeout(
                f"no greeting from QEMU on {path} within {timeout:g} s: "
                "another client holds this QMP socket, or QEMU is stopped"
            ) from error
        except (OSError, ConnectError) as error:
            if sock is not None:
                sock.close()
            raise QemuGone(f"nobody answers on QMP socket {path}: {error}") from error
        except BaseException:
            await _discard(client, sock)
            raise
        return cls(client, own, name)

    async def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, timeout: float | None = 30.0
    ) -> Any:
        """Run one command and return its `return`. QmpError: QEMU refused it."""
        try:
            async with asyncio.timeout(timeout):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            kind, description = error.error_class, str(error)
            if kind == "DeviceNotFound" or "not found" in description or description.startswith("Failed to find"):
                raise NotThere(command, kind, description) from error
            raise QmpError(command, kind, description) from error
        except TimeoutError as error:
            raise QemuTimeout(f"QEMU of {self.name} did not answer {command} within {timeout:g} s") from error
        except (ExecInterruptedError, StateError, BadReplyError, EOFError, OSError) as error:
            raise QemuGone(f"the connection to QEMU of {self.name} ended during {command}") from error

    @contextlib.contextmanager
    def events(self, *names: str) -> Iterator[Subscription]:
        """Subscribe (to all, or to the named events) for as long as the block runs. Open it before the command whose
        effect is awaited."""
        subscription = Subscription(frozenset(names))
        if self.closed.done():
            subscription.end(self.closed.result() or QemuGone(f"the connection to QEMU of {self.name} was closed"))
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def add_fd(self, descriptor: int, *, opaque: str) -> int:
        """Hand an open file to QEMU; returns the fdset: its name for blockdev-add is /dev/fdset/<number>."""
        answer = await self._execute_with_descriptor(descriptor, "add-fd", {"opaque": opaque})
        return int(answer["fdset-id"])

    async def get_fd(self, descriptor: int, *, name: str) -> None:
        """Hand an open descriptor (tap, socket) to QEMU under a name for the next command that takes one."""
        await self._execute_with_descriptor(descriptor, "getfd", {"fdname": name})

    async def _execute_with_descriptor(self, descriptor: int, command: str, arguments: dict[str, Any]) -> Any:
        # QEMU keeps one received descriptor until a command takes it: no two may be on their way.
        async with self._descriptor_lock:
            while not self._client.flushed():
                if self._client.runstate is not Runstate.RUNNING:
                    raise QemuGone(f"the connection to QEMU of {self.name} ended before {command}")
                await self._client.drain()
            try:
                # Blank between two JSON texts: SCM_RIGHTS needs a byte to travel with.
                socket.send_fds(self._socket, [b" "], [descriptor])
            except OSError as error:
                raise QemuGone(f"the connection to QEMU of {self.name} ended during {command}") from error
            return await self.execute(command, arguments)

    async def close(self) -> None:
        """Leave; QEMU runs on. Idempotent."""
        self._close_asked.set()
        await asyncio.shield(self._watch)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _pump_events(self) -> None:
        async for message in self._listener:
            stamp = message.get("timestamp") or {}
            at = float(stamp.get("seconds", 0)) + float(stamp.get("microseconds", 0)) / 1e6
            event = Event(str(message["event"]), message.get("data") or {}, at)
            for subscription in tuple(self._subscriptions):
                subscription.offer(event)

    async def _watch_end(self) -> None:
        """The one place that disconnects: the library keeps the reader's exception until somebody collects it."""
        ended = asyncio.create_task(self._connection_ended())
        asked = asyncio.create_task(self._close_asked.wait())
        try:
            await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            asked.cancel()
        await self._disconnect()
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        self._socket.close()
        reason = None if self._close_asked.is_set() else QemuGone(f"QEMU of {self.name} closed its QMP connection")
        if not self.closed.done():
            self.closed.set_result(reason)
        for subscription in self._subscriptions:
            subscription.end(reason or QemuGone(f"the connection to QEMU of {self.name} was closed"))

    async def _connection_ended(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def _disconnect(self) -> None:
        try:
            await self._client.disconnect()
        except (EOFError, OSError, QMPError) as error:
            log.debug("QMP connection ended", extra={"vm": self.name, "error": repr(error)})


async def _discard(client: _Client, sock: socket.socket | None) -> None:
    """After a failed connect the library is idle or half connected; either way nothing of it may stay."""
    if client.runstate is not Runstate.IDLE:
        try:
            await client.disconnect()
        except (EOFError, OSError, QMPError):
            pass
    if sock is not None:
        sock.close()
