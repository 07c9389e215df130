"""What KubeVirt fills in when a VirtualMachineInstance is made. Pure: documents in, new documents out.

Where we differ, on purpose:
* `terminationGracePeriodSeconds` is 30, as for any pod, not 180: a guest with an agent is down in seconds.
* `macAddress` and `firmware.uuid` come from the owner's uid, so that a machine keeps its identity over restarts without
  its VM being written to.
"""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from hotvirt.api import quantity

Document = dict[str, Any]
MIB = 1 << 20
GRACE_SECONDS = 30
MAX_VCPUS = 512
_NAMESPACE = uuid.UUID("5b1c3b1e-6f0e-5d5e-9d3a-6b0f6f6a6c11")


class ClusterSettings(Struct, frozen=True):
    """What the KubeVirt object's `spec.configuration` says that defaults depend on."""

    hotplug_ratio: int = 4
    max_sockets: int | None = None
    max_guest: int | None = None
    live_update: bool = True
    machine_type: str = "q35"
    cpu_model: str = ""
    eviction_strategy: str = ""

    @classmethod
    def of(cls, kubevirt: Mapping[str, Any] | None) -> "ClusterSettings":
        configuration = ((kubevirt or {}).get("spec") or {}).get("configuration") or {}
        live = configuration.get("liveUpdateConfiguration") or {}
        max_guest = live.get("maxGuest")
        return cls(
            hotplug_ratio=int(live.get("maxHotplugRatio") or 4),
            max_sockets=live.get("maxCpuSockets"),
            max_guest=None if max_guest is None else quantity.parse_bytes(max_guest),
            live_update=configuration.get("vmRolloutStrategy", "LiveUpdate") == "LiveUpdate",
            machine_type=str(configuration.get("machineType") or "q35"),
            cpu_model=str(configuration.get("cpuModel") or ""),
            eviction_strategy=str(configuration.get("evictionStrategy") or ""),
        )


def guest_memory(domain: Document) -> int | None:
    """Bytes the guest is to see: `memory.guest`, else requests, else limits. None when none says."""
    resources = domain.get("resources") or {}
    for value in (
        (domain.get("memory") or {}).get("guest"),
        (resources.get("requests") or {}).get("memory"),
        (resources.get("limits") or {}).get("memory"),
    ):
        if value is not None:
            return quantity.parse_bytes(value)
    return None


def instance(vmi: Document, settings: ClusterSettings) -> Document:
    """The instance with everything set that it was silent about."""
    spec = vmi["spec"]
    identity = _identity(vmi)
    domain = {**(spec.get("domain") or {})}
    domain["machine"] = {"type": settings.machine_type, **(domain.get("machine") or {})}
    domain["cpu"] = _cpu(domain.get("cpu") or {}, settings)
    domain["memory"] = _memory(domain, settings)
    firmware = domain.get("firmware") or {}
    domain["firmware"] = {**firmware, "uuid": firmware.get("uuid") or str(uuid.uuid5(_NAMESPACE, identity))}
    interfaces, networks = _network(spec, domain, identity)
    devices = {**(domain.get("devices") or {}), "disks": _disks(spec, domain)}
    if interfaces:
        devices["interfaces"] = interfaces
    domain["devices"] = devices
    new = {"architecture": "amd64", "terminationGracePeriodSeconds": GRACE_SECONDS, **spec, "domain": domain}
    if networks:
        new["networks"] = networks
    if settings.eviction_strategy:
        new.setdefault("evictionStrategy", settings.eviction_strategy)
    return {**vmi, "spec": new}


def _identity(vmi: Document) -> str:
    metadata = vmi.get("metadata") or {}
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    return str(owner["uid"]) if owner else f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def _cpu(cpu: Document, settings: ClusterSettings) -> Document:
    """Topology 1/1/1, and how many sockets can ever be plugged: what the VM says, else the cluster, else the ratio."""
    new = {"sockets": 1, "cores": 1, "threads": 1, "model": settings.cpu_model or "host-model", **cpu}
    if "maxSockets" not in new:
        sockets, each = int(new["sockets"]), int(new["cores"]) * int(new["threads"])
        most = settings.max_sockets or sockets * settings.hotplug_ratio
        new["maxSockets"] = max(sockets, min(most, max(1, MAX_VCPUS // each)))
    return new


def _memory(domain: Document, settings: ClusterSettings) -> Document:
    """`guest` made explicit, and `maxGuest` up to which it can be grown while it runs.

    KubeVirt gives no maximum below 1 GiB of guest memory; here a small guest grows like any other, since nothing of
    how it is done depends on that size.
    """
    memory = {**(domain.get("memory") or {})}
    guest = guest_memory(domain)
    if guest is None:
        return memory
    memory.setdefault("guest", quantity.format_bytes(guest))
    if "maxGuest" not in memory and settings.live_update:
        limit = ((domain.get("resources") or {}).get("limits") or {}).get("memory")
        most = (
            quantity.parse_bytes(limit) if limit is not None else settings.max_guest or guest * settings.hotplug_ratio
        )
        if most > guest:
            memory["maxGuest"] = quantity.format_bytes(most // (2 * MIB) * (2 * MIB))
    return memory


def _disks(spec: Document, domain: Document) -> list[Document]:
    """Each volume without a disk or filesystem gets one; each disk a target and a bus."""
    devices = domain.get("devices") or {}
    disks = [_disk(disk) for disk in devices.get("disks") or ()]
    named = {disk["name"] for disk in disks} | {each["name"] for each in devices.get("filesystems") or ()}
    silent = [volume["name"] for volume in spec.get("volumes") or () if volume["name"] not in named]
    return disks + [_disk({"name": name}) for name in silent]


def _disk(disk: Document) -> Document:
    target = next((kind for kind in ("disk", "lun", "cdrom") if disk.get(kind) is not None), "disk")
    given = disk.get(target) or {}
    return {**disk, target: {**given, "bus": given.get("bus") or "sata"}}


def _network(spec: Document, domain: Document, identity: str) -> tuple[list[Document], list[Document]]:
    """The pod network by masquerade, unless interfaces are named or it is declined. MACs are set for good."""
    devices = domain.get("devices") or {}
    interfaces, networks = list(devices.get("interfaces") or ()), list(spec.get("networks") or ())
    if not interfaces and not networks and devices.get("autoattachPodInterface") is not False:
        interfaces, networks = [{"name": "default", "masquerade": {}}], [{"name": "default", "pod": {}}]
    return [
        each if each.get("macAddress") else {**each, "macAddress": mac_address(identity, str(each["name"]))}
        for each in interfaces
    ], networks


def mac_address(identity: str, interface: str) -> str:
    """A locally administered unicast address, the same for the same machine and interface."""
    octets = hashlib.sha256(f"{identity}/{interface}".encode()).digest()[:5]
    return ":".join(f"{octet:02x}" for octet in (0x02, *octets))
