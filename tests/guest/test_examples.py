"""Each file of `examples/` as a person applies it, and what its guest then says of itself.

One home; the guests boot a few at a time, as two cores boot them no faster together. Files that boot a whole Debian are
other tests' (`tests/virtctl/test_virtctl_debian.py`); here the API takes them.
"""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from hotvirt.api.gates import CLAIMS_AS_FILESYSTEMS

pytestmark = pytest.mark.guest
EXAMPLES = Path(__file__).parents[2] / "examples"
HOST_DISK = Path("/srv/hotvirt-example.img")
SERIALS = "until lsblk | grep -q disk; do sleep 0.1; done; lsblk -b | tail -n +2"
NOT_BOOTED = {"debian", "registry", "secure-boot", "windows", "vm", "claim"}
"""A Debian's, an image of a registry that is not here, and what other tests boot."""
GREETING = "until [ -s /run/greeting ]; do sleep 0.1; done; cat /run/greeting; hostname"
MOUNT = "mkdir -p /mnt/{0}; until mount -o ro $(findfs LABEL={0}) /mnt/{0}; do sleep 0.1; done 2>/dev/null; "
"""The agent answers while the guest still loads its drivers of discs."""
SEED = MOUNT.format("config-2") + "cat /mnt/config-2/openstack/latest/meta_data.json"
LAN = "until [ -e /sys/class/net/eth1 ]; do sleep 0.1; done; cat /sys/class/net/eth1/address"
DISC = MOUNT + "cat /mnt/{0}/{1}"
VIRTIOFS = "modprobe virtiofs; for f in settings shared; do mkdir -p /mnt/$f; mount -t virtiofs $f /mnt/$f; done"
GUESTS = (
    # file, guest, what is asked of it, what it answers
    ("ephemeral", "ephemeral", SERIALS, ["image", "part"]),
    ("pvc", "pvc", SERIALS, [str(64 << 20), "data"]),
    ("cloud-init-nocloud", "nocloud", GREETING, ["set up by its seed", "ada"]),
    ("cloud-init-configdrive", "configdrive", SEED, ['"address": "0000:01:00.0"', '"tags": ["front"]']),
    ("kernel-boot", "kernelboot", "cat /proc/cmdline; hostname", ["hostname=direct", "direct"]),
    ("multi-disk", "multidisk", f"{SERIALS}; cat /sys/block/sd?/ro; cat /sys/block/sd?/queue/write_cache",
     ["SCRATCH", "DATA", "LIBRARY", "write through"]),
    ("efi", "efi", "ls /sys/firmware/efi", ["runtime"]),
    ("host-disk", "hostdisk", f"{SERIALS}; echo from-guest | dd of=/dev/vda conv=sync 2>&1; sync", [str(32 << 20)]),
    ("migratable", "migratable", "until ip -4 addr show eth0 | grep inet; do sleep 0.1; done", ["inet "]),
    ("masquerade", "masquerade", "until netstat -ltn | grep :80; do sleep 0.1; done", [":80 "]),
    ("probes", "probes", "until wget -qO- http://127.0.0.1/; do sleep 0.1; done", ["ready"]),
    ("settings", "settings",
     "; ".join(DISC.format(label, file) for label, file in (("config", "app.conf"), ("secret", "password"),
               ("pod", "labels"), ("cfgdata", "namespace"))) + "; wc -c </mnt/cfgdata/token",
     ["port = 80", "sesame", 'app="settings"', "default"]),
    ("file-systems", "filesystems", f"{VIRTIOFS}; cat /mnt/settings/*.conf; echo written >/mnt/shared/a; cat /mnt/*/a",
     ["port = 80", "written"]),
    ("sysprep", "sysprep", DISC.format("unattendCD", "autounattend.xml"), ["urn:schemas-microsoft-com:unattend"]),
    ("second-network", "secondnet", LAN, ["02:00:00:00:10:02"]),
    ("instancetype", "sized", "grep MemTotal /proc/meminfo; nproc", ["MemTotal"]),
    ("pool", "web-0", "until [ $(hostname) = web-0 ]; do sleep 0.1; done; hostname", ["web-0"]),
    ("replicaset", "workers", "nproc", ["1"]),
)  # fmt: skip
BATCH = 4


def test_every_example_has_a_test():
    files = {file.stem for file in EXAMPLES.glob("*.yaml")}
    assert files == {file for file, *_ in GUESTS} | NOT_BOOTED | {"refused-gpu", "refused-sriov"}


def asked(home, name, command):
    """What a guest prints, between two marks that the echo of the command does not show."""
    with home.console(name) as console:
        console.type(f"\necho B-$((1+1)); {command}; echo E-$((1+1))\n")
        console.read_until("B-2")
        return console.read_until("E-2").removesuffix("E-2")


def guest_of(home, file, name):
    """A replica set names its guests itself."""
    if file != "replicaset":
        return name
    home.wait(f"vmirs/{name}", "jsonpath={.status.replicas}=2")
    return home.table("get", "vmi", "-l", "app=workers", "--no-headers")[0][0]


@pytest.fixture
def prepared(home):
    configuration = {
        "developerConfiguration": {"featureGates": ["HostDisk", CLAIMS_AS_FILESYSTEMS]},
        # Nothing is resized here, and room to grow is a third of a boot without KVM.
        "liveUpdateConfiguration": {"maxHotplugRatio": 1},
    }
    patch = yaml.safe_dump({"spec": {"configuration": configuration}})
    home.kubectl("patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p", patch)
    HOST_DISK.unlink(missing_ok=True)
    subprocess.run(["ip", "link", "add", "br-lan", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", "br-lan", "up"], check=True)
    yield home
    subprocess.run(["ip", "link", "del", "br-lan"], check=True)
    HOST_DISK.unlink(missing_ok=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a bridge and a file of the host")
@pytest.mark.timeout(400)
def test_examples_boot_and_their_guests_have_what_they_name(prepared):
    home = prepared
    for first in range(0, len(GUESTS), BATCH):
        batch = GUESTS[first : first + BATCH]
        for file, *_ in batch:
            home.kubectl("apply", "-f", str(EXAMPLES / f"{file}.yaml"))
        for file, name, command, expected in batch:
            guest = guest_of(home, file, name)
            home.wait_until(f"{guest} is there", lambda: home.kubectl("get", "vmi", guest, check=False).returncode == 0)  # noqa: B023
            home.wait(f"vmi/{guest}", "condition=AgentConnected")
            said = asked(home, guest, command)
            for each in expected:
                assert each in said, (file, said)
            check = BESIDE.get(file)
            if check is not None:
                check(home)
        for file, *_ in batch:
            home.kubectl("delete", "--wait=false", "-f", str(EXAMPLES / f"{file}.yaml"))


def masquerade(home):
    address = home.vmi("masquerade")["status"]["interfaces"][0]["ipAddress"]
    assert home.fetched(f"http://{address}/") == "hello from masquerade\n"


def probes(home):
    home.wait("vmi/probes", "condition=Ready")


def host_disk(home):
    assert HOST_DISK.read_bytes().startswith(b"from-guest\n")


BESIDE = {"masquerade": masquerade, "probes": probes, "host-disk": host_disk}


def test_what_cannot_be_had_is_refused_with_the_reason_and_the_rest_is_taken(home):
    for file, reason in (("gpu", "no device of the host is handed"), ("sriov", "no device of the host is handed")):
        refused = home.kubectl("apply", "-f", str(EXAMPLES / f"refused-{file}.yaml"), check=False)
        assert refused.returncode == 1
        assert reason in refused.stderr
    for file in sorted(NOT_BOOTED):
        home.kubectl("apply", "--dry-run=server", "-f", str(EXAMPLES / f"{file}.yaml"))
