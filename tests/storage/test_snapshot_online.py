"""Snapshots of a running guest with three disks, and what comes back from them."""

import contextlib
import json
import subprocess

import pytest
from snapshot_guests import (
    DISKS,
    WRITER,
    claims_of,
    consistent,
    content_of,
    counters,
    disk_of,
    extra,
    indications,
    restore,
    snapshot,
    type_script,
)

pytestmark = pytest.mark.guest


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
    assert status["indications"] == indications(home, "first") == ["GuestAgent", "Online"]
    assert status["snapshotVolumes"]["includedVolumes"] == list(DISKS)
    vm = home.kubectl_json("get", "vm", "db")
    assert status["sourceUID"] == vm["metadata"]["uid"]
    assert "snapshotInProgress" not in vm["status"]
    assert all(s["enabled"] for s in vm["status"]["volumeSnapshotStatuses"] if s["name"] in DISKS)
    taken = home.kubectl_json("get", "volumesnapshots")["items"]
    assert [each["status"]["readyToUse"] for each in taken] == [True] * 3
    assert len({each["status"]["creationTime"] for each in taken}) == 1

    # The next home finds the guest again, and hears its agent a moment later.
    home.kill()
    home.up()
    home.apply(snapshot("soon", "db"))
    home.wait("vmsnapshot/soon", "jsonpath={.status.readyToUse}=true")
    assert indications(home, "soon") == ["GuestAgent", "Online"]
    home.kubectl("delete", "vmsnapshot", "soon")

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

    # The machine is off now.
    home.apply(snapshot("cold", "db", deletionPolicy="Retain"))
    home.wait("vmsnapshot/cold", "jsonpath={.status.readyToUse}=true")
    cold = home.kubectl_json("get", "vmsnapshot", "cold")["status"]
    assert "indications" not in cold
    scribble = ["-c", "write -P 49 0 512", str(disk_of(home, new[0]))]
    subprocess.run(["qemu-io", *scribble], check=True, capture_output=True)
    assert counters(home, new[:1]) != then[:1]
    home.apply(restore("inplace", "db", "cold", volumeRestorePolicy="InPlace"))
    home.wait("vmrestore/inplace", "jsonpath={.status.complete}=true")
    assert claims_of(home, "db") == new
    assert counters(home, new) == then
    home.kubectl("delete", "vmsnapshot", "cold")
    kept = cold["virtualMachineSnapshotContentName"]
    assert home.kubectl_json("get", "vmsnapshotcontent", kept)["status"]["readyToUse"]

    clone = {
        "apiVersion": "clone.kubevirt.io/v1beta1",
        "kind": "VirtualMachineClone",
        "metadata": {"name": "again"},
        "spec": {
            "source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "db"},
            "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "cloned"},
            "newMacAddresses": {"default": "02:00:00:00:00:99"},
            "newSMBiosSerial": "number-2",
        },
    }
    home.apply(clone)
    home.wait("vmclone/again", "jsonpath={.status.phase}=Succeeded")
    assert counters(home, claims_of(home, "cloned")) == then
    domain = home.kubectl_json("get", "vm", "cloned")["spec"]["template"]["spec"]["domain"]
    assert domain["devices"]["interfaces"][0]["macAddress"] == "02:00:00:00:00:99"
    assert domain["firmware"]["serial"] == "number-2"
    assert [each["metadata"]["name"] for each in home.kubectl_json("get", "vmsnapshots")["items"]] == ["first"]

    home.kubectl("delete", "vmsnapshot", "first")
    home.kubectl("delete", "vmsnapshotcontent", kept)
    home.wait_until("the copies removed", lambda: not list((home.directory / "snapshots").iterdir()))
    assert json.loads(home.kubectl("get", "volumesnapshotcontents", "-o", "json").stdout)["items"] == []

    home.apply({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "plain"},
        "spec": {"source": {"persistentVolumeClaimName": new[0]}},
    })  # fmt: skip
    reference = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "plain"}
    home.apply({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "more", "annotations": {"cdi.kubevirt.io/storage.bind.immediate.requested": ""}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "32Mi"}},
                 "dataSource": reference},
    })  # fmt: skip
    home.wait("pvc/more", "jsonpath={.status.phase}=Bound")
    assert counters(home, ["more"]) == then[:1]
    assert len(content_of(home, "more")) == 32 << 20
