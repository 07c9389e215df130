"""Start a QEMU process: the node's side of `receiver`.

`spawn_receiver` starts the process a launcher pod consists of; `send_launch` later makes it the guest's QEMU. Between
the two it waits on a listening unix socket in the pod's directory, so the order in which the two sides come up does
not matter. In a cluster the pod's container runs the receiver and only `send_launch` is used.

The process is in a session of its own and holds nothing of ours: it lives on when the home ends, and a new home finds
it by its socket and by pid + start time (`process.Identity`). While the home that spawned it lives it is that home's
child, so whoever spawns must wait for it (`process.Process.wait` collects it); afterwards it is init's.
"""

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Self

from msgspec import Struct, structs

from hotvirt.qemu import receiver
from hotvirt.qemu.errors import LaunchError
from hotvirt.qemu.machine import Disk, File
from hotvirt.qemu.process import Identity, identify

FIRST_FD = 10
LOG_LIMIT = 256 << 10
_MAX_PATH = 107  # sockaddr_un


class Share(Struct, frozen=True):
    """The directory of the host that a file server is to serve."""

    source: str
    read_only: bool


class Request(Struct, frozen=True, kw_only=True):
    """What the receiver is to become; see `receiver` for the fields. The `fds` go along as descriptors."""

    argv: tuple[str, ...]
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    rlimits: Mapping[str, int] = {}
    isolate: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    share: Share | None = None
    users: tuple[int, int] | None = None


class Descriptors:
    """Hands out QEMU's descriptor numbers, and owns ours until they are sent. A context manager: closes all.

    `Machine` speaks of the numbers; `send_launch` takes `mapping` (QEMU's number -> our descriptor).
    """

    def __init__(self, first: int = FIRST_FD) -> None:
        self._next = first
        self._stack = ExitStack()
        self.mapping: dict[int, int] = {}

    def add(self, descriptor: int) -> int:
        """Take over an open descriptor; returns the number it will have in QEMU."""
        number, self._next = self._next, self._next + 1
        self._stack.callback(os.close, descriptor)
        self.mapping[number] = descriptor
        return number

    def open(self, path: str | Path, *, read_only: bool, block_device: bool = False) -> File:
        """Open an image for QEMU."""
        descriptor = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        return File(fd=self.add(descriptor), block_device=block_device)

    def open_disk(self, disk: Disk) -> Disk:
        """The same disk with each layer opened, as QEMU will use it, in place of its path."""
        layers = tuple(
            structs.replace(layer, file=self._open_layer(layer.file, read_only=disk.opens_read_only(index)))
            for index, layer in enumerate(disk.layers)
        )
        return structs.replace(disk, layers=layers)

    def _open_layer(self, file: File, *, read_only: bool) -> File:
        return (
            file if file.fd is not None else self.open(file.path, read_only=read_only, block_device=file.block_device)
        )

    def listen(self, path: str | Path, *, owner: tuple[int, int] | None = None) -> int:
        """Make a listening unix socket for QEMU to accept on. It exists from now on, so nobody races with QEMU."""
        return self.add(listening_socket(path, owner=owner).detach())

    def close(self) -> None:
        self._stack.close()
        self.mapping.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def listening_socket(path: str | Path, *, owner: tuple[int, int] | None = None) -> socket.socket:
    """A listening unix socket that only its owner (and root) can connect to; one left over at the path is replaced."""
    text = str(path)
    if len(os.fsencode(text)) > _MAX_PATH:
        raise LaunchError(f"socket path {text} is longer than {_MAX_PATH} bytes: use a shorter --home directory")
    Path(text).unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # On the inode before it has a name: a socket's mode is the umask's otherwise, and umask is the whole process's.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(text)
        os.chmod(text, 0o600)
        if owner is not None:
            os.chown(text, *owner)
        sock.listen(16)
    except BaseException:
        sock.close()
        raise
    return sock


def spawn_receiver(listener: socket.socket, *, log: Path, environment: Mapping[str, str] | None = None) -> Identity:
    """Start a receiver on a listening socket (ours may be closed afterwards). Its output, and later QEMU's, is appended
    to `log`: keep that short with `trim_log`."""
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", receiver.__file__],
            dict(environment or {}),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log_fd, 1),
                (os.POSIX_SPAWN_DUP2, log_fd, 2),
                (os.POSIX_SPAWN_DUP2, listener.fileno(), receiver.LISTEN_FD),
            ],
            setsid=True,
        )
    finally:
        os.close(log_fd)
    identity = identify(pid)
    if identity is None:
        raise LaunchError("the launch receiver ended at once", log=read_log(log))
    return identity


async def send_launch(
    path: str | Path, request: Request, *, descriptors: Mapping[int, int], timeout: float = 10.0
) -> None:
    """Make the receiver that listens on `path` become QEMU. `descriptors`: number in QEMU -> ours (they stay ours).

    Returns once it has exec'd: from then on the process is QEMU, and what QEMU finds wrong is in the log.
    """
    message = _message(request, list(descriptors))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(timeout):
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, str(path))
            rest = b"".join(_parts(sock, struct.pack("!I", len(message)), list(descriptors.values()))) + message
            await loop.sock_sendall(sock, rest)
            answer = b""
            while part := await loop.sock_recv(sock, 65536):
                answer += part
    except TimeoutError as error:
        raise LaunchError(f"the launch receiver on {path} did not answer within {timeout:g} s") from error
    except OSError as error:
        raise LaunchError(f"no launch receiver on {path}: {error}") from error
    finally:
        sock.close()
    if answer:
        said = answer.decode("utf-8", "replace")
        raise LaunchError(f"the launch receiver could not start QEMU: {said}")


def _parts(sock: socket.socket, header: bytes, descriptors: list[int]) -> Iterator[bytes]:
    """Send the descriptors beside the header, as many to a byte as the kernel allows; yields what is left to send."""
    chunk = receiver.FDS_PER_MESSAGE
    for index, byte in enumerate(header):
        batch = descriptors[index * chunk : (index + 1) * chunk]
        if batch:
            socket.send_fds(sock, [bytes([byte])], batch)
        else:
            yield bytes([byte])


def _message(request: Request, numbers: Sequence[int]) -> bytes:
    """As `receiver` says."""
    share, users = request.share, request.users or ()
    fields: dict[str, Iterable[object]] = {
        "argv": request.argv, "fds": numbers, "groups": request.groups, "isolate": request.isolate, "users": users,
        "uid": () if request.uid is None else (request.uid,), "gid": () if request.gid is None else (request.gid,),
        "rlimits": chain.from_iterable(request.rlimits.items()),
        "environment": [f"{name}={value}" for name, value in request.environment.items()],
        "share": () if share is None else (share.source, "ro" if share.read_only else "rw"),
    }  # fmt: skip
    parts: list[str] = []
    for name, values in fields.items():
        texts = [str(each) for each in values]
        parts += [name, str(len(texts)), *texts]
    if bad := next((part for part in parts if "\0" in part), None):
        raise LaunchError(f"{bad!r} has a NUL in it, which no program can be given")
    return b"".join(os.fsencode(part) + b"\0" for part in parts)


def read_log(path: Path, limit: int = 4096) -> str:
    """The end of what QEMU printed."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            return file.read(limit).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def trim_log(path: Path, limit: int = LOG_LIMIT) -> None:
    """Cut a log that grew over `limit` down to its last half. QEMU appends, so it goes on behind what is kept.

    A line it writes in this very moment may be lost; a guest that makes QEMU complain endlessly must not fill the disk.
    """
    with _existing(path) as file:
        if file is None or file.seek(0, os.SEEK_END) <= limit:
            return
        file.seek(-(limit // 2), os.SEEK_END)
        kept = file.read()
        file.truncate(0)
        file.seek(0)
        file.write(kept[kept.find(b"\n") + 1 :])


@contextmanager
def _existing(path: Path) -> Iterator[Any]:
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file
