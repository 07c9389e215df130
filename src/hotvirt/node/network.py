"""What connects a guest: the contract between the node agent and the two kinds of network a home can have.

`bridge` (root): a bridge and a tap for each pod; the guest has its pod's address, reachable from the host and from
other guests. `user` (no root): QEMU's own NAT, with the interface's ports forwarded from a loopback address of the
pod's own. Addresses are kept nowhere but in the pods' `status.podIP`.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from hotvirt.api import attachments, defaults
from hotvirt.api.attachments import Bridge
from hotvirt.node.world import World
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import Forward, Nic, UserNet

Document = dict[str, Any]
LOOPBACKS = IPv4Network("127.64.0.0/10")
PREFIX = 20
LOWEST_PORT = 1024
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Network(Protocol):
    """`kind` for people; `notice` says what is missing compared with the better kind, "" for nothing."""

    kind: str
    notice: str
    isolation: tuple[str, ...]
    """Namespaces QEMU leaves behind at its start, as `hotvirt.qemu.receiver` names them."""

    async def start(self) -> None:
        """Make what all pods share. Raises NetworkError."""
        ...

    async def run(self) -> None:
        """Looks after what all pods share, once started and until cancelled. May return when there is nothing."""
        ...

    async def publish(self, world: World) -> None:
        """Services, policies and names are as `world` says, as far as this kind of network can."""
        ...

    def address(self, taken: Iterable[str]) -> str:
        """A free address for a new pod."""
        ...

    async def nics(
        self, vmi: Document, *, address: str, uid: str, descriptors: Descriptors, joined: Mapping[str, Bridge] = EMPTY
    ) -> tuple[Nic, ...]:
        """The guest's cards, ready to be given to QEMU, in their order: those on the pod network, and of the others
        those that can join a bridge now."""
        ...

    async def second(self, interface: Document, *, bridge: Bridge, place: int, uid: str) -> tuple[Nic, int]:
        """A card on another bridge of this node, and its tap's descriptor, which is the caller's to close."""
        ...

    async def bridges(self) -> dict[str, bool]:
        """This node's bridges that such cards can join -> whether they keep VLANs apart."""
        ...

    def devices(self, vmi: Document, *, uid: str) -> dict[str, str]:
        """Interface's name -> the host's network device whose counters are the guest's, for those that have one."""
        ...

    async def release(self, uid: str) -> None:
        """Remove what a pod's guest had."""
        ...

    async def stop(self, *, remove: bool = False) -> None:
        """Guests go on; `remove` takes away what all of them shared."""
        ...


class NetworkError(Exception):
    """The text says what is missing and what mends it."""


def free_address(network: IPv4Network, taken: Iterable[str], *, first: int = 2) -> str:
    """The lowest address of the network that nobody has. Pure."""
    used = set(taken)
    for number in range(int(network.network_address) + first, int(network.broadcast_address)):
        text = str(IPv4Address(number))
        if text not in used:
            return text
    raise NetworkError(f"all addresses of {network} are in use: remove guests, or choose a larger network")


def part_of(network: IPv4Network, place: Path) -> IPv4Network:
    """One of the parts of a network, always the same for a place. Pure."""
    number = int.from_bytes(hashlib.sha256(os.fsencode(place)).digest()[:8], "big")
    parts = 1 << (PREFIX - network.prefixlen)
    size = 1 << (network.max_prefixlen - PREFIX)
    return IPv4Network((int(network.network_address) + number % parts * size, PREFIX))


def interfaces(vmi: Document) -> list[Document]:
    """All of the guest, in their order: a card's place names its device on the host, and stays while the guest runs."""
    return list(((vmi["spec"].get("domain") or {}).get("devices") or {}).get("interfaces") or ())


def attachment_names(vmi: Document) -> dict[str, str]:
    """Network -> its NetworkAttachmentDefinition as it says it, of those beside the pod network."""
    return dict(attachments.named(vmi["spec"]))


def of_the_pod(vmi: Document) -> list[tuple[int, Document]]:
    """Cards on the pod network, with their places: those that have the pod's address."""
    seconds = attachment_names(vmi)
    return [(place, each) for place, each in enumerate(interfaces(vmi)) if each["name"] not in seconds]


MOST_QUEUES = 16


def queues(vmi: Document, interface: Document) -> int:
    """How many the card has: one a vCPU that the guest starts with, where the spec asks for it and the card can."""
    domain = vmi["spec"].get("domain") or {}
    asked = (domain.get("devices") or {}).get("networkInterfaceMultiqueue")
    if not asked or (interface.get("model") or "virtio") != "virtio":
        return 1
    cpu = domain.get("cpu") or {}
    return min(MOST_QUEUES, prod(int(cpu.get(field) or 1) for field in ("sockets", "cores", "threads")))


class UserNetwork:
    """Needs no right and nothing installed."""

    kind = "user"
    isolation: tuple[str, ...] = ()

    def __init__(self, notice: str = "", *, place: Path | None = None) -> None:
        """`place` is where the home lies: homes of one machine share its loopback, so each takes a part of its own."""
        self.notice = notice
        self._part = part_of(LOOPBACKS, place) if place else LOOPBACKS

    async def start(self) -> None:
        return

    async def run(self) -> None:
        return

    async def publish(self, world: World) -> None:  # noqa: ARG002  what is missing is said by `dataplane`
        return

    def address(self, taken: Iterable[str]) -> str:
        return free_address(self._part, taken)

    async def nics(
        self,
        vmi: Document,
        *,
        address: str,
        uid: str,  # noqa: ARG002
        descriptors: Descriptors,  # noqa: ARG002
        joined: Mapping[str, Bridge] = EMPTY,  # noqa: ARG002
    ) -> tuple[Nic, ...]:
        return tuple(
            Nic(
                name=each["name"],
                mac=each["macAddress"],
                model=each.get("model") or "virtio",
                backend=UserNet(forwards=forwards(each, address), hostname=defaults.hostname(vmi)),
                boot_index=each.get("bootOrder"),
                acpi_index=each.get("acpiIndex") or 0,
            )
            for _, each in of_the_pod(vmi)
        )

    async def second(
        self,
        interface: Document,
        *,
        bridge: Bridge,
        place: int,  # noqa: ARG002
        uid: str,  # noqa: ARG002
    ) -> tuple[Nic, int]:
        raise NetworkError(
            f"interface {interface['name']} cannot join bridge {bridge.name}: networks beside the pod network need a "
            f"home that runs as root"
        )

    async def bridges(self) -> dict[str, bool]:
        return {}

    def devices(self, vmi: Document, *, uid: str) -> dict[str, str]:  # noqa: ARG002
        return {}  # QEMU's own NAT counts nothing

    async def release(self, uid: str) -> None:  # noqa: ARG002
        return

    async def stop(self, *, remove: bool = False) -> None:  # noqa: ARG002
        return


def forwards(interface: Document, address: str) -> tuple[Forward, ...]:
    """Each named port on the pod's loopback address. An ordinary user cannot listen below 1024, so port 22 is found at
    10022 there."""
    found = []
    for port in interface.get("ports") or ():
        number = int(port["port"])
        host_port = number if number >= LOWEST_PORT else 10000 + number
        protocol = "udp" if str(port.get("protocol") or "TCP").upper() == "UDP" else "tcp"
        found.append(Forward(host_port, number, address, protocol))  # type: ignore[arg-type]
    return tuple(found)
