"""The live changes that can be asked about."""

from typing import Any

from msgspec import Struct

from hotvirt.api import quantity


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


def label(change: Change) -> str:
    """The change as a person would ask for it: `memory=4Gi`, `sockets=4`, `disk=data`, `no disk=data`."""
    match change:
        case MemoryChange():
            return f"memory={quantity.format_bytes(change.guest)}"
        case CpuChange():
            return f"sockets={change.sockets}"
        case VolumeAdd():
            return f"disk={change.volume.get('name')}"
        case VolumeRemove():
            return f"no disk={change.name}"
