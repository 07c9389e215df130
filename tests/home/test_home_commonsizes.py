"""The instancetypes and preferences that a home has: a real API takes each of them, and machines that name them."""

import shutil
import tempfile
from pathlib import Path

import pytest

from hotvirt.api import quantity
from hotvirt.api.instancetype import expand
from hotvirt.home import bootstrap, commonsizes
from hotvirt.home.assembly import Home
from hotvirt.home.paths import Paths
from hotvirt.kube.errors import Invalid
from hotvirt.kube.resources import CLUSTER_INSTANCETYPES, CLUSTER_PREFERENCES, VMS

OF_UPSTREAM = {
    "u1.nano", "u1.micro", "u1.small", "u1.medium", "u1.2xmedium", "u1.large", "u1.xlarge", "u1.2xlarge", "u1.4xlarge",
    "u1.8xlarge", "cx1.medium", "cx1.large", "cx1.xlarge", "cx1.2xlarge", "m1.large", "m1.xlarge", "m1.2xlarge",
    "alpine", "centos.stream9", "fedora", "rhel.9", "ubuntu",
    *(f"windows.{name}{suffix}" for name in ("10", "11", "2k19", "2k22", "2k25") for suffix in ("", ".virtio")),
}  # fmt: skip
OURS = {"linux", "debian"}
SIZES, TASTES = (
    {obj["metadata"]["name"]: obj for kind, obj in commonsizes.objects() if kind is wanted}
    for wanted in (CLUSTER_INSTANCETYPES, CLUSTER_PREFERENCES)
)


def vm(name, **spec):
    return {
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"name": name.replace(".", "-"), "namespace": "default"},
        "spec": {
            "runStrategy": "Halted", **{what: {"name": each} for what, each in spec.items()},
            "template": {"spec": {
                "domain": {"devices": {}},
                "volumes": [{"name": "root", "containerDisk": {"image": "hotvirt/debian:12"}}],
            }},
        },
    }  # fmt: skip


@pytest.fixture
async def client():
    directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))  # short: unix sockets live below it
    place = Paths(state=directory, run=directory / "run", is_default=False)
    place.prepare()
    home = Home(place, port=0)
    await home.start()
    try:
        made = home.client("home")
        await bootstrap.ensure(made, version="v1")
        yield made
    finally:
        await home.stop()
        shutil.rmtree(directory)


async def test_the_api_takes_each_and_machines_of_each(client):
    for resource, known in ((CLUSTER_INSTANCETYPES, SIZES), (CLUSTER_PREFERENCES, TASTES)):
        stored = {obj["metadata"]["name"]: obj for obj in (await client.list(resource))["items"]}
        assert {name: obj["spec"] for name, obj in stored.items()} == {n: obj["spec"] for n, obj in known.items()}
    for name in SIZES:
        await client.create(VMS, vm(name, instancetype=name, preference="linux"), "default")
    for name in TASTES:
        await client.create(VMS, vm(name, instancetype="u1.large", preference=name), "default")
    with pytest.raises(Invalid, match="preference requires 4Gi"):
        await client.create(VMS, vm("few", instancetype="u1.small", preference="windows.11"), "default")


def test_names_are_those_that_people_know():
    assert {*SIZES, *TASTES} == OF_UPSTREAM | OURS


def test_labels_say_what_is_in_it():
    prefix = "instancetype.kubevirt.io/"
    for obj in SIZES.values():
        labels, spec = obj["metadata"]["labels"], obj["spec"]
        assert labels[f"{prefix}cpu"] == str(spec["cpu"]["guest"])
        assert labels[f"{prefix}memory"] == spec["memory"]["guest"]
        assert labels[f"{prefix}version"] == "1"
    assert SIZES["cx1.large"]["metadata"]["labels"][f"{prefix}dedicatedCPUPlacement"] == "true"
    assert SIZES["m1.large"]["metadata"]["labels"][f"{prefix}hugepages"] == "2Mi"
    assert {obj["metadata"]["labels"][f"{prefix}vendor"] for obj in (*SIZES.values(), *TASTES.values())} == {
        "hotvirt.io"
    }


@pytest.mark.parametrize(("series", "ratio"), [("u1", 4), ("cx1", 2), ("m1", 8)])
def test_a_series_has_so_much_memory_for_each_cpu(series, ratio):
    for name, obj in SIZES.items():
        if name.startswith(f"{series}.") and name not in ("u1.nano", "u1.micro", "u1.small", "u1.2xmedium"):
            memory = quantity.parse_bytes(obj["spec"]["memory"]["guest"])
            assert memory == obj["spec"]["cpu"]["guest"] * ratio << 30, name


def machine(size, taste):
    return expand(vm("web"), SIZES[size], TASTES[taste])["spec"]["template"]["spec"]


def test_a_linux_can_be_resized_while_it_runs():
    domain = machine("u1.xlarge", "fedora")["domain"]
    assert (domain["cpu"]["sockets"], domain["cpu"]["cores"]) == (4, 1)
    assert "maxGuest" not in domain["memory"], "which is the machine's to say, else four times its size"
    assert domain["devices"]["disks"][0]["disk"]["bus"] == "virtio"
    assert domain["devices"]["interfaces"][0]["model"] == "virtio"
    assert "firmware" not in domain


def test_a_windows_11_has_what_its_installer_asks_for():
    spec = machine("u1.large", "windows.11")
    domain = spec["domain"]
    assert domain["devices"]["tpm"] == {"persistent": True}
    assert domain["firmware"]["bootloader"] == {"efi": {"secureBoot": True, "persistent": True}}
    assert domain["features"]["smm"] == {}
    assert domain["clock"]["timer"]["hpet"] == {"present": False}
    assert (domain["cpu"]["sockets"], domain["cpu"]["cores"]) == (1, 2)
    assert domain["devices"]["disks"][0]["disk"]["bus"] == "sata"
    assert domain["devices"]["interfaces"][0]["model"] == "e1000e"
    assert spec["terminationGracePeriodSeconds"] == 3600
    devices = machine("u1.large", "windows.11.virtio")["domain"]["devices"]
    assert (devices["disks"][0]["disk"]["bus"], devices["interfaces"][0]["model"]) == ("virtio", "virtio")
