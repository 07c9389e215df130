"""What a start makes of a VM: the instance, and the revision that remembers it."""

import asyncio

import pytest

from hotvirt.controllers import newinstance
from hotvirt.kube.resources import CONTROLLER_REVISIONS, VMIS, VMS

pytestmark = pytest.mark.looptime


def test_labels_and_annotations_of_the_template_are_the_instances(make):
    vm = make.vm()
    vm["spec"]["template"]["metadata"] = {"labels": {"app": "shop"}, "annotations": {"team": "a"}}
    vm["metadata"] |= {"labels": {"of": "the VM"}, "annotations": {"of": "the VM"}, "generation": 4}
    metadata = newinstance.render(vm)["metadata"]
    assert metadata["labels"] == {"app": "shop", "kubevirt.io/vm": "web"}
    revision = newinstance.revision_name(vm)
    assert metadata["annotations"] == {
        "team": "a", "kubevirt.io/vm-generation": "4", "hotvirt.io/start-revision": revision,
    }  # fmt: skip
    assert revision == "revision-start-vm-vm-web-4"
    assert metadata["finalizers"] == ["kubevirt.io/foregroundDeleteVirtualMachine"]


async def test_each_start_remembers_what_it_started_and_nothing_older(api, make, home):
    async with home():
        await api.create(VMS, make.vm(strategy="Halted"))
        await asyncio.sleep(1)
        assert api.all(CONTROLLER_REVISIONS) == []
        for hostname in ("one", "two"):
            patch = {"runStrategy": "Always", "template": {"spec": {"hostname": hostname}}}
            await api.patch(VMS, "web", {"spec": patch})
            await asyncio.sleep(1)
            (revision,) = api.all(CONTROLLER_REVISIONS)
            vm, vmi = api.find(VMS, "web"), api.find(VMIS, "web")
            assert revision["metadata"]["name"] == newinstance.revision_name(vm)
            assert newinstance.started_spec(revision)["hostname"] == vmi["spec"]["hostname"] == hostname
            assert vmi["status"]["virtualMachineRevisionName"] == revision["metadata"]["name"]
            await api.patch(VMS, "web", {"spec": {"runStrategy": "Halted"}})
            await asyncio.sleep(1)


@pytest.mark.parametrize(
    ("strategy", "again"), [("Always", True), ("RerunOnFailure", True), ("Manual", False), ("Halted", False)]
)
async def test_an_instance_that_was_deleted_by_hand(api, make, home, strategy, again):
    async with home():
        await api.create(VMS, make.vm())
        await asyncio.sleep(1)
        await api.patch(VMS, "web", {"spec": {"runStrategy": strategy}})
        await asyncio.sleep(1)
        if (vmi := api.find(VMIS, "web")) is not None:
            await api.delete(VMIS, "web")
        await asyncio.sleep(1)
        found = api.find(VMIS, "web")
        assert (found is not None) is again
        assert found is None or found["metadata"]["uid"] != vmi["metadata"]["uid"]
        assert api.find(VMS, "web")["status"]["printableStatus"] == ("Running" if again else "Stopped")
