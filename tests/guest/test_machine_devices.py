"""What a guest finds of the firmware and the devices that its manifest names, asked of the guest itself."""

import datetime as dt
import json
import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

CONTAINER = {"image": "hotvirt/tiny", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}
VARIABLE = "/sys/firmware/efi/efivars/Kept-5ed29a2c-6bcf-4a1c-9d2a-3f2b7a3c0001"
DOMAIN = {
    "memory": {"guest": "256Mi", "maxGuest": "256Mi"},
    "cpu": {"sockets": 2, "maxSockets": 2, "model": "Haswell", "features": [{"name": "avx", "policy": "disable"}]},
    "firmware": {
        "kernelBoot": {"container": CONTAINER},
        "bootloader": {"efi": {"secureBoot": False, "persistent": True}},
        "serial": "S-42",
    },
    "chassis": {"asset": "shelf 7", "serial": "C-1"},
    "clock": {"utc": {"offsetSeconds": 86400}, "timer": {"hpet": {"present": False}, "hyperv": {}}},
    "features": {
        "acpi": {}, "smm": {}, "kvm": {"hidden": True},
        "hyperv": {"relaxed": {}, "vapic": {}, "vpindex": {}, "synic": {}, "synictimer": {"direct": {}},
                   "spinlocks": {"spinlocks": 8191}, "vendorid": {"vendorid": "somebody"}},
    },
    "ioThreadsPolicy": "auto",
}  # fmt: skip
DEVICES = {
    "disks": [
        {"name": "scratch", "disk": {"bus": "virtio"}, "errorPolicy": "report", "dedicatedIOThread": True,
         "blockSize": {"custom": {"logical": 4096, "physical": 4096}}},
        {"name": "placed", "disk": {"bus": "virtio", "pciAddress": "0000:07:00.0"}, "tag": "database"},
        {"name": "seed", "cdrom": {"bus": "scsi"}},
    ],
    "interfaces": [{"name": "default", "masquerade": {}, "acpiIndex": 7, "tag": "front"}],
    "blockMultiQueue": True,
    "networkInterfaceMultiqueue": True,
    "tpm": {"persistent": True},
    "watchdog": {"name": "dog", "i6300esb": {"action": "poweroff"}},
    "sound": {"name": "sound", "model": "ich9"},
    "inputs": [{"name": "pen", "type": "tablet", "bus": "virtio"}],
    "video": {"type": "bochs"},
}  # fmt: skip
VOLUMES = [
    {"name": "scratch", "emptyDisk": {"capacity": "16Mi"}},
    {"name": "placed", "emptyDisk": {"capacity": "16Mi"}},
    {"name": "seed", "cloudInitConfigDrive": {"userData": "#cloud-config"}},
]
READ_CLOCK = r"\200\001\0\0\0\012\0\0\001\201"
"""TPM2_ReadClock. Bytes 26 to 30 of the answer are how often this TPM was reset: a new one begins to count anew."""
BITE = (
    "d=/sys/bus/pci/devices/0000:00:0a.0; printf '\\002' | dd of=$d/config bs=1 seek=4 conv=notrunc 2>/dev/null; "
    "b=$(head -1 $d/resource | cut -d' ' -f1); u() { devmem $((b+12)) 16 0x80; devmem $((b+12)) 16 0x86; }; "
    "u; devmem $b 32 10; u; devmem $((b+4)) 32 10; printf '\\002' | dd of=$d/config bs=1 seek=104 conv=notrunc"
)
"""The tiny guest has no driver for its watchdog, so this is one: memory on, both timers short, and it runs."""
QUESTIONS = {
    "efi": "ls /sys/firmware/efi | grep -x runtime",
    "tpm": "cat /sys/class/tpm/tpm0/tpm_version_major",
    "registers": "cd /sys/class/tpm/tpm0; echo pcr-*; cd /",
    "pci": "cat /sys/bus/pci/devices/*/uevent | grep PCI_ID | tr '\\n' ' '",
    "serial": "cat /sys/class/dmi/id/product_serial",
    "asset": "cat /sys/class/dmi/id/chassis_asset_tag",
    "block": "cat /sys/block/vda/queue/logical_block_size",
    "index": "cat /sys/bus/pci/devices/*/acpi_index",
    "placed": "ls /sys/bus/pci/devices/0000:07:00.0/virtio*/block",
    "queues": "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; ls /sys/class/net/eth0/queues | grep -c rx",
    "processor": "grep -m1 'model name' /proc/cpuinfo; grep -m1 flags /proc/cpuinfo | grep -c -w avx",
    "tags": "mkdir -p /mnt/s; until mount -o ro $(findfs LABEL=config-2) /mnt/s; do sleep 0.1; done 2>/dev/null; "
    "cat /mnt/s/openstack/latest/meta_data.json",
    "time": "date +%s",
    "hpet": "grep -c hpet /sys/devices/system/clocksource/clocksource0/available_clocksource",
    "kept": "modprobe efivarfs; mount -t efivarfs none /sys/firmware/efi/efivars; "
    f"tail -c 4 {VARIABLE} 2>&1; printf '\\007\\0\\0\\0kept' >{VARIABLE}",
    # In one write, as the TPM takes a command.
    "resets": f"printf '{READ_CLOCK}' >/tmp/q; exec 3<>/dev/tpm0; dd if=/tmp/q bs=10 2>/dev/null >&3; "
    "head -c 64 <&3 | hexdump -v -e '/1 \"%02x\"'; exec 3>&-",
}


def answers(home, name, questions=QUESTIONS):
    """Each question typed at the guest's console, and what came between two marks that its echo does not show."""
    home.wait_agent(name)
    found = {}
    with home.console(name) as console:
        for question, command in questions.items():
            console.type(f"\necho B-$((1+1)); {command}; echo E-$((1+1))\n")
            console.read_until("B-2")
            found[question] = console.read_until("E-2").removesuffix("E-2").replace("\r", "").strip()
    return found


def resets(answer):
    return int(answer[52:60], 16)


def test_a_guest_finds_what_its_manifest_names(home):
    extra = {"domain": DOMAIN, "devices": DEVICES, "spec": {"volumes": VOLUMES}}
    home.apply_vm("odd", strategy="Manual", extra=extra)
    home.hotvirt("start", "odd")
    found = answers(home, "odd")
    assert (found["efi"], found["tpm"], found["hpet"]) == ("runtime", "2", "0")
    assert found["registers"] == "pcr-sha256", "as upstream's"
    for device in ("8086:25AB", "8086:293E", "1234:1111", "1AF4:1052"):  # watchdog, sound, bochs, a virtio tablet
        assert device in found["pci"]
    assert (found["serial"], found["asset"], found["block"], found["index"]) == ("S-42", "shelf 7", "4096", "7")
    assert (found["placed"], found["queues"]) == ("vdb", "2")
    assert found["processor"].splitlines() == ["model name\t: Intel Core Processor (Haswell)", "0"]
    tags = {device["tags"][0]: device for device in json.loads(found["tags"])["devices"]}
    assert tags["database"] == {"type": "disk", "bus": "pci", "address": "0000:07:00.0", "tags": ["database"]}
    assert tags["front"]["address"] == "0000:01:00.0"
    ahead = int(found["time"]) - dt.datetime.now(tz=dt.UTC).timestamp()
    assert 86400 - 120 < ahead < 86400 + 120
    assert "No such file" in found["kept"]

    pod = home.kubectl_json("get", "pods")["items"][0]["metadata"]["name"]
    assert "B-2" in home.kubectl("logs", pod, "-c", "guest-console-log").stdout

    old = home.vmi("odd")["metadata"]["uid"]
    home.hotvirt("stop", "odd")
    home.wait("vm/odd", "jsonpath={.status.printableStatus}=Stopped")
    home.assert_nothing_left_of_guests()  # its TPM's process neither
    home.hotvirt("start", "odd")
    home.wait_new_instance("odd", old)
    again = answers(home, "odd")
    assert again["kept"].startswith("kept")
    assert resets(again["resets"]) > resets(found["resets"])

    with home.console("odd") as console:
        console.type(f"\n{BITE}\n")
        home.wait("vmi/odd", "jsonpath={.status.phase}=Failed")
    assert "the guest's watchdog was not fed" in home.messages("vmi/odd")

    home.kubectl("delete", "vm", "odd")
    home.wait_until("nothing kept of a machine that is gone", lambda: not list((home.directory / "machines").iterdir()))


def test_secure_boot_is_on_unless_declined(home):
    firmware = {"kernelBoot": {"container": CONTAINER}, "bootloader": {"efi": {}}}
    home.apply_vm("sealed", extra={"domain": {**DOMAIN, "firmware": firmware}, "devices": {}})
    home.wait_agent("sealed")
    with home.console("sealed") as console:
        console.type("\necho B-$((1+1)); dmesg | grep secureboot; echo E-$((1+1))\n")
        console.read_until("B-2")
        assert "Secure boot enabled" in console.read_until("E-2")


HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
PLACES = {
    "host": "cat /sys/bus/pci/devices/0000:00:00.0/device",
    "disk": "ls /sys/bus/pci/devices/0000:00:14.0/virtio*/block",
    "card": "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; "
    "ls /sys/bus/pci/devices/0000:00:1f.0/virtio*/net; cat /sys/class/net/eth0/address",
    "serials": "cat /sys/block/vd*/serial",
    "cache": "cat /sys/block/vda/queue/write_cache /sys/block/vda/queue/discard_max_bytes /sys/block/vda/ro",
}


@pytest.fixture
def set_huge_pages():
    """Sets so many aside on this machine, until the test is over."""
    before = HUGE_PAGES.read_text()
    yield lambda count: HUGE_PAGES.write_text(str(int(before) + count))
    HUGE_PAGES.write_text(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to set huge pages aside")
def test_an_old_machine_has_plain_pci_and_takes_disks_while_it_runs(home, set_huge_pages):
    devices = {
        "disks": [
            {"name": "scratch", "disk": {"bus": "virtio", "pciAddress": "0000:00:14.0"}, "serial": "here",
             "cache": "writethrough", "errorPolicy": "enospace", "bootOrder": 2},
            {"name": "stick", "disk": {"bus": "usb"}, "cache": "none", "io": "native"},
            {"name": "old", "disk": {"bus": "sata"}, "io": "threads", "shareable": True},
        ],
        "interfaces": [{"name": "default", "masquerade": {}, "pciAddress": "0000:00:1f.0", "bootOrder": 1}],
    }  # fmt: skip
    volumes = [{"name": each["name"], "emptyDisk": {"capacity": "16Mi"}} for each in devices["disks"]]
    domain = {**DOMAIN, "firmware": {"kernelBoot": {"container": CONTAINER}}, "machine": {"type": "pc"}}
    domain["memory"] = {"guest": "128Mi", "hugepages": {"pageSize": "2Mi"}}
    home.apply_claim("more", "32Mi")
    home.apply_vm("old", extra={"domain": domain, "devices": devices, "spec": {"volumes": volumes}})
    if HUGE_PAGES.read_text().strip() == "0":
        home.wait_message("vmi/old", "0.1Gi of hugepages-2Mi asked for, 0.0Gi of 0.0Gi free")
        assert "sysctl vm.nr_hugepages=64" in home.messages("vmi/old")
    set_huge_pages(64)
    found = answers(home, "old", PLACES)
    assert (found["host"], found["disk"], found["serials"]) == ("0x1237", "vda", "here")
    assert found["card"].split() == [
        "eth0",
        home.vmi("old")["spec"]["domain"]["devices"]["interfaces"][0]["macAddress"],
    ]
    assert found["cache"].split() == ["write", "through", "2147483136", "0"]
    command = Path(f"/proc/{home.guest_processes()[0]}/cmdline").read_text()
    for said in ('"driver":"usb-storage"', '"bus":"sata0.0"', '"share-rw":true', '"aio":"native"', '"werror":"enospc"'):
        assert said in command

    home.hotvirt("addvolume", "old", "--volume-name=more", "--bus=virtio", "--serial=late", "--persist")
    home.wait_volume("old", "more", "Ready")
    assert answers(home, "old", {"serials": PLACES["serials"]})["serials"] == "herelate"
