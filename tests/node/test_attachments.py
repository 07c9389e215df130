"""Which disks of a running guest are to come and which to go."""

import pytest

from hotvirt.node import attachments
from hotvirt.node.guest import Job
from hotvirt.node.places import Places
from hotvirt.node.volumes import Volumes
from hotvirt.qemu.state import DiskState, MemoryState, Observed


class Guest:
    """What `changes` asks a guest for, written down rather than done."""

    def __init__(self, **jobs):
        self.jobs = jobs
        self.asked = {}

    def want(self, kind, target, run):
        self.asked[kind] = target

    def drop(self, kind):
        self.jobs.pop(kind, None)


async def nothing(kind, name):
    return None


async def ask(spec, *disks, guest=None, lookup=nothing):
    guest = guest or Guest()
    observed = Observed(status="running", running=True, version=(7, 2, 0), memory=MemoryState(boot=1), disks=disks)
    store = Volumes(Places(*[None] * 3))
    return guest.asked, await attachments.volumes({"spec": spec}, guest, observed, store, lookup)


def spec(*disks, volumes=()):
    return {"domain": {"devices": {"disks": list(disks)}}, "volumes": list(volumes)}


def there(name, *nodes):
    return DiskState(name=name, device=True, nodes=nodes)


async def test_a_disk_that_nobody_asks_for_any_more_goes():
    assert await ask(spec(), there("data", "disk-data")) == ({"volume data": ("detach",)}, {})


async def test_an_empty_drive_stays():
    assert await ask(spec({"name": "cd", "cdrom": {}}), there("cd")) == ({}, {})


CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "c", "hotpluggable": True}}


async def made(kind, name):
    """A bound claim `c` of 2 MiB, made here."""
    if kind == "claim":
        return {"metadata": {"name": "c"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}
    if kind == "volume":
        return {
            "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "hotvirt.io/directory"}},
            "spec": {"capacity": {"storage": "2Mi"}, "local": {"path": made.directory}},
        }
    return None


@pytest.fixture
def file(tmp_path):
    made.directory = str(tmp_path)
    (tmp_path / "disk.img").write_bytes(b"x" * 512)
    return tmp_path / "disk.img"


@pytest.mark.parametrize("nodes", [(), ("disk-data",)], ids=["nothing open", "its image open, but not in it"])
async def test_a_disc_goes_into_its_empty_drive(file, nodes):
    drive = DiskState(name="data", device=True, nodes=nodes, is_empty=True)
    asked, waiting = await ask(spec({"name": "data", "cdrom": {"bus": "sata"}}, volumes=[CLAIM]), drive, lookup=made)
    assert (asked, waiting) == ({"volume data": ("attach", str(file))}, {})


@pytest.mark.parametrize("is_empty", [False, True], ids=["in it", "only open"])
async def test_a_disc_that_nobody_asks_for_any_more_is_ejected(is_empty):
    drive = DiskState(name="cd", device=True, nodes=("disk-cd",), is_empty=is_empty)
    assert await ask(spec({"name": "cd", "cdrom": {}}), drive) == ({"volume cd": ("eject",)}, {})


async def test_the_job_of_an_ejected_disc_goes_with_it():
    job = Job(("eject",))
    guest = Guest(**{"volume cd": job})
    assert await ask(spec({"name": "cd", "cdrom": {}}), there("cd"), guest=guest) == ({}, {})
    assert guest.jobs == {}


@pytest.mark.parametrize(
    ("size", "asked"), [(1 << 20, {"volume data": ("grow", 2 << 20)}), (2 << 20, {}), (3 << 20, {}), (0, {})]
)
async def test_a_disk_grows_with_its_claim_and_never_shrinks(size, asked):
    has = DiskState(name="data", device=True, nodes=("disk-data",), size=size)
    made.directory = "/nowhere"
    assert await ask(spec({"name": "data", "disk": {}}, volumes=[CLAIM]), has, lookup=made) == (asked, {})


async def test_a_disk_that_only_reads_does_not_grow():
    has = DiskState(name="data", device=True, nodes=("disk-data",), size=1 << 20, read_only=True)
    assert await ask(spec({"name": "data", "disk": {}}, volumes=[CLAIM]), has, lookup=made) == ({}, {})


async def test_a_lun_on_a_file_is_refused_with_what_to_say_instead(file):
    asked, waiting = await ask(spec({"name": "data", "lun": {}}, volumes=[CLAIM]), lookup=made)
    assert asked == {}
    assert waiting["data"] == (
        "NotADevice",
        "volume 'data': a lun is a SCSI device of the host, and claim 'c' is a file: say disk in place of lun",
    )


@pytest.mark.parametrize("disks", [(), (DiskState(name="data", device=False, nodes=("disk-data",)),)])
async def test_a_volume_without_a_claim_waits_for_it(disks):
    asked, waiting = await ask(spec({"name": "data", "disk": {"bus": "scsi"}}, volumes=[CLAIM]), *disks)
    assert asked == {}
    assert waiting == {"data": ("FailedPvcNotFound", "volume 'data': there is no PersistentVolumeClaim 'c': create it")}


async def test_volumes_of_the_start_are_nothing_to_do():
    root = {"name": "root", "containerDisk": {"image": "x"}}
    assert await ask(spec({"name": "root", "disk": {}}, volumes=[root]), there("root", "disk-root")) == ({}, {})


async def test_a_disc_waits_outside_an_open_tray():
    drive = DiskState(name="data", device=True, is_empty=True)
    shown = {"name": "data", "cdrom": {"bus": "scsi", "tray": "open"}}
    asked, waiting = await ask(spec(shown, volumes=[CLAIM]), drive, lookup=made)
    assert (asked, waiting["data"][0]) == ({}, "TrayOpen")
