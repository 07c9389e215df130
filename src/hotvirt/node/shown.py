"""How a guest sees its volumes: what the disks of its spec say of them. Pure."""

from typing import Literal

from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.qemu.machine import BlockSize, Bus, Disk, DiskKind, ErrorPolicy, Layer
from hotvirt.qemu.state import DiskState


class Shown(Struct, frozen=True):
    """How the guest sees a volume: its disk in the spec."""

    kind: DiskKind
    bus: Bus
    read_only: bool
    serial: str
    boot_index: int | None
    cache: Literal["none", "writethrough", "writeback"]
    native_io: bool
    shareable: bool
    on_error: ErrorPolicy | None = None
    block_size: BlockSize | None = BlockSize()
    """None: that of the volume."""
    pci_address: str = ""
    is_open: bool = False
    """The tray of its drive, so that there is no disc in it."""


def disk_of(spec: Document, volume: str) -> Document | None:
    disks_ = ((spec.get("domain") or {}).get("devices") or {}).get("disks") or ()
    return next((disk for disk in disks_ if disk.get("name") == volume), None)


def shown(disk: Document) -> Shown:
    kind = next((k for k in ("disk", "cdrom", "lun") if disk.get(k) is not None), "disk")
    target = disk.get(kind) or {}
    return Shown(
        kind=kind,  # type: ignore[arg-type]
        bus=target.get("bus") or ("scsi" if kind == "lun" else "sata"),
        read_only=kind == "cdrom" or bool(target.get("readonly")),
        serial=str(disk.get("serial") or ""),
        boot_index=disk.get("bootOrder"),
        cache=disk.get("cache") or "writeback",
        native_io=disk.get("io") == "native" and disk.get("cache") == "none",
        shareable=bool(disk.get("shareable")),
        # KubeVirt's word is libvirt's, and QEMU has another.
        on_error="enospc" if disk.get("errorPolicy") == "enospace" else disk.get("errorPolicy") or None,
        pci_address=str(target.get("pciAddress") or ""),
        is_open=kind == "cdrom" and target.get("tray") == "open",
        block_size=_block_size(disk.get("blockSize") or {}),
    )


def _block_size(given: Document) -> BlockSize | None:
    if (custom := given.get("custom")) is not None:
        return BlockSize(*(custom.get(field) or 0 for field in ("logical", "physical", "discardGranularity")))
    match = given.get("matchVolume")
    return BlockSize() if match is None or match.get("enabled") is False else None


def is_hotplugged(volume: Document) -> bool:
    """Whether it may come and go while the guest runs; such a volume is attached once the guest is up."""
    return any((volume.get(kind) or {}).get("hotpluggable") for kind in ("persistentVolumeClaim", "dataVolume"))


def empty_drives(spec: Document) -> list[Document]:
    """CD-ROM drives with no disc in them. They are part of the machine."""
    named = {volume["name"] for volume in spec.get("volumes") or ()}
    disks_ = ((spec.get("domain") or {}).get("devices") or {}).get("disks") or ()
    return [disk for disk in disks_ if disk.get("cdrom") is not None and disk.get("name") not in named]


def first_disks(spec: Document) -> list[Document]:
    """The disks that a guest starts with, in the order in which `prepare` gives them."""
    shown_ = ((volume, disk_of(spec, volume["name"])) for volume in spec.get("volumes") or ())
    found = [disk for volume, disk in shown_ if disk and (not is_hotplugged(volume) or disk.get("cdrom") is not None)]
    return [*found, *empty_drives(spec)]


def is_empty_drive(state: DiskState) -> bool:
    """Of what QEMU has: a device without a medium."""
    return state.device and (state.is_empty or not state.nodes)


def machine_disk(name: str, how: Shown, layers: tuple[Layer, ...], *, read_only: bool = False) -> Disk:
    return Disk(
        name=name, layers=layers, kind=how.kind, bus=how.bus, read_only=how.read_only or read_only, serial=how.serial,
        boot_index=how.boot_index, cache=how.cache, native_io=how.native_io, shareable=how.shareable,
        on_error=how.on_error, block_size=how.block_size or BlockSize(), pci_address=how.pci_address,
    )  # fmt: skip
