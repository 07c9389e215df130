"""VMI + node facts -> `hotvirt.qemu.machine.Machine`. Pure."""

from datetime import datetime
from typing import Any

from msgspec import Struct, structs

from hotvirt.api import defaults, quantity
from hotvirt.kube.client import Document
from hotvirt.node import headroom, render_devices
from hotvirt.qemu.machine import AcceleratorKind, Disk, FileSystem, Kernel, Machine, Nic, Topology, Uefi


class Channels(Struct, frozen=True):
    """Descriptor numbers, in QEMU: of the sockets it listens on, of the pipe for what the guest prints, of its TPM."""

    qmp: int
    agent: int
    serial: int
    serial_log: int | None = None
    tpm: int | None = None


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


def declared_maximum(spec: Document) -> int:
    """Bytes up to which the guest is meant to grow; 0 when nobody says."""
    most = ((spec.get("domain") or {}).get("memory") or {}).get("maxGuest")
    return defaults.whole_blocks(quantity.parse_bytes(most)) if most else 0


def machine(
    vmi: Document,
    *,
    accelerator: AcceleratorKind,
    disks: tuple[Disk, ...],
    nics: tuple[Nic, ...],
    kernel: Kernel | None,
    channels: Channels,
    firmware: Uefi | None = None,
    file_systems: tuple[FileSystem, ...] = (),
    cluster_smbios: Document | None = None,
    now: datetime | None = None,
) -> Machine:
    spec, metadata = vmi["spec"], vmi["metadata"]
    domain: dict[str, Any] = spec["domain"]
    devices, memory = domain.get("devices") or {}, domain.get("memory") or {}
    topology = wanted_topology(spec)
    guest = wanted_memory(spec)
    most = declared_maximum(spec)
    given = domain.get("cpu") or {}
    return Machine(
        name=f"{metadata['namespace']}_{metadata['name']}",
        uuid=str(domain["firmware"]["uuid"]),
        accelerator=accelerator,
        machine_type=str((domain.get("machine") or {}).get("type") or "q35"),
        cpu_model=cpu_model(str(given.get("model") or ""), accelerator),
        cpu_features=(
            *(cpu_feature(each) for each in given.get("features") or () if cpu_feature(each)),
            # All of them are KVM's: emulation refuses some, and has none.
            *(render_devices.cpu_flags(domain) if accelerator == "kvm" else ()),
        ),
        topology=structs.replace(topology, headroom=headroom.sockets(topology, accelerator))
        if given.get("maxSockets")
        else topology,
        boot_memory=guest,
        max_memory=most if most > guest else 0,
        headroom=headroom.memory(most),
        dimm_slots=headroom.DIMM_SLOTS if most > guest else 0,
        hugepage_size=hugepage_size(memory),
        firmware=firmware,
        kernel=kernel,
        disks=render_devices.with_threads(
            disks if kernel else render_devices.in_boot_order(disks, nics), domain, vcpus=topology.vcpus
        ),
        nics=render_devices.with_indices(nics, devices),
        file_systems=file_systems,
        shared_memory=bool(file_systems),
        smbios=render_devices.smbios(domain, cluster_smbios or {}),
        qmp_fd=channels.qmp,
        agent_fd=channels.agent,
        serial_fd=channels.serial,
        serial_log_fd=channels.serial_log,
        tpm_fd=channels.tpm,
        graphics=devices.get("autoattachGraphicsDevice") is not False,
        video=render_devices.video(domain),
        tablet=devices.get("autoattachInputDevice") is not False,
        inputs=render_devices.inputs(devices),
        sound=(devices["sound"].get("model") or "ich9") if devices.get("sound") else None,
        watchdog=render_devices.watchdog(devices),
        clock=render_devices.clock(domain, now) if now else "utc",
        rtc_options=render_devices.rtc_options(domain),
        machine_options=render_devices.machine_options(domain),
        balloon=devices.get("autoattachMemBalloon") is not False,
        start_paused=spec.get("startStrategy") == "Paused",
        ends_on_reboot=domain.get("rebootPolicy") == "Terminate",
        panic_devices=tuple(each.get("model") or "isa" for each in devices.get("panicDevices") or ()),
    )


def hugepage_size(memory: Document) -> int:
    given = (memory.get("hugepages") or {}).get("pageSize")
    return quantity.parse_bytes(given) if given else 0


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
