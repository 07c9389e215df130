"""Memory, CPUs, disks, discs and cards of one running guest: each grows and shrinks, and the guest itself says so.

One boot for all of it. A cell is an edit of the VM, then the guest's own view (MemTotal, CPUs online, block devices,
links), then what the VMI says, which must be the same.
"""

import json
import os
import subprocess

import pytest

from hotvirt.images import seed

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]
MIB = 1 << 20
BOOT = 512
GRAIN = 4 * MIB


def memory_of(home, boot):
    """MiB that the guest has more or less than at its boot."""
    return round((home.facts("box")["memTotalBytes"] - boot["memTotalBytes"]) / MIB)


def disks_of(home):
    return {disk["serial"]: disk["sizeBytes"] // MIB for disk in home.facts("box")["blockDevices"] if disk["serial"]}


def patch_template(home, patch):
    home.kubectl("patch", "vm", "box", "--type=merge", "-p", json.dumps({"spec": {"template": {"spec": patch}}}))


def set_volumes(home, *hot):
    """The scratch disk of the start, and claims beside it: (volume, claim)."""
    volumes = [{"name": "scratch", "emptyDisk": {"capacity": "16Mi"}}]
    volumes += [{"name": v, "persistentVolumeClaim": {"claimName": c, "hotpluggable": True}} for v, c in hot]
    disks = [
        {"name": "scratch", "disk": {"bus": "virtio"}}, {"name": "cd", "cdrom": {"bus": "scsi"}},
        *({"name": v, "disk": {"bus": "scsi"}} for v, _ in hot if v != "cd"),
    ]  # fmt: skip
    patch_template(home, {"volumes": volumes, "domain": {"devices": {"disks": disks}}})


def wait_calm(home):
    """No change is on its way or stuck, and none needs a restart."""
    kinds = {"HotMemoryChange", "HotVCPUChange", "HotVolumeChange", "RestartRequired"}
    home.wait_until("no change is left", lambda: not kinds & home.conditions("vm/box").keys())


def write_disc(home, claim, words):
    """An ISO in a claim's file, before a guest has it."""
    home.kubectl("annotate", "pvc", claim, "cdi.kubevirt.io/storage.bind.immediate.requested=true")
    home.wait(f"pvc/{claim}", "jsonpath={.status.phase}=Bound")
    pv = home.kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}").stdout
    file = home.directory / "volumes" / pv / "disk.img"
    file.unlink()
    what = {"instance_id": "i", "hostname": "h", "user_data": words.encode(), "network_config": b""}
    seed.write(file, seed.render(**what))


def test_everything_grows_and_shrinks_while_one_guest_runs(home):
    cd = {"name": "cd", "cdrom": {"bus": "scsi"}}
    scratch = {"name": "scratch", "disk": {"bus": "virtio"}}
    home.apply_vm(
        "box", memory=f"{BOOT}Mi", max_memory="2Gi", max_sockets=3, extra={"devices": {"disks": [scratch, cd]}}
    )  # fmt: skip
    for claim, size in (("data", "64Mi"), ("one", "1Mi"), ("two", "1Mi")):
        home.apply_claim(claim, size)
    home.wait("vm/box", "condition=Ready")
    # Asked for while it boots: it waits, and is not lost.
    home.patch_vm("box", memory="640Mi", sockets=2)
    home.wait_agent("box")
    sockets = "jsonpath={.status.currentCPUTopology.sockets}"
    current = "jsonpath={.status.memory.guestCurrent}"
    home.wait("vmi/box", f"{current}=640Mi", f"{sockets}=2")
    assert home.facts("box")["onlineCPUs"] == 2
    grown = home.facts("box")
    home.patch_vm("box", memory=f"{BOOT}Mi", sockets=1)
    home.wait("vmi/box", f"{current}={BOOT}Mi", f"{sockets}=1")
    boot = home.facts("box")
    assert boot["onlineCPUs"] == 1
    assert abs(grown["memTotalBytes"] - boot["memTotalBytes"] - 128 * MIB) < GRAIN

    for size, more in (("1536Mi", 1024), ("1Gi", 512), ("384Mi", -128), (f"{BOOT}Mi", 0)):
        home.patch_vm("box", memory=size)
        home.wait("vmi/box", f"{current}={size}")
        assert abs(memory_of(home, boot) - more) <= 4, size
    for count in (3, 2, 1):
        home.patch_vm("box", sockets=count)
        home.wait("vmi/box", f"{sockets}={count}")
        assert home.facts("box")["onlineCPUs"] == count
    wait_calm(home)

    with home.shell("box") as shell:
        disks_come_grow_and_go(home, shell)
        discs_are_swapped(home, shell)
        a_cable_is_pulled_and_put_back(home, shell)
        if os.geteuid() == 0:
            a_card_comes_and_goes(home, shell)
    wait_calm(home)
    assert home.facts("box")["bootID"] == boot["bootID"], "the guest was restarted"


def disks_come_grow_and_go(home, shell):
    set_volumes(home, ("data", "data"))
    home.wait_volume("box", "data", "Ready")
    assert disks_of(home) == {"data": 64}
    home.kubectl("patch", "pvc", "data", "-p", '{"spec":{"resources":{"requests":{"storage":"96Mi"}}}}')
    home.wait("pvc/data", "jsonpath={.status.capacity.storage}=96Mi")
    home.wait_until("the guest sees it", lambda: disks_of(home) == {"data": 96})
    (entry,) = [e for e in home.vmi("box")["status"]["volumeStatus"] if e["name"] == "data"]
    assert entry["size"] == 96 * MIB
    home.wait_message("vmi/box", "volume data grew from 64Mi to 96Mi")

    shell.run("mke2fs -F /dev/sda >/dev/null 2>&1 && mkdir -p /mnt && mount /dev/sda /mnt && echo kept >/mnt/file")
    set_volumes(home)
    home.wait_message("vmi/box", "the guest uses disk 'data' (/mnt): unmount it there, and it goes by itself")
    assert disks_of(home) == {"data": 96}
    assert home.conditions("vmi/box")["HotVolumeChange"]["reason"] == "GuestUses"
    shell.run("umount /mnt")
    home.wait_volume_gone("box", "data")
    assert disks_of(home) == {}

    set_volumes(home, ("data", "data"))  # what was written is still there
    home.wait_volume("box", "data", "Ready")
    assert "kept" in shell.run("mount /dev/sda /mnt && cat /mnt/file && umount /mnt")
    set_volumes(home)
    home.wait_volume_gone("box", "data")
    wait_calm(home)


def discs_are_swapped(home, shell):
    for claim in ("one", "two"):
        write_disc(home, claim, f"#disc {claim}")
    read = "mount -t iso9660 -o ro /dev/sr0 /mnt && cat /mnt/user-data"
    for claim in ("one", "two"):
        set_volumes(home, ("cd", claim))
        home.wait_volume("box", "cd", "Ready")
        home.wait_until(
            f"claim {claim} in the drive",
            lambda c=claim: any(
                (e.get("persistentVolumeClaimInfo") or {}).get("claimName") == c and e.get("phase") == "Ready"
                for e in home.vmi("box")["status"]["volumeStatus"]
            ),
        )  # fmt: skip
        assert f"#disc {claim}" in shell.run(f"{read} && umount /mnt")
    shell.run(read)  # the guest locks the drive
    set_volumes(home)
    home.wait_message("vmi/box", "the guest has locked drive 'cd', as it uses the disc")
    shell.run("umount /mnt")
    home.wait_volume_gone("box", "cd")
    shell.run("! mount -t iso9660 -o ro /dev/sr0 /mnt 2>/dev/null")


def set_cards(home, state="up", lan=None):
    cards = [{"name": "default", "masquerade": {}, "state": state}]
    networks = [{"name": "default", "pod": {}}]
    if lan:
        cards.append({"name": "lan", "bridge": {}, "state": lan})
        networks.append({"name": "lan", "multus": {"networkName": "lan"}})
    patch_template(home, {"networks": networks, "domain": {"devices": {"interfaces": cards}}})


def interfaces_of(home):
    return {each["name"]: each for each in home.vmi("box")["status"]["interfaces"]}


def a_cable_is_pulled_and_put_back(home, shell):
    for state, carrier in (("down", "0"), ("up", "1")):
        set_cards(home, state)
        home.wait_until(f"the link is {state}", lambda s=state: interfaces_of(home)["default"]["linkState"] == s)
        shell.run(f"until grep -q {carrier} /sys/class/net/eth0/carrier; do usleep 50000; done")


def taps_on(bridge):
    return json.loads(
        subprocess.run(["ip", "-j", "link", "show", "master", bridge], capture_output=True).stdout or "[]"
    )


def a_card_comes_and_goes(home, shell):
    bridge = f"hvt{os.getpid()}"
    set_cards(home, lan="up")
    home.wait_message("vmi/box", "there is no NetworkAttachmentDefinition lan: create it")
    config = json.dumps({"cniVersion": "1.0.0", "type": "bridge", "bridge": bridge})
    home.apply({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "lan"},
        "spec": {"config": config},
    })  # fmt: skip
    home.wait_message("vmi/box", f"this node has no bridge {bridge}: make it")
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    try:
        home.wait_until(
            "the card is there", lambda: "guest-agent" in interfaces_of(home).get("lan", {}).get("infoSource", "")
        )
        assert len(taps_on(bridge)) == 1
        assert interfaces_of(home)["lan"]["mac"] in shell.run("cat /sys/class/net/*/address")
        set_cards(home, lan="absent")
        home.wait_until("the card is gone", lambda: "lan" not in interfaces_of(home))
        shell.run("! test -e /sys/class/net/eth1")
        home.wait_until("its tap is gone", lambda: not taps_on(bridge))
    finally:
        subprocess.run(["ip", "link", "del", bridge], check=True)
