"""Makes and changes disk files: blank disks, overlays, growth, conversion. The only place that starts qemu-img.

Every format is said, never guessed. A new file appears under its name only when it is complete and on disk, so one
that exists is good whatever was killed when. Calls on different files may overlap; the caller sees to it that one file
is not changed from two places, nor while a guest has it open.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from hotvirt.images import publish
from hotvirt.images.errors import ImageError
from hotvirt.images.tools import MIB, run

FORMATS = ("raw", "qcow2")
_SECTOR = 512
_QUICK, _SLOW = 30.0, 3600.0


async def create(path: Path, size: int, format: str, *, mode: int = 0o600) -> None:  # noqa: A002 - QEMU's own word
    """A blank, sparse disk. Fails if the file exists: it may hold somebody's data."""
    _check(path, size=size, format=format)
    async with _appearing(path, mode=mode) as temporary:
        if format == "raw":
            os.truncate(temporary, size)
        else:
            await _qemu_img("create", "-q", "-f", "qcow2", str(temporary), str(size))


async def overlay(
    path: Path, backing: Path, backing_format: str, size: int | None = None, *, mode: int = 0o600
) -> None:
    """A qcow2 disk that begins as `backing` and keeps its own changes; `backing` must stay as it is from now on."""
    _check(path, size=size, format=backing_format)
    async with _appearing(path, mode=mode) as temporary:
        sizes = [] if size is None else [str(size)]
        await _qemu_img(
            "create", "-q", "-f", "qcow2", "-F", backing_format, "-b", str(backing.resolve()), str(temporary), *sizes
        )


async def grow(path: Path, size: int, format: str) -> None:  # noqa: A002
    """Make a disk that no guest has open larger. Never smaller: that would cut off what is at its end."""
    _check(path, size=size, format=format)
    if format == "raw":
        current = path.stat().st_size
        if size < current:
            raise ImageError(f"{path} has {current} bytes and can't shrink to {size}: ask for at least what it has")
        os.truncate(path, size)
    else:  # without --shrink, qemu-img itself refuses to make it smaller
        await _qemu_img("resize", "-q", "-f", format, str(path), str(size))
    await asyncio.to_thread(publish.sync_path, path)  # all that was written to it lately goes to disk with it


async def convert(
    source: Path, target: Path, *, source_format: str, target_format: str, compress: bool = False, mode: int = 0o600
) -> None:
    """Copy a disk into another format, leaving holes where it is zero. Inspect `source` first."""
    _check(target, size=None, format=target_format)
    async with _appearing(target, mode=mode) as temporary:
        options = ["-c"] if compress else []
        await _qemu_img(
            "convert", "-q", "-f", source_format, "-O", target_format, "-S", "4k", *options, str(source),
            str(temporary), deadline=_SLOW,
        )  # fmt: skip


def cache_mode(path: Path, *, opened: Callable[[Path, int], int] = os.open) -> str:
    """In which of qemu-img's ways (`-t`) to write an existing file that nobody reads meanwhile: past the host's page
    cache, where the file system can. Filling a cache with a disk of which a guest will read some costs more than the
    disk itself where memory is fresh, and takes from others what they had in it. The file may end rounded up to the
    disk's blocks. Else "unsafe", as without `-t`: in both ways an fsync is left to do."""
    try:
        os.close(opened(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return "unsafe"
    return "none"


def _check(path: Path, *, size: int | None, format: str) -> None:  # noqa: A002
    if format not in FORMATS:
        raise ImageError(f"{path.name}: disks are {' or '.join(FORMATS)}, not {format!r}")
    if size is not None and (size <= 0 or size % _SECTOR):
        raise ImageError(f"{path.name}: a disk's size is a positive multiple of {_SECTOR} bytes, not {size}")


@contextlib.asynccontextmanager
async def _appearing(path: Path, *, mode: int) -> AsyncIterator[Path]:
    """A temporary file beside `path` that gets its name once the body is through, unless something has that name."""
    if path.exists():
        raise ImageError(f"{path} exists already: remove it first, if nobody needs it")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    os.close(descriptor)
    try:
        yield temporary
        await asyncio.to_thread(publish.sync_path, temporary)
        _give_name(temporary, path)
        await asyncio.to_thread(publish.sync_path, path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _give_name(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike rename, this never replaces what somebody else made meanwhile
    except FileExistsError:
        raise ImageError(f"{path} was made by somebody else in the same moment: nothing was changed") from None
    except PermissionError:  # a filesystem without hard links
        temporary.rename(path)


async def _qemu_img(*arguments: str, deadline: float = _QUICK) -> None:
    # 4 GiB of address space is plenty for qemu-img and too little for a header that asks for more.
    await run(
        ["qemu-img", *arguments], deadline=deadline, memory=4096 * MIB, cpu_seconds=int(deadline), what="qemu-img"
    )
