"""Whether another QEMU has an image open in a way that would keep this guest's QEMU from using it.

QEMU says what it does with an image, and what others may do with it meanwhile, by locking single bytes far into the
file (its block/file-posix.c: 100 + n holds permission n, 200 + n denies it to others). The kernel forgets the locks
with their holder, so the answer is the truth of this moment, whoever the other is. Asking takes no lock.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_GET_LOCK, _SET_LOCK = 36, 37  # F_OFD_GETLK, F_OFD_SETLK; the fcntl module has them from Python 3.13 on
_FLOCK = "hhqqi4x"
_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""A pipe in a disk's place must not have us wait for somebody to write to it; to a disk it makes no difference."""
_WRITES, _DENIES_WRITING = 101, 201


def taken(path: Path, *, read_only: bool, shareable: bool) -> bool:
    """OSError when the file cannot be opened."""
    descriptor = os.open(path, _LOOK)
    try:
        if not shareable and _is_held(descriptor, _WRITES):
            return True
        return not read_only and _is_held(descriptor, _DENIES_WRITING)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def unwritten(path: Path) -> Iterator[int]:
    """The file, opened to be read, while no QEMU writes to it or begins to. BlockingIOError when one does."""
    descriptor = os.open(path, _LOOK)
    try:
        if _is_held(descriptor, _WRITES):
            raise BlockingIOError(f"{path} is in use by a guest")
        fcntl.fcntl(descriptor, _SET_LOCK, struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, _DENIES_WRITING, 1, 0))
        if _is_held(descriptor, _WRITES):  # in between
            raise BlockingIOError(f"{path} is in use by a guest")
        yield descriptor
    finally:
        os.close(descriptor)


def _is_held(descriptor: int, byte: int) -> bool:
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    return bool(struct.unpack(_FLOCK, fcntl.fcntl(descriptor, _GET_LOCK, asked))[0] != fcntl.F_UNLCK)
