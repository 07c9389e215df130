"""The live changes that can be asked about."""

from typing import Any, Literal

from msgspec import Struct

from hotvirt.api import quantity


class MemoryChange(Struct, frozen=True):
    """The guest's memory becomes this many bytes."""

    guest: int


class CpuChange(Struct, frozen=True):
    """The guest has this many sockets."""

    sockets: int


class MemoryLimit(Struct, frozen=True):
    """The most that the guest's memory can become without a restart is declared to be this many bytes."""

    most: int


class CpuLimit(Struct, frozen=True):
    """The most sockets that the guest can have without a restart are declared to be so many."""

    sockets: int


class VolumeAdd(Struct, frozen=True):
    """A volume and its disk, as they stand in the VM's template, appear."""

    volume: dict[str, Any]
    disk: dict[str, Any]


class VolumeRemove(Struct, frozen=True):
    """The named volume goes."""

    name: str


class NicAdd(Struct, frozen=True):
    """An interface and its network, as they stand in the VM's template, appear."""

    interface: dict[str, Any]
    network: dict[str, Any]


class NicRemove(Struct, frozen=True):
    """The named interface goes."""

    name: str


class NicLink(Struct, frozen=True):
    """The named interface's cable is plugged in or out."""

    name: str
    state: Literal["up", "down"]


Change = MemoryChange | CpuChange | MemoryLimit | CpuLimit | VolumeAdd | VolumeRemove | NicAdd | NicRemove | NicLink


def label(change: Change) -> str:
    """The change as a person would ask for it (and `asked.read` understands it): `memory=4Gi`, `disk=data`."""
    match change:
        case MemoryChange():
            return f"memory={quantity.format_bytes(change.guest)}"
        case CpuChange():
            return f"sockets={change.sockets}"
        case MemoryLimit():
            return f"max-memory={quantity.format_bytes(change.most)}"
        case CpuLimit():
            return f"max-sockets={change.sockets}"
        case VolumeAdd():
            return f"disk={change.volume.get('name')}"
        case VolumeRemove():
            return f"no-disk={change.name}"
        case NicAdd():
            return f"nic={change.interface.get('name')}"
        case NicRemove():
            return f"no-nic={change.name}"
        case NicLink():
            return f"nic={change.name},link={change.state}"
