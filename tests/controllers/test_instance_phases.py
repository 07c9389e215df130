"""Each state of an instance, its pod and its claims, and what is done next."""

from datetime import UTC, datetime, timedelta

import pytest

from hotvirt.controllers import launcherpod
from hotvirt.controllers.instance_phases import Seen, decide, failed_to_create
from hotvirt.kube import conditions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GATE = "kubevirt.io/virtual-machine-unpaused"
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "nowhere"}}


def condition(plan, kind):
    return conditions.get(plan.patch["status"]["conditions"], kind)


def merge(vmi, plan):
    """The instance with the plan's patch in it."""
    patch = plan.patch or {}
    metadata = {**vmi["metadata"], **patch.get("metadata", {})}
    return {**vmi, "metadata": metadata, "status": {**vmi.get("status", {}), **patch.get("status", {})}}


def pod_of(vmi, *, node="", phase="Pending", ready=False, scheduled=None, deleting=False):
    pod = launcherpod.render(vmi, launcherpod.Settings())
    pod["metadata"]["uid"] = "p-1"
    if deleting:
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if node:
        pod["spec"]["nodeName"] = node
    found = [{"type": "Ready", "status": str(ready)}, {"type": GATE, "status": "True"}]
    if scheduled:
        found.append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": scheduled})
    pod["status"] = {"phase": phase, "conditions": found, "qosClass": "Burstable",
                     "containerStatuses": [{"name": "compute", "ready": ready}]}  # fmt: skip
    return pod


def running(make, **kwargs):
    vmi = make.vmi(**kwargs)
    pod = pod_of(vmi, node="one", phase="Running", ready=True)
    vmi["status"] = {"phase": "Running", "conditions": [], "phaseTransitionTimestamps": []}
    return merge(vmi, decide(Seen(vmi, pod), NOW)), pod


def test_a_new_instance_gets_its_pod_and_one_write_of_status(make):
    plan = decide(Seen(make.vmi()), NOW)
    assert plan.create_pod["metadata"]["name"].startswith("virt-launcher-web-")
    assert plan.patch["status"]["phase"] == "Scheduling"
    assert [t["phase"] for t in plan.patch["status"]["phaseTransitionTimestamps"]] == ["Pending", "Scheduling"]
    assert condition(plan, "Ready")["reason"] == "GuestNotRunning"
    assert "metadata" not in plan.patch
    assert plan.notes[0].reason == "SuccessfulCreate"


def test_an_instance_made_by_hand_gets_the_finalizer_in_the_same_write(make):
    vmi = make.vmi()
    vmi["metadata"]["finalizers"] = ["mine"]
    plan = decide(Seen(vmi), NOW)
    assert plan.patch["metadata"]["finalizers"] == ["mine", "kubevirt.io/foregroundDeleteVirtualMachine"]


@pytest.mark.parametrize(("owned", "path"), [(True, "spec.template.spec"), (False, "spec")])
def test_a_missing_claim_is_named_with_its_field_and_mend_and_said_once(make, owned, path):
    vmi = make.vmi(volumes=[DATA], owner=make.vm() if owned else None)
    plan = decide(Seen(vmi, claims={"nowhere": None}), NOW)
    assert plan.create_pod is None
    assert plan.patch["status"]["phase"] == "Pending"
    found = condition(plan, "Synchronized")
    assert (found["status"], found["reason"]) == ("False", "FailedPvcNotFound")
    assert found["message"].startswith(f'{path}.volumes[data].persistentVolumeClaim.claimName is "nowhere"')
    assert "create it" in found["message"]
    assert [n.reason for n in plan.notes] == ["FailedPvcNotFound"]
    again = decide(Seen(merge(vmi, plan), claims={"nowhere": None}), NOW + timedelta(hours=1))
    assert (again.patch, again.notes) == (None, ())


def test_the_claim_appears_then_is_bound_then_the_pod_is_made(make):
    vmi = make.vmi(volumes=[DATA])
    vmi = merge(vmi, decide(Seen(vmi, claims={"nowhere": None}), NOW))
    plan = decide(Seen(vmi, claims={"nowhere": {"status": {"phase": "Pending"}}}), NOW)
    assert condition(plan, "Synchronized") is None
    assert condition(plan, "Provisioning")["reason"] == "WaitingForClaim"
    assert "kubectl describe pvc nowhere" in condition(plan, "Provisioning")["message"]
    plan = decide(Seen(merge(vmi, plan), claims={"nowhere": {"status": {"phase": "Bound"}}}), NOW)
    assert condition(plan, "Provisioning") is None
    assert plan.create_pod is not None


def test_a_claim_that_waits_for_its_consumer_does_not_hold_the_pod_up(make):
    claim = {"spec": {"storageClassName": "late"}, "status": {"phase": "Pending"}}
    classes = {"late": {"volumeBindingMode": "WaitForFirstConsumer"}}
    plan = decide(Seen(make.vmi(volumes=[DATA]), claims={"nowhere": claim}, classes=classes), NOW)
    assert plan.create_pod is not None


def test_a_hotpluggable_claim_does_not_hold_the_start_up(make):
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "nowhere", "hotpluggable": True}}
    assert decide(Seen(make.vmi(volumes=[volume]), claims={"nowhere": None}), NOW).create_pod is not None


def test_from_scheduling_to_ready_with_one_write_for_each_step(make):
    vmi = make.vmi()
    vmi = merge(vmi, decide(Seen(vmi), NOW))
    assert decide(Seen(vmi, pod_of(vmi)), NOW).patch is None
    plan = decide(Seen(vmi, pod_of(vmi, scheduled="0/1 nodes: 9Gi of memory asked for, 8Gi free")), NOW)
    assert condition(plan, "PodScheduled")["message"].startswith("0/1 nodes")
    vmi = merge(vmi, plan)
    assert decide(Seen(vmi, pod_of(vmi, scheduled="0/1 nodes: 9Gi of memory asked for, 8Gi free")), NOW).patch is None
    up = pod_of(vmi, node="one", phase="Running", ready=True)
    plan = decide(Seen(vmi, up), NOW)
    assert plan.patch["status"]["phase"] == "Scheduled"
    assert plan.patch["status"]["nodeName"] == "one"
    assert plan.patch["status"]["activePods"] == {"p-1": "one"}
    assert plan.patch["metadata"]["labels"] == {"kubevirt.io/nodeName": "one"}
    assert condition(plan, "PodScheduled") is None
    vmi = merge(vmi, plan)
    assert decide(Seen(vmi, up), NOW).patch is None
    vmi["status"]["phase"] = "Running"
    vmi["status"]["phaseTransitionTimestamps"] = [
        *vmi["status"]["phaseTransitionTimestamps"], {"phase": "Running", "phaseTransitionTimestamp": "x"},
    ]  # fmt: skip
    plan = decide(Seen(vmi, up), NOW)
    assert list(plan.patch["status"]) == ["conditions"]
    assert condition(plan, "Ready")["status"] == "True"
    assert decide(Seen(merge(vmi, plan), up), NOW).patch is None


def test_a_restarted_controller_that_finds_the_pod_goes_on_from_it(make):
    vmi = make.vmi()
    plan = decide(Seen(vmi, pod_of(vmi, node="one", phase="Running", ready=True)), NOW)
    assert plan.create_pod is None
    assert plan.patch["status"]["phase"] == "Scheduled"


def test_an_image_that_cannot_be_had_is_said(make):
    vmi = make.vmi(status={"phase": "Scheduling"})
    pod = pod_of(vmi, node="one")
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ErrImagePull", "message": "no x/y"}}
    assert condition(decide(Seen(vmi, pod), NOW), "Synchronized")["message"] == "no x/y"


@pytest.mark.parametrize(
    ("change", "ready", "reason"),
    [
        (lambda vmi, pod: pod["metadata"].update(deletionTimestamp="now"), "False", "PodTerminating"),
        (lambda vmi, pod: pod["status"].update(conditions=[]), "False", "PodConditionMissing"),
        (lambda vmi, pod: pod["status"].update(conditions=[{"type": "Ready", "status": "False", "reason": "X"}]),
         "False", "X"),
        (lambda vmi, pod: vmi["status"]["conditions"].append({"type": "Paused", "status": "True"}),
         "False", "GuestNotRunning"),
    ],
    ids=["deleting", "unsaid", "unready", "paused"],
)  # fmt: skip
def test_a_running_instance_is_ready_as_its_pod_is(make, change, ready, reason):
    vmi, pod = running(make)
    assert conditions.of(vmi, "Ready")["status"] == "True"
    change(vmi, pod)
    plan = decide(Seen(vmi, pod), NOW)
    assert (condition(plan, "Ready")["status"], condition(plan, "Ready")["reason"]) == (ready, reason)


def test_a_paused_guest_closes_its_pods_gate_and_is_ready_when_the_pod_is_again(make):
    vmi, pod = running(make)
    assert decide(Seen(vmi, pod), NOW).gate is None
    paused = {**vmi, "status": {**vmi["status"], "conditions": [{"type": "Paused", "status": "True"}]}}
    plan = decide(Seen(paused, pod), NOW)
    assert conditions.get(plan.gate, GATE)["status"] == "False"
    still = merge(paused, plan)
    closed = {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}
    pod["status"]["conditions"] = [*conditions.remove(plan.gate, "Ready"), closed]
    assert decide(Seen(still, pod), NOW).gate is None
    on = {
        **still,
        "status": {**still["status"], "conditions": conditions.remove(still["status"]["conditions"], "Paused")},
    }
    plan = decide(Seen(on, pod), NOW)
    assert conditions.get(plan.gate, GATE)["status"] == "True"
    assert plan.patch is None, "it is told once the pod is ready"
    pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}, {"type": GATE, "status": "True"}]
    assert condition(decide(Seen(on, pod), NOW), "Ready")["status"] == "True"


def test_a_pod_without_the_gate_is_left_alone(make):
    vmi, pod = running(make)
    del pod["spec"]["readinessGates"]
    pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert decide(Seen(vmi, pod), NOW).gate is None


@pytest.mark.parametrize(
    ("phase", "pod", "becomes"),
    [
        ("Scheduling", None, "Failed"),
        ("Running", None, "Failed"),
        ("Scheduling", {"phase": "Failed"}, "Failed"),
        ("Scheduling", {"phase": "Succeeded"}, "Failed"),
        ("Scheduling", {"deleting": True}, "Failed"),
        ("Running", {"phase": "Failed"}, "Failed"),
        ("Running", {"phase": "Succeeded"}, "Succeeded"),
        ("Scheduled", {"phase": "Failed"}, "Failed"),
    ],
)
def test_the_pods_end_is_the_instances_end(make, phase, pod, becomes):
    vmi = make.vmi(status={"phase": phase})
    plan = decide(Seen(vmi, pod_of(vmi, **pod) if pod else None), NOW)
    assert plan.patch["status"]["phase"] == becomes
    assert plan.pod_gone == (pod is None)
    assert condition(plan, "Ready")["status"] == "False"


def test_the_node_agent_ends_a_running_guest_whose_pod_or_instance_is_deleted(make):
    vmi, pod = running(make)
    vmi["metadata"]["deletionTimestamp"] = "now"
    plan = decide(Seen(vmi, pod), NOW)
    assert (plan.delete_pod, plan.patch) == (False, None)


def test_the_pod_is_resized_when_the_instance_grew(make):
    vmi, pod = running(make)
    vmi["spec"]["domain"]["memory"]["guest"] = "2Gi"
    plan = decide(Seen(vmi, pod), NOW)
    assert plan.resize[1]["value"]["requests"]["memory"] == "2158Mi"


@pytest.mark.parametrize("phase", ["", "Pending", "Scheduling", "Scheduled", "Succeeded", "Failed"])
def test_deletion_takes_the_pod_first_and_the_finalizer_when_it_is_gone(make, phase):
    vmi = make.vmi(status={"phase": phase, "conditions": [], "phaseTransitionTimestamps": []})
    vmi["metadata"] |= {"deletionTimestamp": "now", "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine", "x"]}
    assert decide(Seen(vmi, pod_of(vmi)), NOW).delete_pod
    waiting = decide(Seen(vmi, pod_of(vmi, deleting=True)), NOW)
    assert (waiting.delete_pod, waiting.patch) == (False, None)
    gone = decide(Seen(vmi), NOW)
    assert gone.patch == {"metadata": {"finalizers": ["x"]}}
    assert gone.pod_gone


def test_a_finished_instance_loses_its_pod_and_its_readiness(make):
    vmi, pod = running(make)
    vmi["status"]["phase"] = "Succeeded"
    plan = decide(Seen(vmi, pod), NOW)
    assert plan.delete_pod
    assert condition(plan, "Ready")["reason"] == "GuestNotRunning"
    assert decide(Seen(merge(vmi, plan)), NOW).patch is None


@pytest.mark.parametrize(
    ("phase", "kind", "begins"), [("Failed", "Warning", "QEMU ended: "), ("Succeeded", "Normal", "")]
)
def test_the_end_of_a_running_guest_is_told_also_when_its_pods_end_is_seen_first(make, phase, kind, begins):
    vmi, pod = running(make)
    pod["status"] |= {"phase": phase, "containerStatuses": [{"state": {"terminated": {"message": "last words"}}}]}
    plan = decide(Seen(vmi, pod), NOW)
    assert plan.patch["status"]["phase"] == phase
    assert [(note.kind, note.reason, note.message) for note in plan.notes] == [(kind, "Stopped", f"{begins}last words")]


def test_a_refused_pod_is_said(make):
    plan = failed_to_create(Seen(make.vmi()), "exceeded quota", NOW)
    assert condition(plan, "Synchronized")["reason"] == "FailedCreate"
    assert "exceeded quota" in plan.notes[0].message


def test_a_condition_that_the_node_agent_set_stays(make):
    vmi, pod = running(make)
    vmi["status"]["conditions"].append({"type": "Synchronized", "status": "False", "reason": "SyncFailed"})
    vmi["status"]["conditions"].append({"type": "AgentConnected", "status": "True"})
    assert decide(Seen(vmi, pod), NOW).patch is None
