"""The process that becomes QEMU. Run as a file: `python3 -I -S receiver.py`, listening socket on descriptor 3.

It waits for one launch request (see `launch`), takes the descriptors that come with it, gives up its rights and execs.
So a launcher pod needs no capability and no path to anybody's disk, and after the exec nothing of it is left in memory.

Standard library only, and as little as possible of it: this starts once for every guest. Imports nothing of hotvirt.

The request is one JSON text, sent with a 4-byte big-endian length before it, and descriptors beside it:

    argv        what to exec, the program's path first
    fds         the numbers the descriptors get, in the order they are sent
    uid, gid    whom to become (absent: stay who we are)
    groups      further groups, such as kvm's
    rlimits     {"nofile": 4096, ...}: lowered as far as allowed, never an error
    isolate     namespaces to leave behind: any of "net", "ipc", "uts" (needs privilege)
    environment the environment, whole
    share       {"source", "read_only"}: a directory of the host, which it finds at SHARED. With it goes a user
                namespace of its own, in which it is root and may do nothing to the rest of the host
    users       [first, count]: whom the users 0 and up of that namespace are outside (absent: only root, who is us)

The answer: the connection closes without a byte once QEMU runs; before that, {"error": "..."} if it could not.
"""

import array
import fcntl
import json
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable

LISTEN_FD = 3
MAX_REQUEST = 4 << 20
FDS_PER_MESSAGE = 250  # the kernel's limit is 253
SHARED = "/mnt"
"""Of the directories that every host has, the one that nothing needs. Only the process itself sees it covered."""
_NAMESPACES = {
    "net": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000, "user": 0x10000000, "mount": 0x00020000,
}  # fmt: skip
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 2, 4, 8, 32, 4096, 16384
_MS_PRIVATE = 1 << 18
_PR_SET_NO_NEW_PRIVS = 38


def receive(connection: socket.socket) -> tuple[dict[str, object], list[int]]:
    """One request and its descriptors (still close-on-exec, at whatever numbers the kernel chose)."""
    data, descriptors, size = b"", [], None
    room = FDS_PER_MESSAGE * array.array("i").itemsize
    while size is None or len(data) < size:
        part, ancillary, _flags, _address = connection.recvmsg(65536, socket.CMSG_SPACE(room), socket.MSG_CMSG_CLOEXEC)
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(raw[: len(raw) - len(raw) % numbers.itemsize])
                descriptors += list(numbers)
        if not part:
            raise ValueError("the request ended early")
        data += part
        if size is None and len(data) >= 4:
            size = struct.unpack("!I", data[:4])[0] + 4
            if size > MAX_REQUEST:
                raise ValueError(f"a request of {size} bytes is too long")
    request = json.loads(data[4:size])
    if len(request["fds"]) != len(descriptors):
        raise ValueError(f"{len(descriptors)} descriptors came for {len(request['fds'])} numbers")
    return request, descriptors


def place(descriptors: list[int], numbers: list[int]) -> None:
    """Give each descriptor the number asked for. First all move out of the way, as any may sit on another's number."""
    above = max(numbers, default=0) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for source, number in zip(moved, numbers, strict=True):
        os.dup2(source, number, inheritable=True)


def give_up_rights(request: dict[str, object]) -> None:
    """Namespaces first, as that takes the privilege which the rest drops."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def checked(failed: int, problem: str) -> None:
        if failed:
            raise OSError(ctypes.get_errno(), problem)

    def leave(name: str) -> None:
        checked(libc.unshare(_NAMESPACES[name]), f"cannot leave the {name} namespace")

    def mount(source: str | None, target: str, flags: int) -> None:
        given = None if source is None else source.encode()
        problem = f"cannot mount {source or ''} on {target}"
        checked(libc.mount(given, target.encode(), None, ctypes.c_ulong(flags), None), problem)

    for name in request.get("isolate") or ():  # type: ignore[attr-defined]
        leave(name)
    if share := request.get("share"):
        enclose(share, request.get("users"), leave, mount)  # type: ignore[arg-type]
    for name, value in (request.get("rlimits") or {}).items():  # type: ignore[attr-defined]
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, limit))
    gid, uid = request.get("gid"), request.get("uid")
    if uid is not None:
        os.setgroups(request.get("groups") or [])  # type: ignore[arg-type]
        os.setresgid(gid, gid, gid)  # type: ignore[arg-type]
        os.setresuid(uid, uid, uid)  # type: ignore[arg-type]
    checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "cannot set no_new_privs")


def enclose(
    share: dict[str, object], users: list[int] | None, leave: Callable[[str], None],
    mount: Callable[[str | None, str, int], None],
) -> None:  # fmt: skip
    """See `share` above. Whoever maps more than himself must have mounted before, while the host's files are his."""
    source = str(share["source"])
    if users is None:
        uid, gid = os.geteuid(), os.getegid()
        leave("user")
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"0 {uid} 1")
        write("/proc/self/gid_map", f"0 {gid} 1")
    leave("mount")
    mount(None, "/", _MS_REC | _MS_PRIVATE)
    # A mount in a user namespace cannot lose what the host's has.
    kept = os.statvfs(source).f_flag & (_MS_RDONLY | _MS_NOEXEC)
    mount(source, SHARED, _MS_BIND)
    read_only = _MS_RDONLY if share["read_only"] else 0
    mount(None, SHARED, _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV | kept | read_only)
    if users is not None:
        os.setgroups([])
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        child = os.fork()  # only who is outside may give a namespace more users than one
        if not child:
            theirs.recv(1)
            try:
                for kind in ("uid", "gid"):
                    write(f"/proc/{parent}/{kind}_map", f"0 {users[0]} {users[1]}")
            except OSError:
                os._exit(1)
            os._exit(0)
        leave("user")
        ours.send(b".")
        if os.waitpid(child, 0)[1]:
            raise PermissionError(1, f"cannot be given the users {users[0]} and up")
        ours.close()
        theirs.close()
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def trusted(connection: socket.socket) -> bool:
    """Only root and our own user may say what to run."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] in (0, os.geteuid())


def serve(listener: socket.socket) -> None:
    """Answer requests until one succeeds, which is the end of this program."""
    while True:
        connection = listener.accept()[0]
        try:
            if trusted(connection):
                request, descriptors = receive(connection)
                check(request)
                break
        except (OSError, ValueError, KeyError, TypeError) as error:
            connection.sendall(failure(error))
        connection.close()
    become(request, descriptors, connection)


def failure(error: Exception) -> bytes:
    return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()


def check(request: dict[str, object]) -> None:
    argv: list[str] = request["argv"]  # type: ignore[assignment]
    numbers: list[int] = request["fds"]  # type: ignore[assignment]
    if not os.access(argv[0], os.X_OK):
        raise FileNotFoundError(f"{argv[0]} cannot be executed")
    if len(set(numbers)) != len(numbers) or min(numbers, default=3) <= 2:
        raise ValueError("descriptor numbers must differ, and be above 2")


def become(request: dict[str, object], descriptors: list[int], connection: socket.socket) -> None:
    """No way back from here: what fails is told, and ends the process."""
    argv: list[str] = request["argv"]  # type: ignore[assignment]
    numbers: list[int] = request["fds"]  # type: ignore[assignment]
    # The listening socket was inherited open; ours to answer on may sit on a number that was asked for.
    os.close(LISTEN_FD)
    answer = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, max(numbers, default=2) + 1)
    connection.close()
    try:
        place(descriptors, numbers)
        give_up_rights(request)
        os.umask(0o077)
        os.execve(argv[0], argv, request.get("environment") or {})  # type: ignore[arg-type]  # noqa: S606
    except (OSError, ValueError, KeyError, TypeError) as error:
        os.write(answer, failure(error))
        sys.exit(1)


if __name__ == "__main__":
    # What a shell or a test runner left open in the home is not for QEMU.
    os.closerange(LISTEN_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    serve(socket.socket(fileno=LISTEN_FD))
