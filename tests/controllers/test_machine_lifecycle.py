"""VM, instance, pod and scheduler together over an API in memory; a few lines play the node agent and its guests.

Every test ends when nothing moves any more, so that what is counted is all there was.
"""

import asyncio

import pytest

from hotvirt.controllers.instance import InstanceController
from hotvirt.controllers.scheduler import Scheduler
from hotvirt.controllers.virtualmachine import VirtualMachineController
from hotvirt.kube import conditions
from hotvirt.kube.errors import Forbidden, Invalid
from hotvirt.kube.resources import CLAIMS, CONTROLLER_REVISIONS, EVENTS, KUBEVIRTS, PODS, VMIS, VMS
from hotvirt.webhooks import lifecycle

pytestmark = pytest.mark.looptime
STARTED = {"pods", "virtualmachineinstances", "virtualmachines", "controllerrevisions"}


async def settled(seconds=1):
    await asyncio.sleep(seconds)


def vm_of(api, name="web"):
    return api.find(VMS, name)


def status_of(api, name="web"):
    return vm_of(api, name)["status"]


def made(api, *verbs):
    return [(verb, plural) for verb, plural, _ in api.writes if plural in STARTED and (not verbs or verb in verbs)]


async def edit(api, patch, name="web"):
    await api.patch(VMS, name, {"spec": {"template": {"spec": patch}}})
    await settled()


async def test_from_nothing_to_ready_with_the_fewest_writes(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        status = status_of(api)
        assert status["printableStatus"] == "Running"
        assert (status["created"], status["ready"], status["runStrategy"]) == (True, True, "Always")
        assert status["observedGeneration"] == status["desiredGeneration"] == 1
        assert conditions.of(vm_of(api), "Ready")["status"] == "True"
        assert vm_of(api)["metadata"]["finalizers"] == ["kubevirt.io/virtualMachineControllerFinalize"]
        vmi = api.find(VMIS, "web")
        assert vmi["metadata"]["labels"] == {"app": "web", "kubevirt.io/vm": "web", "kubevirt.io/nodeName": "one"}
        assert vmi["metadata"]["annotations"]["kubevirt.io/vm-generation"] == "1"
        assert vmi["status"]["virtualMachineRevisionName"].startswith("revision-start-vm-")
        assert [e["phase"] for e in vmi["status"]["phaseTransitionTimestamps"]] == [
            "Pending", "Scheduling", "Scheduled", "Running",
        ]  # fmt: skip
        assert {e["reason"] for e in api.all(EVENTS)} == {"SuccessfulCreate"}
        assert sorted(made(api)) == sorted([
            ("create", "virtualmachines"), ("create", "controllerrevisions"), ("create", "virtualmachineinstances"),
            ("create", "pods"), ("bind", "pods"), ("patch", "pods"),
            ("patch", "virtualmachineinstances"),  # Scheduling
            ("patch", "virtualmachineinstances"),  # Scheduled
            ("patch", "virtualmachineinstances"),  # Running and ready, by the node
            ("patch", "virtualmachines"),  # finalizer, where admission has not set it
            ("patch", "virtualmachines"),  # Starting
            ("patch", "virtualmachines"),  # Running and ready
        ])  # fmt: skip


async def test_nothing_is_written_while_nothing_changes(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        api.writes.clear()
        await settled(3600)
        assert api.writes == []


async def test_controllers_that_start_again_find_all_in_order(api, make, home, controlled):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
    api.writes.clear()
    async with controlled(VirtualMachineController, InstanceController, Scheduler):
        await settled()
        assert api.writes == []


async def test_halted_stops_gracefully_and_always_starts_again(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        first = api.find(VMIS, "web")["metadata"]["uid"]
        await api.patch(VMS, "web", {"spec": {"runStrategy": "Halted"}})
        await settled()
        assert api.all(VMIS) == api.all(PODS) == []
        status = status_of(api)
        assert (status["printableStatus"], status.get("created"), status.get("ready")) == ("Stopped", None, None)
        assert [c["type"] for c in status["conditions"]] == ["Ready"]
        assert conditions.of(vm_of(api), "Ready")["reason"] == "VMINotExists"
        await api.patch(VMS, "web", {"spec": {"runStrategy": "Always"}})
        await settled()
        assert status_of(api)["printableStatus"] == "Running"
        assert api.find(VMIS, "web")["metadata"]["uid"] != first
        assert len(api.all(CONTROLLER_REVISIONS)) == 1


async def test_manual_waits_to_be_asked(api, make, home):
    async with home():
        await api.create(VMS, make.vm(strategy="Manual"))
        await settled()
        assert status_of(api)["printableStatus"] == "Stopped"
        await api.patch(VMS, "web", {"status": {"stateChangeRequests": [{"action": "Start"}]}}, subresource="status")
        await settled()
        assert status_of(api)["printableStatus"] == "Running"
        assert "stateChangeRequests" not in status_of(api)
        uid = api.find(VMIS, "web")["metadata"]["uid"]
        restart = [{"action": "Stop", "uid": uid}, {"action": "Start"}]
        await api.patch(VMS, "web", {"status": {"stateChangeRequests": restart}}, subresource="status")
        await settled()
        assert api.find(VMIS, "web")["metadata"]["uid"] != uid
        assert "stateChangeRequests" not in status_of(api)
        stop = [{"action": "Stop", "uid": api.find(VMIS, "web")["metadata"]["uid"]}]
        await api.patch(VMS, "web", {"status": {"stateChangeRequests": stop}}, subresource="status")
        await settled()
        assert status_of(api)["printableStatus"] == "Stopped"
        assert "stateChangeRequests" not in status_of(api)


@pytest.mark.parametrize("switch", [{"strategy": "Halted"}, {"strategy": None, "running": False}])
async def test_a_halted_machine_is_asked_to_start_paused_for_once(api, make, home, switch):
    async with home():
        await api.create(VMS, make.vm(**switch))
        await settled()
        start = {"action": "Start", "data": {"paused": "true"}}
        await api.patch(VMS, "web", {"status": {"stateChangeRequests": [start]}}, subresource="status")
        await settled()
        vm, vmi = vm_of(api), api.find(VMIS, "web")
        assert vm["spec"].get("running", vm["spec"].get("runStrategy")) in (True, "Always")
        assert ("running" in vm["spec"]) is ("running" in switch), "the field that its owner uses"
        assert "startStrategy" not in vm["spec"]["template"]["spec"]
        assert vmi["spec"]["startStrategy"] == "Paused"
        assert "stateChangeRequests" not in vm["status"]
        assert conditions.of(vm, "RestartRequired") is None
        await api.patch(VMS, "web", {"spec": {"runStrategy": "Halted", "running": None}})
        await settled()
        await api.patch(VMS, "web", {"spec": {"runStrategy": "Always"}})
        await settled()
        assert "startStrategy" not in api.find(VMIS, "web")["spec"]


async def test_rerun_on_failure_stays_down_when_stopped_and_comes_back_when_it_failed(api, make, home):
    async with home() as node:
        await api.create(VMS, make.vm(strategy="RerunOnFailure"))
        await settled()
        uid = api.find(VMIS, "web")["metadata"]["uid"]
        await node.end(api.find(VMIS, "web"), "Failed")
        await settled(400)
        second = api.find(VMIS, "web")["metadata"]["uid"]
        assert second != uid
        stop = [{"action": "Stop", "uid": second}]
        await api.patch(VMS, "web", {"status": {"stateChangeRequests": stop}}, subresource="status")
        await settled(400)
        assert status_of(api)["printableStatus"] == "Stopped"
        assert api.all(VMIS) == []
        await api.patch(VMS, "web", {"status": {"stateChangeRequests": [{"action": "Start"}]}}, subresource="status")
        await settled()
        assert status_of(api)["printableStatus"] == "Running"


@pytest.mark.parametrize(
    ("strategy", "phase"), [("RerunOnFailure", "Succeeded"), ("Manual", "Succeeded"), ("Manual", "Failed")]
)
async def test_a_restart_starts_one_anew_whose_guest_has_ended_by_itself(api, make, home, strategy, phase):
    async with home() as node:
        await api.create(VMS, make.vm(strategy=strategy))
        await api.patch(VMS, "web", {"status": {"stateChangeRequests": [{"action": "Start"}]}}, subresource="status")
        await settled()
        ended = api.find(VMIS, "web")
        await node.end(ended, phase)
        await settled(400)
        assert api.find(VMIS, "web")["metadata"]["uid"] == ended["metadata"]["uid"], "it is left as it ended"
        (write,) = lifecycle.restart(vm_of(api), api.find(VMIS, "web"), {})
        await api.patch(VMS, "web", write.patch, subresource="status")
        await settled(400)
        assert api.find(VMIS, "web")["metadata"]["uid"] != ended["metadata"]["uid"]
        assert (status_of(api)["printableStatus"], status_of(api).get("stateChangeRequests")) == ("Running", None)


async def test_a_guest_that_ends_is_started_again_unless_it_was_to_run_once(api, make, home):
    async with home() as node:
        await api.create(VMS, make.vm())
        await api.create(VMS, make.vm("once", strategy="Once"))
        await settled()
        uid = api.find(VMIS, "web")["metadata"]["uid"]
        for name in ("web", "once"):
            await node.end(api.find(VMIS, name), "Succeeded")
        await settled()
        assert api.find(VMIS, "web")["metadata"]["uid"] != uid
        assert status_of(api, "once")["printableStatus"] == "Stopped"
        assert api.find(VMIS, "once")["status"]["phase"] == "Succeeded"
        assert len(api.all(PODS)) == 1


async def test_a_guest_that_keeps_failing_waits_ever_longer_and_is_forgiven_when_it_runs(api, make, home):
    async with home() as node:
        node.broken = True
        await api.create(VMS, make.vm())
        await settled(1)
        status = status_of(api)
        assert status["printableStatus"] == "CrashLoopBackOff"
        assert status["startFailure"]["consecutiveFailCount"] == 1
        await settled(400)
        found = conditions.of(vm_of(api), "Failure")
        assert (found["reason"], found["message"]) == ("StartFailed", "no bootable disk")
        assert status_of(api)["startFailure"]["consecutiveFailCount"] in (4, 5)
        node.broken = False
        await settled(450)
        assert status_of(api)["printableStatus"] == "Running"
        assert "startFailure" not in status_of(api)
        assert conditions.of(vm_of(api), "Failure") is None
        api.writes.clear()
        await settled(3600)
        assert api.writes == []


async def test_the_pods_loss_is_the_guests_end_and_a_new_start(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        uid = api.find(VMIS, "web")["metadata"]["uid"]
        await api.delete(PODS, api.all(PODS)[0]["metadata"]["name"])
        await settled(30)
        assert api.find(VMIS, "web")["metadata"]["uid"] != uid
        assert status_of(api)["printableStatus"] == "Running"


async def test_a_guest_that_cannot_be_started_is_made_anew_by_an_edit_and_can_be_deleted(api, make, home):
    async with home() as node:
        node.stuck = "bad"
        for name in ("web", "other"):
            await api.create(VMS, make.vm(name, template={"hostname": "bad"}))
        await settled()
        assert status_of(api)["printableStatus"] == "Starting"
        assert conditions.of(vm_of(api), "Synchronized")["message"] == "corrupt"
        await edit(api, {"hostname": "good"})
        assert status_of(api)["printableStatus"] == "Running"
        await api.delete(VMS, "other")
        await settled()
        assert [vmi["metadata"]["name"] for vmi in api.all(VMIS)] == ["web"]
        assert len(api.all(PODS)) == 1


async def test_deleting_a_vm_stops_it_first(api, make, home):
    async with home() as node:
        await api.create(VMS, make.vm())
        await settled()
        node.runs = False
        await api.delete(VMS, "web")
        await settled()
        assert status_of(api)["printableStatus"] == "Terminating"
        assert api.all(VMIS)[0]["metadata"]["deletionTimestamp"]
        assert len(api.all(PODS)) == 1
        node.runs = True
        api._wake()
        await settled()
        assert api.all(VMS) == api.all(VMIS) == api.all(PODS) == []


async def test_an_orphaned_instance_keeps_running(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        finalizers = [*vm_of(api)["metadata"]["finalizers"], "orphan"]
        await api.patch(VMS, "web", {"metadata": {"finalizers": finalizers}})
        await api.delete(VMS, "web")
        await settled()
        assert vm_of(api)["metadata"]["finalizers"] == ["orphan"]
        assert api.find(VMIS, "web")["status"]["phase"] == "Running"
        assert "deletionTimestamp" not in api.find(VMIS, "web")["metadata"]


async def test_live_edits_reach_the_instance_and_the_pod_and_the_rest_asks_for_a_restart(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        api.writes.clear()
        await edit(api, {"domain": {"memory": {"guest": "2Gi"}, "cpu": {"sockets": 2, "cores": 2}}})
        domain = api.find(VMIS, "web")["spec"]["domain"]
        assert domain["memory"]["guest"] == "2Gi"
        assert (domain["cpu"]["sockets"], domain["cpu"]["cores"]) == (2, 1)
        requests = api.all(PODS)[0]["spec"]["containers"][0]["resources"]["requests"]
        assert requests == {"cpu": "200m", "memory": "2160Mi"}
        found = conditions.of(vm_of(api), "RestartRequired")
        assert found["status"] == "True"
        assert "spec.template.spec.domain.cpu.cores: unset -> 2: only sockets change while it runs" in found["message"]
        assert "hotvirt restart web" in found["message"]
        assert status_of(api)["observedGeneration"] == 1
        assert [e["message"] for e in api.all(EVENTS) if e["reason"] == "RestartRequired"] == [found["message"]]
        assert sorted(made(api, "patch")) == [
            ("patch", "pods"), ("patch", "virtualmachineinstances"), ("patch", "virtualmachines"),
            ("patch", "virtualmachines"),
        ]  # fmt: skip
        await edit(api, {"domain": {"cpu": {"cores": None}}})
        assert conditions.of(vm_of(api), "RestartRequired") is None
        assert status_of(api)["observedGeneration"] == 3


async def test_volume_requests_of_an_older_api_are_carried_out_and_struck_out(api, make, home):
    source = {"persistentVolumeClaim": {"claimName": "data"}}
    requests = [
        {"addVolumeOptions": {"name": "data", "volumeSource": source}}, {"removeVolumeOptions": {"name": "scratch"}},
    ]  # fmt: skip
    async with home():
        await api.create(VMS, make.vm(volumes=[{"name": "scratch", "emptyDisk": {"capacity": "1Mi"}}]))
        await settled()
        await api.patch(VMS, "web", {"status": {"volumeRequests": requests}}, subresource="status")
        await settled()
        assert not status_of(api).get("volumeRequests")
        assert [v["name"] for v in api.find(VMIS, "web")["spec"]["volumes"]] == ["scratch", "data"]
        (refused,) = [e["message"] for e in api.all(EVENTS) if e["reason"] == "VolumeRequestRefused"]
        assert refused == "volumeRequests: volume scratch is not hotpluggable: stop the VM and edit it"


async def test_the_instance_follows_the_generation_unless_the_template_changed(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        await api.patch(VMS, "web", {"spec": {"runStrategy": "Manual"}})
        await settled()

        def generation():
            return api.find(VMIS, "web")["metadata"]["annotations"]["kubevirt.io/vm-generation"]

        assert generation() == "2"
        await edit(api, {"domain": {"cpu": {"sockets": 2}}})
        assert generation() == "2"
        await edit(api, {"hostname": "other"})
        assert generation() == "2"
        assert conditions.of(vm_of(api), "RestartRequired") is not None


async def test_a_restart_takes_the_edit_in_and_clears_the_condition(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        await edit(api, {"domain": {"cpu": {"cores": 2}}})
        uid = api.find(VMIS, "web")["metadata"]["uid"]
        restart = [{"action": "Stop", "uid": uid}, {"action": "Start"}]
        await api.patch(VMS, "web", {"status": {"stateChangeRequests": restart}}, subresource="status")
        await settled()
        assert api.find(VMIS, "web")["spec"]["domain"]["cpu"]["cores"] == 2
        assert conditions.of(vm_of(api), "RestartRequired") is None
        assert status_of(api)["observedGeneration"] == 2


async def test_growth_beyond_the_node_waits_for_room_and_is_told(api, make, home):
    async with home(memory="6Gi"):
        for name in ("web", "other"):
            await api.create(VMS, make.vm(name, domain={"memory": {"guest": "1Gi", "maxGuest": "8Gi"}}))
        await settled()
        await asyncio.gather(*(
            api.patch(VMS, name, {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "4Gi"}}}}}})
            for name in ("web", "other")
        ))  # fmt: skip
        await settled()
        sizes = {name: api.find(VMIS, name)["spec"]["domain"]["memory"]["guest"] for name in ("web", "other")}
        assert sorted(sizes.values()) == ["1Gi", "4Gi"]
        grown, waits = sorted(sizes, key=lambda name: sizes[name], reverse=True)
        found = conditions.of(vm_of(api, waits), "Failure")
        assert found["reason"] == "HotPlugMemoryError"
        assert "domain.memory.guest: 1Gi -> 4Gi: node one has" in found["message"]
        assert status_of(api, waits)["observedGeneration"] == 1
        await api.patch(VMS, grown, {"spec": {"runStrategy": "Halted"}})
        await settled()
        assert api.find(VMIS, waits)["spec"]["domain"]["memory"]["guest"] == "4Gi"
        assert conditions.of(vm_of(api, waits), "Failure") is None
        assert status_of(api, waits)["observedGeneration"] == 2


async def test_a_gate_that_is_opened_again_lets_the_waiting_change_through(api, make, home):
    off = {"spec": {"configuration": {"developerConfiguration": {"disabledFeatureGates": ["LiveUpdate"]}}}}
    async with home():
        await api.create(KUBEVIRTS, {"metadata": {"name": "kubevirt", "namespace": "kubevirt"}, **off})
        await api.create(VMS, make.vm(domain={"memory": {"guest": "1Gi", "maxGuest": "8Gi"}}))
        await settled()
        await edit(api, {"domain": {"memory": {"guest": "2Gi"}}})
        assert "the feature gate LiveUpdate is off" in conditions.of(vm_of(api), "RestartRequired")["message"]
        await api.patch(KUBEVIRTS, "kubevirt", {"spec": {"configuration": None}}, "kubevirt")
        await settled()
        assert api.find(VMIS, "web")["spec"]["domain"]["memory"]["guest"] == "2Gi"
        assert conditions.of(vm_of(api), "RestartRequired") is None


async def test_too_little_room_is_told_and_lowering_the_vm_mends_it(api, make, home):
    async with home(memory="4Gi"):
        await api.create(VMS, make.vm(domain={"memory": {"guest": "8Gi"}}))
        await settled()
        assert status_of(api)["printableStatus"] == "ErrorUnschedulable"
        assert "domain.memory.guest" in conditions.of(vm_of(api), "PodScheduled")["message"]
        await edit(api, {"domain": {"memory": {"guest": "1Gi"}}})
        assert status_of(api)["printableStatus"] == "Running"
        assert conditions.of(vm_of(api), "PodScheduled") is None


async def test_a_missing_claim_is_told_and_creating_it_mends_it(api, make, home):
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "nowhere"}}
    async with home():
        await api.create(VMS, make.vm(volumes=[volume]))
        await settled()
        assert status_of(api)["printableStatus"] == "ErrorPvcNotFound"
        assert "nowhere" in conditions.of(vm_of(api), "Synchronized")["message"]
        await api.create(CLAIMS, {"metadata": {"name": "nowhere"}})
        await settled()
        assert status_of(api)["printableStatus"] == "WaitingForVolumeBinding"
        await api.patch(CLAIMS, "nowhere", {"status": {"phase": "Bound"}}, subresource="status")
        await settled()
        assert status_of(api)["printableStatus"] == "Running"
        assert conditions.of(vm_of(api), "Synchronized") is None


async def test_a_refused_instance_is_told_once_and_tried_again(api, make, home):
    async with home():
        allowed, refused = api.create, Invalid("spec.domain.memory.guest: too large")

        async def refuse(resource, obj, namespace=None, **kwargs):
            if resource is VMIS:
                raise refused
            return await allowed(resource, obj, namespace, **kwargs)

        api.create = refuse
        await api.create(VMS, make.vm())
        await settled(10)
        found = conditions.of(vm_of(api), "Failure")
        assert (found["reason"], found["message"]) == ("FailedCreate", "spec.domain.memory.guest: too large")
        assert [e["count"] for e in api.all(EVENTS) if e["reason"] == "FailedCreate"] == [1]
        api.create = allowed
        await settled(600)
        assert status_of(api)["printableStatus"] == "Running"
        assert conditions.of(vm_of(api), "Failure") is None


async def test_a_refused_pod_is_told_on_the_instance(api, make, home):
    async with home():
        allowed = api.create

        async def refuse(resource, obj, namespace=None, **kwargs):
            if resource is PODS:
                raise Forbidden("exceeded quota: memory")
            return await allowed(resource, obj, namespace, **kwargs)

        api.create = refuse
        await api.create(VMS, make.vm())
        await settled(10)
        assert "exceeded quota" in conditions.of(vm_of(api), "Synchronized")["message"]
        api.create = allowed
        await settled(600)
        assert status_of(api)["printableStatus"] == "Running"


async def test_an_instance_of_that_name_that_is_anothers_is_left_alone(api, make, home):
    async with home():
        await api.create(VMIS, make.vmi(owner=make.vm("other")))
        await settled()
        await api.create(VMS, make.vm())
        await settled()
        found = conditions.of(vm_of(api), "Failure")
        assert "belongs to VirtualMachine other; delete it (kubectl delete vmi web)" in found["message"]
        assert api.find(VMIS, "web")["status"]["phase"] == "Running"
        await api.delete(VMIS, "web")
        await settled()
        assert status_of(api)["printableStatus"] == "Running"
        assert conditions.of(vm_of(api), "Failure") is None


async def test_twenty_at_once(api, make, home):
    async with home(memory="64Gi"):
        for number in range(20):
            await api.create(VMS, make.vm(f"vm{number}"))
        await settled()
        assert {vm["status"]["printableStatus"] for vm in api.all(VMS)} == {"Running"}
        assert api.count("bind") == 20
