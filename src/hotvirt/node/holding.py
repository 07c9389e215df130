"""Guests are held before their host's disk is full: what else writes there, the home's own database first, needs room.

A guest holds up to its disk's size, and a thin disk takes that of the host as it is written. When a file system has
less room than its `reserve`, guests whose thin disks on it have grown since the last look are paused, and go on when
there is twice that. Which are held is noted in their pods' directories, so the next home lets them go on. A guest that
is faster than this finds no room by itself, which QEMU pauses it for; see `room`.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from hotvirt.api import disks
from hotvirt.api.quantity import format_bytes
from hotvirt.kube.client import Document
from hotvirt.kube.informer import Informer
from hotvirt.node.places import PodPlace
from hotvirt.node.volumes import CLAIM_FILES, path_of

MIB = 1 << 20
LEAST, MOST = 16 * MIB, 128 * MIB
"""Of a reserve. A file system whose twentieth is less than the first has none: it is made to be filled."""
NOTE = "held"
SOON, SELDOM = 0.5, 5.0
SPEED = 512 * MIB
"""Bytes a second that guests are thought to write at most, for how soon to look again."""


class Space(Struct, frozen=True):
    """Of one file system: `where` is a directory in it that people know."""

    where: Path
    size: int
    free: int

    @property
    def reserve(self) -> int:
        wanted = min(MOST, self.size // 20)
        return wanted if wanted >= LEAST else 0

    @property
    def is_short(self) -> bool:
        return self.free < self.reserve

    @property
    def has_room(self) -> bool:
        return self.free >= 2 * self.reserve


def look_again(spaces: Iterable[Space]) -> float:
    """Seconds until the next look. Pure."""
    left = [(each.free - each.reserve) / SPEED for each in spaces if each.reserve]
    return max(SOON, min([SELDOM, *left]))


def grown(before: Mapping[Path, int], now: Mapping[Path, int]) -> list[Path]:
    """Disks that took room since the last look, one that is new included. Pure."""
    return [path for path, size in now.items() if size > before.get(path, 0)]


def words(space: Space) -> str:
    left, size = (format_bytes(max(0, each) >> 20 << 20) for each in (space.free, space.size))
    return (
        f"the disk that {space.where} is on has {left} left of {size}: the guest is held before what it writes finds "
        "no room. Make room there, and it goes on by itself"
    )


def held(place: PodPlace) -> str:
    """Why the guest is held; "" when it is not."""
    try:
        return (place.directory / NOTE).read_text()
    except FileNotFoundError:
        return ""


def hold(place: PodPlace, why: str) -> None:
    (place.directory / NOTE).write_text(why)


def release(place: PodPlace) -> None:
    (place.directory / NOTE).unlink(missing_ok=True)


def space(path: Path, usage: Callable[[Path], tuple[int, int]]) -> Space:
    size, free = usage(path)
    return Space(path, size, free)


def usage_of(path: Path) -> tuple[int, int]:
    """Size and free bytes of the file system."""
    found = shutil.disk_usage(path)
    return found.total, found.free


def thin_disks(vmi: Document, place: PodPlace, claims: Informer, volumes: Informer) -> dict[Path, int]:
    """What a guest can take room with, and how much each has taken: claims' files, and what goes with its pod."""
    found = [*place.directory.glob("disk-*")]
    for name in map(disks.claim, vmi["spec"].get("volumes") or ()):
        claim = claims.get(name, vmi["metadata"]["namespace"]) if name else None
        directory = path_of(volumes.get(str((claim or {"spec": {}})["spec"].get("volumeName") or "")))
        found += [directory / file for file, _ in CLAIM_FILES] if directory else []
    taken = {}
    for path in found:
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if not path.is_symlink() and path.is_file():
            taken[path] = status.st_blocks * 512
    return taken
