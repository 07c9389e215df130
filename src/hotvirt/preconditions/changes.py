"""The live changes that can be asked about."""

from typing import Any

from msgspec import Struct


class MemoryChange(Struct, frozen=True):
    """The guest's memory becomes this many bytes."""

    guest: int


class CpuChange(Struct, frozen=True):
    """The guest has this many sockets."""

    sockets: int


class VolumeAdd(Struct, frozen=True):
    """A volume and its disk, as they stand in the VM's template, appear."""

    volume: dict[str, Any]
    disk: dict[str, Any]


class VolumeRemove(Struct, frozen=True):
    """The named volume goes."""

    name: str


Change = MemoryChange | CpuChange | VolumeAdd | VolumeRemove
