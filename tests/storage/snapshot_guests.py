"""What tests of snapshots have in common: a guest that counts on three disks, and objects."""

import base64
import subprocess
import tempfile
from pathlib import Path

from hotvirt.api.snapshots import INDICATIONS

DISKS = ("one", "two", "three")
WRITER = """
i=0
while :; do
  i=$((i+1))
  for s in one two three; do
    for n in /sys/block/vd*; do
      [ "$(cat $n/serial)" = $s ] && printf '%-511d\\n' $i | dd of=/dev/${n##*/} bs=512 conv=fsync,notrunc 2>/dev/null
    done
  done
  [ $i = 5 ] && echo WRITER-"RUNS"
done
"""
"""A number that grows, on the three disks in turn, each time to the platter: whatever instant it is stopped at, no disk
is ahead of the one before it, and the last is at most one behind."""


def extra(claims):
    return {
        "devices": {"disks": [{"name": n, "serial": n, "disk": {"bus": "virtio"}} for n in claims]},
        "spec": {"volumes": [{"name": n, "persistentVolumeClaim": {"claimName": c}} for n, c in claims.items()]},
    }


def snapshot(name, vm, **spec):
    return {
        "apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": "VirtualMachineSnapshot",
        "metadata": {"name": name},
        "spec": {"source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm}, **spec},
    }


def restore(name, vm, of, **spec):
    target = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm}
    return {
        "apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": "VirtualMachineRestore",
        "metadata": {"name": name},
        "spec": {"target": target, "virtualMachineSnapshotName": of, **spec},
    }


def type_script(home, name, script, until):
    coded = base64.b64encode(script.encode()).decode()
    with home.console(name) as console:
        lines = "".join(f"echo {coded[i : i + 700]} >>/tmp/s\n" for i in range(0, len(coded), 700))
        console.type(f"\nrm -f /tmp/s\n{lines}tr -d '\\n' </tmp/s | base64 -d >/tmp/r; sh /tmp/r &\n")
        console.read_until(until)


def disk_of(home, claim):
    volume = home.kubectl_json("get", "pvc", claim)["spec"]["volumeName"]
    (found,) = (home.directory / "volumes" / volume).glob("disk.*")
    return found


def content_of(home, claim):
    """What a guest would see of it."""
    disk = disk_of(home, claim)
    if disk.suffix == ".img":
        return disk.read_bytes()
    with tempfile.NamedTemporaryFile() as raw:
        # -U: a guest may have it open.
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", str(disk), raw.name], check=True)
        return Path(raw.name).read_bytes()


def indications(home, taken):
    """How a snapshot says that it was taken: the same as whoever copied its disks."""
    uid = home.kubectl_json("get", "vmsnapshot", taken)["metadata"]["uid"]
    volumes = home.kubectl_json("get", "volumesnapshots")["items"]
    notes = {v["metadata"]["annotations"][INDICATIONS] for v in volumes if uid in v["metadata"]["name"]}
    home.wait(f"vmsnapshot/{taken}", "jsonpath={.status.phase}=Succeeded")
    said = home.kubectl_json("get", "vmsnapshot", taken)["status"].get("indications") or []
    assert notes == {",".join(said)}
    return said


def counters(home, claims):
    return [int(content_of(home, claim)[:512] or b"0") for claim in claims]


def claims_of(home, vm):
    volumes = home.kubectl_json("get", "vm", vm)["spec"]["template"]["spec"]["volumes"]
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def consistent(numbers):
    one, two, three = numbers
    return one >= two >= three >= one - 1
