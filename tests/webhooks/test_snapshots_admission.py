"""What is wrong with a snapshot, restore, clone or export is named; machines that one of them has locked stay so."""

import pytest

from hotvirt.kube.admission import AdmissionRequest, User
from hotvirt.kube.resources import CLONES, EXPORTS, RESTORES, SNAPSHOTS, VMS
from hotvirt.webhooks.snapshots import admissions

ADMIN = User("admin", ("system:masters",))
VM = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "web"}
SNAP = {"apiGroup": "snapshot.kubevirt.io", "kind": "VirtualMachineSnapshot", "name": "old"}
RESTORE = {"target": VM, "virtualMachineSnapshotName": "old"}


async def judged(resource, spec, *, old=None, stored=None, user=ADMIN, status=None):
    def read(kind, name, namespace):
        return (stored or {}).get((kind.plural, name)) if namespace == "shop" else None

    obj = {"metadata": {"name": "x", "namespace": "shop"}, "spec": spec}
    before = None if old is None else {**obj, "spec": old, "status": status or {}}
    request = AdmissionRequest("UPDATE" if old else "CREATE", resource, "", "shop", "x", user, obj, before)
    found = [each for each in admissions(read) if resource in each.resources]
    verdicts = [await each.validate(request) for each in found]
    return [cause.field for verdict in verdicts for cause in verdict.causes]


GOOD = [
    (SNAPSHOTS, {"source": VM}),
    (SNAPSHOTS, {"source": VM, "deletionPolicy": "Retain", "failureDeadline": "1m30s"}),
    (SNAPSHOTS, {"source": VM, "failureDeadline": "0"}),
    (RESTORES, RESTORE),
    (RESTORES, {**RESTORE, "patches": ['{"op": "remove", "path": "/spec/template/spec/hostname"}']}),
    (CLONES, {"source": VM}),
    (CLONES, {"source": SNAP, "target": VM, "labelFilters": ["*"], "newMacAddresses": {"d": "02:00:00:00:00:01"}}),
    (EXPORTS, {"source": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data"}}),
    (EXPORTS, {"source": VM, "ttlDuration": "2h"}),
]
BAD = [
    (SNAPSHOTS, {}, ["spec.source.kind", "spec.source.name"]),
    (SNAPSHOTS, {"source": {**VM, "apiGroup": "apps"}}, ["spec.source.apiGroup"]),
    (SNAPSHOTS, {"source": {**VM, "kind": "Pod"}}, ["spec.source.kind"]),
    (SNAPSHOTS, {"source": VM, "deletionPolicy": "Keep"}, ["spec.deletionPolicy"]),
    (SNAPSHOTS, {"source": VM, "failureDeadline": "soon"}, ["spec.failureDeadline"]),
    (RESTORES, {"target": VM}, ["spec.virtualMachineSnapshotName"]),
    (RESTORES, {**RESTORE, "targetReadinessPolicy": "Now"}, ["spec.targetReadinessPolicy"]),
    (RESTORES, {**RESTORE, "volumeRestorePolicy": "x"}, ["spec.volumeRestorePolicy"]),
    (RESTORES, {**RESTORE, "volumeRestoreOverrides": [{}]}, ["spec.volumeRestoreOverrides[0].volumeName"]),
    (RESTORES, {**RESTORE, "patches": ['{"op": "add", "path": "/status/x"}']}, ["spec.patches[0]"]),
    (RESTORES, {**RESTORE, "patches": ["nothing"]}, ["spec.patches[0]"]),
    (CLONES, {"source": VM, "target": VM}, ["spec.target.name"]),
    (CLONES, {"source": VM, "newMacAddresses": {"d": "xx"}}, ["spec.newMacAddresses[d]"]),
    (CLONES, {"source": VM, "labelFilters": ["a!b"]}, ["spec.labelFilters[0]"]),
    (CLONES, {"source": VM, "patches": ['{"op": "eat", "path": "/spec"}']}, ["spec.patches[0]"]),
    (EXPORTS, {"source": {"apiGroup": "", "kind": "Secret", "name": "s"}}, ["spec.source.kind"]),
    (EXPORTS, {"source": VM, "ttlDuration": "1x"}, ["spec.ttlDuration"]),
]  # fmt: skip


async def test_all():
    assert [await judged(resource, spec) for resource, spec in GOOD] == [[]] * len(GOOD)
    assert [await judged(resource, spec) for resource, spec, _ in BAD] == [fields for _, _, fields in BAD]


@pytest.mark.parametrize("resource", [SNAPSHOTS, RESTORES, CLONES, EXPORTS])
async def test_none_can_be_changed(resource):
    assert await judged(resource, {"source": VM, "target": VM}, old={"source": SNAP}) == ["spec"]
    assert await judged(resource, {"source": VM}, old={"source": VM}) == []


async def test_one_restore_at_a_time():
    vm = {"status": {"restoreInProgress": "other"}}
    running, over = {}, {"status": {"complete": True}}
    for other, fields in ((running, ["spec.target"]), (over, []), (None, [])):
        stored = {("virtualmachines", "web"): vm, ("virtualmachinerestores", "other"): other}
        assert await judged(RESTORES, RESTORE, stored=stored) == fields


def machine(strategy="Always", *volumes):
    return {"runStrategy": strategy, "template": {"spec": {"volumes": [{"name": name} for name in volumes]}}}


async def test_a_locked_machine_keeps_its_disks_and_stays_off():
    taken, restored = {"snapshotInProgress": "s"}, {"restoreInProgress": "r"}
    for new, old, status, fields in (
        (machine("Always", "a", "b"), machine("Always", "a"), taken, ["spec"]),
        (machine("Halted", "a"), machine("Always", "a"), taken, ["spec.runStrategy"]),
        ({**machine("Always", "a"), "other": 1}, machine("Always", "a"), taken, []),
        (machine("Always"), machine("Halted"), restored, ["spec.runStrategy"]),
        (machine("Halted"), machine("Always"), restored, []),
        (machine("Always", "a"), machine("Halted"), {}, []),
    ):
        assert await judged(VMS, new, old=old, status=status) == fields
    ours = User("c", ("system:serviceaccounts:kubevirt",))
    assert await judged(VMS, machine("Always", "b"), old=machine(), status=taken, user=ours) == []


MEMORY = "snapshot.hotvirt.io/memory"
RUNS = {
    "status": {"phase": "Running"},
    "spec": {
        "domain": {"devices": {"disks": [{"name": "root", "disk": {}}]}},
        "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "r"}}],
    },
}
SCRATCH = {**RUNS, "spec": {**RUNS["spec"], "volumes": [{"name": "root", "emptyDisk": {}}]}}


@pytest.mark.parametrize(
    ("value", "vmi", "says"),
    [
        ("true", RUNS, ""),
        ("false", None, ""),
        ("yes", RUNS, "neither true nor false"),
        ("true", None, "VM web does not run, so it has no memory"),
        ("true", {**RUNS, "status": {"phase": "Scheduled"}}, "does not run"),
        ("true", SCRATCH, "volume root (emptyDisk) is in no snapshot"),
    ],
)
async def test_memory_is_kept_of_a_guest_that_has_some(value, vmi, says):
    stored = {("virtualmachines", "web"): {"metadata": {"name": "web"}}, ("virtualmachineinstances", "web"): vmi}
    obj = {"metadata": {"name": "x", "namespace": "shop", "annotations": {MEMORY: value}}, "spec": {"source": VM}}
    request = AdmissionRequest("CREATE", SNAPSHOTS, "", "shop", "x", ADMIN, obj, None)
    (door,) = (a for a in admissions(lambda kind, name, _: stored.get((kind.plural, name))) if SNAPSHOTS in a.resources)
    found = (await door.validate(request)).causes
    assert says in "; ".join(cause.message for cause in found)
    assert bool(found) == bool(says)
    assert all(cause.field == f"metadata.annotations[{MEMORY}]" for cause in found)
