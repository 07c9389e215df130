"""A whole Debian from its disk image, set up by cloud-init: everything the tiny guest does, with systemd in the way.

One guest for all of it, as its boot is what takes long.
"""

import json
import time

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

PATIENCE = 300
"""Seconds: a systemd without KVM on a busy two-core machine."""
GRACE = 60
MIB = 1 << 20
NODE = {"node.memory", "node.cpu"}
"""What depends on the machine that the test runs on."""
USER_DATA = """#cloud-config
hostname: ada
write_files:
- {path: /etc/issue, content: "written by the seed\\n"}
"""


def debian() -> dict:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "debian"},
        "spec": {
            "runStrategy": "Always",
            "template": {
                "metadata": {"labels": {"app": "debian"}},
                "spec": {
                    "terminationGracePeriodSeconds": GRACE,
                    "domain": {
                        "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
                        "cpu": {"sockets": 1, "maxSockets": 4},
                        "devices": {
                            "disks": [
                                {"name": "root", "disk": {"bus": "virtio"}},
                                {"name": "seed", "disk": {"bus": "virtio"}},
                            ],
                            "interfaces": [{"name": "default", "masquerade": {}}],
                        },
                    },
                    "networks": [{"name": "default", "pod": {}}],
                    "volumes": [
                        {"name": "root", "containerDisk": {"image": "hotvirt/debian:12"}},
                        {"name": "seed", "cloudInitNoCloud": {"userData": USER_DATA}},
                    ],
                },
            },
        },
    }


@pytest.fixture
def debian_home(home):
    home.patience = PATIENCE
    return home


def what_stands_in_the_way(home):
    """Some of the cells that tests/guest/resize has of the tiny guest each time, and of a Debian when asked to."""
    home.wait("vmi/debian", "condition=MemoryHotplugAvailable", "condition=CPUHotplugAvailable")
    told = home.hotvirt("why", "vm/debian", "memory=1536Mi", "cpu=2", "memory=5Gi", "cpu=5", "disk=data,bus=sata",
                        "disk=none", "no-disk=root", "-o", "json", check=False)  # fmt: skip
    assert told.returncode == 3, told.stdout + told.stderr
    failing = {
        change["change"]: {each["id"] for each in change["findings"] if each["status"] == "fail"} - NODE
        for change in json.loads(told.stdout)["changes"]
    }
    assert failing == {
        "memory=1536Mi": set(), "cpu=2": set(), "memory=5Gi": {"memory.max-guest"}, "cpu=5": {"cpu.max-sockets"},
        "disk=data,bus=sata": {"disk.bus"}, "disk=none": {"disk.claim"}, "no-disk=root": {"disk.removable"},
    }  # fmt: skip


def test_debian_boots_by_its_seed_and_is_resized_while_it_runs(debian_home):
    home = debian_home
    home.apply(debian())
    home.apply_claim("data", "64Mi")
    home.wait_agent("debian")
    # cloud-init sets the name when it gets to it, which may be after the agent answers.
    home.wait_until("the seed's hostname", lambda: home.facts("debian")["hostname"] == "ada")
    boot = home.facts("debian")
    assert boot["onlineCPUs"] == 1
    assert boot["kernel"].startswith("6.1.")
    info = home.vmi("debian")["status"]["guestOSInfo"]
    assert (info["id"], info["versionId"], info["kernelRelease"]) == ("debian", "12", boot["kernel"])
    with home.console("debian") as console:
        console.type("\n")  # the login prompt shows that file
        console.read_until("written by the seed")
        console.read_until("ada login: ")

    what_stands_in_the_way(home)
    home.patch_vm("debian", memory="1536Mi", sockets=2)
    home.wait(
        "vmi/debian",
        "jsonpath={.status.memory.guestCurrent}=1536Mi", "jsonpath={.status.currentCPUTopology.sockets}=2",
    )  # fmt: skip
    grown = home.facts("debian")
    assert abs(grown["memTotalBytes"] - boot["memTotalBytes"] - 512 * MIB) < 16 * MIB
    assert grown["onlineCPUs"] == 2

    home.hotvirt("addvolume", "debian", "--volume-name=data", "--persist")
    home.wait_volume("debian", "data", "Ready")
    added = [disk for disk in home.facts("debian")["blockDevices"] if disk["serial"] == "data"]
    assert [disk["sizeBytes"] for disk in added] == [64 * MIB]

    home.patch_vm("debian", memory="1Gi", sockets=1)
    home.wait(
        "vmi/debian",
        "jsonpath={.status.memory.guestCurrent}=1Gi", "jsonpath={.status.currentCPUTopology.sockets}=1",
    )  # fmt: skip
    back = home.facts("debian")
    assert abs(back["memTotalBytes"] - boot["memTotalBytes"]) < 16 * MIB
    assert back["onlineCPUs"] == 1
    assert back["bootID"] == boot["bootID"], "the guest was restarted"
    assert "RestartRequired" not in home.conditions("vm/debian")

    # The power button: within the grace period, at whose end the power would be cut.
    began = time.monotonic()
    home.hotvirt("stop", "debian")
    home.wait("vm/debian", "jsonpath={.status.printableStatus}=Stopped")
    assert time.monotonic() - began < GRACE, "Debian did not obey the power button"
    home.assert_nothing_left_of_guests()
