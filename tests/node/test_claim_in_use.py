"""One writer for each disk: what another QEMU holds, by QEMU's own locks, is refused with its user and the mend."""

import fcntl
import os
import struct

import pytest

from hotvirt.node import attachments
from hotvirt.node.guest import Job
from hotvirt.node.places import Places
from hotvirt.node.volumes import ClaimFile, VolumeError, Volumes, free
from hotvirt.qemu import locks
from hotvirt.qemu.errors import HotplugError
from hotvirt.qemu.state import DiskState, MemoryState, Observed

SET_LOCK = 37  # F_OFD_SETLK
READS, WRITES, DENIES_WRITING = 100, 101, 201
BY = {
    "a writer": (READS, WRITES, DENIES_WRITING),
    "a writer that shares": (READS, WRITES),
    "a reader": (READS, DENIES_WRITING),
}


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"\0" * 512)
    return path


@pytest.fixture
def hold(image):
    """Locks the image as QEMU does; the other descriptor is what makes it another user."""
    held = []

    def take(who):
        held.append(os.open(image, os.O_RDWR))
        for byte in BY[who]:
            lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
            fcntl.fcntl(held[-1], SET_LOCK, lock)

    yield take
    for descriptor in held:
        os.close(descriptor)


# who has it -> whether (a writer, a reader, a writer that shares) may not come
TAKEN = {
    None: (False, False, False),
    "a writer": (True, True, True),
    "a writer that shares": (True, True, False),
    "a reader": (True, False, True),
}


@pytest.mark.parametrize(("who", "expected"), TAKEN.items())
def test_who_may_use_an_image_beside_another(image, hold, who, expected):
    if who:
        hold(who)
    comers = ({"read_only": False}, {"read_only": True}, {"read_only": False, "shareable": True})
    assert tuple(locks.taken(image, **{"shareable": False, **comer}) for comer in comers) == expected


async def ask(image, *, user=None, disk=None, read_only=False):
    async def lookup(kind, name):
        assert (kind, name) == ("user", "data")
        return user

    await free("root", "data", ClaimFile(image, "raw", read_only), disk or {"disk": {"bus": "virtio"}}, lookup)


@pytest.mark.parametrize(
    ("user", "named"), [({"metadata": {"name": "db"}}, "VM 'db'"), (None, "another process")], ids=["known", "unknown"]
)
async def test_the_user_is_named_with_what_to_do(image, hold, user, named):
    hold("a writer")
    with pytest.raises(VolumeError) as refusal:
        await ask(image, user=user)
    assert refusal.value.reason == "ClaimInUse"
    assert str(refusal.value) == (
        f"volume 'root': claim 'data' is in use by {named}: stop that or detach it there, or use another claim"
    )


async def test_readers_share_and_so_do_disks_that_say_so(image, hold):
    await ask(image)
    hold("a reader")
    await ask(image, read_only=True)
    await ask(image, disk={"cdrom": {}})
    with pytest.raises(VolumeError):
        await ask(image)


async def test_writers_that_both_share(image, hold):
    hold("a writer that shares")
    await ask(image, disk={"disk": {}, "shareable": True})


class Guest:
    """What `changes` asks of a guest, written down rather than done."""

    def __init__(self, jobs=None):
        self.jobs, self.asked = jobs or {}, []

    def want(self, kind, target, run):
        self.asked.append(kind)

    def drop(self, kind):
        self.jobs.pop(kind, None)


async def hot_plug(image, guest, *disks):
    """Volume `data` of claim `data`, whose file is the image; (what is begun, what waits)."""

    async def lookup(kind, name):
        return {
            "claim": {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}},
            "volume": {"spec": {"local": {"path": str(image.parent)}}},
        }.get(kind)

    source = {"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}
    spec = {"domain": {"devices": {"disks": [{"name": "data", "disk": {"bus": "scsi"}}]}}, "volumes": [source]}
    observed = Observed(status="running", running=True, version=(7, 2, 0), memory=MemoryState(boot=1), disks=disks)
    waiting = await attachments.volumes({"spec": spec}, guest, observed, Volumes(Places(*[image.parent] * 3)), lookup)
    return guest.asked, {name: reason for name, (reason, _) in waiting.items()}


async def test_a_disk_waits_for_whoever_uses_its_claim(image, hold):
    assert await hot_plug(image, Guest()) == (["volume data"], {})
    hold("a writer")
    assert await hot_plug(image, Guest()) == ([], {"data": "ClaimInUse"})


OWN = {
    "on its way": (Guest({"volume data": Job(target=None)}), ()),
    "half attached": (Guest(), (DiskState(name="data", device=False, nodes=("disk-data",)),)),
}


@pytest.mark.parametrize(("guest", "disks"), OWN.values(), ids=OWN)
async def test_a_disk_that_the_guest_itself_has_open_is_not_in_its_own_way(image, hold, guest, disks):
    hold("a writer")
    assert await hot_plug(image, guest, *disks) == (["volume data"], {})


async def test_a_disk_that_failed_and_is_not_open_is_looked_at_again(image, hold):
    hold("a writer")
    failed = Guest({"volume data": Job(target=None, error=HotplugError("QemuRefused", "no"))})
    assert await hot_plug(image, failed) == ([], {"data": "ClaimInUse"})
