"""A process known by its number *and* its start time, so that a home that starts again never takes another for it.

Waiting and signalling go through a pidfd: no polling, and no signal to a number that was given to someone else. Works
the same for our own child (then its exit status is collected, so that it does not stay as a zombie) and for a guest
adopted after a restart of the home (then init collects it).
"""

import asyncio
import os
import signal
from typing import Self

from msgspec import Struct


class Identity(Struct, frozen=True):
    """`start_time` in clock ticks since boot, /proc/PID/stat field 22."""

    pid: int
    start_time: int


def identify(pid: int) -> Identity | None:
    """Who has this number now; None for nobody, or for one that is dead and only waits to be collected."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            text = stat.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets, which may itself hold spaces and brackets.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else Identity(pid, int(fields[19]))


def alive(identity: Identity) -> bool:
    return identify(identity.pid) == identity


class Process:
    """An open pidfd. `close` it, or use it as a context manager."""

    def __init__(self, identity: Identity, pidfd: int) -> None:
        self.identity = identity
        self._pidfd = pidfd

    @classmethod
    def open(cls, identity: Identity, *, collect: bool = True) -> Self | None:
        """None when it no longer runs. `collect` False leaves its exit status to somebody else."""
        try:
            pidfd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        # Compared after opening: from here on the pidfd means this process and no other.
        if not alive(identity):
            os.close(pidfd)
            if collect:
                _collect(identity.pid)
            return None
        return cls(identity, pidfd)

    async def wait(self) -> int | None:
        """Until it ended. Its exit status (negative: by that signal) when it is our child, else None."""
        await self.ended()
        return _collect(self.identity.pid)

    async def ended(self) -> None:
        """Until it ended; its exit status is left to whoever calls `wait`."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        pidfd = os.dup(self._pidfd)  # one reader per descriptor on a loop, but any number may wait
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    def send(self, number: signal.Signals) -> bool:
        """False: it had already ended."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True

    async def stop(self, *, grace: float) -> int | None:
        """SIGTERM, and SIGKILL when that is not enough within `grace` seconds."""
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                return await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.wait()

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _collect(pid: int) -> int | None:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if found else None
