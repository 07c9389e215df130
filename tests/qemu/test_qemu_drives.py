"""Discs go in and out of drives in steps; whatever state an earlier home left, the steps lead to the end."""

import pytest

from hotvirt.qemu import facts
from hotvirt.qemu.disks import CloseImages, Done, OpenImages
from hotvirt.qemu.drives import (
    CloseTray,
    Drive,
    OpenTray,
    PutIn,
    TakeOut,
    next_to_eject,
    next_to_insert,
    parse_drives,
)

STARTS = [
    (Drive(node, is_open), nodes)
    for node in ("", "disk-cd")
    for is_open in (False, True)
    for nodes in ((), ("disk-cd",), ("disk-cd", "disk-cd.1"))
    if not node or nodes
]


def moved(drive, nodes, step):
    """What QEMU does."""
    match step:
        case OpenImages():
            return drive, ("disk-cd", "disk-cd.1")
        case CloseImages(nodes=gone):
            assert drive.node not in gone, "QEMU closes no image that is in use"
            return drive, tuple(node for node in nodes if node not in gone)
        case OpenTray():
            return Drive(drive.node, True), nodes
        case CloseTray():
            return Drive(drive.node, False), nodes
        case TakeOut():
            assert drive.is_open
            return Drive("", True), nodes
        case PutIn(node=node):
            assert drive.is_open
            assert not drive.node
            return Drive(node, True), nodes
    raise AssertionError(step)


def follow(drive, nodes, decide):
    for _ in range(8):
        step = decide(drive, nodes)
        if isinstance(step, Done):
            return drive, nodes
        drive, nodes = moved(drive, nodes, step)
    raise AssertionError("it never ends")


@pytest.mark.parametrize(("drive", "nodes"), STARTS)
def test_a_disc_ends_up_in_a_closed_drive(drive, nodes):
    found, _ = follow(drive, nodes, lambda d, n: next_to_insert(d, n, 2))
    assert found == Drive("disk-cd", False)


@pytest.mark.parametrize(("drive", "nodes"), STARTS)
def test_an_ejected_disc_leaves_an_empty_closed_drive_and_nothing_open(drive, nodes):
    assert follow(drive, nodes, next_to_eject) == (Drive(), ())


def test_drives_are_known_by_their_disk():
    told = [
        {"qdev": "/machine/peripheral/disk-vd/virtio-backend", "removable": False, "inserted": {"node-name": "x"}},
        {
            "qdev": "disk-cd",
            "removable": True,
            "tray_open": False,
            "locked": True,
            "inserted": {"node-name": "disk-cd"},
        },
        {"qdev": "/machine/peripheral/disk-e", "removable": True, "tray_open": True, "locked": False},
        {"device": "floppy0", "removable": True},
    ]
    assert parse_drives(told) == {"cd": Drive("disk-cd", False, True), "e": Drive("", True, False)}


MOUNTS = """\
proc /proc proc rw 0 0
/dev/sda1 / ext4 rw 0 0
/dev/sda15 /boot/efi vfat rw 0 0
/dev/sdab /other ext4 rw 0 0
/dev/vdb /mnt/data\\040x ext4 rw 0 0
nonsense
"""
SWAPS = "Filename Type Size\n/dev/vdb2 partition 1 0 -2\n"


@pytest.mark.parametrize(
    ("disks", "places"),
    [
        (["sda"], ("/", "/boot/efi")), (["vdb"], ("/mnt/data\\040x", "swap")), (["sdab"], ("/other",)), (["sd"], ()),
        ([], ()),
    ],
)  # fmt: skip
def test_where_a_guest_uses_a_disk(disks, places):
    assert facts.parse_uses(MOUNTS, SWAPS, disks) == places
