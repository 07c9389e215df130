"""start, stop, restart, addvolume and removevolume as decisions: which state leads to which write or refusal."""

import pytest

from hotvirt.kube.errors import BadRequest, Conflict
from hotvirt.webhooks import lifecycle, volumes
from hotvirt.webhooks.lifecycle import Write


def vm(**spec):
    return {"metadata": {"name": "web", "resourceVersion": "7"}, "spec": spec or {"runStrategy": "Halted"}}


def vmi(phase="Running", **spec):
    return {"metadata": {"name": "web", "uid": "u1"}, "spec": spec, "status": {"phase": phase}}


VERSION = {"resourceVersion": "7"}
STOP = {"action": "Stop", "uid": "u1"}


def test_start_of_a_halted_vm_turns_its_strategy():
    assert lifecycle.start(vm(), None, {}) == [Write("vm", {"metadata": VERSION, "spec": {"runStrategy": "Always"}})]


PAUSED = {"action": "Start", "data": {"paused": "true"}}


def test_start_keeps_to_the_deprecated_field_where_it_is_used():
    assert lifecycle.start(vm(running=False), None, {})[0].patch["spec"] == {"running": True}


@pytest.mark.parametrize("strategy", ["Manual", "RerunOnFailure"])
@pytest.mark.parametrize("instance", [None, vmi("Succeeded"), vmi("Failed")])
def test_start_by_request(strategy, instance):
    assert lifecycle.start(vm(runStrategy=strategy), instance, {}) == [
        Write("vm/status", {"metadata": VERSION, "status": {"stateChangeRequests": [{"action": "Start"}]}})
    ]


@pytest.mark.parametrize("strategy", ["Halted", "Manual", "RerunOnFailure"])
def test_start_paused_is_a_request_for_this_start_alone(strategy):
    assert lifecycle.start(vm(runStrategy=strategy), None, {"paused": True}) == [
        Write("vm/status", {"metadata": VERSION, "status": {"stateChangeRequests": [PAUSED]}})
    ]


@pytest.mark.parametrize(
    ("of", "instance", "says"),
    [
        (vm(), vmi(), "already running"),
        (vm(runStrategy="Always"), None, "does not support manual start requests"),
        (vm(runStrategy="Once"), None, "does not support manual start requests"),
    ],
)
def test_start_refused(of, instance, says):
    with pytest.raises(Conflict, match=says):
        lifecycle.start(of, instance, {})


@pytest.mark.parametrize("strategy", ["Always", "Once"])
def test_stop_turns_the_strategy(strategy):
    assert lifecycle.stop(vm(runStrategy=strategy), vmi(), {}) == [
        Write("vm", {"metadata": VERSION, "spec": {"runStrategy": "Halted"}})
    ]


def test_stop_by_request_names_the_instance():
    written = lifecycle.stop(vm(runStrategy="Manual"), vmi(), {})
    assert written == [Write("vm/status", {"metadata": VERSION, "status": {"stateChangeRequests": [STOP]}})]


def test_stop_with_a_grace_period_shortens_that_of_an_instance_that_is_to_stop():
    written = lifecycle.stop(vm(runStrategy="Always"), vmi(), {"gracePeriod": 0})
    assert written[1] == Write("vmi", {"spec": {"terminationGracePeriodSeconds": 0}})
    assert [w.target for w in written] == ["vm", "vmi"]


def test_stop_of_a_stopping_vm_only_with_less_grace():
    running = vmi(terminationGracePeriodSeconds=60)
    assert [w.target for w in lifecycle.stop(vm(), running, {"gracePeriod": 5})] == ["vmi"]
    for options in ({}, {"gracePeriod": 60}):
        with pytest.raises(Conflict, match="does not support manual stop requests"):
            lifecycle.stop(vm(), running, options)


def test_stop_of_what_does_not_run():
    with pytest.raises(Conflict, match="VM is not running"):
        lifecycle.stop(vm(runStrategy="Manual"), None, {})


@pytest.mark.parametrize("grace", [-1, "now"])
def test_stop_refuses_a_grace_that_is_none(grace):
    with pytest.raises(BadRequest):
        lifecycle.stop(vm(runStrategy="Always"), vmi(), {"gracePeriod": grace})


@pytest.mark.parametrize("strategy", ["Always", "Manual", "RerunOnFailure"])
def test_restart_is_stop_and_start(strategy):
    written = lifecycle.restart(vm(runStrategy=strategy), vmi(), {})
    assert written[0].patch["status"]["stateChangeRequests"] == [STOP, {"action": "Start"}]


def test_forced_restart_takes_the_grace_away():
    assert [w.target for w in lifecycle.restart(vm(runStrategy="Always"), vmi(), {"gracePeriodSeconds": 0})] == [
        "vm/status", "vmi",
    ]  # fmt: skip


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
@pytest.mark.parametrize("strategy", ["Always", "Manual", "RerunOnFailure"])
def test_restart_starts_one_anew_whose_guest_has_ended_by_itself(strategy, phase):
    for options in ({}, {"gracePeriodSeconds": 0}):
        (write,) = lifecycle.restart(vm(runStrategy=strategy), vmi(phase), options)
        assert write.target == "vm/status", "who has ended needs no shorter grace"
        assert write.patch["status"]["stateChangeRequests"] == [STOP, {"action": "Start"}]


@pytest.mark.parametrize("strategy", ["Halted", "Once"])
def test_restart_refused_by_strategy(strategy):
    with pytest.raises(Conflict, match="does not support manual restart requests"):
        lifecycle.restart(vm(runStrategy=strategy), vmi(), {})


def test_restart_refused_when_down_and_for_other_graces():
    with pytest.raises(Conflict, match="not running"):
        lifecycle.restart(vm(runStrategy="Always"), None, {})
    failing = {**vm(runStrategy="Always"), "status": {"startFailure": {"retryAfterTimestamp": "2026-01-01T00:00:10Z"}}}
    with pytest.raises(Conflict, match="started at 2026-01-01T00:00:10Z by its run strategy; to try at once, stop it"):
        lifecycle.restart(failing, None, {})
    with pytest.raises(BadRequest, match="may only be 0"):
        lifecycle.restart(vm(runStrategy="Always"), vmi(), {"gracePeriodSeconds": 5})


SPEC = {
    "volumes": [{"name": "root", "containerDisk": {}}, {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}],
    "domain": {"devices": {"disks": [{"name": "root"}, {"name": "d"}]}},
}
ADD = {"name": "data", "disk": {"disk": {"bus": "scsi"}}, "volumeSource": {"persistentVolumeClaim": {"claimName": "x"}}}


def test_add_appends_a_hotpluggable_volume_and_its_disk():
    patch = volumes.add(SPEC, ADD)
    assert patch["volumes"][:2] == SPEC["volumes"]
    assert patch["volumes"][2] == {"name": "data", "persistentVolumeClaim": {"claimName": "x", "hotpluggable": True}}
    assert patch["domain"]["devices"]["disks"][2] == {"name": "data", "disk": {"bus": "scsi"}}


def test_add_to_a_vm_without_any_volume():
    patch = volumes.add({"domain": {}}, {**ADD, "disk": {"serial": "s"}})
    assert patch["domain"]["devices"]["disks"] == [{"name": "data", "serial": "s", "disk": {"bus": "scsi"}}]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"name": "root"}, Conflict, r"Unable to add volume \[root\] because volume with that name already exists"),
        ({"volumeSource": {"dataVolume": {"name": "c"}}}, Conflict, r"volume \[d\] uses it already"),
        ({"name": ""}, BadRequest, "name is required"),
        ({"disk": None}, BadRequest, "requires disk"),
        ({"volumeSource": {}}, BadRequest, "volumeSource is required"),
        ({"volumeSource": {"persistentVolumeClaim": {"readOnly": True}}}, BadRequest, "claimName is required"),
    ],
)
def test_add_refused(change, error, says):
    with pytest.raises(error, match=says):
        volumes.add(SPEC, {**ADD, **change})


def test_remove_undoes_add():
    added = volumes.add(SPEC, ADD)
    assert volumes.remove(added, {"name": "data"}) == SPEC


@pytest.mark.parametrize(
    ("name", "says"),
    [("root", r"\[root\] because it is not hotpluggable"), ("nope", r"does not exist \(there are: d, root\)")],
)
def test_remove_refused(name, says):
    with pytest.raises(Conflict, match=says):
        volumes.remove(SPEC, {"name": name})
