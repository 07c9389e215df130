"""One writer for each disk: what another QEMU holds, by QEMU's own locks, is refused with its user and the mend."""

import fcntl
import os
import struct

import pytest

from hotvirt.node.volumes import ClaimFile, VolumeError, free
from hotvirt.qemu import locks

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
