"""What one running QEMU has at this moment, read over QMP: the *observed* side of every reconcile.

Enough to adopt a guest that an earlier home started, knowing nothing but its socket. Nothing here changes anything. The
questions are cheap (a fraction of a millisecond each), but where many guests share few CPUs each answer waits its turn,
up to 0.3 s: so they are all asked at once, and QEMU answers them in one go.
"""

import asyncio
from typing import Any, Literal

from msgspec import Struct, structs

from hotvirt.qemu import ids
from hotvirt.qemu.errors import QmpError
from hotvirt.qemu.ports import PLAIN_SLOTS
from hotvirt.qemu.qmp import Monitor

RunState = Literal[
    "running", "paused", "shutdown", "guest-panicked", "internal-error", "io-error", "inmigrate", "postmigrate",
    "finish-migrate", "prelaunch", "suspended", "watchdog", "debug", "save-vm", "restore-vm", "preconfig", "colo",
]  # fmt: skip
"""QEMU's words. `shutdown`: the guest powered off (it stays, paused, until someone ends it); `internal-error`: KVM
could not go on."""


class VirtioMem(Struct, frozen=True, kw_only=True):
    """`size` is what the guest has taken of `requested`; `capacity` is the most it could be asked to."""

    size: int
    requested: int
    capacity: int
    step: int
    address: int


class Dimm(Struct, frozen=True):
    id: str
    size: int
    address: int


class MemoryState(Struct, frozen=True, kw_only=True):
    boot: int
    device: VirtioMem | None = None
    dimms: tuple[Dimm, ...] = ()
    """Plugged ones, by address."""
    slots: int = 0
    """DIMMs that this QEMU can hold, plugged ones counted."""
    dimm_room: int = 0
    """Bytes that all of its DIMMs can have together."""
    ballooned: int = 0
    """Bytes the balloon holds back from the guest."""

    @property
    def fixed(self) -> int:
        """What is not virtio-mem's: of this the balloon takes."""
        return self.boot + sum(dimm.size for dimm in self.dimms)

    @property
    def plugged(self) -> int:
        """What the guest's virtio-mem driver has taken."""
        return self.device.size if self.device else 0

    @property
    def most(self) -> int:
        """Up to where QEMU has room, by whichever way."""
        return self.boot + max(self.device.capacity if self.device else 0, self.dimm_room if self.slots else 0)

    @property
    def current(self) -> int:
        """What the guest can use by QEMU's account."""
        return self.fixed + self.plugged - self.ballooned


class VcpuSlot(Struct, frozen=True):
    """A place for a vCPU. `path` is the QOM path of the one plugged, "" for none."""

    socket: int
    core: int
    thread: int
    driver: str
    path: str = ""


class DiskState(Struct, frozen=True, kw_only=True):
    """`device` False: its image is open but no device shows it (half attached, or half detached)."""

    name: str
    device: bool
    driver: str = ""
    nodes: tuple[str, ...] = ()
    """Open block nodes, the guest's first; with their file nodes not counted."""
    size: int = 0
    read_only: bool = False
    filename: str = ""
    is_empty: bool = False
    """A drive without a medium, whatever image is open for it."""
    trouble: str = ""
    """`nospace` or `failed`, in QEMU's words: why its last write or read stopped the guest."""


class Observed(Struct, frozen=True, kw_only=True):
    status: RunState
    running: bool
    version: tuple[int, int, int]
    memory: MemoryState
    vcpus: tuple[VcpuSlot, ...] = ()
    disks: tuple[DiskState, ...] = ()
    nics: tuple[str, ...] = ()
    free_ports: tuple[str, ...] = ()
    fdsets: dict[int, str] = {}
    """Descriptors QEMU was handed: set number -> the disk it is for."""
    is_noted: bool = False
    """Jobs changed parts of it at their end, and the rest may be older."""
    agent_open: bool = False
    """Whether a program in the guest has the agent's port open now."""

    @property
    def plugged_vcpus(self) -> int:
        return sum(bool(slot.path) for slot in self.vcpus)

    def disk(self, name: str) -> DiskState | None:
        return next((disk for disk in self.disks if disk.name == name), None)


async def observe(monitor: Monitor) -> Observed:
    """Everything at once."""
    seen, ports, agent_open = await asyncio.gather(look(monitor), read_free_ports(monitor), read_agent_open(monitor))
    return structs.replace(seen, free_ports=ports, agent_open=agent_open)


async def look(monitor: Monitor) -> Observed:
    """What may have changed, or is to be: all but where there is room for more, and the agent's port."""
    status, memory, vcpus, devices, nodes, blocks, fdsets = await asyncio.gather(
        monitor.execute("query-status"),
        read_memory(monitor),
        read_vcpus(monitor),
        read_devices(monitor),
        _read_nodes(monitor),
        monitor.execute("query-block"),
        read_fdsets(monitor),
    )
    return Observed(
        status=status["status"],
        running=bool(status["running"]),
        version=monitor.version,
        memory=memory,
        vcpus=vcpus,
        disks=with_media(parse_disks(devices, nodes), blocks),
        nics=tuple(name for device in devices if (name := ids.nic_name(device))),
        fdsets=fdsets,
    )


async def read_status(monitor: Monitor) -> RunState:
    status: RunState = (await monitor.execute("query-status"))["status"]
    return status


async def read_devices(monitor: Monitor) -> dict[str, str]:
    """Device id -> driver, of all devices that have an id."""
    children = await monitor.execute("qom-list", {"path": "/machine/peripheral"})
    return {
        child["name"]: child["type"].removeprefix("child<").removesuffix(">")
        for child in children
        if child["type"].startswith("child<")
    }


async def read_memory(monitor: Monitor) -> MemoryState:
    configured, devices, balloon = await asyncio.gather(
        _configured(monitor), monitor.execute("query-memory-devices"), _balloon(monitor)
    )
    return parse_memory(configured, devices, balloon)


def parse_memory(configured: dict[str, int], devices: list[dict[str, Any]], balloon: int | None) -> MemoryState:
    """`configured`: what the command line's -m said. `balloon`: what it leaves the guest, None for no balloon."""
    boot, device, dimms = int(configured["size"]), parse_virtio_mem(devices), parse_dimms(devices)
    state = MemoryState(
        boot=boot, device=device, dimms=dimms, slots=int(configured.get("slots") or 0),
        dimm_room=max(0, int(configured.get("max-size") or boot) - boot - (device.capacity if device else 0)),
    )  # fmt: skip
    # What virtio-mem plugged is no part of the balloon's account.
    return structs.replace(state, ballooned=0 if balloon is None else max(0, state.fixed - balloon))


async def _configured(monitor: Monitor) -> dict[str, int]:
    if "memory" not in monitor.known:
        try:
            monitor.known["memory"] = await monitor.execute("qom-get", {"path": "/machine", "property": "memory"})
        except QmpError:  # before QEMU 7.1
            summary = await monitor.execute("query-memory-size-summary")
            monitor.known["memory"] = {"size": summary["base-memory"]}
    found: dict[str, int] = monitor.known["memory"]
    return found


def parse_dimms(devices: list[dict[str, Any]]) -> tuple[Dimm, ...]:
    found = [
        Dimm(str(entry["data"].get("id", "")), entry["data"]["size"], entry["data"]["addr"])
        for entry in devices
        if entry["type"] == "dimm" and entry["data"].get("hotplugged", True)
    ]
    return tuple(sorted(found, key=lambda dimm: dimm.address))


def parse_virtio_mem(devices: list[dict[str, Any]]) -> VirtioMem | None:
    for entry in devices:
        data = entry["data"]
        if entry["type"] == "virtio-mem" and data.get("id") == ids.MEMORY_DEVICE:
            return VirtioMem(
                size=data["size"],
                requested=data["requested-size"],
                capacity=data["max-size"],
                step=data["block-size"],
                address=data["memaddr"],
            )
    return None


async def _balloon(monitor: Monitor) -> int | None:
    """What it leaves the guest; None when there is no balloon, or its driver is not up yet."""
    try:
        return int((await monitor.execute("query-balloon"))["actual"])
    except QmpError:
        return None


async def read_vcpus(monitor: Monitor) -> tuple[VcpuSlot, ...]:
    """All places, in the order in which vCPUs are plugged."""
    return parse_vcpus(await monitor.execute("query-hotpluggable-cpus"))


def parse_vcpus(entries: list[dict[str, Any]]) -> tuple[VcpuSlot, ...]:
    slots = [
        VcpuSlot(
            entry["props"].get("socket-id", 0),
            entry["props"].get("core-id", 0),
            entry["props"].get("thread-id", 0),
            entry["type"],
            entry.get("qom-path", ""),
        )
        for entry in entries
    ]
    return tuple(sorted(slots, key=lambda slot: (slot.socket, slot.core, slot.thread)))


async def read_disks(monitor: Monitor) -> tuple[DiskState, ...]:
    return parse_disks(*await asyncio.gather(read_devices(monitor), _read_nodes(monitor)))


async def _read_nodes(monitor: Monitor) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = await monitor.execute("query-named-block-nodes", {"flat": True})
    return nodes


def parse_disks(devices: dict[str, str], nodes: list[dict[str, Any]]) -> tuple[DiskState, ...]:
    """Join devices and block nodes by our ids. A node name may hold a hash in the disk's place, so a node whose device
    is gone is known by that hash only (`name` is then the hash): enough to see that something is left to close."""
    by_node = {node["node-name"]: node for node in nodes}
    found: dict[str, DiskState] = {}
    taken: set[str] = set()
    for device, driver in devices.items():
        name = ids.disk_name(device)
        if name is None:
            continue
        chain = _chain(name, by_node)
        taken.update(chain)
        found[name] = _disk(name, driver, chain, by_node)
    for node in by_node:
        if node.startswith(ids.DISK_PREFIX) and node not in taken and not node.endswith(".file"):
            name = node.removeprefix(ids.DISK_PREFIX)
            root, dot, layer = name.rpartition(".")
            if not (dot and layer.isdecimal() and ids.DISK_PREFIX + root in by_node):
                chain = _chain(name, by_node) or (node,)
                found.setdefault(name, _disk(name, "", chain, by_node))
    return tuple(found[name] for name in sorted(found))


def with_media(disks: tuple[DiskState, ...], blocks: list[dict[str, Any]]) -> tuple[DiskState, ...]:
    """Which of the drives hold no medium, and which are in trouble, of what `query-block` lists."""
    empty = {
        str(block.get("qdev", "")).rpartition("/")[2]
        for block in blocks
        if block.get("removable") and not block.get("inserted")
    }
    trouble = {
        part: str(block["io-status"])
        for block in blocks
        for part in str(block.get("qdev", "")).split("/")
        if block.get("io-status", "ok") != "ok"
    }
    return tuple(
        structs.replace(d, is_empty=ids.disk_id(d.name) in empty, trouble=trouble.get(ids.disk_id(d.name), ""))
        if d.device
        else d
        for d in disks
    )


def _chain(name: str, by_node: dict[str, Any]) -> tuple[str, ...]:
    chain: list[str] = []
    while (node := ids.node_name(name, len(chain))) in by_node:
        chain.append(node)
    return tuple(chain)


def _disk(name: str, driver: str, chain: tuple[str, ...], by_node: dict[str, Any]) -> DiskState:
    top = by_node[chain[0]] if chain else {}
    return DiskState(
        name=name,
        device=bool(driver),
        driver=driver,
        nodes=chain,
        size=int(top.get("image", {}).get("virtual-size", 0)),
        read_only=bool(top.get("ro", False)),
        filename=str(top.get("file", "")),
    )


async def read_free_ports(monitor: Monitor) -> tuple[str, ...]:
    return parse_free_ports(await monitor.execute("query-pci"))


def parse_free_ports(buses: list[dict[str, Any]]) -> tuple[str, ...]:
    """Root ports with nothing behind them, or the free slots of a machine that has none (by their numbers), lowest
    first."""
    devices = [device for bus in buses for device in bus["devices"]]
    found = {ids.port_index(device["qdev_id"]): bool(device.get("pci_bridge", {}).get("devices")) for device in devices}
    if found.keys() - {None}:
        return tuple(ids.port_id(index) for index in sorted(i for i in found if i is not None) if not found[index])
    taken = {device["slot"] for device in devices if device["bus"] == 0}
    return tuple(f"{number:#x}" for number in PLAIN_SLOTS if number not in taken)


async def read_fdsets(monitor: Monitor) -> dict[int, str]:
    sets = await monitor.execute("query-fdsets")
    return {entry["fdset-id"]: next((fd.get("opaque", "") for fd in entry["fds"]), "") for entry in sets}


async def read_agent_open(monitor: Monitor) -> bool:
    return any(c["label"] == "agent0" and c["frontend-open"] for c in await monitor.execute("query-chardev"))
