"""Disks that many disks begin as: stored once, never written again, below qcow2 overlays.

Where the file system has no reflinks, a copy of a disk is an overlay on what the disk was: the disk's file moves into
`<volumes>/.bases/`, and both the original and the copy go on as overlays of it. That takes the time of two headers. A
disk that nobody wrote to since keeps its base, so a hundred copies of a golden image share one.

`freeze` is all or nothing: a note of what it does is there before the first rename, and `mend` finishes or undoes what
a kill interrupted. The disk must not be open meanwhile, which `is_free` is asked for in the same step as the renames;
nothing else runs between the two. A base goes (`collect`) when no disk's header names it.
"""

import json
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from hotvirt.images import copying, disks, inspect, publish
from hotvirt.images.errors import CorruptImage, ImageError, UnsafeImage
from hotvirt.images.tools import run

FOLDER = ".bases"
DEEPEST = 8
"""Overlays on each other; beyond that a copy is made, as each costs every read a look."""
NOTE, PRISTINE = ".freeze.json", ".base.json"
_NEW = ".frozen.qcow2"
_FILES = ("disk.img", "disk.qcow2")
_BASES = ("disk.raw", "disk.qcow2")
_QCOW2 = b"QFI\xfb"


class Base(Struct, frozen=True):
    """`format` is raw or qcow2."""

    path: Path
    format: str


class Busy(ImageError):
    """The disk is in use: it can be copied when its guest has stopped."""


def folder(volumes: Path) -> Path:
    return volumes / FOLDER


def chain(file: Path, volumes: Path) -> list[Base]:
    """The bases below a disk, nearest first. UnsafeImage when a header names anything that is no base of ours."""
    found: list[Base] = []
    while (below := backing(file)) is not None:
        path = Path(below)
        if path.parent.parent != folder(volumes) or path.name not in _BASES:
            raise UnsafeImage(f"{file} names {below} as its backing file, which is no base of this machine's disks")
        if not path.exists():
            raise CorruptImage(f"{file} is based on {below}, and that is gone: restore it from a backup")
        if len(found) > 4 * DEEPEST:
            raise UnsafeImage(f"{file} is based on itself")
        found.append(Base(path, path.suffix[1:]))
        file = path
    return found


async def looked_into(file: Path, volumes: Path) -> tuple[Base, ...]:
    """The bases below a qcow2 disk, whose header a guest may have written that has its directory as a file system. One
    that names anything but bases is the guard's to refuse. Before qemu-img or QEMU opens it."""
    if backing(file) is None or _has_data_file(file):
        await inspect.inspect(file, "qcow2")
    return tuple(chain(file, volumes))


def backing(file: Path) -> str | None:
    """What a qcow2 header names as the file below it."""
    with file.open("rb") as opened:
        head = opened.read(32)
        if len(head) < 32 or not head.startswith(_QCOW2):
            return None
        offset, length = struct.unpack_from(">QI", head, 8)
        if not offset or not 0 < length < 1024:
            return None
        opened.seek(offset)
        return os.fsdecode(opened.read(length))


def _has_data_file(file: Path) -> bool:
    """Whether a qcow2 header says that its data is in another file, which it names: bit 2 of version 3's features."""
    with file.open("rb") as opened:
        head = opened.read(80)
    return len(head) == 80 and head[4:8] != b"\0\0\0\2" and bool(head[79] & 4)


def disk_in(directory: Path) -> Path | None:
    return next((directory / name for name in _FILES if (directory / name).exists()), None)


def is_pristine(directory: Path) -> Base | None:
    """The base of a disk that was not written to since it is an overlay of it."""
    try:
        said = json.loads((directory / PRISTINE).read_bytes())
        facts = (directory / "disk.qcow2").stat()
    except (OSError, ValueError):
        return None
    if (said["inode"], said["time"], said["size"]) != (facts.st_ino, facts.st_mtime_ns, facts.st_size):
        return None
    path = Path(said["base"])
    return Base(path, path.suffix[1:]) if path.exists() else None


async def freeze(directory: Path, volumes: Path, *, size: int, is_free: Callable[[], bool]) -> Base:
    """The base that holds what the disk in `directory` has now. `size`: of that disk."""
    mend(directory)
    while True:
        if (base := is_pristine(directory)) is not None:
            if not is_free():
                raise Busy("the disk is in use")
            return base
        disk = disk_in(directory)
        if disk is None:
            raise ImageError(f"there is no disk in {directory}")
        before = disk.stat()
        kind = "qcow2" if disk.suffix == ".qcow2" else "raw"
        path = folder(volumes) / secrets.token_hex(8) / f"disk.{kind}"
        path.parent.mkdir(mode=0o711, parents=True)
        # A name of its own, as several copies of one disk may begin at once.
        made = directory / f"{copying.TEMPORARY}{path.parent.name}{_NEW}"
        try:
            await _overlay(made, Base(path, kind), size)
            # From here to the end nothing is awaited: nobody opens the disk in between.
            if not is_free():
                raise Busy("the disk is in use")
            if disk_in(directory) == disk and disk.stat().st_ino == before.st_ino:
                made.rename(directory / _NEW)
                _write(directory / NOTE, {"base": str(path), "disk": disk.name})
                publish.sync_path(disk)
                disk.rename(path)
                _finish(directory, path)
                return Base(path, kind)
        finally:
            if not path.exists():
                made.unlink(missing_ok=True)
                path.parent.rmdir()
        # Another copy was quicker, and left a base.


def mend(directory: Path) -> None:
    """Finish or undo a `freeze` that was interrupted. A note that is none of ours is left as it is: a guest may have
    written it, that has the directory as a file system, and what it names is renamed, removed and made readable."""
    note = directory / NOTE
    if (path := _noted(note)) is None:
        return
    if path.exists():
        _finish(directory, path)
    else:
        (directory / _NEW).unlink(missing_ok=True)
        note.unlink()
        if path.parent.is_dir():
            path.parent.rmdir()


def _noted(note: Path) -> Path | None:
    """The base that a `freeze` in the note's directory was about."""
    try:
        if not stat.S_ISREG(note.lstat().st_mode):  # who opens a pipe waits for ever
            return None
        path = Path(json.loads(note.read_bytes())["base"])
        is_beside = path.parent.parent.resolve() == folder(note.parent.parent).resolve()
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return path if is_beside and path.parent.name != ".." and path.name in _BASES else None


async def overlay(target: Path, base: Base, size: int) -> None:
    """A disk of `size` bytes that begins as the base. It is there whole or not at all."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        await _overlay(temporary, base, size)
        temporary.rename(target)
        _remember(target.parent, base.path)
        publish.sync_path(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def collect(volumes: Path) -> list[Path]:
    """Remove the bases that no disk names. Returns them."""
    used = {path for disk in _disks(volumes) if (path := backing(disk))}
    used |= {str(base) for note in volumes.glob(f"*/{NOTE}") if (base := _noted(note))}
    removed = []
    while True:
        gone = [each for each in folder(volumes).glob("*/disk.*") if str(each) not in used]
        for each in gone:
            each.unlink()
            each.parent.rmdir()
        removed += gone
        if not gone:
            return removed
        used = {path for disk in _disks(volumes) if (path := backing(disk))}


def _disks(volumes: Path) -> Iterator[Path]:
    """Every qcow2 file there, bases and disks on their way too."""
    for depth in ("*", "*/*", "*/*/*"):
        yield from (path for path in volumes.glob(f"{depth}/*.qcow2*") if path.is_file())
        yield from (path for path in volumes.glob(f"{depth}/.*.qcow2*") if path.is_file())


async def _overlay(path: Path, base: Base, size: int) -> None:
    # -u: the base may have its name a moment later only; its format is said, so nothing is guessed.
    argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", base.format, "-b", str(base.path), str(path)]
    await run([*argv, str(-(-size // 512) * 512)], deadline=30, what="qemu-img")
    path.chmod(0o600)
    publish.sync_path(path)


def _finish(directory: Path, base: Path) -> None:
    new = directory / _NEW
    if new.exists():
        new.rename(directory / "disk.qcow2")
    base.chmod(0o444)
    _remember(directory, base)
    for each in (base.parent, base.parent.parent, directory):
        publish.sync_path(each)
    (directory / NOTE).unlink()


def _remember(directory: Path, base: Path) -> None:
    facts = (directory / "disk.qcow2").stat()
    said = {"base": str(base), "inode": facts.st_ino, "time": facts.st_mtime_ns, "size": facts.st_size}
    _write(directory / PRISTINE, said)


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(content))
    publish.sync_path(temporary)
    temporary.rename(path)
    publish.sync_path(path.parent)


def virtual_size(file: Path) -> int:
    """Of a raw or qcow2 file."""
    with file.open("rb") as opened:
        head = opened.read(32)
    return int.from_bytes(head[24:32], "big") if file.suffix == ".qcow2" else file.stat().st_size


def can_share(directory: Path) -> bool:
    """Whether the file system has reflinks."""
    paths = [directory / f".{secrets.token_hex(6)}" for _ in range(2)]
    try:
        with paths[0].open("x+b", buffering=0) as source, paths[1].open("xb") as target:
            source.write(bytes(4096))
            return copying.shares(source.fileno(), target.fileno())
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


async def flatten(source: Path, target: Path, *, kind: str) -> None:
    """A disk of its own, with what it and its bases hold."""
    await disks.convert(
        source, target, source_format="qcow2" if source.suffix == ".qcow2" else "raw", target_format=kind
    )
