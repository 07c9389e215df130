"""A data volume says how far it is in CDI's words; claims bind to what fits, and stay while they are used."""

from datetime import UTC, datetime

import pytest

from hotvirt.api import datavolumes
from hotvirt.controllers import claims, datavolume_status, printable, storageprofiles
from hotvirt.controllers.datavolume_status import Seen

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WAITS = {"volumeBindingMode": "WaitForFirstConsumer"}
VOLUME = {"metadata": {"name": "root"}, "spec": {}}


def claim(phase="Pending", **said):
    return {"metadata": {"annotations": said}, "status": {"phase": phase}}


RUNS = {datavolumes.POD_PHASE: "Running"}
PHASES = {
    "no claim": (None, "http", None, "Pending"),
    "bound": (claim("Bound"), "http", None, "Succeeded"),
    "lost": (claim("Lost"), "http", None, "Failed"),
    "a data source that is not there": (claim(), "", None, "Pending"),
    "nobody uses it": (claim(), "http", WAITS, "WaitForFirstConsumer"),
    "somebody uses it": (claim(**{datavolumes.SELECTED_NODE: "n"}), "http", WAITS, "ImportScheduled"),
    "an import": (claim(**RUNS), "http", None, "ImportInProgress"),
    "a blank disk": (claim(**RUNS), "blank", None, "ImportInProgress"),
    "a copy that waits": (claim(**{datavolumes.POD_PHASE: "Pending"}), "pvc", None, "CloneScheduled"),
    "a copy": (claim(**RUNS), "pvc", None, "CloneInProgress"),
    "an upload to come": (claim(), "upload", None, "UploadScheduled"),
    "an upload": (claim(**RUNS), "upload", None, "UploadReady"),
    "a failure for good": (claim(**{datavolumes.POD_PHASE: "Failed"}), "http", None, "Failed"),
    "there and not bound yet": (claim(**{datavolumes.POD_PHASE: "Succeeded"}), "http", None, "ImportInProgress"),
}


@pytest.mark.parametrize(("found", "kind", "storage_class", "phase"), PHASES.values(), ids=PHASES)
def test_phases(found, kind, storage_class, phase):
    assert datavolume_status.phase(Seen(VOLUME, found, storage_class, kind)) == phase


def test_conditions_tell_what_is_wrong_and_a_status_is_written_once():
    said = {
        datavolumes.POD_PHASE: "Running", datavolumes.RUNNING: "false", datavolumes.RUNNING_REASON: "Error",
        datavolumes.RUNNING_MESSAGE: "no such file", datavolumes.RESTARTS: "3", datavolumes.PROGRESS: "12.00%",
    }  # fmt: skip
    seen = Seen(VOLUME, claim(**said), None, "http")
    patch = datavolume_status.status(seen, now=NOW)
    assert (patch["phase"], patch["progress"], patch["restartCount"]) == ("ImportInProgress", "12.00%", 3)
    found = {c["type"]: (c["status"], c.get("reason"), c.get("message")) for c in patch["conditions"]}
    assert found["Running"] == ("False", "Error", "no such file")
    assert found["Bound"] == ("False", "Pending", "PVC root Pending")
    assert found["Ready"][0] == "False"
    assert datavolume_status.event(seen, patch) == ("ImportInProgress", "Import into root in progress")
    again = Seen({**VOLUME, "status": patch}, claim(**said), None, "http")
    assert datavolume_status.status(again, now=NOW) is None
    done = datavolume_status.status(Seen({**VOLUME, "status": patch}, claim("Bound"), None, "http"), now=NOW)
    assert (done["phase"], done["progress"]) == ("Succeeded", "100.0%")
    assert {c["type"]: c["status"] for c in done["conditions"]} == {
        "Bound": "True",
        "Running": "False",
        "Ready": "True",
    }
    assert datavolume_status.event(seen, done) == ("ImportSucceeded", "Successfully imported into root")


def test_a_machine_shows_that_its_disk_cannot_be_filled():
    condition = {"type": "Provisioning", "status": "True", "reason": printable.DATA_VOLUME_ERROR}
    vmi = {"metadata": {}, "status": {"phase": "Pending", "conditions": [condition]}}
    vm = {"metadata": {}, "spec": {"runStrategy": "Always"}}
    assert printable.status(vm, vmi, failure=None) == "DataVolumeError"


# Claims and volumes that a person made


def wanted(size="1Gi", **spec):
    return {
        "metadata": {"name": "c", "namespace": "default", "uid": "u"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": size}},
            **spec,
        },
    }  # fmt: skip


def volume(name="v", size="2Gi", *, labels=None, phase="Available", **spec):
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], **spec},
        "status": {"phase": phase},
    }


OTHER = {"namespace": "default", "name": "other"}
FITS = {
    "larger": (wanted(), volume(), True),
    "as large": (wanted("2Gi"), volume(), True),
    "smaller": (wanted("3Gi"), volume(), False),
    "another class": (wanted(storageClassName="x"), volume(), False),
    "its class": (wanted(storageClassName="x"), volume(storageClassName="x"), True),
    "a mode it has": (wanted(accessModes=["ReadOnlyMany"]), volume(), True),
    "a mode it has not": (wanted(accessModes=["ReadWriteMany"]), volume(), False),
    "block": (wanted(volumeMode="Block"), volume(), False),
    "both block": (wanted(volumeMode="Block"), volume(volumeMode="Block"), True),
    "labels": (wanted(selector={"matchLabels": {"a": "b"}}), volume(labels={"a": "b"}), True),
    "other labels": (wanted(selector={"matchLabels": {"a": "b"}}), volume(labels={"a": "c"}), False),
    "an expression": (
        wanted(selector={"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}),
        volume(labels={"a": "b"}), True,
    ),
    "by name": (wanted(volumeName="v"), volume(), True),
    "another by name": (wanted(volumeName="w"), volume(), False),
    "kept for it": (wanted(), volume(claimRef={"namespace": "default", "name": "c"}), True),
    "kept for another": (wanted(), volume(claimRef=OTHER), False),
    "kept for one before it": (wanted(), volume(claimRef={"namespace": "default", "name": "c", "uid": "old"}), False),
    "given back": (wanted(), volume(phase="Released"), False),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "found", "fits"), FITS.values(), ids=FITS)
def test_which_volumes_fit(asked, found, fits):
    assert claims.fits(asked, found) is fits


def test_the_smallest_that_fits_is_taken_unless_one_is_kept_for_it():
    kept = volume("kept", "9Gi", claimRef={"namespace": "default", "name": "c"})
    found = [volume("large", "5Gi"), volume("small", "2Gi"), volume("tiny", "1Mi")]
    assert claims.choose(wanted(), found)["metadata"]["name"] == "small"
    assert claims.choose(wanted(), [*found, kept])["metadata"]["name"] == "kept"
    assert claims.choose(wanted("10Gi"), found) is None


def test_a_profile_says_what_holds():
    storage_class = {"metadata": {"name": "x"}, "provisioner": "hotvirt.io/directory"}
    known = storageprofiles.profile_status({}, storage_class)
    assert known["claimPropertySets"][0] == {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}
    assert known["cloneStrategy"] == "snapshot"
    assert storageprofiles.profile_status({"spec": {"cloneStrategy": "copy"}}, storage_class)["cloneStrategy"] == "copy"
    other = {"metadata": {"name": "y"}, "provisioner": "else"}
    assert "claimPropertySets" not in storageprofiles.profile_status({}, other)
