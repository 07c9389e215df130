"""What KubeVirt fills in: a little when a VM is made (`machine`), the rest when its instance is (`instance`). Pure.

A VM keeps what a later change of the cluster's settings must not change under it (machine type, architecture); the rest
is filled in anew at each start.

Where we differ, on purpose:
* `terminationGracePeriodSeconds` is 30, as for any pod, not 180: a guest with an agent is down in seconds.
* `macAddress` and `firmware.uuid` come from the owner's uid, so that a machine keeps its identity over restarts without
  its VM being written to.
* Memory is counted in whole blocks of 2Mi, the last one left out when it is not full (1024M are 976Mi): a size in any
  notation can be grown and shrunk, where KubeVirt quietly gives up resizing guests that are not aligned.
* A small guest has a `maxGuest` like any other, where KubeVirt starts at 1Gi: growing it here does not depend on that.
"""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from hotvirt.api import configuration, quantity
from hotvirt.api import disks as api_disks
from hotvirt.api.quantity import QuantityError

Document = dict[str, Any]
BLOCK = 2 << 20
"""Bytes of the smallest piece of memory that can be plugged."""
ARCHITECTURE = "amd64"
GRACE_SECONDS = 30
MAX_VCPUS = 512
LONGEST_LABEL = 63
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
    binding: str = "masquerade"

    @classmethod
    def of(cls, kubevirt: Mapping[str, Any] | None) -> "ClusterSettings":
        given = configuration.of(kubevirt)
        live = given.get("liveUpdateConfiguration") or {}
        max_guest = live.get("maxGuest")
        return cls(
            hotplug_ratio=int(live.get("maxHotplugRatio") or 4),
            max_sockets=live.get("maxCpuSockets"),
            max_guest=None if max_guest is None else quantity.parse_bytes(max_guest),
            live_update=given.get("vmRolloutStrategy", "LiveUpdate") == "LiveUpdate",
            machine_type=_machine_of(given),
            cpu_model=str(given.get("cpuModel") or ""),
            eviction_strategy=str(given.get("evictionStrategy") or ""),
            binding=str((given.get("network") or {}).get("defaultNetworkInterface") or "masquerade"),
        )


def _machine_of(given: Mapping[str, Any]) -> str:
    """As upstream: what is said for all guests counts before what is said for those of their architecture."""
    ours = (given.get("architectureConfiguration") or {}).get(ARCHITECTURE) or {}
    return str(given.get("machineType") or ours.get("machineType") or "q35")


def whole_blocks(size: int) -> int:
    """What can be plugged of `size` bytes."""
    return size // BLOCK * BLOCK


def run_strategy(vm: Document) -> str:
    """`spec.runStrategy`, or what the deprecated `spec.running` stands for."""
    spec = vm.get("spec") or {}
    if strategy := spec.get("runStrategy"):
        return str(strategy)
    return "Always" if spec.get("running") else "Halted"


def guest_memory(domain: Document) -> int | None:
    """Bytes the guest is to see, in whole blocks: `memory.guest`, else requests, else limits. None when none says."""
    resources = domain.get("resources") or {}
    for value in (
        (domain.get("memory") or {}).get("guest"),
        (resources.get("requests") or {}).get("memory"),
        (resources.get("limits") or {}).get("memory"),
    ):
        if value is not None:
            return whole_blocks(quantity.parse_bytes(value))
    return None


def most_memory(domain: Document) -> tuple[str, Any] | None:
    """What says how far memory may grow, as (field, amount): `memory.maxGuest`, else the limit, which is the most that
    there can be. None when the domain says neither."""
    for field, value in (
        ("memory.maxGuest", (domain.get("memory") or {}).get("maxGuest")),
        ("resources.limits.memory", ((domain.get("resources") or {}).get("limits") or {}).get("memory")),
    ):
        if value is not None:
            return field, value
    return None


def sockets(domain: Document) -> int:
    """How many sockets the machine has: what it says; where it says nothing of its topology, one for each CPU of its
    limits, else of its requests; else one. What is no quantity counts as not said."""
    cpu, resources = domain.get("cpu") or {}, domain.get("resources") or {}
    if any(cpu.get(field) for field in ("sockets", "cores", "threads")):
        return int(cpu.get("sockets") or 1)
    for kind in ("limits", "requests"):
        if (value := (resources.get(kind) or {}).get("cpu")) is not None:
            try:
                return min(MAX_VCPUS, max(1, -(-quantity.parse_cpu(value) // 1000)))
            except QuantityError:
                continue
    return 1


def machine(vm: Document, settings: ClusterSettings, *, old: Document | None = None) -> Document:
    """The VM with its architecture and machine type: those it had, if it has been there before (None: not had), else
    the cluster's. The same object when nothing is missing."""
    spec = vm["spec"]
    template = spec["template"]
    inner = template["spec"]
    domain = inner.get("domain") or {}
    before = _template_spec(old) if old is not None else {
        "architecture": ARCHITECTURE, "domain": {"machine": {"type": settings.machine_type}},
    }  # fmt: skip
    kind, had = _machine_type(inner), _machine_type(before)
    architecture = inner.get("architecture") or before.get("architecture")
    if (kind or not had) and architecture == inner.get("architecture"):
        return vm
    new = {**inner, "architecture": architecture} if architecture else dict(inner)
    if kind or had:
        new["domain"] = {**domain, "machine": {**(domain.get("machine") or {}), "type": kind or had}}
    return {**vm, "spec": {**spec, "template": {**template, "spec": new}}}


def _machine_type(spec: Document) -> str:
    return str(((spec.get("domain") or {}).get("machine") or {}).get("type") or "")


def _template_spec(vm: Document | None) -> Document:
    return (((vm or {}).get("spec") or {}).get("template") or {}).get("spec") or {}


def instance(vmi: Document, settings: ClusterSettings) -> Document:
    """The instance with everything set that it was silent about."""
    spec = vmi["spec"]
    named = identity(vmi)
    domain = {**(spec.get("domain") or {})}
    given = domain.get("machine") or {}
    domain["machine"] = {**given, "type": given.get("type") or settings.machine_type}
    domain["cpu"] = _cpu({**(domain.get("cpu") or {}), "sockets": sockets(domain)}, settings)
    domain["memory"] = _memory(domain, settings)
    firmware = domain.get("firmware") or {}
    domain["firmware"] = {**firmware, "uuid": firmware.get("uuid") or str(uuid.uuid5(_NAMESPACE, named))}
    interfaces, networks = _network(spec, domain, named, binding=settings.binding)
    devices = {**(domain.get("devices") or {}), "disks": _disks(spec, domain)}
    if interfaces:
        devices["interfaces"] = interfaces
    domain["devices"] = devices
    new = {"terminationGracePeriodSeconds": GRACE_SECONDS, **spec, "domain": domain}
    new["architecture"] = spec.get("architecture") or ARCHITECTURE
    if networks:
        new["networks"] = networks
    if settings.eviction_strategy:
        new["evictionStrategy"] = spec.get("evictionStrategy") or settings.eviction_strategy
    return {**vmi, "spec": new}


def identity(vmi: Document) -> str:
    metadata = vmi.get("metadata") or {}
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    return str(owner["uid"]) if owner else f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def _cpu(cpu: Document, settings: ClusterSettings) -> Document:
    """Topology of one where it is not said, and how many sockets can ever be plugged: what the VM says, else the
    cluster, else the ratio."""
    silent = {"sockets": 1, "cores": 1, "threads": 1, "model": settings.cpu_model or "host-model"}
    new = {**cpu, **{field: cpu.get(field) or value for field, value in silent.items()}}
    if not new.get("maxSockets") and settings.live_update:
        sockets, each = int(new["sockets"]), int(new["cores"]) * int(new["threads"])
        most = settings.max_sockets or sockets * settings.hotplug_ratio
        new["maxSockets"] = max(sockets, min(most, max(1, MAX_VCPUS // each)))
    return new


def _memory(domain: Document, settings: ClusterSettings) -> Document:
    """`guest` made explicit, and `maxGuest` up to which it can be grown while it runs."""
    memory = {field: value for field, value in (domain.get("memory") or {}).items() if value is not None}
    guest = guest_memory(domain)
    if guest is None:
        return memory
    if memory.get("hugepages"):
        return {**memory, "guest": memory.get("guest") or quantity.format_bytes(guest)}
    memory.setdefault("guest", quantity.format_bytes(guest))
    if "maxGuest" not in memory and settings.live_update:
        said = most_memory({**domain, "memory": memory})
        most = quantity.parse_bytes(said[1]) if said else settings.max_guest or guest * settings.hotplug_ratio
        if most > guest:
            memory["maxGuest"] = quantity.format_bytes(whole_blocks(most))
    return memory


def _disks(spec: Document, domain: Document) -> list[Document]:
    """Each disk a target and a bus, and each volume a disk."""
    disks = (domain.get("devices") or {}).get("disks") or ()
    return [_disk(disk) for disk in (*disks, *silent_disks(spec))]


def silent_disks(spec: Document) -> list[Document]:
    """Disks for the volumes that no disk and no filesystem shows; of those that come and go, on a bus that can."""
    devices = (spec.get("domain") or {}).get("devices") or {}
    shown = api_disks.by_name(devices.get("disks")).keys() | api_disks.by_name(devices.get("filesystems")).keys()
    return [
        {"name": name, **({"disk": {"bus": "scsi"}} if api_disks.is_hotpluggable(volume) else {})}
        for name, volume in api_disks.by_name(spec.get("volumes")).items()
        if name not in shown
    ]


def _disk(disk: Document) -> Document:
    kind = api_disks.target(disk)
    return {**disk, kind: {**(disk.get(kind) or {}), "bus": api_disks.bus(disk)}}


def _network(spec: Document, domain: Document, identity: str, *, binding: str) -> tuple[list[Document], list[Document]]:
    """The pod network by `binding`, unless interfaces are named or it is declined. MACs are set for good."""
    devices = domain.get("devices") or {}
    interfaces, networks = list(devices.get("interfaces") or ()), list(spec.get("networks") or ())
    if not interfaces and not networks and devices.get("autoattachPodInterface") is not False:
        interfaces, networks = [{"name": "default", binding: {}}], [{"name": "default", "pod": {}}]
    return [{**each, "macAddress": address_of(each, identity)} for each in interfaces], networks


def hostname(vmi: Document) -> str:
    """What the guest is called where it does not say: by DHCP, cloud-init and its pod, so that its name in the DNS is
    the one that it has itself. A host's name has no dots, so what follows the first is left out, as KubeVirt does."""
    named = str(vmi["metadata"]["name"]).partition(".")[0]
    return str((vmi.get("spec") or {}).get("hostname") or named[:LONGEST_LABEL].rstrip("-"))


def address_of(interface: Document, identity: str) -> str:
    """A card's: what it says, or one of its machine's own."""
    return plain_address(interface.get("macAddress") or mac_address(identity, str(interface["name"])))


def plain_address(mac: str) -> str:
    """One that is written with dashes or capitals, as everything that acts on it writes and compares it."""
    return mac.lower().replace("-", ":")


def mac_address(identity: str, interface: str) -> str:
    """A locally administered unicast address, the same for the same machine and interface."""
    octets = hashlib.sha256(f"{identity}/{interface}".encode()).digest()[:5]
    return ":".join(f"{octet:02x}" for octet in (0x02, *octets))
