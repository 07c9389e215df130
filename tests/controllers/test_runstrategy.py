"""Run strategies and requests as one table."""

from datetime import UTC, datetime, timedelta

import pytest

from hotvirt.controllers import crashloop, printable
from hotvirt.controllers.runstrategy import decide, remaining
from hotvirt.kube.times import stamp

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STOP, STOP_OTHER, START = {"action": "Stop", "uid": "u-1"}, {"action": "Stop", "uid": "u-0"}, {"action": "Start"}


PAUSED = {"action": "Start", "data": {"paused": "true"}}


def machine(make, strategy, requests=(), **status):
    status |= {"stateChangeRequests": list(requests)} if requests else {}
    return make.vm(strategy=strategy, status=status)


def guest(make, phase, deleting=False):
    vmi = make.vmi(status={"phase": phase})
    if deleting:
        vmi["metadata"]["deletionTimestamp"] = "now"
    return vmi


ABSENT, LIVE, FAILED, ENDED, LEAVING = None, "Running", "Failed", "Succeeded", "leaving"


@pytest.mark.parametrize(
    ("strategy", "instance", "requests", "action"),
    [
        ("Always", ABSENT, [], "start"),
        ("Always", LIVE, [], "leave"),
        ("Always", LIVE, [STOP, START], "stop"),
        ("Always", LIVE, [STOP_OTHER], "leave"),
        ("Always", FAILED, [], "stop"),
        ("Always", ENDED, [], "stop"),
        ("Always", LEAVING, [STOP], "leave"),
        ("RerunOnFailure", ABSENT, [], "start"),
        ("RerunOnFailure", ABSENT, [STOP_OTHER], "leave"),
        ("RerunOnFailure", ABSENT, [STOP_OTHER, START], "start"),
        ("RerunOnFailure", LIVE, [STOP], "stop"),
        ("RerunOnFailure", FAILED, [], "stop"),
        ("RerunOnFailure", ENDED, [], "leave"),
        ("RerunOnFailure", ENDED, [START], "stop"),
        ("Manual", ABSENT, [], "leave"),
        ("Manual", ABSENT, [START], "start"),
        ("Manual", ABSENT, [STOP_OTHER], "leave"),
        ("Manual", LIVE, [], "leave"),
        ("Manual", LIVE, [STOP], "stop"),
        ("Manual", FAILED, [], "leave"),
        ("Manual", FAILED, [START], "stop"),
        ("Once", ABSENT, [], "start"),
        ("Once", LIVE, [STOP], "leave"),
        ("Once", FAILED, [], "leave"),
        ("Halted", ABSENT, [START], "leave"),
        ("Halted", ABSENT, [PAUSED], "on"),
        ("Halted", LIVE, [PAUSED], "stop"),
        ("Halted", LIVE, [], "stop"),
        ("Halted", ENDED, [], "stop"),
        ("Halted", LEAVING, [], "leave"),
        ("WaitAsReceiver", ABSENT, [], "leave"),
    ],
)
def test_what_a_strategy_makes_of_an_instance_and_requests(make, strategy, instance, requests, action):
    vmi = None if instance is None else guest(make, "Running", True) if instance == LEAVING else guest(make, instance)
    assert decide(machine(make, strategy, requests), vmi, failure=None, now=NOW).action == action


@pytest.mark.parametrize(("running", "action"), [(True, "start"), (False, "leave")])
def test_the_deprecated_switch(make, running, action):
    assert decide(make.vm(strategy=None, running=running), None, failure=None, now=NOW).action == action


def test_a_start_waits_for_its_time_unless_asked_for(make):
    failure = {"retryAfterTimestamp": stamp(NOW + timedelta(seconds=25))}
    step = decide(machine(make, "Always"), None, failure=failure, now=NOW)
    assert (step.action, step.wait) == ("leave", 25)
    assert decide(machine(make, "Always", [START]), None, failure=failure, now=NOW).action == "start"
    assert decide(machine(make, "Always"), None, failure=failure, now=NOW + timedelta(minutes=1)).action == "start"


def test_a_start_may_be_asked_for_paused(make):
    assert decide(machine(make, "Manual", [PAUSED]), None, failure=None, now=NOW).paused


@pytest.mark.parametrize(
    ("strategy", "phase", "requests", "started", "left"),
    [
        ("Manual", None, [START], True, []),
        ("Manual", None, [STOP_OTHER], False, []),
        ("Manual", None, [STOP_OTHER, START], False, [START]),
        ("Manual", "Running", [STOP, START], False, [STOP, START]),
        ("Manual", "Running", [STOP_OTHER, START], False, []),
        ("Manual", "Scheduling", [START], False, []),
        ("Manual", "Succeeded", [STOP_OTHER, START], False, [START]),
        ("RerunOnFailure", None, [STOP_OTHER], False, [STOP_OTHER]),
        ("Always", "Running", [STOP, START], False, [STOP, START]),
        ("Always", "Running", [STOP_OTHER, START], False, []),
        ("Halted", "Running", [STOP, START], False, []),
        ("Halted", "Succeeded", [STOP, PAUSED], False, [PAUSED]),
        ("Halted", None, [PAUSED], False, [PAUSED]),
    ],
)
def test_requests_stay_until_they_are_carried_out(make, strategy, phase, requests, started, left):
    vmi = guest(make, phase) if phase else None
    assert remaining(machine(make, strategy, requests), vmi, started=started) == left


# Crash loops


def failed(make, *, ran=None, uid="u-1"):
    stamps = [{"phase": "Failed", "phaseTransitionTimestamp": stamp(NOW)}]
    if ran is not None:
        began = stamp(NOW - timedelta(seconds=ran))
        stamps.append({"phase": "Running", "phaseTransitionTimestamp": began})
    return make.vmi(uid=uid, status={"phase": "Failed", "phaseTransitionTimestamps": stamps})


def test_failures_in_a_row_wait_ten_times_their_square_up_to_five_minutes(make):
    waits, known = [], {}
    for number in range(1, 8):
        vm = make.vm(status=known)
        failure = crashloop.update(vm, failed(make, uid=f"u-{number}"), now=NOW, draw=lambda: 0.0)
        assert failure["consecutiveFailCount"] == number
        known = {"startFailure": failure}
        waits.append(failure["retryAfterTimestamp"])
    assert waits == [stamp(NOW + timedelta(seconds=s)) for s in (10, 40, 90, 160, 250, 300, 300)]
    longest = crashloop.update(make.vm(), failed(make), now=NOW, draw=lambda: 1.0)
    assert longest["retryAfterTimestamp"] == stamp(NOW + timedelta(seconds=15))


def test_one_failure_counts_once(make):
    first = crashloop.update(make.vm(), failed(make), now=NOW, draw=lambda: 0.0)
    again = crashloop.update(make.vm(status={"startFailure": first}), failed(make), now=NOW, draw=lambda: 0.5)
    assert again == first


@pytest.mark.parametrize(("ran", "counts"), [(None, True), (5, False)])
def test_who_ran_and_lost_its_pod_did_not_fail(make, ran, counts):
    vmi = failed(make, ran=ran)
    vmi["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": "PodTerminating"}]
    assert (crashloop.update(make.vm(), vmi, now=NOW, draw=lambda: 0.0) is not None) is counts
    known = {"consecutiveFailCount": 2, "lastFailedVMIUID": "u-0", "retryAfterTimestamp": stamp(NOW)}
    after = crashloop.update(make.vm(status={"startFailure": known}), vmi, now=NOW, draw=lambda: 0.0)
    assert after["consecutiveFailCount"] == (3 if counts else 2)


@pytest.mark.parametrize(
    ("strategy", "ran", "counts"),
    [("Always", None, True), ("Always", 5, True), ("Always", 60, False), ("Manual", None, False),
     ("Halted", None, False), ("RerunOnFailure", None, True)],
)  # fmt: skip
def test_only_an_early_end_of_a_machine_that_starts_itself_counts(make, strategy, ran, counts):
    found = crashloop.update(make.vm(strategy=strategy), failed(make, ran=ran), now=NOW, draw=lambda: 0.0)
    assert (found is not None) is counts


def test_a_machine_that_runs_on_is_forgiven(make):
    known = {"consecutiveFailCount": 3, "lastFailedVMIUID": "u-0", "retryAfterTimestamp": stamp(NOW)}
    vm = make.vm(status={"startFailure": known})
    stamps = [{"phase": "Running", "phaseTransitionTimestamp": stamp(NOW)}]
    vmi = make.vmi(status={"phase": "Running", "phaseTransitionTimestamps": stamps})
    assert crashloop.update(vm, None, now=NOW, draw=lambda: 0.0) == known
    soon, later = NOW + timedelta(seconds=10), NOW + timedelta(seconds=31)
    assert crashloop.update(vm, vmi, now=soon, draw=lambda: 0.0) == known
    assert crashloop.settles_in(known, vmi, soon) == 20
    assert crashloop.update(vm, vmi, now=later, draw=lambda: 0.0) is None
    assert crashloop.settles_in(None, vmi, later) is None


# The one word


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({"phase": "Running"}, "Running"),
        ({"phase": "Running", "conditions": [{"type": "Paused", "status": "True"}]}, "Paused"),
        ({"phase": "Running", "migrationState": {"startTimestamp": "x"}}, "Migrating"),
        ({"phase": "Running", "migrationState": {"completed": True}}, "Running"),
        ({"phase": "Pending", "conditions": [{"type": "Synchronized", "status": "False",
                                              "reason": "FailedPvcNotFound"}]}, "ErrorPvcNotFound"),
        ({"phase": "Scheduling", "conditions": [{"type": "PodScheduled", "status": "False",
                                                 "reason": "Unschedulable"}]}, "ErrorUnschedulable"),
        ({"phase": "Pending", "conditions": [{"type": "Provisioning", "status": "True"}]}, "Provisioning"),
        ({"phase": "Pending", "conditions": [{"type": "Provisioning", "status": "True",
                                              "reason": "WaitingForClaim"}]}, "WaitingForVolumeBinding"),
        ({"phase": "Scheduling", "conditions": [{"type": "Synchronized", "status": "False",
                                                 "reason": "ImagePullBackOff"}]}, "ImagePullBackOff"),
        ({"phase": "Scheduling", "conditions": [{"type": "Synchronized", "status": "False",
                                                 "reason": "ErrImagePull"}]}, "ErrImagePull"),
        ({"phase": "Scheduled"}, "Starting"),
        ({}, "Starting"),
        ({"phase": "Succeeded"}, "Stopped"),
        ({"phase": "Unknown"}, "Unknown"),
    ],
)  # fmt: skip
def test_the_printable_status(make, status, word):
    assert printable.status(make.vm(), make.vmi(status=status), failure=None) == word


def test_the_printable_status_at_the_edges(make):
    deleting, leaving = make.vm(), guest(make, "Running", deleting=True)
    deleting["metadata"]["deletionTimestamp"] = "now"
    assert printable.status(deleting, leaving, failure=None) == "Terminating"
    assert printable.status(make.vm(), leaving, failure=None) == "Stopping"
    assert printable.status(make.vm(), None, failure={"consecutiveFailCount": 1}) == "CrashLoopBackOff"
    assert printable.status(make.vm(strategy="Manual"), None, failure=None) == "Stopped"
    assert printable.status(make.vm(strategy="WaitAsReceiver"), None, failure=None) == "WaitingForReceiver"
