"""A launcher pod's logs: what its receiver and QEMU print, and what its guest does. Read from the pod's directory, for
any number of readers.

Following waits for the kernel to tell of a write (inotify) or of the process's end (pidfd): nothing is polled, and a
follower costs nothing while QEMU is silent. A follower that is cancelled leaves nothing behind.
"""

import asyncio
import ctypes
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from hotvirt.node.places import PodPlace
from hotvirt.node.podprocess import read_identity
from hotvirt.qemu.process import Process

CHUNK = 32 << 10
IN_MODIFY = 0x2
_libc = ctypes.CDLL(None, use_errno=True)


async def read(
    place: PodPlace, log: Path, *, tail: int | None = None, follow: bool = False
) -> AsyncGenerator[bytes, None]:
    """A log in the pod's directory, or its last `tail` lines; with `follow` what is printed later too, until the pod's
    process has ended.
    FileNotFoundError when there is none, as the pod was not started here. Whoever stops before its end closes it."""
    with log.open("rb") as file:
        if tail is not None:
            file.seek(tail_offset(file, tail))
        if not follow:
            while data := file.read(CHUNK):
                yield data
            return
        async with aclosing(_follow(place, log, file)) as following:
            async for data in following:
                yield data


async def _follow(place: PodPlace, log: Path, file: BinaryIO) -> AsyncGenerator[bytes, None]:
    identity = read_identity(place.pid)
    process = Process.open(identity, collect=False) if identity else None
    with _writes(log) as written, process or nullcontext():
        end = asyncio.ensure_future(process.ended() if process else asyncio.sleep(0))
        end.add_done_callback(lambda _: written.set())
        try:
            while True:
                written.clear()
                # Looked at before reading: what it printed last is then still read.
                is_last = end.done()
                while data := new_bytes(file):
                    yield data
                if is_last:
                    return
                await written.wait()
        finally:
            end.cancel()


def new_bytes(file: BinaryIO) -> bytes:
    """What was added since the last call, at most a piece of it."""
    if os.fstat(file.fileno()).st_size < file.tell():
        file.seek(0, os.SEEK_END)  # it was cut down, which keeps only what was read already
    return file.read(CHUNK)


@contextmanager
def _writes(path: Path) -> Iterator[asyncio.Event]:
    """An event that is set at each write to a file."""
    loop, written = asyncio.get_running_loop(), asyncio.Event()
    inotify = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        _checked(_libc.inotify_add_watch(inotify, os.fsencode(path), ctypes.c_uint32(IN_MODIFY)))

        def wake() -> None:
            with suppress(BlockingIOError):
                os.read(inotify, CHUNK)
            written.set()

        loop.add_reader(inotify, wake)
        try:
            yield written
        finally:
            loop.remove_reader(inotify)
    finally:
        os.close(inotify)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines begin; a line that is not ended yet counts."""
    end = position = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    found = 0
    while position > 0:
        begin = max(0, position - CHUNK)
        file.seek(begin)
        block = file.read(position - begin)
        at = len(block) - (position == end)  # the newline that ends the last line begins no other
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == lines:
                return begin + at + 1
        position = begin
    return 0
