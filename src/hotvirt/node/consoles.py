"""A guest's serial console and screen, as streams with one holder at a time.

A second asker displaces the first, at once: what the first still has to say may never be read, and QEMU talks to one
at a time. Who wants to spare a session that is there says so, and is refused instead.
"""

import asyncio
from typing import Literal

from msgspec import Struct

from hotvirt.kube.errors import Conflict, InternalError
from hotvirt.node.guest import Guest
from hotvirt.qemu import sockets, vnc
from hotvirt.qemu.errors import HotplugError, QemuError
from hotvirt.qemu.streams import GuestStream, Writer

Kind = Literal["console", "screen"]
TAKEN = "EOF: another client took the session over"
ENDED = "EOF: the guest stopped, or QEMU closed the stream"
"""KubeVirt's clients look for the word."""
LEAVING = "EOF: hotvirt is stopping, the guest goes on: connect again"
PATIENCE = 10.0
"""Seconds for a place in the queue before QEMU's socket, in which clients of a home that died may still stand."""


class Session(Struct):
    """`ended` is why, once it did."""

    writer: Writer
    ended: str = ENDED

    def why(self) -> str:
        return self.ended


class Sessions:
    """Of all guests of the node."""

    def __init__(self) -> None:
        self._held: dict[tuple[Kind, str], Session] = {}

    def in_use(self, kind: Kind, uid: str) -> bool:
        """Whether somebody holds it, of the pod of this uid."""
        session = self._held.get((kind, uid))
        return session is not None and not session.writer.is_closing()

    async def console(self, guest: Guest, *, preserve: bool = False) -> GuestStream:
        self._make_way("console", guest, preserve=preserve)
        try:
            async with asyncio.timeout(PATIENCE):
                sock = await sockets.connected(guest.place.serial)
        except TimeoutError as error:
            raise InternalError(
                f"the console of {guest.monitor.name} was not free within {PATIENCE:g} s: others wait for it"
            ) from error
        except OSError as error:
            raise InternalError(f"the console of {guest.monitor.name} cannot be opened: {error}") from error
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return self._keep("console", guest, reader, writer)

    async def screen(self, guest: Guest, *, preserve: bool = False) -> GuestStream:
        self._make_way("screen", guest, preserve=preserve)
        try:
            sock = await vnc.open_viewer(guest.monitor)
        except HotplugError as error:
            raise Conflict(f"{guest.monitor.name}: {error}") from error
        except QemuError as error:
            raise InternalError(f"{guest.monitor.name}: {error}") from error
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return self._keep("screen", guest, reader, writer)

    def close(self) -> None:
        """End them all; guests go on."""
        for session in self._held.values():
            session.ended = LEAVING
            session.writer.transport.abort()
        self._held.clear()

    def _make_way(self, kind: Kind, guest: Guest, *, preserve: bool) -> None:
        if preserve and self.in_use(kind, guest.uid):
            what = "VNC" if kind == "screen" else kind
            raise Conflict(
                f"there is an active {what} connection to {guest.monitor.name}, and it was asked to be preserved: "
                "close it first, or ask without preserveSession to take it over"
            )
        self._displace(kind, guest)

    def _displace(self, kind: Kind, guest: Guest) -> None:
        if (first := self._held.pop((kind, guest.uid), None)) is not None:
            first.ended = TAKEN
            first.writer.transport.abort()

    def _keep(
        self, kind: Kind, guest: Guest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> GuestStream:
        self._displace(kind, guest)  # one that came while this one was being opened
        for key in [key for key, each in self._held.items() if each.writer.is_closing()]:
            del self._held[key]
        session = self._held[kind, guest.uid] = Session(writer)
        return GuestStream(reader, writer, session.why, is_lasting=True)
