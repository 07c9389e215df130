"""One home at a time per state directory, and how others find it.

The kernel's file lock is the truth: it goes with the process, however that ends. The file's text says who holds it
(pid and start time) and, once the API answers, where.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import DecodeError, Struct, json

from hotvirt.home.errors import HomeError
from hotvirt.qemu.process import Identity, alive, identify


class Holder(Struct, frozen=True):
    """`url` is empty until the API answers."""

    pid: int
    start_time: int
    url: str = ""

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start_time)


class Lock:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, url: str) -> None:
        """Tells whoever looks that the API answers at `url`."""
        me = identify(os.getpid())
        assert me is not None, "this process runs"
        text = json.encode(Holder(me.pid, me.start_time, url))
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))


@contextmanager
def hold(path: Path) -> Iterator[Lock]:
    """Holds the state directory for this process; HomeError when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = _parse(path)
            who = f"process {other.pid}" if other else "another process"
            raise HomeError(
                f"a home runs in {path.parent} already ({who}); stop it with 'hotvirt down', or choose another --home"
            ) from None
        lock = Lock(descriptor)
        lock.say("")
        yield lock
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder(path: Path) -> Holder | None:
    """Who runs a home here now; None when nobody does."""
    found = _parse(path)
    return found if found is not None and alive(found.identity) else None


def _parse(path: Path) -> Holder | None:
    try:
        return json.decode(path.read_bytes(), type=Holder)
    except (FileNotFoundError, NotADirectoryError, PermissionError, DecodeError):
        return None
