"""Discs of a guest's CD-ROM drives: put in, changed and taken out while it runs, and behind an open tray."""

import json

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

DISKS = [
    {"name": "open", "cdrom": {"bus": "scsi", "tray": "open"}},
    {"name": "swap", "cdrom": {"bus": "scsi"}},
]  # fmt: skip
NOTES = {"name": "open", "configMap": {"name": "notes"}}
READY = "dmesg -n 1; until [ -e /dev/sr1 ]; do sleep 0.2; done"
"""The kernel, which tells of a drive that is read while its disc is changed, is not to speak in between."""


def typed(console, command):
    console.type(f"\necho B-$((1+1)); {command}; echo E-$((1+1))\n")
    console.read_until("B-2")
    return console.read_until("E-2").removesuffix("E-2").replace("\r", "").strip()


def put_in(home, claim):
    """What the VM names as the disc of its drive, None for no disc."""
    disc = {"name": "swap", "persistentVolumeClaim": {"claimName": claim, "hotpluggable": True}}
    patch = {"spec": {"template": {"spec": {"volumes": [NOTES, *([disc] if claim else [])]}}}}
    home.kubectl("patch", "vm", "box", "--type=merge", "-p", json.dumps(patch))


def test_discs_come_are_changed_and_go_and_a_tray_is_open(home):
    for claim in ("one", "two"):
        home.apply_claim(claim, "1Mi")
        home.wait(f"pvc/{claim}", "jsonpath={.status.phase}=Bound")
        volume = home.kubectl_json("get", "pvc", claim)["spec"]["volumeName"]
        with (home.directory / "volumes" / volume / "disk.img").open("r+b") as disc:
            disc.write(f"this is disc {claim}".encode())
    notes = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes"}, "data": {"note": "read me"}}
    home.apply(notes)
    home.apply_vm("box", memory="256Mi", extra={"devices": {"disks": DISKS}, "spec": {"volumes": [NOTES]}})
    home.wait_agent("box")
    boot = home.facts("box")["bootID"]
    with home.console("box") as console:
        typed(console, READY)
        assert typed(console, "head -c 1 /dev/sr0 2>&1") == "head: /dev/sr0: No medium found"
        assert typed(console, "head -c 1 /dev/sr1 2>&1") == "head: /dev/sr1: No medium found"
        for claim in ("one", "two"):
            put_in(home, claim)
            read = f"until head -c 64 /dev/sr1 2>/dev/null | grep -q 'disc {claim}'; do sleep 0.2; done; echo read"
            assert typed(console, read) == "read"
        put_in(home, None)
        assert typed(console, "while head -c 1 /dev/sr1 >/dev/null 2>&1; do sleep 0.2; done; echo gone") == "gone"
    assert home.facts("box")["bootID"] == boot
    close = [{"op": "replace", "path": "/spec/template/spec/domain/devices/disks/0/cdrom/tray", "value": "closed"}]
    home.kubectl("patch", "vm", "box", "--type=json", "-p", json.dumps(close))
    home.wait_message("vm/box", "cdrom.tray: open -> closed")
    old = home.vmi("box")["metadata"]["uid"]
    home.hotvirt("restart", "box")
    home.wait_new_instance("box", old)
    home.wait_agent("box")
    with home.console("box") as console:
        typed(console, READY)
        assert typed(console, "modprobe isofs; mount -t iso9660 -o ro /dev/sr0 /mnt; cat /mnt/note") == "read me"
