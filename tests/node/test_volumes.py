"""A VMI's volumes as disks for QEMU, in real directories; and what is said when one cannot be had."""

import base64
import fcntl
import os
import struct

import pytest

from hotvirt.images import seed
from hotvirt.node import shown
from hotvirt.node.places import Places
from hotvirt.node.shown import Shown
from hotvirt.node.volumes import ClaimFile, VolumeError, Volumes
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import Disk, File, Layer

MIB = 1 << 20


class Store:
    """Objects by kind and name, as `Lookup` gives them."""

    def __init__(self, **found):
        self.found = {tuple(key.split("__")): value for key, value in found.items()}

    async def __call__(self, kind, name):
        return self.found.get((kind, name))


BOUND = {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}


def volume_at(path):
    return {"spec": {"local": {"path": str(path)}}}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Good files, looked into once: an image by name, and the directory of a volume."""
    found = tmp_path_factory.mktemp("shared")
    for file in (found / "images" / "local" / "data.img", found / "pv" / "disk.img"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"\0" * MIB)
    return found


@pytest.fixture
def places(tmp_path, shared):
    return Places(tmp_path / "pods", shared / "images", tmp_path / "volumes")


@pytest.fixture
def place(places):
    found = places.pod("u-1")
    found.prepare()
    return found


def vmi(*given, disks=None, **spec):
    names = [volume["name"] for volume in given]
    shown = disks if disks is not None else [{"name": name, "disk": {"bus": "virtio"}} for name in names]
    return {
        "metadata": {"name": "web", "namespace": "prod"},
        "spec": {"domain": {"devices": {"disks": shown}}, "volumes": list(given), **spec},
    }


async def prepare(document, places, place, store=None):
    """Disks, the kernel, and for each descriptor number what it is open on: (path, flags)."""
    with Descriptors() as descriptors:
        disks, kernel = await Volumes(places).prepare(document, place, descriptors, store or Store())
        opened = {}
        for number, descriptor in descriptors.mapping.items():
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            opened[number] = (os.readlink(f"/proc/self/fd/{descriptor}"), flags & os.O_ACCMODE)
        return disks, kernel, opened


async def refused(document, places, place, store=None):
    with pytest.raises(VolumeError) as error:
        await prepare(document, places, place, store)
    return error.value.reason, str(error.value)


# How the guest sees a disk

SHOWN = {
    "nothing said": ({"name": "a"}, ("disk", "sata", False)),
    "virtio": ({"name": "a", "disk": {"bus": "virtio"}}, ("disk", "virtio", False)),
    "read-only": ({"name": "a", "disk": {"bus": "scsi", "readonly": True}}, ("disk", "scsi", True)),
    "a CD-ROM is read-only": ({"name": "a", "cdrom": {"readonly": False}}, ("cdrom", "sata", True)),
    "a LUN": ({"name": "a", "lun": {}}, ("lun", "scsi", False)),
}


@pytest.mark.parametrize(("disk", "expected"), SHOWN.values(), ids=SHOWN)
def test_shown(disk, expected):
    found = shown.shown(disk)
    assert (found.kind, found.bus, found.read_only) == expected


def test_shown_with_every_setting():
    disk = {"name": "a", "disk": {"bus": "virtio"}, "serial": "S", "bootOrder": 2, "cache": "none", "io": "native",
            "shareable": True}  # fmt: skip
    assert shown.shown(disk) == Shown("disk", "virtio", False, "S", 2, "none", True, True)
    assert shown.shown({**disk, "cache": "writeback"}).native_io is False, "QEMU has it with cache none only"


def test_whatever_may_come_and_go():
    assert shown.is_hotplugged({"name": "a", "persistentVolumeClaim": {"claimName": "c", "hotpluggable": True}})
    assert not shown.is_hotplugged({"name": "a", "persistentVolumeClaim": {"claimName": "c"}})
    assert not shown.is_hotplugged({"name": "a", "emptyDisk": {"capacity": "1Gi"}})


# emptyDisk


async def test_an_empty_disk_is_sparse_and_whole_sectors(places, place):
    disks, _, opened = await prepare(vmi({"name": "scratch", "emptyDisk": {"capacity": "1000001"}}), places, place)
    number = disks[0].layers[0].file.fd
    assert disks == (Disk(name="scratch", layers=(Layer(File(fd=number), "raw"),), bus="virtio"),)
    assert opened[number] == (str(place.disk("scratch")), os.O_RDWR)
    facts = place.disk("scratch").stat()
    assert (facts.st_size, facts.st_blocks, facts.st_mode & 0o777) == (1000448, 0, 0o600)


async def test_an_empty_disk_is_kept_when_a_start_is_tried_again(places, place):
    document = vmi({"name": "scratch", "emptyDisk": {"capacity": "1Mi"}})
    await prepare(document, places, place)
    with place.disk("scratch").open("r+b") as file:
        file.write(b"written")
    await prepare(document, places, place)
    assert place.disk("scratch").read_bytes().startswith(b"written")


# cloud-init


async def seed_of(source, places, place, store=None, **spec):
    await prepare(vmi({"name": "init", "cloudInitNoCloud": source}, **spec), places, place, store)
    return place.disk("init").read_bytes()


async def test_a_seed_says_who_the_guest_is(places, place):
    content = await seed_of({"userData": "#cloud-config\n", "networkData": "version: 2\n"}, places, place)
    assert content == seed.render(
        instance_id="web.prod", hostname="web", user_data="#cloud-config\n", network_config="version: 2\n"
    )
    assert place.disk("init").stat().st_mode & 0o777 == 0o600, "it may hold a password"


async def test_a_seeds_host_name_is_the_specs(places, place):
    content = await seed_of({"userData": "x"}, places, place, hostname="shop")
    assert b'local-hostname: "shop"' in content


async def test_the_host_name_of_a_machine_with_a_dotted_name_has_no_dot(places, place):
    document = vmi({"name": "init", "cloudInitNoCloud": {"userData": "x"}})
    document["metadata"]["name"] = "web.shop"
    await prepare(document, places, place)
    content = place.disk("init").read_bytes()
    assert b'local-hostname: "web"' in content
    assert b"web.shop.prod" in content, "its identity is all of its name"


@pytest.mark.parametrize("key", ["userdata", "userData"])
async def test_a_seed_from_a_secret_in_either_spelling(key, places, place):
    store = Store(secret__s={"data": {key: base64.b64encode(b"#secret").decode()}})
    content = await seed_of({"secretRef": {"name": "s"}}, places, place, store)
    assert content == seed.render(instance_id="web.prod", hostname="web", user_data="#secret")


async def test_a_seed_from_base64(places, place):
    encoded = base64.b64encode(b"#cloud").decode()
    assert b"#cloud" in await seed_of({"userDataBase64": encoded}, places, place)


SEEDS = {
    "no such secret": (
        {"secretRef": {"name": "s"}}, {},
        "volume 'init': secretRef is 's', but that Secret does not exist"),
    "no such key": (
        {"secretRef": {"name": "s"}}, {"secret__s": {"data": {"password": "eA=="}}},
        "volume 'init': secretRef is 's', but that Secret has no key userdata"),
    "an empty secret": (
        {"userData": "x", "networkDataSecretRef": {"name": "s"}}, {"secret__s": {}},
        "volume 'init': networkDataSecretRef is 's', but that Secret has no key networkdata"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "objects", "sentence"), SEEDS.values(), ids=SEEDS)
async def test_a_seed_that_cannot_be_made(source, objects, sentence, places, place):
    document = vmi({"name": "init", "cloudInitNoCloud": source})
    assert await refused(document, places, place, Store(**objects)) == ("FailedVolume", sentence)


# Claims


async def test_a_claims_file(places, place, shared):
    directory = shared / "pv"
    store = Store(claim__data=BOUND, volume__pv=volume_at(directory))
    found = await Volumes(places).claim_file("data", {"claimName": "data"}, store)
    assert found == ClaimFile(directory / "disk.img", "raw", read_only=False)
    document = vmi({"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}})
    disks, _, opened = await prepare(document, places, place, store)
    assert opened[disks[0].layers[0].file.fd] == (str(directory / "disk.img"), os.O_RDONLY)
    assert disks[0].read_only, "or QEMU asks for a descriptor to write with, and finds none"


def header(version=3, backing=0, size=MIB):
    """The first bytes of a qcow2 image."""
    return struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, backing, 0, 16, size, 0, 1, 196608, 65536, 1, 0, 0)


FORMAT_MEND = "name the right format, or convert it with `hotvirt images import`"
CLAIMS = {
    "no claim": (
        {}, None, "FailedPvcNotFound", "volume 'data': there is no PersistentVolumeClaim 'c': create it"),
    "not bound": (
        {"claim__c": {"spec": {}}}, None, "Pending",
        "volume 'data': claim 'c' is not bound yet: see kubectl describe pvc c"),
    "bound, and its status not yet": (
        {"claim__c": {"spec": {"volumeName": "pv"}}}, None, "Pending",
        "volume 'data': claim 'c' is not bound yet: see kubectl describe pvc c"),
    "its volume is gone": (
        {"claim__c": BOUND}, None, "FailedVolume", "volume 'data': PersistentVolume pv is not a directory here"),
    "its volume is on the network": (
        {"claim__c": BOUND, "volume__pv": {"spec": {"nfs": {}}}}, None, "FailedVolume",
        "volume 'data': PersistentVolume pv is not a directory here"),
    "its directory is empty": (
        {"claim__c": BOUND}, {}, "FailedVolume", "volume 'data': PersistentVolume pv has no disk.img in {directory}"),
    "its file is empty": (
        {"claim__c": BOUND}, {"disk.img": b""}, "FailedVolume",
        "volume 'data': claim 'c': {directory}/disk.img is empty: copy or download the image again"),
    "its file is damaged": (
        {"claim__c": BOUND}, {"disk.qcow2": b"junk" * 1000}, "FailedVolume",
        "volume 'data': claim 'c': {directory}/disk.qcow2 should be qcow2, and its content is raw: " + FORMAT_MEND),
}  # fmt: skip


@pytest.mark.parametrize(("objects", "files", "reason", "sentence"), CLAIMS.values(), ids=CLAIMS)
async def test_a_claim_that_has_no_disk(objects, files, reason, sentence, places, place, tmp_path):
    directory = tmp_path / "pv"
    if files is not None:
        directory.mkdir()
        for name, content in files.items():
            (directory / name).write_bytes(content)
        objects = {**objects, "volume__pv": volume_at(directory)}
    document = vmi({"name": "data", "persistentVolumeClaim": {"claimName": "c"}})
    found = await refused(document, places, place, Store(**objects))
    assert found == (reason, sentence.format(directory=directory))


async def test_a_raw_disk_in_which_a_guest_wrote_a_header_is_raw_all_the_same(places, place, tmp_path):
    """The header could name any file of the host, and is not believed; nor may the guest lose its disk for it."""
    (tmp_path / "disk.img").write_bytes(header().ljust(MIB, b"\0"))
    store = Store(claim__c=BOUND, volume__pv=volume_at(tmp_path))
    document = vmi({"name": "data", "persistentVolumeClaim": {"claimName": "c"}})
    with Descriptors() as descriptors:
        disks, _kernel = await Volumes(places).prepare(document, place, descriptors, store)
    assert [layer.format for disk in disks for layer in disk.layers] == ["raw"]


# Images and kernels


async def test_an_image_nobody_has_is_named_with_its_field(places, place):
    reason, sentence = await refused(vmi({"name": "root", "containerDisk": {"image": "fedora:40"}}), places, place)
    assert reason == "FailedVolume"
    assert sentence.startswith("volume 'root': containerDisk.image fedora:40: there is no image 'fedora:40'; ")
    assert "hotvirt images import" in sentence


async def test_a_kernel_nobody_has_is_named_with_its_field(places, place):
    boot = {"kernelBoot": {"container": {"image": "local/none", "kernelPath": "/k"}}}
    document = {"metadata": {"name": "web", "namespace": "prod"}, "spec": {"domain": {"firmware": boot}}}
    reason, sentence = await refused(document, places, place)
    assert reason == "FailedVolume"
    assert sentence.startswith("domain.firmware.kernelBoot.container: there is no image 'local/none'")


async def test_an_image_that_is_a_disk_is_no_kernel(places, place):
    boot = {"kernelBoot": {"container": {"image": "local/data", "kernelPath": "/k"}}}
    document = {"metadata": {"name": "web", "namespace": "prod"}, "spec": {"domain": {"firmware": boot}}}
    assert await refused(document, places, place) == (
        "FailedVolume",
        "domain.firmware.kernelBoot.container: image local/data has no kernel: use hotvirt/tiny",
    )


async def test_a_disk_image_lies_below_what_the_guest_writes(places, place):
    document = vmi({"name": "root", "containerDisk": {"image": "local/data"}})
    disks, _, opened = await prepare(document, places, place)
    assert [layer.format for layer in disks[0].layers] == ["qcow2", "raw"]
    top, below = (opened[layer.file.fd] for layer in disks[0].layers)
    assert top == (str(place.disk("root")), os.O_RDWR)
    assert below == (str(places.images / "local" / "data.img"), os.O_RDONLY)


@pytest.mark.parametrize("disk", [{"cdrom": {"bus": "sata"}}, {"disk": {"bus": "virtio", "readonly": True}}])
async def test_an_image_that_is_only_read_needs_nothing_above_it(disk, places, place):
    document = vmi({"name": "root", "containerDisk": {"image": "local/data"}}, disks=[{"name": "root", **disk}])
    disks, _, opened = await prepare(document, places, place)
    assert [opened[layer.file.fd][1] for layer in disks[0].layers] == [os.O_RDONLY]
    assert not place.disk("root").exists()


# Which volumes are there at the start


async def test_volumes_without_a_disk_and_those_that_come_later_are_left_out(places, place):
    document = vmi(
        {"name": "seen", "emptyDisk": {"capacity": "1Mi"}},
        {"name": "unseen", "emptyDisk": {"capacity": "1Mi"}},
        {"name": "later", "persistentVolumeClaim": {"claimName": "none", "hotpluggable": True}},
        disks=[{"name": "seen", "disk": {"bus": "virtio"}}, {"name": "later", "disk": {"bus": "scsi"}}],
    )
    disks, kernel, _ = await prepare(document, places, place)
    assert [disk.name for disk in disks] == ["seen"]
    assert kernel is None


async def test_a_drive_without_a_disc_is_there_and_empty(places, place):
    document = vmi(disks=[{"name": "drive", "cdrom": {"bus": "sata"}, "bootOrder": 1}])
    disks, _, _ = await prepare(document, places, place)
    assert disks == (Disk(name="drive", kind="cdrom", bus="sata", read_only=True, boot_index=1),)


@pytest.mark.parametrize(("claim", "images"), [("c", 1), ("none", 0)])
async def test_a_drive_whose_disc_may_come_and_go_is_there_with_or_without_it(claim, images, places, place, shared):
    store = Store(claim__c=BOUND, volume__pv=volume_at(shared / "pv"))
    source = {"claimName": claim, "hotpluggable": True}
    document = vmi({"name": "cd", "persistentVolumeClaim": source}, disks=[{"name": "cd", "cdrom": {"bus": "sata"}}])
    disks, _, _ = await prepare(document, places, place, store)
    assert [(disk.kind, len(disk.layers)) for disk in disks] == [("cdrom", images)]


async def test_a_disc_is_not_in_a_drive_whose_tray_is_open(places, place):
    shown = {"name": "cd", "cdrom": {"bus": "scsi", "tray": "open"}}
    document = vmi({"name": "cd", "emptyDisk": {"capacity": "1Mi"}}, disks=[shown])
    disks, _, _ = await prepare(document, places, place)
    assert disks == (Disk(name="cd", kind="cdrom", bus="scsi", read_only=True),)


async def test_descriptors_are_open_as_qemu_will_ask_for_them(places, place, shared):
    """QEMU takes a descriptor from a set by how it is open; one opened in another way is none."""
    store = Store(claim__c=BOUND, volume__pv=volume_at(shared / "pv"))
    sources = {
        "image": {"containerDisk": {"image": "local/data"}},
        "claim": {"persistentVolumeClaim": {"claimName": "c"}},
        "kept": {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
        "empty": {"emptyDisk": {"capacity": "1Mi"}},
        "seed": {"cloudInitNoCloud": {"userData": "x"}},
    }
    for target in ({"disk": {"bus": "virtio"}}, {"disk": {"bus": "virtio", "readonly": True}}, {"cdrom": {}}):
        document = vmi(
            *({"name": name, **source} for name, source in sources.items()),
            disks=[{"name": name, **target} for name in sources],
        )
        disks, _, opened = await prepare(document, places, place, store)
        for disk in disks:
            for index, layer in enumerate(disk.layers):
                wanted = os.O_RDONLY if disk.opens_read_only(index) else os.O_RDWR
                assert opened[layer.file.fd][1] == wanted, (disk.name, target, index)


async def test_a_source_nobody_knows_is_refused_by_name(places, place):
    assert await refused(vmi({"name": "x", "memoryDump": {}}), places, place) == (
        "FailedVolume",
        "volume 'x' has a source that is not supported: use a claim",
    )


async def test_a_lun_on_a_file_is_refused_with_what_to_say_instead(places, place, shared):
    store = Store(claim__c=BOUND, volume__pv=volume_at(shared / "pv"))
    volume = {"name": "a", "persistentVolumeClaim": {"claimName": "c"}}
    found = await refused(vmi(volume, disks=[{"name": "a", "lun": {}}]), places, place, store)
    assert "a lun is a SCSI device of the host, and its claim is a file: say disk in place of lun" in str(found)


async def test_whatever_was_opened_is_closed_again_when_one_fails(places, place):
    before = len(os.listdir("/proc/self/fd"))
    await refused(vmi({"name": "a", "emptyDisk": {"capacity": "1Mi"}}, {"name": "x", "memoryDump": {}}), places, place)
    assert len(os.listdir("/proc/self/fd")) == before


def test_only_images_that_are_not_there_have_to_be_built(places, monkeypatch, tmp_path):
    monkeypatch.setenv("HOTVIRT_IMAGE_CACHE", str(tmp_path / "none"))
    machine = vmi(
        {"name": "root", "containerDisk": {"image": "hotvirt/debian"}},
        {"name": "more", "containerDisk": {"image": "local/data"}},
        {"name": "scratch", "emptyDisk": {"capacity": "1Gi"}},
    )
    machine["spec"]["domain"]["firmware"] = {"kernelBoot": {"container": {"image": "hotvirt/tiny"}}}
    assert Volumes(places).to_build(machine) == ["hotvirt/tiny", "hotvirt/debian"]
