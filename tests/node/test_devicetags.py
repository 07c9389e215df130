"""Which device a tag is on."""

from typing import Any

from hotvirt.node import devicetags, shown

DISKS: list[dict[str, Any]] = [
    {"name": "root", "disk": {"bus": "virtio"}},
    {"name": "db", "disk": {"bus": "virtio"}, "serial": "D1", "tag": "database"},
    {"name": "log", "disk": {"bus": "scsi"}},
    {"name": "cache", "disk": {"bus": "scsi"}, "tag": "cache"},
    {"name": "old", "disk": {"bus": "sata"}, "tag": "legacy"},
    {"name": "late", "disk": {"bus": "scsi"}, "tag": "later"},
    {"name": "at", "disk": {"bus": "virtio", "pciAddress": "0000:0a:00.0"}, "tag": "placed"},
]
CARDS = [
    {"name": "default", "masquerade": {}, "macAddress": "02:00:00:00:00:01"},
    {"name": "lan", "bridge": {}, "macAddress": "02:00:00:00:00:02", "tag": "storage"},
]


def _vmi(machine: str = "q35", cards: int = 2) -> dict[str, Any]:
    sources = [{"name": disk["name"], "emptyDisk": {"capacity": "1Gi"}} for disk in DISKS]
    sources[5] = {"name": "late", "persistentVolumeClaim": {"claimName": "late", "hotpluggable": True}}
    domain = {"machine": {"type": machine}, "devices": {"disks": DISKS, "interfaces": CARDS[:cards]}}
    networks = [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}][:cards]
    return {"metadata": {"name": "web"}, "spec": {"domain": domain, "volumes": sources, "networks": networks}}


def _told(vmi: dict[str, Any]) -> list[dict[str, Any]]:
    return devicetags.devices(vmi, shown.first_disks(vmi["spec"]))


def test_a_tag_is_on_the_address_that_the_guest_finds() -> None:
    assert _told(_vmi()) == [
        # Attached once the guest runs, so nobody knows yet where.
        {"type": "nic", "bus": "pci", "mac": "02:00:00:00:00:02", "tags": ["storage"]},
        # Port 1 is the first card's, 2 the root disk's.
        {"type": "disk", "bus": "pci", "address": "0000:03:00.0", "serial": "D1", "tags": ["database"]},
        {"type": "disk", "bus": "scsi", "address": "0:0:1:0", "tags": ["cache"]},
        {"type": "disk", "bus": "sata", "tags": ["legacy"]},
        {"type": "disk", "bus": "pci", "address": "0000:0a:00.0", "tags": ["placed"]},
    ]


def test_a_plain_machine_has_other_addresses() -> None:
    disks = [disk for disk in DISKS if disk["name"] in ("root", "db")]
    assert devicetags.devices(_vmi("pc", cards=1), disks)[0]["address"] == "0000:00:12.0"
