"""Where snapshots of claims are kept: a directory for all of one instant, which appears when it is whole.

    snapshots/default.GROUP/         disks as files, and `about.json` that says what they are
    snapshots/default.GROUP/machine  what its machine keeps beside its disks, and maybe its guest's memory
    snapshots/.part-default.GROUP/   one that is being made; nobody takes disks from it

It comes about by one rename, so disks of one instant are there together or not at all. A group is a
VirtualMachineSnapshotContent's, or a single VolumeSnapshot's. The directory is beside the claims' files, so that a file
system with reflinks shares the blocks. Of one group one task writes at a time.
"""

import os
import re
import shutil
from pathlib import Path

import msgspec
from msgspec import Struct

from hotvirt.images import publish
from hotvirt.kube.informer import Key
from hotvirt.node import machinestate
from hotvirt.node.places import Places

ABOUT = "about.json"
PART = ".part-"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class DiskAbout(Struct, frozen=True):
    """One disk of a group. `size` is what a guest sees of it."""

    uid: str
    claim: str
    file: str
    format: str
    size: int


class About(Struct, frozen=True, kw_only=True):
    """`disks`: by VolumeSnapshot. `created`: "" until the instant is over. `vmi`: of the guest that has some of the
    disks open, namely those in `online`; "" for none. `indications`: how it was taken, none without a guest; `stopped`:
    whether the guest was stopped for the instant, until that is over."""

    disks: dict[str, DiskAbout]
    created: str = ""
    vmi: str = ""
    online: tuple[str, ...] = ()
    indications: tuple[str, ...] = ()
    stopped: bool = False


class Group:
    """One group's place on disk."""

    def __init__(self, places: Places, key: Key) -> None:
        self.key = key
        self.root = root(places)
        self.name = f"{key.namespace}.{key.name}"
        self.whole, self.part = self.root / self.name, self.root / f"{PART}{self.name}"

    @property
    def machine(self) -> Path:
        """Of the one that is being made."""
        return self.part / "machine"

    def about(self) -> About | None:
        """Of the whole one."""
        return _read(self.whole)

    def plan(self) -> About | None:
        """Of the one that is being made."""
        return _read(self.part)

    def begin(self, about: About) -> None:
        """Anew: what an earlier attempt left is removed."""
        self.discard()
        self.part.mkdir(mode=0o700, parents=True)
        self.note(about)

    def note(self, about: About) -> None:
        temporary = self.part / f".{ABOUT}"
        temporary.write_bytes(msgspec.json.encode(about))
        publish.sync_path(temporary)
        temporary.rename(self.part / ABOUT)

    def has_all(self, plan: About) -> bool:
        """Whether all that no QEMU copies is there. What is there is whole."""
        return all((self.part / d.file).exists() for name, d in plan.disks.items() if name not in plan.online)

    def show(self) -> None:
        """All of it is on disk, and is there under its name from now on."""
        machinestate.sync(self.part)
        self.part.rename(self.whole)
        publish.sync_path(self.root)

    def discard(self) -> None:
        shutil.rmtree(self.part, ignore_errors=True)

    def remove(self, snapshot: str) -> None:
        """One disk of the whole one; with the last of them the directory."""
        about = self.about()
        if about is None:
            return
        if (disk := about.disks.get(snapshot)) is not None:
            (self.whole / disk.file).unlink(missing_ok=True)
        if not any((self.whole / each.file).exists() for each in about.disks.values()):
            shutil.rmtree(self.whole, ignore_errors=True)

    def image(self, snapshot: str) -> tuple[Path, DiskAbout] | None:
        """A disk of the whole one."""
        about = self.about()
        disk = about.disks.get(snapshot) if about else None
        if disk is None or not (path := self.whole / disk.file).exists():
            return None
        return path, disk


def root(places: Places) -> Path:
    return places.volumes.parent / "snapshots"


def found(places: Places) -> list[Key]:
    """Of all groups on disk, whole or not."""
    try:
        names = {path.name.removeprefix(PART) for path in root(places).iterdir()}
    except FileNotFoundError:
        return []
    parts = [name.partition(".") for name in names]
    return [Key(namespace, group) for namespace, dot, group in parts if namespace and dot and group]


def handle(key: Key, snapshot: str) -> str:
    """As a VolumeSnapshotContent names a disk."""
    return f"{key.namespace}.{key.name}/{snapshot}"


def by_handle(places: Places, text: str) -> tuple[Group, str] | None:
    """None for what is no handle of ours: contents are written by people too."""
    directory, _, snapshot = text.partition("/")
    namespace, _, group = directory.partition(".")
    if not all(_NAME.fullmatch(part) for part in (namespace, group, snapshot)):
        return None
    return Group(places, Key(namespace, group)), snapshot


def is_name(text: str) -> bool:
    """Whether it can be a group's: it becomes part of a file's name."""
    return bool(_NAME.fullmatch(text)) and len(text) <= 120


def allocated(path: Path) -> int:
    """Bytes that it takes on disk."""
    return os.stat(path).st_blocks * 512


def _read(directory: Path) -> About | None:
    try:
        return msgspec.json.decode((directory / ABOUT).read_bytes(), type=About)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
