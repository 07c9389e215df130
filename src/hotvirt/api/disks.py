"""What a disk of a spec is: a hard disk, a CD-ROM drive or a LUN, and on which bus. Pure.

A disk that says neither is a hard disk on SATA, as KubeVirt has it: every guest boots from that without a driver.
"""

from collections.abc import Iterable
from typing import Any

Document = dict[str, Any]
TARGETS = ("disk", "cdrom", "lun")
BUSES = {"disk": ("virtio", "scsi", "sata", "usb"), "cdrom": ("sata", "scsi"), "lun": ("scsi",)}
HOTPLUG_BUSES = ("scsi", "virtio")
HOTPLUG_SOURCES = {"persistentVolumeClaim": "claimName", "dataVolume": "name"}
"""Volumes that may come and go, and the field that names their claim."""
TEMPORARY = "hotvirt.io/temporary-volumes"
"""Of an instance that a VM owns, as an annotation: names of volumes that it alone has, and that go with it."""


def targets(disk: Document) -> list[str]:
    """Of TARGETS, those the disk says to be."""
    return [kind for kind in TARGETS if disk.get(kind) is not None]


def target(disk: Document) -> str:
    return next(iter(targets(disk)), "disk")


def bus(disk: Document) -> str:
    kind = target(disk)
    return str((disk.get(kind) or {}).get("bus") or ("scsi" if kind == "lun" else "sata"))


def by_name(items: Any) -> dict[str, Document]:
    """Disks, volumes or interfaces by their name."""
    return {str(item.get("name")): item for item in items or ()}


def is_hotpluggable(volume: Document) -> bool:
    return any((volume.get(kind) or {}).get("hotpluggable") for kind in HOTPLUG_SOURCES)


def temporary(vmi: Document) -> tuple[str, ...]:
    said = str((vmi["metadata"].get("annotations") or {}).get(TEMPORARY) or "")
    return tuple(said.split(",")) if said else ()


def temporary_note(names: Iterable[str]) -> Document:
    return {TEMPORARY: ",".join(names) or None}


def claim(volume: Document) -> str:
    """The name of the claim behind a volume, "" if it has none (a DataVolume's claim has the DataVolume's name)."""
    for kind, field in HOTPLUG_SOURCES.items():
        if name := (volume.get(kind) or {}).get(field):
            return str(name)
    return str(((volume.get("ephemeral") or {}).get("persistentVolumeClaim") or {}).get("claimName") or "")
