"""Which disks of a running guest are to come and which to go."""

import pytest

from hotvirt.node import changes
from hotvirt.node.places import Places
from hotvirt.node.volumes import Volumes
from hotvirt.qemu.state import DiskState, MemoryState, Observed


class Guest:
    """What `changes` asks a guest for, written down rather than done."""

    def __init__(self, *jobs):
        self.jobs = dict.fromkeys(jobs)
        self.asked = {}

    def want(self, kind, target, run):
        self.asked[kind] = target

    def drop(self, kind):
        self.jobs.pop(kind, None)


async def nothing(kind, name):
    return None


async def ask(spec, *disks, guest=None):
    guest = guest or Guest()
    observed = Observed(status="running", running=True, version=(7, 2, 0), memory=MemoryState(boot=1), disks=disks)
    store = Volumes(Places(*[None] * 3))
    return guest.asked, await changes.volumes({"spec": spec}, guest, observed, store, nothing)


def spec(*disks, volumes=()):
    return {"domain": {"devices": {"disks": list(disks)}}, "volumes": list(volumes)}


def there(name, *nodes):
    return DiskState(name=name, device=True, nodes=nodes)


async def test_a_disk_that_nobody_asks_for_any_more_goes():
    assert await ask(spec(), there("data", "disk-data")) == ({"volume data": ("detach",)}, {})


async def test_an_empty_drive_stays():
    assert await ask(spec({"name": "cd", "cdrom": {}}), there("cd")) == ({}, {})


CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "c", "hotpluggable": True}}


async def test_a_disc_for_an_empty_drive_waits_for_a_start_and_says_so():
    asked, waiting = await ask(
        spec({"name": "data", "cdrom": {"bus": "sata"}}, volumes=[CLAIM]), DiskState(name="data", device=True)
    )
    assert asked == {}
    assert waiting["data"][0] == "RestartRequired"
    assert "volume 'data'" in waiting["data"][1]


async def test_a_disc_taken_out_stays_in_its_drive_until_a_start_and_that_is_said():
    asked, waiting = await ask(spec({"name": "cd", "cdrom": {}}), there("cd", "disk-cd"))
    assert asked == {}
    assert waiting == {"cd": ("RestartRequired", "drive 'cd' keeps its disc until a start: restart the VM")}


@pytest.mark.parametrize("disks", [(), (DiskState(name="data", device=False, nodes=("disk-data",)),)])
async def test_a_volume_without_a_claim_waits_for_it(disks):
    asked, waiting = await ask(spec({"name": "data", "disk": {"bus": "scsi"}}, volumes=[CLAIM]), *disks)
    assert asked == {}
    assert waiting == {"data": ("FailedPvcNotFound", "volume 'data': there is no PersistentVolumeClaim 'c': create it")}


async def test_volumes_of_the_start_are_nothing_to_do():
    root = {"name": "root", "containerDisk": {"image": "x"}}
    assert await ask(spec({"name": "root", "disk": {}}, volumes=[root]), there("root", "disk-root")) == ({}, {})
