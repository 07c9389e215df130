"""The launcher pod's status, from its process alone; and what is read back from its directory."""

from datetime import UTC, datetime

import pytest

from hotvirt.node import podprocess, podstatus
from hotvirt.node.places import Places, PodPlace
from hotvirt.qemu.process import Identity

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
T = "2026-11-28T12:00:00Z"
POD = {
    "metadata": {"name": "virt-launcher-web-abcde", "namespace": "default", "uid": "u"},
    "spec": {"containers": [{"name": "compute", "image": "hotvirt/launcher"}]},
    "status": {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "earlier"}]},
}


def test_running():
    found = podstatus.running(POD, "10.213.0.2", NOW)
    conditions = {c["type"]: (c["status"], c["lastTransitionTime"]) for c in found.pop("conditions")}
    assert conditions == {
        "PodScheduled": ("True", "earlier"), "Initialized": ("True", T), "ContainersReady": ("True", T),
        "Ready": ("True", T),
    }  # fmt: skip
    assert found == {
        "phase": "Running",
        "podIP": "10.213.0.2",
        "podIPs": [{"ip": "10.213.0.2"}],
        "hostIP": "127.0.0.1",
        "startTime": T,
        "containerStatuses": [
            {
                "name": "compute", "image": "hotvirt/launcher", "imageID": "", "restartCount": 0, "ready": True,
                "started": True, "state": {"running": {"startedAt": T}},
            }
        ],
    }  # fmt: skip


ENDS = {
    "powered off": ("Succeeded", 0, "Succeeded", 0, None),
    "powered off, seen by a home that knew no exit status": ("Succeeded", None, "Succeeded", 0, None),
    "panicked, and QEMU was told to quit": ("Failed", 0, "Failed", 0, None),
    "the receiver ended well without a guest": ("", 0, "Succeeded", 0, None),
    "QEMU did not start": ("", 1, "Failed", 1, None),
    "killed": ("", -9, "Failed", 137, 9),
    "panicked, noted before a home knew no exit status": ("Failed", None, "Failed", 0, None),
    "killed after it was noted to be over": ("Succeeded", -9, "Succeeded", 0, 9),
    "gone while no home was there": ("", None, "Failed", 137, None),
}


@pytest.mark.parametrize(("outcome", "code", "phase", "exit_code", "signal"), ENDS.values(), ids=ENDS)
def test_ended(outcome, code, phase, exit_code, signal):
    found = podstatus.ended(POD, outcome=outcome, code=code, log_tail="qemu: no", now=NOW)
    assert found["phase"] == phase
    finished = found["containerStatuses"][0]["state"]["terminated"]
    assert (finished["exitCode"], finished.get("signal")) == (exit_code, signal)
    assert finished["reason"] == ("Completed" if phase == "Succeeded" else "Error")
    assert finished["message"] == "qemu: no"
    conditions = {c["type"]: (c["status"], c.get("reason")) for c in found["conditions"]}
    reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
    assert conditions["Ready"] == conditions["ContainersReady"] == ("False", reason)
    assert conditions["PodScheduled"] == ("True", None)


GATED = {
    **POD,
    "spec": {**POD["spec"], "readinessGates": [{"conditionType": podstatus.UNPAUSED}, {"conditionType": "x/y"}]},
}


def test_a_running_pod_is_ready_as_its_gates_are():
    def pod(**gates):
        found = {"ContainersReady": "True", "Ready": "True", podstatus.UNPAUSED: "True", "x/y": "True"} | gates
        return {**GATED, "status": {"conditions": [{"type": kind, "status": is_} for kind, is_ in found.items()]}}

    assert podstatus.readiness(pod(), NOW) is None
    for gate in (podstatus.UNPAUSED, "x/y"):
        found = {c["type"]: c for c in podstatus.readiness(pod(**{gate: "False"}), NOW)["conditions"]}["Ready"]
        assert (found["status"], found["reason"]) == ("False", "ReadinessGatesNotReady")
        assert gate in found["message"]
    assert podstatus.readiness(pod(Ready="False", **{"x/y": "False"}), NOW) is None
    again = {c["type"]: c for c in podstatus.readiness(pod(Ready="False"), NOW)["conditions"]}["Ready"]
    assert (again["status"], again.get("reason")) == ("True", None)


def test_the_gate_of_pausing_is_open_from_the_start_and_others_are_not_ours():
    found = {c["type"]: c["status"] for c in podstatus.running(GATED, "10.0.0.1", NOW)["conditions"]}
    assert (found[podstatus.UNPAUSED], found.get("x/y")) == ("True", None)


def test_a_long_log_is_cut_to_its_end():
    found = podstatus.ended(POD, outcome="", code=1, log_tail="x" * 5000 + "the end", now=NOW)
    message = found["containerStatuses"][0]["state"]["terminated"]["message"]
    assert len(message) == 1024
    assert message.endswith("the end")


@pytest.fixture
def place(tmp_path):
    found = Places(tmp_path / "pods", tmp_path / "images", tmp_path / "volumes").pod("u-1")
    found.prepare()
    return found


def test_a_places_sockets_stay_short(place):
    longest = PodPlace(place.directory.parent / ("0" * 36))
    names = [str(p.relative_to(place.directory.parent)) for p in (longest.launch, longest.serial, longest.agent)]
    assert max(map(len, names)) <= 48, "of 107 characters"


def test_an_identity_is_read_or_none(place):
    assert podprocess.read_identity(place.pid) is None
    place.pid.write_text('{"pid": 12, "start_ti')
    assert podprocess.read_identity(place.pid) is None
    place.pid.write_text("[]")
    assert podprocess.read_identity(place.pid) is None
    from msgspec import json

    identity = Identity(12, 345)
    place.pid.write_bytes(json.encode(identity))
    assert podprocess.read_identity(place.pid) == identity


def test_an_outcome_is_read_or_empty(place):
    assert podprocess.read_outcome(place) == ""
    place.outcome.write_text("Failed\n")
    assert podprocess.read_outcome(place) == "Failed"


def test_nobody_holds_the_log_of_a_pod_that_never_was(place):
    assert podprocess.holders(place) == []
    place.log.write_text("")
    assert podprocess.holders(place) == []


def test_removing_a_place_twice_removes_it_once(place):
    place.disk("a").write_text("x")
    place.remove()
    place.remove()
    assert not place.directory.exists()
