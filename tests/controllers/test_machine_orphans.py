"""Machines and instances that lose each other: deletion, orphans, adoption, and what of it is left."""

import asyncio

import pytest

from hotvirt.kube import conditions
from hotvirt.kube.resources import CONTROLLER_REVISIONS, PODS, VMIS, VMS

pytestmark = pytest.mark.looptime


async def settled(seconds=1):
    await asyncio.sleep(seconds)


def state(api, name="web"):
    return api.find(VMS, name)["status"]["printableStatus"]


def owners(obj):
    return [(o["kind"], o["name"], o["uid"]) for o in obj["metadata"].get("ownerReferences", ())]


async def orphaned(api, name="web"):
    """What the API server's collector does for `--cascade=orphan`: dependents are freed, then the machine goes."""
    vm = api.find(VMS, name)
    uid, held = vm["metadata"]["uid"], [*vm["metadata"]["finalizers"], "orphan"]
    await api.patch(VMS, name, {"metadata": {"finalizers": held}})
    await api.delete(VMS, name)
    await settled()
    for kind in (VMIS, CONTROLLER_REVISIONS):
        for each in api.all(kind):
            left = [o for o in each["metadata"]["ownerReferences"] if o["uid"] != uid]
            await api.patch(kind, each["metadata"]["name"], {"metadata": {"ownerReferences": left or None}})
    finalizers = [f for f in api.find(VMS, name)["metadata"]["finalizers"] if f != "orphan"]
    await api.patch(VMS, name, {"metadata": {"finalizers": finalizers}})
    await settled()
    assert api.find(VMS, name) is None


async def test_deleting_a_machine_takes_its_instance_and_pod(api, make, home):
    async with home() as node:
        await api.create(VMS, make.vm())
        await settled()
        node.runs = False
        await api.delete(VMS, "web")
        await settled()
        assert state(api) == "Terminating"
        assert "kubevirt.io/virtualMachineControllerFinalize" in api.find(VMS, "web")["metadata"]["finalizers"]
        node.runs = True
        await api.patch(VMIS, "web", {"metadata": {"annotations": {"any": "change"}}})
        await settled()
        assert api.all(VMS) == api.all(VMIS) == api.all(PODS) == []


@pytest.mark.parametrize("strategy", ["Halted", "Always"])
async def test_a_machine_that_another_holds_back_is_terminating(api, make, home, strategy):
    """Also one that was deleted before anything was said of it."""
    vm = make.vm(strategy=strategy)
    vm["metadata"]["finalizers"] = ["backup.example.com/copying"]
    async with home():
        await api.create(VMS, vm)
        if strategy == "Always":
            await settled()
        await api.delete(VMS, "web")
        await settled()
        assert state(api) == "Terminating"
        assert api.find(VMS, "web")["metadata"]["finalizers"] == ["backup.example.com/copying"]
        assert api.all(VMIS) == api.all(PODS) == []
        writes = len(api.writes)
        await settled(3600)
        assert len(api.writes) == writes


async def test_an_orphaned_instance_runs_on_and_a_new_machine_of_its_name_takes_it_over(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        before = api.find(VMIS, "web")
        await orphaned(api)
        left = api.find(VMIS, "web")
        assert (left["metadata"]["uid"], left["status"]["phase"]) == (before["metadata"]["uid"], "Running")
        (revision,) = api.all(CONTROLLER_REVISIONS)
        assert owners(revision) == [("VirtualMachineInstance", "web", left["metadata"]["uid"])]

        vm = await api.create(VMS, make.vm())
        await settled()
        taken = api.find(VMIS, "web")
        assert taken["metadata"]["uid"] == before["metadata"]["uid"]
        assert owners(taken) == [("VirtualMachine", "web", vm["metadata"]["uid"])]
        assert state(api) == "Running"
        assert conditions.of(api.find(VMS, "web"), "RestartRequired") is None
        assert taken["metadata"]["annotations"]["kubevirt.io/vm-generation"] == "1"
        assert len(api.all(PODS)) == len(api.all(CONTROLLER_REVISIONS)) == 1

        await api.patch(VMS, "web", {"spec": {"runStrategy": "Halted"}})
        await settled()
        assert (state(api), api.all(VMIS)) == ("Stopped", [])


async def test_a_new_machine_that_says_something_else_tells_what_a_restart_would_change(api, make, home):
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        await orphaned(api)
        await api.create(VMS, make.vm(template={"hostname": "other"}))
        await settled()
        status = api.find(VMS, "web")["status"]
        assert "hostname" in conditions.of(api.find(VMS, "web"), "RestartRequired")["message"]
        assert (status["observedGeneration"], status["desiredGeneration"]) == (0, 1)


async def test_an_instance_that_nobody_owns_becomes_its_namesakes(api, make, home):
    async with home():
        await api.create(VMIS, make.vmi())
        await settled()
        uid = api.find(VMIS, "web")["metadata"]["uid"]
        await api.create(VMS, make.vm())
        await settled()
        found = api.find(VMIS, "web")
        assert found["metadata"]["uid"] == uid
        assert owners(found)[0][:2] == ("VirtualMachine", "web")
        assert found["metadata"]["labels"]["kubevirt.io/vm"] == "web"
        assert state(api) == "Running"


async def test_an_instance_without_a_machine_lives_and_ends_by_itself(api, make, home):
    async with home() as node:
        await api.create(VMIS, make.vmi())
        await settled()
        assert api.find(VMIS, "web")["status"]["phase"] == "Running"
        await node.end(api.find(VMIS, "web"), "Succeeded")
        await settled(400)
        assert api.find(VMIS, "web")["status"]["phase"] == "Succeeded"
        assert api.all(PODS) == []
        await api.delete(VMIS, "web")
        await settled()
        assert api.all(VMIS) == []


async def test_an_instance_just_left_behind_is_not_stopped_by_a_cache_that_lags(api, make, home):
    """The machine is seen going, without the orphan finalizer any more, before its instance is seen freed."""
    async with home():
        await api.create(VMS, make.vm())
        await settled()
        held = [*api.find(VMS, "web")["metadata"]["finalizers"], "orphan"]
        await api.patch(VMS, "web", {"metadata": {"finalizers": held}})
        # All at once, so that none of the caches has seen any of it.
        await api.patch(VMIS, "web", {"metadata": {"ownerReferences": None}})
        await api.delete(VMS, "web")
        await api.patch(VMS, "web", {"metadata": {"finalizers": held[:1]}})
        await settled()
        assert api.all(VMS) == []
        assert api.find(VMIS, "web")["status"]["phase"] == "Running"
        assert not api.find(VMIS, "web")["metadata"].get("deletionTimestamp")
