"""Runs one command with a pod's rights. Run as a file: `python3 -I -S podexec_child.py REQUEST`, descriptors 0 to 2 the
command's own, 3 a socket to whoever asked, 4 a pidfd of the pod's process.

It enters the pod's namespaces, becomes the pod's user, without any capability or way to a new one, and starts the
command in a session of its own. Then it waits, as its parent and that of all it leaves behind (a "subreaper"), and
ends them all when the command has ended, when the pod's process has, or when the socket closes, as when the home dies.

Standard library only; imports nothing of hotvirt. REQUEST is JSON: argv, environment, uid, gid, groups, isolate
(namespaces to enter: net, ipc, uts), tty. It begins when a byte comes on the socket, so that it can be put into its
cgroup before. The answer: {"code": 0} at the end, or {"error": "..."} when the command could not be run.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios

CONTROL, POD = 3, 4
_NAMESPACES = {"net": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000}
_CAPBSET_DROP, _SET_NO_NEW_PRIVS, _SET_CHILD_SUBREAPER = 24, 38, 36
_SET_SECCOMP, _FILTER = 22, 2
# A fork bomb ends at so many processes of the guest's user; QEMU's threads are among them.
_LIMITS = ((resource.RLIMIT_NPROC, 1024), (resource.RLIMIT_NOFILE, 4096), (resource.RLIMIT_CORE, 0))
_NEW_NAMESPACES, _CLONE3 = 0x7E020000, 435
_INSTRUCTION = struct.Struct("HBBI")
# unshare setns mount umount2 pivot_root bpf perf_event_open add_key request_key keyctl ptrace process_vm_readv
# process_vm_writev userfaultfd name_to_handle_at open_by_handle_at kcmp, then io_uring_* (425 to 427), open_tree to
# fspick (428 to 433), pidfd_getfd and mount_setattr, which have one number everywhere.
_EVERYWHERE = (*range(425, 434), 438, 442)
_MACHINES = {
    "x86_64": (0xC000003E, 56, (272, 308, 165, 166, 155, 321, 298, 248, 249, 250, 101, 310, 311, 323, 303, 304, 312,
                                *_EVERYWHERE)),
    "aarch64": (0xC00000B7, 220, (97, 268, 40, 39, 41, 280, 241, 217, 218, 219, 117, 270, 271, 282, 264, 265, 272,
                                  *_EVERYWHERE)),
}  # fmt: skip
LIBC = ctypes.CDLL(None, use_errno=True)


def enter(request: dict[str, object]) -> None:
    """The pod's namespaces and rights, and no others. Namespaces first: that takes the privilege the rest drops."""
    wanted: list[str] = request["isolate"]  # type: ignore[assignment]
    flags = sum(_NAMESPACES[name] for name in wanted)
    if flags and LIBC.setns(POD, flags):
        raise OSError(ctypes.get_errno(), "cannot enter the pod's namespaces")
    for capability in range(64):
        if LIBC.prctl(_CAPBSET_DROP, capability, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
            raise OSError(ctypes.get_errno(), "cannot drop a capability")
    for kind, most in _LIMITS:
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    uid, gid = request["uid"], request["gid"]
    os.setgroups(request["groups"])  # type: ignore[arg-type]
    os.setresgid(gid, gid, gid)  # type: ignore[arg-type]
    os.setresuid(uid, uid, uid)  # type: ignore[arg-type]
    if LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot set no_new_privs")
    sandbox()


def sandbox() -> None:
    """The pod's QEMU may do less than its user: it is sandboxed. A shell has to start programs, but it gets no new
    namespaces (where it would be root), no mounts, no other process's memory, and nothing else that it needs not."""
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"commands cannot be sandboxed on {machine}")
    architecture, clone, denied = _MACHINES[machine]
    code = b"".join(_INSTRUCTION.pack(*each) for each in filter_program(architecture, clone, denied))
    text = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(text)))
    if LIBC.prctl(_SET_SECCOMP, _FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot be sandboxed")


def filter_program(architecture: int, clone: int, denied: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Instructions for seccomp: code, jump if true, jump if false, value. Each refusal stands where it is decided."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    deny, absent, allow = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x7FFF0000
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, deny)]
    program += [(load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (answer, 0, 0, deny)]  # x32's numbers
    for number in denied:
        program += [(equal, 0, 1, number), (answer, 0, 0, deny)]
    program += [(equal, 0, 1, _CLONE3), (answer, 0, 0, absent)]  # its flags can't be seen; libc falls back to clone
    program += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_bit, 0, 1, _NEW_NAMESPACES), (answer, 0, 0, deny)]
    return [*program, (answer, 0, 0, allow)]


def run(request: dict[str, object], complaints: int) -> None:
    """In the child; never returns."""
    argv: list[str] = request["argv"]  # type: ignore[assignment]
    try:
        os.setsid()
        if request["tty"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        enter(request)
        for number in (CONTROL, POD):
            os.close(number)
        os.umask(0o077)
        os.chdir("/")
        execute(argv, request["environment"])  # type: ignore[arg-type]
    except BaseException as error:  # noqa: BLE001  nothing of this program may go on beside its parent
        os.write(complaints, f'exec: "{argv[0]}": {error}'.encode())
    os._exit(127)


def execute(argv: list[str], environment: dict[str, str]) -> None:
    """As a shell finds it. `os.execvpe` would load modules, which the user we have become may not read."""
    folders = [""] if "/" in argv[0] else [f"{folder}/" for folder in environment["PATH"].split(":")]
    refusal: OSError | None = None
    for folder in folders:
        try:
            os.execve(folder + argv[0], argv, environment)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refusal = error
    if refusal is None:
        raise FileNotFoundError("executable file not found in $PATH")
    raise refusal


def children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(each) for each in file.read().split()]


def end_all() -> None:
    """Whoever loses its parent becomes our child, so this ends when nobody is left."""
    while found := children():
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        for pid in found:
            os.waitpid(pid, 0)


def main() -> None:
    # What a shell or a test runner left open in the home is not for commands.
    os.closerange(POD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    control = socket.socket(fileno=CONTROL)
    if not control.recv(1):
        return
    LIBC.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    request = json.loads(sys.argv[1])
    reader, complaints = os.pipe()  # closed by exec
    child = os.fork()
    if child == 0:
        os.close(reader)
        run(request, complaints)
    os.close(complaints)
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in range(3):  # or the command's output would not end with the command
        os.dup2(nothing, number)
    complaint = os.read(reader, 4096).decode("utf-8", "replace")
    ended = os.pidfd_open(child)
    poll = select.poll()
    for descriptor in (ended, POD, CONTROL):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if ended in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            end_all()
            answer: dict[str, object] = {"code": code if code >= 0 else 128 - code}
            if complaint:
                answer = {"error": complaint}
            control.sendall(json.dumps(answer).encode())
            return
        if ready:
            end_all()
            return


if __name__ == "__main__":
    main()
