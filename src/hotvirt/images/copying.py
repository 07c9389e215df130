"""Copies of disk files that cost what is written in them, never what they could hold.

Three ways, cheapest first: a reflink (the file system shares the blocks), a qcow2 overlay on a base that nobody writes
any more (`disks.overlay`, see `bases`), and a copy of what is data, holes left out. The copy appears under its name
when it is whole and on disk (temporary name, fsync, rename), so a kill leaves at most a temporary file behind, which
`sweep` removes. Copies of different targets may overlap; the source must not be written meanwhile.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from hotvirt.images import publish
from hotvirt.images.errors import ImageError

Way = Literal["reflink", "sparse"]
Told = Callable[[float], None]
"""Called with how far it is, 0 to 1, from another thread than the event loop's: it must be quick."""

TEMPORARY = ".copy-"
_FICLONE = 0x40049409
_CHUNK = 16 << 20
_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)
_NO_REFLINK = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)


async def copy_disk(
    source: int | Path, target: Path, *, progress: Told | None = None, reflink: bool = True, mode: int = 0o600
) -> Way:
    """Copy a raw or qcow2 file as it is, byte for byte but for its holes. Replaces nothing: `target` must not exist.

    ImageError names a target that exists or a disk that is full; cancelling ends the copy and removes what it wrote.
    """
    if target.exists():
        raise ImageError(f"{target} exists already: remove it first, if nobody needs it")
    temporary = target.with_name(f"{TEMPORARY}{target.name}.{secrets.token_hex(4)}")
    opened = os.open(source, os.O_RDONLY | os.O_CLOEXEC) if isinstance(source, Path) else os.dup(source)
    stop = threading.Event()
    try:
        work = asyncio.create_task(
            asyncio.to_thread(_copy, opened, temporary, progress or _silent, stop, reflink=reflink, mode=mode)
        )
        try:
            way = await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            while not work.done():
                with contextlib.suppress(asyncio.CancelledError):  # said again: what it writes to is not closed before
                    await asyncio.wait([work])
            if not work.cancelled():
                work.exception()
            raise
        temporary.rename(target)
        await asyncio.to_thread(publish.sync_path, target.parent)
        return way
    except OSError as error:
        raise ImageError(told(error, target)) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(opened)


def sweep(directory: Path) -> None:
    """Remove what copies left that were killed. Only before any copy into the directory begins."""
    for path in directory.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


def told(error: OSError, target: Path) -> str:
    """A sentence for a person, with the mend where it is known."""
    if error.errno == errno.ENOSPC:
        return f"no room is left in {target.parent}: make room there, or ask for less"
    return f"{target} could not be written: {error.strerror or error}"


def _copy(source: int, target: Path, progress: Told, stop: threading.Event, *, reflink: bool, mode: int) -> Way:
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        way: Way = "reflink" if reflink and shares(source, descriptor) else "sparse"
        if way == "sparse":
            _data(source, descriptor, progress, stop)
        os.fsync(descriptor)
        return way
    finally:
        os.close(descriptor)


def shares(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        return False
    return True


def _data(source: int, target: int, progress: Told, stop: threading.Event) -> None:
    """What the file system says is data, less the blocks of it that are zeros all the same."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole to the end
        end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        while at < end:
            if stop.is_set():
                raise ImageError("the copy was called off")
            chunk = os.pread(source, min(_CHUNK, end - at), at)
            if not chunk:
                raise ImageError("the source became shorter while it was copied: try again")
            write_sparse(target, chunk, at)
            at += len(chunk)
            progress(at / size)
    progress(1.0)


class Pieces:
    """What arrives from elsewhere, kept as it came until there is enough of it to be worth a write.

    Nothing is joined: fresh memory for a copy costs more than the write. `ENOUGH` bounds the bytes and `MOST` the
    pieces, so that a sender of single bytes has no more memory than another."""

    ENOUGH = 4 << 20
    MOST = 4096

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> bool:
        """Whether there is enough now."""
        self._pieces.append(piece)
        self.size += len(piece)
        return self.size >= self.ENOUGH or len(self._pieces) >= self.MOST

    def taken(self) -> list[bytes]:
        pieces, self._pieces, self.size = self._pieces, [], 0
        return pieces


def append(target: int, pieces: Iterable[bytes], at: int) -> int:
    """Write at the end of a file of `at` bytes. Returns the new end."""
    for chunk in pieces:
        write_sparse(target, chunk, at)
        at += len(chunk)
    os.ftruncate(target, at)
    return at


def write_sparse(target: int, chunk: bytes, at: int) -> None:
    """Write a chunk at its place in a file that is blank there, leaving out blocks of zeros. The file's size must be
    set beforehand, or afterwards."""
    view, begin = memoryview(chunk), None
    for offset in range(0, len(chunk), _BLOCK):
        # Compared as memory and in place: a slice would be a copy, and a view is compared item by item.
        if chunk.startswith(_ZEROS[: len(chunk) - offset], offset):
            if begin is not None:
                _all(target, view[begin:offset], at + begin)
                begin = None
        elif begin is None:
            begin = offset
    if begin is not None:
        _all(target, view[begin:], at + begin)


def _all(target: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(target, data, at)
        data, at = data[written:], at + written


def _silent(_fraction: float) -> None:
    return
