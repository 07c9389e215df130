"""The process that becomes QEMU. Run as a file: `python3 -I -S receiver.py`, listening socket on descriptor 3.

It waits for one launch request (see `launch`), takes the descriptors that come with it, gives up its rights and execs.
So a launcher pod needs no capability and no path to anybody's disk, and after the exec nothing of it is left in memory.

Standard library only, and as little as possible of it: this starts once for every guest, and `socket` and `json` would
take as long to import as Python takes to start. Imports nothing of hotvirt.

The request is fields, as `NAME, number of values, values`, each ended by a NUL, sent with a 4-byte big-endian length
before them, and descriptors beside them:

    argv        what to exec, the program's path first
    fds         the numbers the descriptors get, in the order they are sent
    uid, gid    whom to become (no value: stay who we are)
    groups      further groups, such as kvm's
    rlimits     nofile 4096 ...: lowered as far as allowed, never an error
    isolate     namespaces to leave behind: any of net, ipc, uts (needs privilege)
    environment the environment, whole, as NAME=VALUE
    share       a directory of the host, which it finds at SHARED, and `ro` or `rw`. With it goes a user namespace of
                its own, in which it is root and may do nothing to the rest of the host
    users       first and count: whom the users 0 and up of that namespace are outside (none: only root, who is us)

The answer: the connection closes without a byte once QEMU runs; before that, why it could not.
"""

import _socket
import ctypes
import fcntl
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Fields = dict[str, list[str]]

LISTEN_FD = 3
MAX_REQUEST = 4 << 20
FDS_PER_MESSAGE = 250  # the kernel's limit is 253
INT = struct.calcsize("i")
SHARED = "/mnt"
"""Of the directories that every host has, the one that nothing needs. Only the process itself sees it covered."""
_NAMESPACES = {
    "net": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000, "user": 0x10000000, "mount": 0x00020000,
}  # fmt: skip
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 2, 4, 8, 32, 4096, 16384
_MS_PRIVATE = 1 << 18
_PR_SET_NO_NEW_PRIVS = 38
PROBLEMS = OSError, ValueError, LookupError
"""What a request that is not as above may lead to."""


def receive(connection: "_socket.socket") -> "tuple[Fields, list[int]]":
    """One request and its descriptors (still close-on-exec, at whatever numbers the kernel chose)."""
    data, size = b"", None
    descriptors: list[int] = []
    room = FDS_PER_MESSAGE * INT
    while size is None or len(data) < size:
        part, ancillary, *_ = connection.recvmsg(65536, _socket.CMSG_SPACE(room), _socket.MSG_CMSG_CLOEXEC)
        for level, kind, raw in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                descriptors += struct.unpack(f"{len(raw) // INT}i", raw[: len(raw) // INT * INT])
        if not part:
            raise ValueError("the request ended early")
        data += part
        if size is None and len(data) >= 4:
            size = struct.unpack("!I", data[:4])[0] + 4
            if size > MAX_REQUEST:
                raise ValueError(f"a request of {size} bytes is too long")
    request = fields(data[4:size])
    if len(request["fds"]) != len(descriptors):
        raise ValueError(f"{len(descriptors)} descriptors came for {len(request['fds'])} numbers")
    return request, descriptors


def fields(text: bytes) -> "Fields":
    parts, found, at = os.fsdecode(text).split("\0"), {}, 0
    while at + 1 < len(parts):
        name, end = parts[at], at + 2 + int(parts[at + 1])
        found[name], at = parts[at + 2 : end], end
    return found


def place(descriptors: list[int], numbers: list[int]) -> None:
    """Give each descriptor the number asked for. First all move out of the way, as any may sit on another's number."""
    above = max(numbers, default=0) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for source, number in zip(moved, numbers, strict=True):
        os.dup2(source, number, inheritable=True)


def give_up_rights(request: "Fields") -> None:
    """Namespaces first, as that takes the privilege which the rest drops."""
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

    for name in request["isolate"]:
        leave(name)
    if request["share"]:
        source, access = request["share"]
        enclose(source, [int(each) for each in request["users"]], leave, mount, read_only=access == "ro")
    for name, value in zip(request["rlimits"][::2], request["rlimits"][1::2], strict=True):
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        limit = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(kind, (limit, limit))
    if request["uid"]:
        uid, gid = int(request["uid"][0]), int(request["gid"][0])
        os.setgroups([int(each) for each in request["groups"]])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "cannot set no_new_privs")


def enclose(
    source: str, users: list[int], leave: "Callable[[str], None]", mount: "Callable[[str | None, str, int], None]",
    *, read_only: bool,
) -> None:  # fmt: skip
    """See `share` above. Whoever maps more than himself must have mounted before, while the host's files are his."""
    if not users:
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
    access = _MS_RDONLY if read_only else 0
    mount(None, SHARED, _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV | kept | access)
    if users:
        os.setgroups([])
        theirs, ours = os.pipe()
        parent = os.getpid()
        child = os.fork()  # only who is outside may give a namespace more users than one
        if not child:
            os.read(theirs, 1)
            try:
                for kind in ("uid", "gid"):
                    write(f"/proc/{parent}/{kind}_map", f"0 {users[0]} {users[1]}")
            except OSError:
                os._exit(1)
            os._exit(0)
        leave("user")
        os.write(ours, b".")
        if os.waitpid(child, 0)[1]:
            raise PermissionError(1, f"cannot be given the users {users[0]} and up")
        os.close(ours)
        os.close(theirs)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def trusted(connection: "_socket.socket") -> bool:
    """Only root and our own user may say what to run."""
    credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] in (0, os.geteuid())


def serve(listener: "_socket.socket") -> None:
    """Answer requests until one succeeds, which is the end of this program."""
    while True:
        connection = _socket.socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            if trusted(connection):
                request, descriptors = receive(connection)
                check(request)
                break
        except PROBLEMS as error:
            connection.sendall(failure(error))
        connection.close()
    become(request, descriptors, connection)


def failure(error: Exception) -> bytes:
    return f"{type(error).__name__}: {error}".encode("utf-8", "replace")


def check(request: "Fields") -> None:
    program, numbers = request["argv"][0], [int(each) for each in request["fds"]]
    if not os.access(program, os.X_OK):
        raise FileNotFoundError(f"{program} cannot be executed")
    if len(set(numbers)) != len(numbers) or min(numbers, default=3) <= 2:
        raise ValueError("descriptor numbers must differ, and be above 2")


def become(request: "Fields", descriptors: list[int], connection: "_socket.socket") -> None:
    """No way back from here: what fails is told, and ends the process."""
    argv, numbers = request["argv"], [int(each) for each in request["fds"]]
    # The listening socket was inherited open; ours to answer on may sit on a number that was asked for.
    os.close(LISTEN_FD)
    answer = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, max(numbers, default=2) + 1)
    connection.close()
    try:
        place(descriptors, numbers)
        give_up_rights(request)
        os.umask(0o077)
        environment = dict(each.split("=", 1) for each in request["environment"])
        os.execve(argv[0], argv, environment)  # noqa: S606
    except PROBLEMS as error:
        os.write(answer, failure(error))
        sys.exit(1)


if __name__ == "__main__":
    # What a shell or a test runner left open in the home is not for QEMU.
    os.closerange(LISTEN_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    serve(_socket.socket(fileno=LISTEN_FD))
