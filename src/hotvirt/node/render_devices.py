"""The smaller parts of a machine from its spec: processor flags, clock, timers, identity, tablets, sound. Pure.

KubeVirt's fields lead to what libvirt would make of them: the same names of QEMU's, and its defaults.
"""

from datetime import datetime, timedelta
from typing import Any, cast, get_args
from zoneinfo import ZoneInfo

from msgspec import structs

from hotvirt.kube.client import Document
from hotvirt.qemu.machine import Chassis, Disk, Input, Nic, Smbios, Video, WatchdogAction

SPINLOCKS = 4096
"""How often a guest tries for a lock before it tells of it, where the spec does not say."""
_ENLIGHTENMENTS = {
    "relaxed": "hv_relaxed", "vapic": "hv_vapic", "vpindex": "hv_vpindex", "runtime": "hv_runtime",
    "synic": "hv_synic", "synictimer": "hv_stimer", "reset": "hv_reset", "frequencies": "hv_frequencies",
    "reenlightenment": "hv_reenlightenment", "tlbflush": "hv_tlbflush", "ipi": "hv_ipi", "evmcs": "hv_evmcs",
}  # fmt: skip
WATCHDOG_ACTIONS: dict[str, WatchdogAction] = {
    "": "reset",
    "reset": "reset",
    "shutdown": "shutdown",
    "poweroff": "pause",
}
"""QEMU's own `poweroff` ends QEMU at once, and nobody would learn why: as run state `watchdog` it waits to be seen."""
SMBIOS = Smbios(manufacturer="hotvirt", product="VirtualMachine")


def is_on(feature: Document | None) -> bool:
    """Of what has `enabled`: naming it switches it on."""
    return feature is not None and feature.get("enabled") is not False


def cpu_flags(domain: Document) -> tuple[str, ...]:
    features, timers = domain.get("features") or {}, (domain.get("clock") or {}).get("timer") or {}
    flags = [*_hyperv(features)]
    synthetic = is_on((features.get("hyperv") or {}).get("synictimer"))  # which needs the other clock
    if synthetic or (timers.get("hyperv") is not None and timers["hyperv"].get("present") is not False):
        flags.append("hv_time=on")
    if (features.get("kvm") or {}).get("hidden"):
        flags.append("kvm=off")
    if (apic := features.get("apic")) is not None and apic.get("endOfInterrupt"):
        flags.append("+kvm_pv_eoi")
    if (spin := features.get("pvspinlock")) is not None:
        flags.append(f"{'+' if is_on(spin) else '-'}kvm_pv_unhalt")
    if (timers.get("kvm") or {}).get("present") is False:
        flags.append("-kvmclock")
    return tuple(flags)


def _hyperv(features: Document) -> list[str]:
    given = features.get("hyperv") or {}
    flags = ["hv_passthrough=on"] if is_on(features.get("hypervPassthrough")) else []
    flags += [f"{flag}=on" for field, flag in _ENLIGHTENMENTS.items() if is_on(given.get(field))]
    if is_on(given.get("synictimer")) and is_on((given["synictimer"] or {}).get("direct")):
        flags.append("hv_stimer_direct=on")
    if is_on(spinlocks := given.get("spinlocks")):
        flags.append(f"hv_spinlocks={int((spinlocks or {}).get('spinlocks') or SPINLOCKS):#x}")
    if is_on(vendor := given.get("vendorid")) and (name := (vendor or {}).get("vendorid")):
        flags.append(f"hv_vendor_id={name}")
    return flags


def machine_options(domain: Document) -> tuple[str, ...]:
    features, timers = domain.get("features") or {}, (domain.get("clock") or {}).get("timer") or {}
    options = [f"{timer}=off" for timer in ("hpet", "pit") if (timers.get(timer) or {}).get("present") is False]
    if (features.get("acpi") or {}).get("enabled") is False:
        options.append("acpi=off")
    return tuple(options)


def clock(domain: Document, now: datetime) -> str:
    """QEMU's `-rtc base`. A guest's clock runs from there: offset and zone are those of the moment it starts.
    ZoneInfoNotFoundError when this machine does not know the zone."""
    given = domain.get("clock") or {}
    if zone := given.get("timezone"):
        return _moment(now.astimezone(ZoneInfo(str(zone))))
    if offset := int((given.get("utc") or {}).get("offsetSeconds") or 0):
        return _moment(now + timedelta(seconds=offset))
    return "utc"


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S")


def rtc_options(domain: Document) -> tuple[str, ...]:
    given = ((domain.get("clock") or {}).get("timer") or {}).get("rtc") or {}
    options = []
    if given.get("track"):
        options.append("clock=vm" if given["track"] == "guest" else "clock=host")
    if given.get("tickPolicy") == "catchup":
        options.append("driftfix=slew")
    return tuple(options)


def smbios(domain: Document, cluster: Document) -> Smbios:
    """`cluster`: `smbios` of the KubeVirt object's configuration."""
    case = domain.get("chassis") or {}
    chassis = Chassis(**{field: str(case[field]) for field in Chassis.__struct_fields__ if case.get(field)})
    fields = ("manufacturer", "product", "version", "sku", "family")
    named = {field: str(cluster[field]) for field in fields if cluster.get(field)}
    serial = str((domain.get("firmware") or {}).get("serial") or "")
    return structs.replace(SMBIOS, serial=serial, chassis=chassis, **named)


def inputs(devices: Document) -> tuple[Input, ...]:
    return tuple(Input(name=str(each["name"]), bus=each.get("bus") or "usb") for each in devices.get("inputs") or ())


def video(domain: Document) -> Video:
    """UEFI draws with bochs, as with KubeVirt; a BIOS knows VGA."""
    given = ((domain.get("devices") or {}).get("video") or {}).get("type")
    if given in get_args(Video):
        return cast("Video", given)
    efi = ((domain.get("firmware") or {}).get("bootloader") or {}).get("efi")
    return "bochs" if efi is not None else "vga"


def watchdog(devices: Document) -> WatchdogAction | None:
    given: dict[str, Any] | None = devices.get("watchdog")
    if given is None:
        return None
    return WATCHDOG_ACTIONS[(given.get("i6300esb") or {}).get("action") or ""]


def in_boot_order(disks: tuple[Disk, ...], nics: tuple[Nic, ...]) -> tuple[Disk, ...]:
    """The disks, which are tried in the manifest's order where it names no other: firmware has one of its own else, and
    may stop at a blank disk on another bus."""
    named = [*(disk.boot_index for disk in disks), *(nic.boot_index for nic in nics)]
    if any(index is not None for index in named):
        return disks
    return tuple(structs.replace(disk, boot_index=number) for number, disk in enumerate(disks, 1))


def with_threads(disks: tuple[Disk, ...], domain: Document, *, vcpus: int) -> tuple[Disk, ...]:
    """Each virtio disk with the thread that serves it, and its queues. Shared: one for all that have none of their own.
    Auto: up to two a vCPU, shared in turn. A pool: as many as it says."""
    devices, policy = domain.get("devices") or {}, domain.get("ioThreadsPolicy") or ""
    named = {each["name"]: each for each in devices.get("disks") or ()}
    own = {name for name, each in named.items() if each.get("dedicatedIOThread")}
    shared = [each.name for each in disks if each.bus == "virtio" and each.name not in own]
    room = {
        "shared": 1,
        "auto": max(1, min(len(shared), 2 * vcpus - len(own))),
        "supplementalPool": int((domain.get("ioThreads") or {}).get("supplementalPoolThreadCount") or 1),
    }.get(policy, 1 if own else 0)
    served = {name: f"iothread-{index % room}" for index, name in enumerate(shared)} if room else {}
    queues = vcpus if devices.get("blockMultiQueue") else 0
    return tuple(
        structs.replace(
            each, queues=queues,
            io_thread=f"iothread-of-{each.name}" if each.name in own else served.get(each.name, ""),
        ) if each.bus == "virtio" else each
        for each in disks
    )  # fmt: skip


def with_indices(nics: tuple[Nic, ...], devices: Document) -> tuple[Nic, ...]:
    """Each network card with the number and the PCI address that the spec gives it."""
    given: dict[str, Document] = {each["name"]: each for each in devices.get("interfaces") or ()}
    return tuple(
        structs.replace(
            nic, acpi_index=int(given.get(nic.name, {}).get("acpiIndex") or 0),
            pci_address=str(given.get(nic.name, {}).get("pciAddress") or ""),
        ) for nic in nics
    )  # fmt: skip
