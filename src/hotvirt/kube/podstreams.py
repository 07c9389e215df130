"""How exec, attach and port-forward reach a pod: the contract between the API's front and whoever runs the pods.

The front has checked who may do what and that the pod exists; it speaks the clients' protocols. Whoever runs pods knows
nothing of those, and answers with `hotvirt.kube.errors` what cannot be done. Calls may run concurrently.
"""

from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from hotvirt.kube.admission import User

Document = dict[str, Any]
Output = Literal["stdout", "stderr"]


class Command(Struct, frozen=True, kw_only=True):
    """What is asked for. `argv` is empty for attach. With `tty`, stderr comes out of stdout."""

    container: str
    argv: tuple[str, ...] = ()
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


class Running(Protocol):
    """A program that runs, by its ends. One task at a time on each end."""

    async def read(self, stream: Output) -> bytes:
        """What it says next; b"" when it will say no more there."""
        ...

    async def write(self, data: bytes) -> None:
        """To its input. What it no longer reads is dropped."""
        ...

    async def end_input(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        """Its exit code, once it ended. InternalError when it could not be run at all."""
        ...

    async def close(self) -> None:
        """Ends it, if it still runs, and all that it started."""
        ...


class Reader(Protocol):
    """`asyncio.StreamReader` is one."""

    async def read(self, limit: int, /) -> bytes: ...


class Writer(Protocol):
    """`asyncio.StreamWriter` is one."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class Dialled(NamedTuple):
    """A TCP connection; whoever asked for it closes it."""

    reader: Reader
    writer: Writer


class PodStreams(Protocol):
    """`user` is who asks, for what needs more than a permission on the pod."""

    async def exec(self, pod: Document, command: Command, user: User) -> Running: ...

    async def attach(self, pod: Document, command: Command, user: User) -> Running: ...

    async def dial(self, pod: Document, port: int, user: User) -> Dialled: ...
