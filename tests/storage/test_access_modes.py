"""What claims' access modes mean to guests, and an image that is a disc: asked of the guests themselves."""

import hashlib
import random

import image_server
import pytest
from guest_homes import manifest
from snapshot_guests import disk_of

from hotvirt.images import seed

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]
MIB = 1 << 20
FIND = 'for n in /sys/block/vd*; do [ "$(cat $n/serial)" = data ] && d=/dev/${n##*/}; done'
WHOLE = "dd if=$d bs=1M 2>/dev/null | sha256sum | cut -c1-64"
WORDS = "read by a guest"


def claim(name, *modes):
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": list(modes), "resources": {"requests": {"storage": "16Mi"}},
                 "storageClassName": "hotvirt-directory"},
    }  # fmt: skip


def on_claim(home, name, claim_name, **disk):
    devices = {"disks": [{"name": "data", "serial": "data", "disk": {"bus": "virtio"}, **disk}]}
    volumes = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}]}
    home.apply_vm(name, memory="256Mi", max_memory="256Mi", extra={"devices": devices, "spec": volumes})


def told(home, name, command):
    home.wait_agent(name)
    with home.console(name) as console:
        console.type(f"\n{FIND}\n")
        console.type(f"echo B-$((1+1)); {command}; echo E-$((1+1))\n")
        console.read_until("B-2")
        return console.read_until("E-2").removesuffix("E-2").strip()


def test_access_modes_and_discs(home):
    many_read(home)
    one_pod_only(home)
    a_disc(home)


def many_read(home):
    home.apply(claim("shared", "ReadOnlyMany"))
    home.wait("pvc/shared", "jsonpath={.status.phase}=Bound")
    data = random.Random(7).randbytes(16 * MIB)
    disk_of(home, "shared").write_bytes(data)
    for name in ("one", "two"):
        on_claim(home, name, "shared")
    digest = hashlib.sha256(data).hexdigest()
    for name in ("one", "two"):
        assert told(home, name, WHOLE) == digest, "both read it, at the same time"
        assert told(home, name, "cat /sys/block/${d##*/}/ro") == "1"
        said = told(home, name, "dd if=/dev/zero of=$d bs=512 count=1 conv=fsync,notrunc && echo WRITTEN")
        assert "WRITTEN" not in said
    assert disk_of(home, "shared").read_bytes() == data
    home.kubectl("delete", "vm", "one", "two")


def one_pod_only(home):
    home.apply(claim("mine", "ReadWriteOncePod"))
    # A disk that may be shared by its manifest is not by its claim.
    on_claim(home, "first", "mine", shareable=True)
    written = told(home, "first", f"dd if=/dev/urandom of=$d bs=1M count=2 conv=fsync,notrunc 2>/dev/null; {WHOLE}")
    on_claim(home, "second", "mine", shareable=True)
    home.wait_message("vmi/second", "claim 'mine' is in use by VM 'first': stop that or detach it there")
    assert home.vmi("second")["status"]["phase"] != "Running"
    assert told(home, "first", WHOLE) == written
    home.kubectl("delete", "vm", "first")
    assert told(home, "second", WHOLE) == written, "it comes in turn"
    home.kubectl("delete", "vm", "second")


def a_disc(home):
    with image_server.serve() as images:
        images.put("disc.iso", seed.disc("MEDIA", {"readme.txt": WORDS.encode()}))
        document = manifest("reader", memory="256Mi", max_memory="256Mi", extra={
            "devices": {"disks": [{"name": "data", "cdrom": {"bus": "scsi"}}]},
            "spec": {"volumes": [{"name": "data", "dataVolume": {"name": "disc"}}]},
        })  # fmt: skip
        storage = {"resources": {"requests": {"storage": "16Mi"}}}
        source = {"http": {"url": f"{images.url}/disc.iso"}}
        document["spec"]["dataVolumeTemplates"] = [
            {"metadata": {"name": "disc"}, "spec": {"source": source, "storage": storage}}
        ]
        home.apply(document)
        home.wait_agent("reader")
    mount = "mkdir -p /tmp/m; mount -t iso9660 -o ro /dev/sr0 /tmp/m"
    assert WORDS in told(home, "reader", f"{mount}; cat /tmp/m/readme.txt")
    assert "Read-only" in told(home, "reader", "touch /tmp/m/x 2>&1")
    home.kubectl("delete", "vm", "reader")
