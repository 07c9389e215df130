"""A file from outside becomes a guest's disk: unpacked, looked into, converted, grown, and shown when it is whole.

Nothing that was fetched is opened by QEMU's tools before `inspect` has judged it, and what opens it then runs under
limits, as a user of its own where root allows. `take` may be called again after a kill at any moment: it begins with
the file as it came, or finds the disk there. It uses up the file.
"""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from hotvirt.images import disks, publish, unwrap
from hotvirt.images.errors import CorruptImage, ImageError, TooLarge, ToolFailed, UnsafeImage
from hotvirt.images.inspect import DiskInfo, inspect
from hotvirt.images.tools import MIB, run

Told = Callable[[float], None]
_HOURS = 6 * 3600.0
_LOOK = 0.5
_TABLES = 1 << 20
"""Bytes that a format's own tables may take, for each GiB of disk and once more."""


async def take(
    file: Path, target: Path, *, kind: str, size: int, user: int | None = None, tell: Told | None = None
) -> None:
    """`target` is a disk of `size` bytes with what the image has; it holds all or nothing."""
    if target.exists():
        return
    if packing := unwrap.packing(_head(file)):
        file = await _unwrapped(file, packing, size=size)
    info = await _looked_into(file)
    if info.virtual_size > size:
        raise TooLarge(
            f"Virtual image size {info.virtual_size} is larger than the reported available storage {size}. "
            "A larger PVC is required."
        )
    made = file
    if (info.format, kind) != ("raw", "raw"):
        made = await _converted(file, info, kind=kind, size=size, user=user, tell=tell)
    await show(made, target, kind=kind, size=size)


async def show(made: Path, target: Path, *, kind: str, size: int) -> None:
    """Give a finished disk its size and then its name."""
    if kind != "raw" or made.stat().st_size < size:
        await disks.grow(made, size, kind)
    made.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(made, 0, 0)
    await asyncio.to_thread(publish.sync_path, made)
    made.rename(target)
    await asyncio.to_thread(publish.sync_path, target.parent)


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(8)


async def _looked_into(file: Path) -> DiskInfo:
    """In words that don't name a path which means nothing to who reads them."""
    try:
        return await inspect(file)
    except ImageError as error:
        raise type(error)(str(error).replace(str(file), "the image")) from error


async def _unwrapped(file: Path, packing: str, *, size: int) -> Path:
    out = file.with_name("unpacked")
    out.unlink(missing_ok=True)
    limit = size + (size >> 10) + 64 * MIB
    source = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    target = os.open(out, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    argv = [sys.executable, "-P", "-m", "hotvirt.images.unwrap", str(limit)]
    try:
        said = await run(
            argv, deadline=_HOURS, stdin=source, stdout=target, memory=2048 * MIB, file_size=limit,
            what=f"unpacking the {packing} file",
        )  # fmt: skip
    except ToolFailed as error:
        raise CorruptImage(f"the image is damaged: {error}") from error
    finally:
        os.close(source)
        os.close(target)
    found = json.loads(said.strip().splitlines()[-1])
    if why := found.get("error"):
        out.unlink(missing_ok=True)
        raise (UnsafeImage if "more than" in why else CorruptImage)(f"the image ({packing}) is refused: {why}")
    if out.stat().st_size == 0:
        raise CorruptImage(f"the image ({packing}) unpacks to nothing")
    return out


async def _converted(file: Path, info: DiskInfo, *, kind: str, size: int, user: int | None, tell: Told | None) -> Path:
    out = file.with_name(f"converted.{kind}")
    out.unlink(missing_ok=True)
    wanted = -(-info.virtual_size // 512) * 512
    await disks.create(out, wanted, kind)
    limit = size + (size >> 30) * _TABLES + 8 * _TABLES
    with _lent(user, file, out), file.open("rb") as source, out.open("r+b") as target:
        # By descriptor: whoever it runs as need not reach the directory. The output is there, and known to be blank.
        argv = ["qemu-img", "convert", "-q", "-n", "--target-is-zero", "-f", info.format, "-O", kind, "-S", "64k"]
        argv += ["-t", disks.cache_mode(out), "-W", "-m", "8", "/dev/fd/0", "/dev/fd/1"]
        async with _watched(out, file, tell):
            try:
                await run(
                    argv, deadline=_HOURS, stdin=source.fileno(), stdout=target.fileno(), user=user,
                    memory=4096 * MIB, file_size=limit, what="qemu-img",
                )  # fmt: skip
            except ToolFailed as error:
                out.unlink(missing_ok=True)
                if "No space left" in str(error):
                    raise ImageError(f"no room is left in {out.parent}: make room there, or ask for less") from error
                raise CorruptImage(f"the image cannot be read: {error}".replace("/dev/fd/0", "it")) from error
    if kind == "raw":
        os.truncate(out, wanted)  # written past the cache, it may have been rounded up
    return out


@contextlib.contextmanager
def _lent(user: int | None, *files: Path) -> Iterator[None]:
    """The files belong to the user that works on them meanwhile."""
    if user is None:
        yield
        return
    for each in files:
        os.chown(each, user, user)
    try:
        yield
    finally:
        for each in files:
            with contextlib.suppress(FileNotFoundError):
                os.chown(each, 0, 0)


@contextlib.asynccontextmanager
async def _watched(out: Path, source: Path, tell: Told | None) -> AsyncIterator[None]:
    """Progress by what is written so far, of what there is to read."""
    if tell is None:
        yield
        return
    total = max(1, source.stat().st_blocks)

    async def watch() -> None:
        while True:
            await asyncio.sleep(_LOOK)
            tell(min(1.0, out.stat().st_blocks / total))

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await task


def clear(work: Path) -> None:
    """What was needed on the way."""
    shutil.rmtree(work, ignore_errors=True)
