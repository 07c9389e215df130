"""A command inside a launcher pod: in its process's namespaces and cgroup, as the guest's own user.

Nothing of it outlives the pod, the one who asked, or the home; `podexec_child` sees to that. A pod whose process runs
as the home's own user has no rights of its own to run a command with, so there it is refused: it could do all that the
home can.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.kube.errors import Conflict, Forbidden, InternalError
from hotvirt.kube.podstreams import Command, Output
from hotvirt.node import oom, podexec_child
from hotvirt.node.cgroups import Cgroups
from hotvirt.node.places import PodPlace
from hotvirt.node.podprocess import read_identity
from hotvirt.qemu.process import Identity, alive

CHUNK = 32 << 10
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Rights(Struct, frozen=True):
    uid: int
    gid: int
    groups: tuple[int, ...]


def rights(status: str) -> Rights:
    """Of a process, by its /proc/PID/status. Pure."""
    found = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    effective = [int(found[key].split()[1]) for key in ("Uid", "Gid")]
    return Rights(effective[0], effective[1], tuple(int(each) for each in found.get("Groups", "").split()))


def environment(pod: Document, command: Command) -> dict[str, str]:
    found = {"PATH": PATH, "HOME": "/", "HOSTNAME": str(pod["metadata"]["name"])}
    return {**found, "TERM": "xterm"} if command.tty else found


async def start(pod: Document, place: PodPlace, command: Command, *, cgroups: Cgroups) -> "Program":
    """Conflict while the pod has no guest's process, Forbidden where it has no user of its own."""
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    identity = read_identity(place.pid)
    if identity is None or not alive(identity):
        raise Conflict(f"the process of pod {name} has ended")
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError as error:
        raise Conflict(f"the process of pod {name} has ended") from error
    try:
        found, isolate = _seen(name, place, identity)
        request = {
            "argv": command.argv, "environment": environment(pod, command), "uid": found.uid, "gid": found.gid,
            "groups": found.groups, "isolate": isolate, "tty": command.tty,
        }  # fmt: skip
        program = Program(command, json.dumps(request), pidfd, user=found.uid)
    finally:
        os.close(pidfd)
    cgroups.enter(uid, program.pid)
    oom.hold(program.pid, oom.of_pod(pod))
    await program.begin()
    return program


def _seen(name: str, place: PodPlace, identity: Identity) -> tuple[Rights, list[str]]:
    """What the pod's process is, and which namespaces are its own."""
    try:
        found = _rights(name, place, identity)
        apart = [each for each in ("net", "ipc", "uts") if _is_apart(identity.pid, each)]
    except OSError as error:
        raise Conflict(f"the process of pod {name} has ended") from error
    if not alive(identity):  # else what was read was another's
        raise Conflict(f"the process of pod {name} has ended")
    return found, apart


def _rights(name: str, place: PodPlace, identity: Identity) -> Rights:
    found = rights(Path(f"/proc/{identity.pid}/status").read_text())
    if found.uid != os.geteuid():
        return found
    if place.launch.exists():
        raise Conflict(f"the guest of pod {name} has not been started yet: wait until its instance is Running")
    raise Forbidden(
        f"the process of pod {name} has no user of its own, so a command in it could do all that the home can: "
        "run the home as root, which gives every guest its own user"
    )


def _is_apart(pid: int, namespace: str) -> bool:
    return os.readlink(f"/proc/{pid}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}")


class Program:
    """A `hotvirt.kube.podstreams.Running`. It holds still until `begin`."""

    def __init__(self, command: Command, request: str, pidfd: int, *, user: int) -> None:
        self._command = command
        self._master = -1
        self._ours: dict[str, int] = {}
        theirs = self._make_terminal(user) if command.tty else self._make_pipes()
        self._control, control = socket.socketpair()
        self._control.setblocking(False)
        try:
            self.pid = _spawn(request, (*theirs, control.fileno(), pidfd))
        except BaseException:
            self._close_ours()
            self._control.close()
            raise
        finally:
            control.close()
            for number in set(theirs):
                os.close(number)
        self._answer: bytes | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self._control, b"!")
        self._waiting = asyncio.create_task(self._collect(), name=f"exec-{self.pid}")

    async def read(self, stream: Output) -> bytes:
        number = self._master if self._command.tty else self._ours.get(stream, -1)
        if number < 0:
            return b""
        while True:
            try:
                return os.read(number, CHUNK)
            except BlockingIOError:
                await _ready(number, writing=False)
            except OSError:
                return b""  # a terminal whose last user is gone

    async def write(self, data: bytes) -> None:
        number = self._master if self._command.tty else self._ours.get("stdin", -1)
        while data and number >= 0:
            try:
                data = data[os.write(number, data) :]
            except BlockingIOError:
                await _ready(number, writing=True)
            except OSError:
                return

    async def end_input(self) -> None:
        if self._command.tty:
            await self.write(b"\x04")
        elif (number := self._ours.pop("stdin", -1)) >= 0:
            os.close(number)

    def resize(self, columns: int, rows: int) -> None:
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        assert self._waiting is not None, "begin comes first"
        await asyncio.shield(self._waiting)
        try:
            answer: Any = json.loads(self._answer or b"")
        except ValueError:
            return 128 + signal.SIGKILL  # the pod ended under it
        if "error" in answer:
            raise InternalError(f"Internal error occurred: error executing command in container: {answer['error']}")
        return int(answer["code"])

    async def close(self) -> None:
        """Also of one that never began. Once it has ended there is nothing left to do."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._collect(), name=f"exec-{self.pid}")
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        await asyncio.shield(self._waiting)
        self._close_ours()

    async def _collect(self) -> None:
        loop = asyncio.get_running_loop()
        answer = b""
        with contextlib.suppress(OSError):
            while part := await loop.sock_recv(self._control, 4096):
                answer += part
        self._control.close()
        self._answer = answer
        await asyncio.to_thread(os.waitpid, self.pid, 0)  # it has closed its socket: it is on its way out

    def _make_pipes(self) -> tuple[int, int, int]:
        theirs = []
        for name in ("stdin", "stdout", "stderr"):
            if name == "stdin" and not self._command.stdin:
                theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
                continue
            reader, writer = os.pipe()
            mine, other = (writer, reader) if name == "stdin" else (reader, writer)
            os.set_blocking(mine, False)
            self._ours[name] = mine
            theirs.append(other)
        return theirs[0], theirs[1], theirs[2]

    def _make_terminal(self, user: int) -> tuple[int, int, int]:
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        os.fchown(slave, user, -1)
        return slave, slave, slave

    def _close_ours(self) -> None:
        numbers = [*self._ours.values(), *([self._master] if self._master >= 0 else [])]
        self._ours, self._master = {}, -1
        for number in numbers:
            os.close(number)


def _spawn(request: str, descriptors: Sequence[int]) -> int:
    """With the descriptors at 0 and on, where the child looks for them; its pid."""
    # Out of the way first, as any may sit on another's number.
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 32) for number in descriptors]
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", podexec_child.__file__, request],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, number, at) for at, number in enumerate(high)],
            setsid=True,
        )
    finally:
        for number in high:
            os.close(number)


async def _ready(number: int, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    mine = os.dup(number)  # one watcher for a descriptor on a loop, and a terminal is read and written
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(mine, ready.set)
    try:
        await ready.wait()
    finally:
        remove(mine)
        os.close(mine)
