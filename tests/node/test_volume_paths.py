"""A PersistentVolume made by hand, `local` or `hostPath`, is good for all that ours is, and leads nowhere else."""

import os
import subprocess
from pathlib import Path

import pytest

from hotvirt.api.datavolumes import Request
from hotvirt.api.exports import DUMP, Disk
from hotvirt.images import disks
from hotvirt.images.errors import UnsafeImage
from hotvirt.kube.errors import InternalError, NotFound
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import CLAIMS, STORAGE_PROFILES, VOLUME_SNAPSHOT_CONTENTS, VOLUME_SNAPSHOTS, VOLUMES
from hotvirt.node.exportfiles import LocalExportFiles
from hotvirt.node.filling import Filling, Given, Job
from hotvirt.node.holding import thin_disks
from hotvirt.node.places import Places, PodPlace
from hotvirt.node.volumes import OWNED, PROVISIONER, path_of

MIB = 1 << 20
CONTENT = b"what a guest wrote".ljust(2 * MIB, b"\0")


class World:
    """A claim on a PV of this kind and path."""

    def __init__(self, directory, kind, path, **annotations):
        self.places = Places(pods=directory / "p", images=directory / "i", volumes=directory / "v")
        self.places.volumes.mkdir()
        self.informers = SharedInformers(None)
        claim = {
            "metadata": {"name": "data", "namespace": "shop", "uid": "c", "resourceVersion": "1"},
            "spec": {"volumeName": "pv", "storageClassName": "by-hand"},
            "status": {"phase": "Bound"},
        }
        volume = {
            "metadata": {"name": "pv", "uid": "v", "resourceVersion": "1", "annotations": annotations},
            "spec": {kind: {"path": str(path)}},
        }
        for resource in (VOLUME_SNAPSHOTS, VOLUME_SNAPSHOT_CONTENTS, STORAGE_PROFILES):
            self.informers.of(resource)
        for resource, obj in ((CLAIMS, claim), (VOLUMES, volume)):
            self.informers.of(resource)._store(obj, relisted=True)

    async def export(self, kind="PersistentVolumeClaim"):
        files, disk = LocalExportFiles(self.informers, places=self.places), Disk("data", kind, "data")
        async with files.open("shop", disk) as opened:
            found = b"".join([chunk async for chunk in opened.chunks()])
        assert files.size("shop", disk) == len(found)
        return found

    async def clone(self):
        claim = {"metadata": {"name": "copy", "namespace": "shop"}, "spec": {}}
        request = Request("pvc", {"name": "data", "namespace": "shop"})
        made = self.places.volumes / "copy"
        job = Job(claim=claim, request=request, directory=made, format="raw", size=2 * MIB)
        filling = Filling(None, self.informers, places=self.places, user=None, stall=1.0)
        await filling.fill(job, lambda _: None)
        return (made / "disk.img").read_bytes()


@pytest.fixture
def device(tmp_path):
    """A block device with CONTENT."""
    file = tmp_path / "device"
    file.write_bytes(CONTENT)
    made = subprocess.run(["losetup", "-f", "--show", str(file)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no block device can be made here: {made.stderr.strip()}")
    name = made.stdout.strip()
    yield Path(name)
    subprocess.run(["losetup", "-d", name], check=True)


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "mine"
    made.mkdir()
    (made / "disk.img").write_bytes(CONTENT)
    return made


def test_where_a_volume_is():
    assert path_of({"spec": {"local": {"path": "/a"}}}) == Path("/a")
    assert path_of({"spec": {"hostPath": {"path": "/b"}}}) == Path("/b")
    assert path_of({"spec": {"nfs": {"path": "/c"}}}) is path_of({}) is path_of(None) is None


@pytest.mark.parametrize("kind", ["local", "hostPath"])
async def test_a_directory_is_exported_copied_and_watched(tmp_path, directory, kind):
    world = World(tmp_path, kind, directory)
    assert await world.export() == CONTENT
    assert await world.clone() == CONTENT
    assert os.listdir(directory) == ["disk.img"], "a directory of somebody's own stays as it is"
    vmi = {
        "metadata": {"namespace": "shop"},
        "spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]},
    }
    taken = thin_disks(vmi, PodPlace(tmp_path), world.informers.of(CLAIMS), world.informers.of(VOLUMES))
    assert list(taken) == [directory / "disk.img"]
    (directory / "a.memory.dump").write_bytes(b"ELF")
    assert await world.export(DUMP) == b"ELF"


async def test_a_disk_of_ours_is_copied_as_before(tmp_path, directory):
    """In place where the file system has no reflinks: the copy and what it is of share a base."""
    world = World(tmp_path, "local", directory, **{OWNED: PROVISIONER})
    try:
        assert await world.clone() == CONTENT
    except FileNotFoundError:
        assert (tmp_path / "v" / "copy" / "disk.qcow2").exists()


@pytest.mark.parametrize("kind", ["local", "hostPath"])
async def test_a_block_device_is_exported_as_it_is(tmp_path, device, kind):
    world = World(tmp_path, kind, device)
    assert await world.export() == CONTENT
    with pytest.raises(NotFound):
        await world.export(DUMP)
    with pytest.raises(Given, match="is a block device, which is not copied here"):
        await world.clone()


@pytest.fixture
def secret(tmp_path, directory):
    """A file of the host, that a guest may have its disk's directory name in the disk's place."""
    (directory / "disk.img").unlink()
    path = tmp_path / "secret"
    path.write_bytes(CONTENT)
    return path


async def test_a_header_that_a_guest_may_have_written_there_is_not_believed(tmp_path, directory, secret):
    await disks.overlay(directory / "disk.qcow2", secret, "raw")
    world = World(tmp_path, "local", directory)
    with pytest.raises(InternalError, match="no base of this machine's disks"):
        await world.export()
    with pytest.raises(UnsafeImage, match="no base of this machine's disks"):
        await world.clone()


async def test_a_link_that_a_guest_may_have_put_there_is_not_followed(tmp_path, directory, secret):
    for name in ("disk.img", "x.memory.dump"):
        (directory / name).symlink_to(secret)
    world = World(tmp_path, "hostPath", directory)
    for kind in ("PersistentVolumeClaim", DUMP):
        with pytest.raises(NotFound):
            await world.export(kind)
    with pytest.raises(Given, match="has no disk in"):
        await world.clone()
