"""Tags of disks and network cards, as cloud-init is told them: which device of the guest each tag is on. Pure.

In OpenStack's form ("device role tagging"), which is KubeVirt's too: a list of devices in the metadata of a seed, each
with its kind, bus, address there and tags.
"""

from typing import Any, Literal, cast

from hotvirt.api import disks as api_disks
from hotvirt.kube.client import Document
from hotvirt.node.network import of_the_pod
from hotvirt.qemu import ids, ports
from hotvirt.qemu.machine import Bus, Disk, Machine, Nic, UserNet


def devices(vmi: Document, disks: list[Document]) -> list[Document]:
    """`disks`: those that the guest starts with, in their order. Untagged devices are not told of."""
    spec: dict[str, Any] = vmi["spec"]
    machine = _skeleton(vmi, disks)
    places = ports.addresses(machine)
    cards = {each["name"]: each for each in ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or ()}
    found = [
        _without_empty(
            type="nic", bus="pci", address=places.get(ids.nic_id(name), ""), mac=str(each.get("macAddress") or ""),
            tags=[str(each["tag"])],
        ) for name, each in cards.items() if each.get("tag")
    ]  # fmt: skip
    on_scsi = [disk["name"] for disk in disks if api_disks.bus(disk) == "scsi"]
    for disk in disks:
        if not disk.get("tag"):
            continue
        name, bus = disk["name"], api_disks.bus(disk)
        address = f"0:0:{on_scsi.index(name)}:0" if bus == "scsi" else places.get(ids.disk_id(name), "")
        found.append(
            _without_empty(
                type="disk", bus="pci" if bus == "virtio" else bus, address=address,
                serial=str(disk.get("serial") or ""), tags=[str(disk["tag"])],
            )
        )  # fmt: skip
    return found


def _without_empty(**fields: object) -> Document:
    return {field: value for field, value in fields.items() if value}


def _skeleton(vmi: Document, disks: list[Document]) -> Machine:
    """As much of the machine as decides where its devices are."""
    kind = str(((vmi["spec"].get("domain") or {}).get("machine") or {}).get("type") or "q35")
    return Machine(
        name="", uuid="", machine_type=kind,
        nics=tuple(
            Nic(name=each["name"], mac="", backend=UserNet(), pci_address=str(each.get("pciAddress") or ""))
            for _, each in of_the_pod(vmi)
        ),
        disks=tuple(
            Disk(
                name=disk["name"], bus=cast("Bus", api_disks.bus(disk)), kind=cast("_Kind", api_disks.target(disk)),
                pci_address=str((disk.get("disk") or {}).get("pciAddress") or ""),
            ) for disk in disks
        ),
    )  # fmt: skip


_Kind = Literal["disk", "cdrom", "lun"]
