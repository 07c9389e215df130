"""A byte stream to a guest's device or port, as those who reach it from outside are handed one."""

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct


class Reader(Protocol):
    """`asyncio.StreamReader` is one."""

    async def read(self, limit: int, /) -> bytes:
        """What has come, b"" once the guest's side ended."""
        ...


class Writer(Protocol):
    """`asyncio.StreamWriter` is one."""

    @property
    def transport(self) -> Any: ...

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None:
        """Returns when more may be written."""
        ...

    def close(self) -> None: ...

    def is_closing(self) -> bool: ...

    async def wait_closed(self) -> None: ...


def _ended() -> str:
    return "the guest's side ended"


class GuestStream(Struct, frozen=True):
    """Both directions of a stream to the guest (serial console, VNC, a port). `reader` ends when the guest's side does;
    whoever asked for the stream closes `writer`. A second stream to the same device ends the first: `why` says, once
    it ended, by whom."""

    reader: Reader
    writer: Writer
    why: Callable[[], str] = _ended
    is_lasting: bool = False
    """Whether it should go on until its user leaves, as a console, so that its end is news."""
