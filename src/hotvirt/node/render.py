"""VMI + node facts -> `hotvirt.qemu.machine.Machine`. Pure."""

from typing import Any

from msgspec import Struct

from hotvirt.api import defaults, quantity
from hotvirt.kube.client import Document
from hotvirt.qemu.machine import AcceleratorKind, Disk, Kernel, Machine, Nic, Smbios, Topology


class Channels(Struct, frozen=True):
    """Descriptor numbers, in QEMU, of the sockets it listens on."""

    qmp: int
    agent: int
    serial: int


def wanted_topology(spec: Document) -> Topology:
    """What the spec asks for."""
    given = (spec.get("domain") or {}).get("cpu") or {}
    sockets = int(given.get("sockets") or 1)
    return Topology(
        sockets=sockets,
        cores=int(given.get("cores") or 1),
        threads=int(given.get("threads") or 1),
        max_sockets=max(sockets, int(given.get("maxSockets") or sockets)),
    )


def wanted_memory(spec: Document) -> int:
    """Bytes the guest is to have, a multiple of what QEMU can give; 0 when nobody says."""
    return defaults.guest_memory(spec.get("domain") or {}) or 0


def machine(
    vmi: Document,
    *,
    accelerator: AcceleratorKind,
    disks: tuple[Disk, ...],
    nics: tuple[Nic, ...],
    kernel: Kernel | None,
    channels: Channels,
) -> Machine:
    spec, metadata = vmi["spec"], vmi["metadata"]
    domain: dict[str, Any] = spec["domain"]
    devices, firmware, memory = domain.get("devices") or {}, domain.get("firmware") or {}, domain.get("memory") or {}
    topology = wanted_topology(spec)
    guest = wanted_memory(spec)
    most = defaults.whole_blocks(quantity.parse_bytes(memory["maxGuest"])) if memory.get("maxGuest") else 0
    given = domain.get("cpu") or {}
    return Machine(
        name=f"{metadata['namespace']}_{metadata['name']}",
        uuid=str(firmware["uuid"]),
        accelerator=accelerator,
        machine_type=str((domain.get("machine") or {}).get("type") or "q35"),
        cpu_model=cpu_model(str(given.get("model") or ""), accelerator),
        cpu_features=tuple(cpu_feature(each) for each in given.get("features") or () if cpu_feature(each)),
        topology=topology,
        boot_memory=guest,
        max_memory=most if most > guest else 0,
        kernel=kernel,
        disks=disks,
        nics=nics,
        smbios=Smbios(manufacturer="hotvirt", product="VirtualMachine", serial=str(firmware.get("serial") or "")),
        qmp_fd=channels.qmp,
        agent_fd=channels.agent,
        serial_fd=channels.serial,
        graphics=devices.get("autoattachGraphicsDevice") is not False,
        balloon=devices.get("autoattachMemBalloon") is not False,
        start_paused=spec.get("startStrategy") == "Paused",
        ends_on_reboot=domain.get("rebootPolicy") == "Terminate",
        panic_devices=tuple(each.get("model") or "isa" for each in devices.get("panicDevices") or ()),
    )


def cpu_model(named: str, accelerator: AcceleratorKind) -> str:
    """`host` exists with KVM only; emulation shows all it can."""
    if named in ("", "host-model", "host-passthrough"):
        return "host" if accelerator == "kvm" else "max"
    return named


def cpu_feature(feature: Document) -> str:
    policy = feature.get("policy") or "require"
    if policy in ("force", "require"):
        return f"+{feature['name']}"
    return f"-{feature['name']}" if policy in ("disable", "forbid") else ""
