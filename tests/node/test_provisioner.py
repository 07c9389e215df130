"""Claims become files and volumes once, say what is wrong with them, and go when they are given back."""

import asyncio
import fcntl
import importlib.util
import os
import struct
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hotvirt.images import bases
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import CLAIMS, EVENTS, STORAGE_CLASSES, VOLUMES
from hotvirt.node import directoryclaims, provisioner
from hotvirt.node.places import Places

_path = Path(__file__).parents[1] / "kube" / "memory_api.py"
_spec = importlib.util.spec_from_file_location("memory_api_of_node", _path)
memory_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(memory_api)

CLASS = {
    "metadata": {"name": "hotvirt-directory", "annotations": {provisioner.DEFAULT_CLASS: "true"}},
    "provisioner": provisioner.PROVISIONER,
}


def claim(storage="1Mi", name="data", **spec):
    requests = {} if storage is None else {"storage": storage}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": "u-1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": requests}, **spec},
    }


FAULTS = {
    "a size": (claim("1Gi"), None),
    "no size": (claim(None), "spec.resources.requests.storage: None is not a quantity: write it like 2Gi or 500m"),
    "no quantity": (
        claim("big"),
        "spec.resources.requests.storage: 'big' is not a quantity: write it like 2Gi, 512Mi or 500m",
    ),
    "nothing": (claim("0"), "spec.resources.requests.storage must be more than nothing, such as 1Gi"),
    "negative": (claim("-1Gi"), "spec.resources.requests.storage must be more than nothing, such as 1Gi"),
    "a block volume": (claim("1Gi", volumeMode="Block"), None),
    "a filesystem": (claim("1Gi", volumeMode="Filesystem"), None),
}


@pytest.mark.parametrize(("asked", "sentence"), FAULTS.values(), ids=FAULTS)
def test_fault(asked, sentence):
    assert directoryclaims.fault(asked) == sentence


def test_a_volume():
    made = directoryclaims.persistent_volume(
        claim("1Gi"), CLASS, name="pvc-u-1", path=Path("/v/pvc-u-1"), size=1 << 30, node="here"
    )
    assert made == {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": "pvc-u-1", "annotations": {"pv.kubernetes.io/provisioned-by": "hotvirt.io/directory"},
        },
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "storageClassName": "hotvirt-directory",
            "persistentVolumeReclaimPolicy": "Delete",
            "local": {"path": "/v/pvc-u-1"},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": "data",
                "uid": "u-1",
            },
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [
                            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["here"]}]}
                    ]
                }
            },
        },
    }  # fmt: skip


def test_the_class_says_what_becomes_of_a_volume_that_is_given_back():
    made = directoryclaims.persistent_volume(
        claim(), {**CLASS, "reclaimPolicy": "Retain"}, name="n", path=Path("/v/n"), size=512, node="here"
    )
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


# On an API


class Home:
    def __init__(self, api, places):
        self.api, self.places = api, places

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)

    def claim(self):
        return self.api.find(CLAIMS, "data")

    def events(self):
        return [(each["reason"], each["message"]) for each in self.api.all(EVENTS)]

    async def bound(self):
        await self.until(lambda: (self.claim().get("status") or {}).get("phase") == "Bound")
        return self.api.all(VOLUMES)[0]


@pytest.fixture
async def home(tmp_path):
    api = memory_api.MemoryApi()
    places = Places(tmp_path / "pods", tmp_path / "images", tmp_path / "volumes")
    places.volumes.mkdir()
    return Home(api, places)


@asynccontextmanager
async def at_work(home, **settings):
    def clock():
        return datetime(2026, 1, 1, tzinfo=UTC)

    informers, recorder = SharedInformers(home.api), Recorder(home.api, "test", clock=clock)
    made = provisioner.Provisioner(
        home.api, informers, node="here", places=home.places, recorder=recorder, clock=clock, **settings
    )
    tasks = [asyncio.create_task(each) for each in (informers.run(), recorder.run(), made.controller.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_claim_gets_a_sparse_file_of_its_size_and_is_bound(home):
    await home.api.create(STORAGE_CLASSES, CLASS)
    await home.api.create(CLAIMS, claim("1000001"))
    async with at_work(home):
        volume = await home.bound()
    file = Path(volume["spec"]["local"]["path"]) / "disk.img"
    assert file.stat().st_size == 1000448, "whole sectors"
    assert file.stat().st_blocks == 0
    assert home.claim()["spec"]["volumeName"] == volume["metadata"]["name"]
    assert home.claim()["spec"]["storageClassName"] == "hotvirt-directory"
    assert home.claim()["status"]["capacity"] == {"storage": "977Ki"}
    assert volume["spec"]["claimRef"]["uid"] == home.claim()["metadata"]["uid"]


async def test_a_home_that_died_in_the_middle_finishes_what_it_began(home):
    """The file was there, and the volume, but the claim was not bound."""
    await home.api.create(STORAGE_CLASSES, CLASS)
    made = await home.api.create(CLAIMS, claim())
    name = f"pvc-{made['metadata']['uid']}"
    directory = home.places.volumes / name
    directory.mkdir()
    (directory / "disk.img").write_bytes(b"somebody's data".ljust(1 << 20, b"\0"))
    await home.api.create(
        VOLUMES, directoryclaims.persistent_volume(made, CLASS, name=name, path=directory, size=1 << 20, node="here")
    )
    async with at_work(home):
        await home.bound()
    assert (directory / "disk.img").read_bytes().startswith(b"somebody's data")
    assert len(home.api.all(VOLUMES)) == 1


async def test_a_claim_given_back_takes_its_file_along(home):
    await home.api.create(STORAGE_CLASSES, CLASS)
    await home.api.create(CLAIMS, claim())
    async with at_work(home):
        volume = await home.bound()
        await home.api.delete(CLAIMS, "data", "default")
        await home.until(lambda: not home.api.all(VOLUMES))
    assert not Path(volume["spec"]["local"]["path"]).exists()


async def test_a_claim_given_back_while_a_guest_uses_it_keeps_its_file_until_the_guest_is_gone(home):
    await home.api.create(STORAGE_CLASSES, CLASS)
    await home.api.create(CLAIMS, claim())
    async with at_work(home, look_again=0.05):
        file = Path((await home.bound())["spec"]["local"]["path"]) / "disk.img"
        with written_by_a_guest(file):
            await home.api.delete(CLAIMS, "data", "default")
            await home.until(lambda: home.api.all(VOLUMES)[0].get("status", {}).get("phase") == "Released")
            assert file.exists()
        await home.until(lambda: not home.api.all(VOLUMES))
    assert not file.parent.exists()


@contextmanager
def written_by_a_guest(file):
    """Locked as QEMU does to tell others."""
    with file.open("r+b") as opened:
        fcntl.fcntl(opened, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0))  # F_OFD_SETLK
        yield


GROWING_CLASS = {**CLASS, "allowVolumeExpansion": True}


async def ask_for(home, storage):
    patch = {"spec": {"resources": {"requests": {"storage": storage}}}}
    await home.api.patch(CLAIMS, "data", patch, "default")


def capacities(home):
    claim, volume = home.claim(), home.api.all(VOLUMES)[0]
    return claim["status"]["capacity"]["storage"], volume["spec"]["capacity"]["storage"]


async def test_a_claim_grows_with_its_file_and_keeps_what_is_in_it(home):
    await home.api.create(STORAGE_CLASSES, GROWING_CLASS)
    await home.api.create(CLAIMS, claim())
    async with at_work(home):
        file = Path((await home.bound())["spec"]["local"]["path"]) / "disk.img"
        with file.open("r+b") as opened:
            opened.write(b"kept")
        await ask_for(home, "3Mi")
        await home.until(lambda: capacities(home) == ("3Mi", "3Mi"))
        await home.until(lambda: ("FileSystemResizeSuccessful", "grew from 1Mi to 3Mi") in home.events())
    assert file.stat().st_size == 3 << 20
    assert file.read_bytes().startswith(b"kept")


async def test_a_file_in_use_is_left_to_its_guest_and_the_claim_says_so(home, monkeypatch):
    monkeypatch.setattr(provisioner, "GROWING", 0.01)
    await home.api.create(STORAGE_CLASSES, GROWING_CLASS)
    await home.api.create(CLAIMS, claim())
    async with at_work(home):
        file = Path((await home.bound())["spec"]["local"]["path"]) / "disk.img"
        with written_by_a_guest(file):
            await ask_for(home, "2Mi")
            await home.until(lambda: home.claim()["status"].get("conditions"))
            assert home.claim()["status"]["conditions"][0]["type"] == "FileSystemResizePending"
            assert capacities(home) == ("1Mi", "2Mi")
            assert file.stat().st_size == 1 << 20
            os.truncate(file, 2 << 20)  # what the guest's QEMU does
            await home.until(lambda: capacities(home) == ("2Mi", "2Mi"))
    assert not home.claim()["status"].get("conditions")


@pytest.mark.parametrize(
    ("storage_class", "size", "why"),
    [
        (
            CLASS,
            "2Mi",
            "storage class hotvirt-directory does not let claims grow: set its allowVolumeExpansion to true",
        ),
        (GROWING_CLASS, "1Pi", "it would grow by "),
    ],
)
async def test_a_claim_that_cannot_grow_says_why(home, storage_class, size, why):
    await home.api.create(STORAGE_CLASSES, storage_class)
    await home.api.create(CLAIMS, claim())
    async with at_work(home):
        await home.bound()
        await ask_for(home, size)
        await home.until(lambda: any(r == "VolumeResizeFailed" and m.startswith(why) for r, m in home.events()))
    assert capacities(home) == ("1Mi", "1Mi")


def test_the_size_in_a_qcow2_header(tmp_path):
    file = tmp_path / "disk.qcow2"
    file.write_bytes(b"QFI\xfb".ljust(24, b"\0") + (5 << 20).to_bytes(8, "big") + b"\0" * 8)
    assert bases.virtual_size(file) == 5 << 20


async def test_a_volume_to_be_kept_is_kept(home):
    await home.api.create(STORAGE_CLASSES, {**CLASS, "reclaimPolicy": "Retain"})
    await home.api.create(CLAIMS, claim())
    async with at_work(home):
        volume = await home.bound()
        await home.api.delete(CLAIMS, "data", "default")
        await home.until(lambda: home.api.all(VOLUMES)[0].get("status", {}).get("phase") == "Released")
    assert (Path(volume["spec"]["local"]["path"]) / "disk.img").exists()


async def test_another_claim_of_the_same_name_gets_another_file(home):
    await home.api.create(STORAGE_CLASSES, CLASS)
    await home.api.create(CLAIMS, claim())
    async with at_work(home):
        first = await home.bound()
        await home.api.delete(CLAIMS, "data", "default")
        await home.api.create(CLAIMS, claim())
        await home.until(lambda: [v["metadata"]["name"] for v in home.api.all(VOLUMES)] != [first["metadata"]["name"]])
        second = await home.bound()
    assert second["metadata"]["name"] != first["metadata"]["name"]


async def test_only_what_lies_in_our_directory_is_ever_removed(home, tmp_path):
    """A volume may say any path: whoever can write one must not be able to delete another's files."""
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    await home.api.create(STORAGE_CLASSES, CLASS)
    hostile = directoryclaims.persistent_volume(claim(), CLASS, name="treasure", path=treasure, size=512, node="here")
    await home.api.create(VOLUMES, hostile)
    async with at_work(home):
        await home.until(lambda: not home.api.all(VOLUMES))
    assert treasure.exists()


async def test_classes_of_others_and_volumes_by_hand_are_left_alone(home):
    await home.api.create(STORAGE_CLASSES, CLASS)
    await home.api.create(STORAGE_CLASSES, {"metadata": {"name": "other"}, "provisioner": "example.com/other"})
    await home.api.create(CLAIMS, claim(name="theirs", storageClassName="other"))
    await home.api.create(CLAIMS, claim(name="by-hand", storageClassName=""))
    await home.api.create(CLAIMS, claim())
    async with at_work(home):
        await home.bound()
    assert len(home.api.all(VOLUMES)) == 1


async def test_a_claim_waits_for_its_class(home):
    await home.api.create(CLAIMS, claim(storageClassName="hotvirt-directory"))
    async with at_work(home):
        await home.api.create(STORAGE_CLASSES, CLASS)
        await home.bound()


async def test_more_than_there_is_room_for_says_how_much_there_is(home):
    await home.api.create(STORAGE_CLASSES, CLASS)
    await home.api.create(CLAIMS, claim("4Pi"))
    async with at_work(home):
        await home.until(home.events)
    reason, message = home.events()[0]
    assert reason == "ProvisioningFailed"
    assert "spec.resources.requests.storage asks for 4Pi, and " in message
    assert f"free in {home.places.volumes}: ask for less, or make room there" in message
    assert home.api.all(VOLUMES) == []


async def test_a_fault_of_the_claim_is_an_event(home):
    await home.api.create(STORAGE_CLASSES, CLASS)
    await home.api.create(CLAIMS, claim("big"))
    async with at_work(home):
        await home.until(home.events)
    assert home.events()[0][0] == "ProvisioningFailed"
    assert "'big' is not a quantity" in home.events()[0][1]
