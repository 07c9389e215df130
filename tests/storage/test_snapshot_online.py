"""Snapshots of a running guest with three disks, and what comes back from them."""

import base64
import contextlib
import json

import pytest

pytestmark = pytest.mark.guest
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


def counters(home, claims):
    return [int(disk_of(home, claim).read_bytes()[:512] or b"0") for claim in claims]


def claims_of(home, vm):
    volumes = home.kubectl_json("get", "vm", vm)["spec"]["template"]["spec"]["volumes"]
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def consistent(numbers):
    one, two, three = numbers
    return one >= two >= three >= one - 1


def test_three_disks_of_a_running_guest_are_of_one_instant(home):
    for name in DISKS:
        home.apply_claim(name, "24Mi")
    home.apply_vm("db", memory="256Mi", max_memory="1Gi", extra=extra({name: name for name in DISKS}))
    home.wait_agent("db")
    type_script(home, "db", WRITER, "WRITER-RUNS")

    home.apply(snapshot("first", "db"))
    home.wait("vmsnapshot/first", "jsonpath={.status.phase}=Succeeded", "condition=Ready")
    found = home.kubectl_json("get", "vmsnapshot", "first")
    status = found["status"]
    assert status["readyToUse"]
    assert status["indications"] == ["GuestAgent", "Online"]
    assert status["snapshotVolumes"]["includedVolumes"] == list(DISKS)
    vm = home.kubectl_json("get", "vm", "db")
    assert status["sourceUID"] == vm["metadata"]["uid"]
    assert "snapshotInProgress" not in vm["status"]
    assert all(s["enabled"] for s in vm["status"]["volumeSnapshotStatuses"] if s["name"] in DISKS)
    taken = home.kubectl_json("get", "volumesnapshots")["items"]
    assert [each["status"]["readyToUse"] for each in taken] == [True] * 3
    assert len({each["status"]["creationTime"] for each in taken}) == 1

    home.apply(restore("aside", "twin", "first", volumeRestorePolicy="PrefixTargetName"))
    home.wait("vmrestore/aside", "jsonpath={.status.complete}=true")
    assert claims_of(home, "twin") == [f"twin-{name}" for name in DISKS]
    then = counters(home, claims_of(home, "twin"))
    assert then[0] >= 5
    assert consistent(then)
    assert home.kubectl_json("get", "vm", "twin")["spec"]["runStrategy"] == "Halted"

    with contextlib.suppress(AssertionError):
        home.apply(restore("running", "db", "first", targetReadinessPolicy="FailImmediate"))
    home.wait("vmrestore/running", "condition=Failure")
    home.apply(restore("back", "db", "first", targetReadinessPolicy="StopTarget"))
    home.wait("vmrestore/back", "jsonpath={.status.complete}=true")
    assert counters(home, DISKS)[0] > then[0], "the old claims are as the guest left them"
    new = claims_of(home, "db")
    assert all(name.startswith("restore-") for name in new)
    assert counters(home, new) == then

    home.kubectl("delete", "vmsnapshot", "first")
    home.wait_until("the copies removed", lambda: not list((home.directory / "snapshots").iterdir()))
    assert json.loads(home.kubectl("get", "volumesnapshotcontents", "-o", "json").stdout)["items"] == []
