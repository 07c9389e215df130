"""What a restore makes, and how a clone differs from its source: pure."""

import json
from datetime import UTC, datetime

import pytest

from hotvirt.api import datavolumes, exports, snapshots
from hotvirt.controllers import clone_objects, restore_objects, snapshot_objects
from hotvirt.controllers.datavolume import is_to_adopt
from hotvirt.controllers.restore_objects import RestoreError

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MACHINE = {
    "metadata": {"name": "web", "labels": {"app": "web", "team/x": "1"}, "annotations": {"note": "n"}},
    "spec": {
        "runStrategy": "Always",
        "dataVolumeTemplates": [{"metadata": {"name": "root"}}, {"metadata": {"name": "spare"}}],
        "template": {
            "metadata": {"labels": {"app": "web", "old": "1"}},
            "spec": {
                "domain": {
                    "firmware": {"uuid": "u", "serial": "s"},
                    "devices": {"interfaces": [{"name": "a", "macAddress": "02:00:00:00:00:01"}, {"name": "b"}]},
                },
                "volumes": [
                    {"name": "root", "dataVolume": {"name": "root"}},
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}},
                    {"name": "tmp", "emptyDisk": {"capacity": "1Gi"}},
                    {"name": "dump", "memoryDump": {"claimName": "dump"}},
                ],
            },
        },
    },
}
BACKUPS = [
    {
        "volumeName": name, "volumeSnapshotName": f"vs-{name}",
        "persistentVolumeClaim": {
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/bound": "1", "mine": "2"}},
            "spec": {"volumeName": "pv", "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "c"},
        },
    }
    for name in ("root", "data")
]  # fmt: skip
CONTENT = {
    "metadata": {"uid": "c", "namespace": "shop", "name": "c"},
    "spec": {"source": {"virtualMachine": MACHINE}, "volumeBackups": BACKUPS},
}


def restore(**spec):
    target = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "web"}
    return {
        "metadata": {"name": "r", "namespace": "shop", "uid": "ab"},
        "spec": {"target": target, "virtualMachineSnapshotName": "s", **spec},
    }


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({}, ["restore-ab-root", "restore-ab-data"]),
        ({"volumeRestorePolicy": "InPlace"}, ["root", "data"]),
        ({"volumeRestorePolicy": "PrefixTargetName"}, ["web-root", "web-data"]),
        ({"volumeRestoreOverrides": [{"volumeName": "data", "restoreName": "mine"}]}, ["restore-ab-root", "mine"]),
    ],
)
def test_names_of_restored_claims(spec, names):
    assert [e["persistentVolumeClaim"] for e in restore_objects.names(restore(**spec), CONTENT)] == names


def test_a_restored_claim_begins_as_the_snapshot():
    entry = restore_objects.names(restore(), CONTENT)[0]
    made = restore_objects.claim(restore(), BACKUPS[0], entry, size="2Gi", owner=None)
    assert made["spec"] == {
        "storageClassName": "c",
        "resources": {"requests": {"storage": "2Gi"}},
        "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "vs-root"},
    }
    assert "pv.kubernetes.io/bound" not in made["metadata"]["annotations"]
    assert made["metadata"]["annotations"]["mine"] == "2"
    assert snapshots.is_restored(made, restore())


def test_the_machine_uses_the_restored_claims_and_is_filled_by_nothing_else():
    entries = restore_objects.names(restore(), CONTENT)
    spec = restore_objects.machine_spec(MACHINE, entries)
    assert spec["template"]["spec"]["volumes"] == [
        {"name": "root", "dataVolume": {"name": "restore-ab-root"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "restore-ab-data", "hotpluggable": True}},
        {"name": "tmp", "emptyDisk": {"capacity": "1Gi"}},
    ]
    assert spec["dataVolumeTemplates"] == [{"metadata": {"name": "restore-ab-root"}}, {"metadata": {"name": "spare"}}]
    assert restore_objects.deleted_data_volumes(MACHINE, spec) == ["root"]
    in_place = restore(volumeRestorePolicy="InPlace")
    same = restore_objects.machine_spec(MACHINE, restore_objects.names(in_place, CONTENT))
    assert restore_objects.deleted_data_volumes(MACHINE, same) == []
    halted = {**MACHINE, "spec": {**MACHINE["spec"], "runStrategy": "Halted"}}
    assert restore_objects.changed_machine(halted, spec, restore(), CONTENT)["spec"]["runStrategy"] == "Halted"
    made = restore_objects.new_machine(spec, restore(), CONTENT)
    assert made["spec"]["runStrategy"] == "Halted"
    with pytest.raises(RestoreError, match=r"spec.patches"):
        restore_objects.new_machine(spec, restore(patches=['{"op": "remove", "path": "/spec/none"}']), CONTENT)


def test_a_data_volume_of_the_machines_own_takes_over_its_claim_and_fills_nothing():
    entries = restore_objects.names(restore(), CONTENT)
    assert [each.get("dataVolumeName") for each in entries] == ["restore-ab-root", None]
    vm = {
        "metadata": {**MACHINE["metadata"], "namespace": "shop", "uid": "u"},
        "spec": restore_objects.machine_spec(MACHINE, entries),
    }
    vm["spec"]["dataVolumeTemplates"] = [{**each, "spec": {}} for each in vm["spec"]["dataVolumeTemplates"]]
    (made,) = restore_objects.data_volumes(vm, {**restore(), "status": {"restores": entries}})
    made["metadata"]["uid"] = "dv"
    assert made["metadata"]["name"] == "restore-ab-root"
    assert made["metadata"]["annotations"][datavolumes.PREPOPULATED] == "restore-ab-root"
    claim = restore_objects.claim(restore(), BACKUPS[0], entries[0], size=None, owner=None)
    bound = {**claim, "status": {"phase": "Bound"}}
    assert is_to_adopt(made, bound)
    assert not is_to_adopt(made, claim), "what it owned it would fill"
    assert not is_to_adopt({**made, "metadata": {**made["metadata"], "name": "other"}}, bound)
    bound["metadata"]["ownerReferences"] = [{"kind": "VirtualMachine"}]
    assert not is_to_adopt(made, bound)


def kept(machine, **annotations):
    """A content of a machine, with annotations."""
    return {
        "metadata": {"uid": "c", "annotations": annotations},
        "spec": {"source": {"virtualMachine": machine}, "volumeBackups": BACKUPS},
    }


def persistent(**domain):
    template = {"spec": {**MACHINE["spec"]["template"]["spec"], "domain": domain}}
    return {**MACHINE, "spec": {**MACHINE["spec"], "template": template}}


EFI = {"firmware": {"bootloader": {"efi": {"persistent": True}}}}


def test_what_a_machine_keeps_beside_its_disks_goes_where_it_is_restored():
    asks = {snapshots.MEMORY: "true"}
    declined = restore()
    declined["metadata"]["annotations"] = {snapshots.MEMORY: "false"}
    for content, given, here, elsewhere in (
        (kept(MACHINE), restore(), None, None),
        (kept(persistent(**EFI)), restore(), "c", "c"),
        (kept(persistent(devices={"tpm": {"persistent": True}})), restore(), "c", "c"),
        (kept(persistent(devices={"tpm": {"persistent": True, "enabled": False}})), restore(), None, None),
        (kept(persistent(devices={"tpm": {}})), restore(), None, None),
        # Memory goes back into the machine that it is of.
        (kept(MACHINE, **asks), restore(), "c/memory", None),
        (kept(persistent(**EFI), **asks), restore(), "c/memory", "c"),
        (kept(persistent(**EFI), **asks), declined, "c", "c"),
    ):
        # Of an earlier restore that was never finished.
        vm = {**MACHINE, "metadata": {**MACHINE["metadata"], "annotations": {snapshots.STATE_FROM: "old"}}}
        back = restore_objects.changed_machine(vm, MACHINE["spec"], given, content)
        new = restore_objects.new_machine(MACHINE["spec"], given, content)
        found = [each["metadata"]["annotations"].get(snapshots.STATE_FROM) for each in (back, new)]
        assert found == [here, elsewhere], content


def test_volume_snapshots_say_what_is_kept_with_them():
    def notes(content):
        made = snapshot_objects.volume_snapshots(
            {**content, "metadata": {"namespace": "shop", "name": "c", **content["metadata"]}}, classes={}, freeze=None
        )
        return {key: each["metadata"]["annotations"].get(key) for each in made
                for key in (snapshots.MACHINE, snapshots.MEMORY)}  # fmt: skip

    assert notes(kept(MACHINE)) == {snapshots.MACHINE: None, snapshots.MEMORY: None}
    assert notes(kept(persistent(**EFI))) == {snapshots.MACHINE: "web", snapshots.MEMORY: None}
    assert notes(kept(MACHINE, **{snapshots.MEMORY: "true"})) == {snapshots.MACHINE: "web", snapshots.MEMORY: "true"}


def clone(**spec):
    source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "web"}
    return {"metadata": {"name": "c", "namespace": "shop", "uid": "abcdef"}, "spec": {"source": source, **spec}}


def test_a_clone_has_addresses_and_numbers_of_its_own():
    asked = clone(
        newMacAddresses={"b": "02:00:00:00:00:09"}, newSMBiosSerial="n", labelFilters=["*", "!team/*"],
        template={"labelFilters": ["app"]},
        patches=['{"op": "add", "path": "/spec/template/spec/hostname", "value": "h"}'],
    )  # fmt: skip
    patches = clone_objects.patches(asked, MACHINE)
    made = restore_objects.patched(MACHINE, patches)
    assert made["metadata"]["labels"] == {"app": "web"}
    template = made["spec"]["template"]
    assert template["metadata"]["labels"] == {"app": "web"}
    assert template["spec"]["domain"]["firmware"] == {"serial": "n"}
    assert template["spec"]["domain"]["devices"]["interfaces"] == [
        {"name": "a"}, {"name": "b", "macAddress": "02:00:00:00:00:09"},
    ]  # fmt: skip
    assert template["spec"]["hostname"] == "h"
    assert clone_objects.target_name(asked) == "clone-web-abcde"
    plain = [json.loads(each)["path"] for each in clone_objects.patches(clone(), MACHINE)]
    assert plain == [
        "/spec/template/spec/domain/devices/interfaces/0/macAddress", "/spec/template/spec/domain/firmware/serial",
        "/spec/template/spec/domain/firmware/uuid",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "filters", "kept"),
    [
        ("a", [], True), ("a", ["*"], True), ("a", ["b*"], False), ("a/b", ["*", "!a/*"], False),
        ("a/b", ["!a/*", "a/b"], True), ("c", ["!a/*"], False),
    ],
)  # fmt: skip
def test_filters(key, filters, kept):
    assert clone_objects.passes(key, filters) is kept


def test_a_content_is_ready_when_all_its_disks_are():
    done = {"status": {"readyToUse": True, "creationTime": "2026-01-01T00:00:00Z"}}
    failed = {"status": {"readyToUse": False, "error": {"message": "no room"}}}
    one, two = (
        snapshot_objects.content_status(CONTENT, [done, other], now=NOW) for other in ({"status": {}}, done)
    )  # fmt: skip
    assert (one["readyToUse"], one.get("creationTime")) == (False, None)
    assert (two["readyToUse"], two["creationTime"]) == (True, "2026-01-01T00:00:00Z")
    assert snapshot_objects.content_status(CONTENT, [done, failed], now=NOW)["error"] == {"message": "no room"}
    whole = {**CONTENT, "status": {"creationTime": "2026-01-01T00:00:00Z"}}
    lost = snapshot_objects.content_status(whole, [done, None], now=NOW)
    assert (lost["readyToUse"], "vs-data" in lost["error"]["message"]) == (False, True)


def test_volume_snapshots_of_one_instant():
    made = CONTENT
    found = snapshot_objects.volume_snapshots(made, classes={"c": "k"}, freeze=120.0)
    assert [each["metadata"]["annotations"] for each in found] == [
        {snapshots.GROUP: "c", snapshots.MEMBERS: "vs-root,vs-data", snapshots.FREEZE: "120"}
    ] * 2
    assert [each["spec"]["volumeSnapshotClassName"] for each in found] == ["k", "k"]


def test_paths_of_exports():
    base = "/api/export.kubevirt.io/v1/namespaces/shop/virtualmachineexports/e"
    for path, wanted in (
        (f"{base}/volumes/d/disk.img", exports.Wanted("shop", "e", "d")),
        (f"{base}/volumes/d/disk.img.gz", exports.Wanted("shop", "e", "d", is_zipped=True)),
        (f"{base}/manifests/all", exports.Wanted("shop", "e", manifest="all")),
        (f"{base}/manifests/other", None),
        (f"{base}/volumes/d/../../x", None),
        (base, None),
    ):
        assert exports.parse(path) == wanted


def running(**conditions):
    return {"status": {"phase": "Running", "conditions": [{"type": name, "status": "True"} for name in conditions]}}


def noted(words):
    notes = {} if words is None else {snapshots.INDICATIONS: words}
    return {"metadata": {"annotations": notes}}


def test_while_a_snapshot_is_taken_nothing_is_said_of_the_filesystems_yet():
    agent = running(AgentConnected=1)
    assert snapshot_objects.indications(agent) == ["Online"]
    assert snapshot_objects.wants_freeze(agent)
    assert not snapshot_objects.wants_freeze(agent, memory=True)
    assert not snapshot_objects.wants_freeze(running())
    assert not snapshot_objects.wants_freeze(None)
    paused = running(AgentConnected=1, Paused=1)
    assert snapshot_objects.indications(paused) == ["Online", "Paused"]
    assert not snapshot_objects.wants_freeze(paused)


@pytest.mark.parametrize(
    ("before", "notes", "words"),
    [
        (["Online"], ["GuestAgent,Online"] * 2, ["GuestAgent", "Online"]),
        (["Online"], ["NoGuestAgent,Online"] * 2, ["NoGuestAgent", "Online"]),
        (["Online"], ["Online,QuiesceTimeout"] * 2, ["Online", "QuiesceTimeout"]),
        (["Online"], ["", ""], []),  # it had stopped by then
        ([], ["GuestAgent,Online"] * 2, ["GuestAgent", "Online"]),
        (["Online"], [None, None], ["NoGuestAgent", "Online"]),
        (["Online"], ["GuestAgent,Online", None], ["NoGuestAgent", "Online"]),
        (["Online", "Paused"], [None, None], ["Online", "Paused"]),
        ([], [None, None], []),
    ],
)
def test_a_snapshot_says_how_it_was_taken_by_the_word_of_who_did_it(before, notes, words):
    assert snapshot_objects.taken(before, CONTENT, [noted(each) for each in notes]) == words
    assert all(word in snapshot_objects.MEANINGS for word in words)


def test_a_claim_that_is_not_in_a_snapshot_is_told_of():
    part = {**CONTENT, "spec": {**CONTENT["spec"], "volumeBackups": BACKUPS[:1]}}
    assert snapshot_objects.left_out(part) == ["data"]
    assert snapshot_objects.taken(["Online"], part, [noted("GuestAgent,Online")]) == [
        "GuestAgent", "Online", "PartialSnapshot",
    ]  # fmt: skip
    assert snapshot_objects.left_out(CONTENT) == []
    none = {**CONTENT, "spec": {**CONTENT["spec"], "volumeBackups": []}}
    assert snapshot_objects.taken(["Online"], none, []) == ["Online", "PartialSnapshot"]
