"""Volumes that are small discs, and files of the host: what is on them, and what is said when they cannot be had."""

import base64
import io
import tempfile
from pathlib import Path

import pycdlib
import pytest

from hotvirt.api import downward
from hotvirt.images import seed
from hotvirt.images.errors import ImageError
from hotvirt.node import contents, hostdisks
from hotvirt.node.contents import Content, ContentError
from hotvirt.node.places import Places
from hotvirt.node.volumes import VolumeError, Volumes
from hotvirt.qemu.launch import Descriptors

POD = {
    "metadata": {"name": "virt-launcher-web-abcde", "namespace": "prod", "uid": "u-1",
                 "labels": {"b": "2", "a": "1"}, "annotations": {"x/y": 'say "hi"\n'}},
    "spec": {"containers": [{"name": "compute", "resources": {"requests": {"cpu": "150m", "memory": "1Gi"}}}]},
}  # fmt: skip


def encoded(text):
    return base64.b64encode(text).decode()


OBJECTS = {
    ("configMap", "c"): {"kind": "ConfigMap", "data": {"a.conf": "1"}, "binaryData": {"b": encoded(b"\0\xff")}},
    ("configMap", "answers"): {"kind": "ConfigMap", "data": {"Autounattend.xml": "<x/>"}},
    ("configMap", "kube-root-ca.crt"): {"kind": "ConfigMap", "data": {"ca.crt": "CA"}},
    ("secret", "s"): {"kind": "Secret", "data": {"password": encoded(b"p")}},
    ("account", "me"): {"metadata": {"name": "me", "namespace": "prod"}},
    ("token", "me"): {"token": "T"},
    ("pod", ""): POD,
}


async def lookup(kind, name):
    return OBJECTS.get((kind, name))


CONTENTS = {
    "config map": ({"configMap": {"name": "c", "volumeLabel": "conf"}}, "conf", {"a.conf": b"1", "b": b"\0\xff"}),
    "secret": ({"secret": {"secretName": "s"}}, "cfgdata", {"password": b"p"}),
    "nothing, and that is good": ({"secret": {"secretName": "none", "optional": True}}, "cfgdata", {}),
    "account": (
        {"serviceAccount": {"serviceAccountName": "me"}}, "cfgdata",
        {"namespace": b"prod", "token": b"T", "ca.crt": b"CA"}),
    "answers": ({"sysprep": {"configMap": {"name": "answers"}}}, "unattendCD", {"Autounattend.xml": b"<x/>"}),
    "pod": (
        {"downwardAPI": {"fields": [
            {"path": "d/name", "fieldRef": {"fieldPath": "metadata.name"}},
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "one", "fieldRef": {"fieldPath": "metadata.annotations['x/y']"}},
            {"path": "cpu", "resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}},
            {"path": "cpus", "resourceFieldRef": {"resource": "requests.cpu", "containerName": "compute"}},
            {"path": "mem", "resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}},
        ]}}, "cfgdata",
        {"d/name": b"virt-launcher-web-abcde", "labels": b'a="1"\nb="2"', "one": b'say "hi"\n', "cpu": b"150",
         "cpus": b"1", "mem": b"1024"}),
}  # fmt: skip


@pytest.mark.parametrize(("source", "label", "files"), CONTENTS.values(), ids=CONTENTS)
async def test_what_is_on_a_disc(source, label, files):
    assert await contents.of({"name": "v", **source}, lookup) == Content(label, files)


MISSING = {
    "config map": ({"configMap": {"name": "x"}}, "configMap is 'x', but there is no such ConfigMap: create it"),
    "secret": ({"secret": {"secretName": "x"}}, "secret is 'x', but there is no such Secret: create it"),
    "account": ({"serviceAccount": {"serviceAccountName": "x"}}, "serviceAccount is 'x', but there is no such"),
    "no answers": (
        {"sysprep": {"secret": {"name": "s"}}}, "sysprep: Secret 's' has no key autounattend.xml or unattend.xml: add"),
    "a limit nobody set": (
        {"downwardAPI": {"fields": [{"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
        "downwardAPI: limits.cpu is not set for the guest's pod: set it in domain.resources"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "sentence"), MISSING.values(), ids=MISSING)
async def test_what_is_missing_is_named(source, sentence):
    with pytest.raises(ContentError) as error:
        await contents.of({"name": "v", **source}, lookup)
    assert str(error.value).startswith(sentence)


def test_fields_that_volumes_have_not():
    for reference in ({"fieldRef": {"fieldPath": "spec.nodeName"}}, {"resourceFieldRef": {"resource": "limits.gpu"}}):
        with pytest.raises(downward.UnknownField, match="is unknown: use "):
            downward.value(POD, reference)


def test_a_token_ends_with_the_pod():
    bound = contents.token_request(POD)["spec"]["boundObjectRef"]
    assert bound == {"apiVersion": "v1", "kind": "Pod", "name": "virt-launcher-web-abcde", "uid": "u-1"}


# Discs


def read(disc):
    """Label and files of an ISO."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(disc))
    found = {}
    for directory, _, names in iso.walk(rr_path="/"):
        for name in names:
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, rr_path=f"{directory.rstrip('/')}/{name}")
            found[f"{directory.rstrip('/')}/{name}"] = out.getvalue()
    label = iso.pvd.volume_identifier.decode().rstrip()
    iso.close()
    return label, found


def test_a_disc_has_its_label_and_files_below_directories():
    files = {"a.conf": b"1", "d/e/f": b"2", "d/e/g": b"3", "d/" + "n" * 60: b""}
    label = "a label of more than sixteen"
    assert read(seed.disc(label, files)) == (label, {f"/{path}": data for path, data in files.items()})
    assert seed.disc(label, files) == seed.disc(label, files), "a restart finds it unchanged"


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/.", "a/b/c/d/e/f/g/h", "n" * 65])
def test_a_path_that_no_disc_can_have(path):
    with pytest.raises(ImageError):
        seed.disc("x", {path: b""})


def test_a_config_drive():
    label, files = read(seed.config_drive(instance_id="web.prod", hostname="web", user_data="#x", network_data="{}"))
    assert label == "config-2"
    assert files["/openstack/latest/user_data"] == b"#x"
    assert files["/openstack/latest/network_data.json"] == b"{}"
    assert b'"uuid": "web.prod"' in files["/openstack/latest/meta_data.json"]


@pytest.fixture
def places(tmp_path):
    for name in ("home/pods", "home/images", "home/volumes", "disks"):
        (tmp_path / name).mkdir(parents=True)
    return Places(tmp_path / "home/pods", tmp_path / "home/images", tmp_path / "home/volumes")


async def prepare(places, source, objects):
    place = places.pod("u-1")
    place.prepare()

    async def look(kind, name):
        return objects.get((kind, name))

    spec = {"domain": {"devices": {"disks": [{"name": "v", "disk": {"bus": "virtio"}}]}},
            "volumes": [{"name": "v", **source}]}  # fmt: skip
    with Descriptors() as descriptors:
        vmi = {"metadata": {"name": "web", "namespace": "prod"}, "spec": spec}
        disks, _ = await Volumes(places).prepare(vmi, place, descriptors, look)
    return disks[0], place


async def test_discs_are_the_guests_alone(places):
    disk, place = await prepare(places, {"secret": {"secretName": "s", "volumeLabel": "keys"}}, OBJECTS)
    assert read(place.disk("v").read_bytes()) == ("keys", {"/password": b"p"})
    assert place.disk("v").stat().st_mode & 0o777 == 0o600
    assert [layer.format for layer in disk.layers] == ["raw"]


async def test_config_drives_are_made_like_seeds(places):
    _, place = await prepare(places, {"cloudInitConfigDrive": {"userData": "#x"}}, {})
    assert read(place.disk("v").read_bytes())[0] == "config-2"


async def test_what_a_disc_lacks_is_said_with_its_volume(places):
    with pytest.raises(VolumeError, match=r"volume 'v': configMap is 'x', but there is no such ConfigMap"):
        await prepare(places, {"configMap": {"name": "x"}}, {})


async def test_an_ephemeral_disk_lies_above_its_claim_which_stays(places, tmp_path):
    (tmp_path / "disks" / "disk.img").write_bytes(b"\0" * (1 << 20))
    objects = {
        ("claim", "c"): {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}},
        ("volume", "pv"): {"spec": {"local": {"path": str(tmp_path / "disks")}}},
    }
    disk, place = await prepare(places, {"ephemeral": {"persistentVolumeClaim": {"claimName": "c"}}}, objects)
    assert [layer.format for layer in disk.layers] == ["qcow2", "raw"]
    assert (place.disk("v").exists(), disk.opens_read_only(1)) == (True, True)


# Files of the host

GATE = {"spec": {"configuration": {"developerConfiguration": {"featureGates": ["HostDisk"]}}}}


def test_a_host_disk_needs_the_gate(places, tmp_path):
    with pytest.raises(hostdisks.HostDiskError, match="the feature gate HostDisk is not on"):
        hostdisks.prepare({"path": "/srv/a", "type": "Disk"}, None, home=tmp_path)


@pytest.fixture
def disks():
    """Where a host's disks may be: not below /dev, where a memory's file system for tests is."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


async def test_a_host_disk_is_made_when_asked_for_and_kept(places, disks):
    path = disks / "a.img"
    source = {"hostDisk": {"path": str(path), "type": "DiskOrCreate", "capacity": "2Mi"}}
    disk, _ = await prepare(places, source, {("kubevirt", ""): GATE})
    assert (path.stat().st_size, path.stat().st_mode & 0o777, disk.layers[0].format) == (2 << 20, 0o600, "raw")
    path.write_bytes(b"x" * 512)
    await prepare(places, source, {("kubevirt", ""): GATE})
    assert path.stat().st_size == 512


def test_paths_that_no_guest_gets(disks, tmp_path):
    (disks / "odd").write_bytes(b"x" * 100)
    (disks / "good").write_bytes(b"x" * 512)
    (disks / "link").symlink_to("/etc/shadow")
    (disks / "way").symlink_to(disks)
    (disks / "other").hardlink_to(disks / "good")
    refused = {
        "/etc/shadow": "is the system's", "/dev/sda": "is the system's", "/proc/kcore": "is the system's",
        str(tmp_path / "home" / "state.db"): "hotvirt's own", f"{disks}/../x": "without '..'", "a": "absolute",
        str(disks / "link"): "over a link", str(disks / "way" / "good"): "over a link",
        str(disks): "is not a regular file", str(disks / "none"): "does not exist", str(disks / "odd"): "multiple",
        str(disks / "good"): "has other names",
    }  # fmt: skip
    for path, why in refused.items():
        with pytest.raises(hostdisks.HostDiskError, match=why):
            hostdisks.prepare({"path": path, "type": "Disk"}, GATE, home=tmp_path / "home")
