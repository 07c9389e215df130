"""VMs that name an instancetype and a preference: what their instances get, now and later."""

import asyncio

import pytest

from hotvirt.controllers import instancetypes
from hotvirt.controllers.virtualmachine import VirtualMachineController
from hotvirt.home import commonsizes
from hotvirt.kube import conditions
from hotvirt.kube.errors import Forbidden
from hotvirt.kube.resources import (
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
    CONTROLLER_REVISIONS,
    INSTANCETYPES,
    KUBEVIRTS,
    VMIS,
    VMS,
)
from hotvirt.preconditions import limits

pytestmark = pytest.mark.looptime


def size(name="small", *, guest=1, memory="1Gi", **spec):
    sized = {"cpu": {"guest": guest, "maxSockets": 4}, "memory": {"guest": memory, "maxGuest": "4Gi"}, **spec}
    return {"metadata": {"name": name}, "spec": sized}


def machine(make, **spec):
    return make.vm(domain={"devices": {}}, instancetype={"name": "small"}, **spec)


@pytest.fixture
async def home(api, controlled, guests):
    """`small` and `large`, and the VM controller."""
    for each in (size(), size("large", guest=2, memory="2Gi")):
        await api.create(CLUSTER_INSTANCETYPES, each)
    async with controlled(VirtualMachineController):
        yield guests


async def settled(seconds=1):
    await asyncio.sleep(seconds)


async def rename(api, name, what="instancetype"):
    await api.patch(VMS, "web", {"spec": {what: {"name": name}}})
    await settled()


def domain_of(api):
    return api.find(VMIS, "web")["spec"]["domain"]


def shape(api):
    domain = domain_of(api)
    return domain["cpu"]["sockets"], domain["cpu"]["cores"], domain["memory"]["guest"]


def kept(api):
    """Copies of instancetypes and preferences."""
    return sorted(
        r["metadata"]["name"] for r in api.all(CONTROLLER_REVISIONS) if "revision-start" not in r["metadata"]["name"]
    )


async def test_an_instance_is_made_of_what_its_vm_names(api, make, home):
    await api.create(CLUSTER_PREFERENCES, {"metadata": {"name": "cored"},
                                           "spec": {"cpu": {"preferredCPUTopology": "cores"}}})  # fmt: skip
    await api.create(VMS, {**machine(make, preference={"name": "cored"})})
    await rename(api, "large")
    assert shape(api) == (1, 2, "2Gi")
    notes = api.find(VMIS, "web")["metadata"]["annotations"]
    assert (notes["kubevirt.io/cluster-instancetype-name"], notes["kubevirt.io/cluster-preference-name"]) == (
        "large", "cored")  # fmt: skip
    vm = api.find(VMS, "web")
    assert vm["status"]["instancetypeRef"]["name"] == "large"
    revision = api.find(CONTROLLER_REVISIONS, vm["status"]["instancetypeRef"]["controllerRevisionRef"]["name"])
    large = api.find(CLUSTER_INSTANCETYPES, "large")
    assert revision["metadata"]["name"] == f"web-large-v1beta1-{large['metadata']['uid']}-1"
    assert revision["metadata"]["labels"]["instancetype.kubevirt.io/object-name"] == "large"
    assert revision["data"]["spec"] == large["spec"]
    assert vm["spec"]["template"]["spec"]["domain"] == {"devices": {}}, "the VM's own words stay"
    api.writes.clear()
    await settled(3600)
    assert api.writes == []


async def test_a_running_guest_is_resized_by_another_name(api, make, home):
    await api.create(VMS, machine(make))
    await settled()
    first = api.find(VMIS, "web")["metadata"]["uid"]
    assert shape(api) == (1, 1, "1Gi")
    await rename(api, "large")
    assert (shape(api), api.find(VMIS, "web")["metadata"]["uid"]) == ((2, 1, "2Gi"), first)
    assert conditions.of(api.find(VMS, "web"), "RestartRequired") is None
    assert len(kept(api)) == 2
    await rename(api, "small")
    assert shape(api) == (1, 1, "1Gi")


async def test_those_that_a_home_has_can_grow_four_times_and_further_where_the_machine_says_so(api, make, home):
    for resource, obj in commonsizes.objects():
        if obj["metadata"]["name"].startswith("u1.") or obj["metadata"]["name"] == "linux":
            await api.create(resource, obj)
    vm = make.vm(domain={"devices": {}}, instancetype={"name": "u1.small"}, preference={"name": "linux"})
    await api.create(VMS, vm)
    await settled()
    first = api.find(VMIS, "web")["metadata"]["uid"]
    room = {limits.MEMORY_ROOM: "32Gi", limits.SOCKETS_ROOM: "8"}
    await api.patch(VMIS, "web", {"metadata": {"annotations": room}})
    for name, wanted in (("large", (2, 1, "8Gi")), ("nano", (1, 1, "512Mi")), ("medium", (1, 1, "4Gi"))):
        await rename(api, f"u1.{name}")
        assert shape(api) == wanted
        assert conditions.of(api.find(VMS, "web"), "RestartRequired") is None
    await rename(api, "u1.xlarge")
    assert shape(api) == (4, 1, "4Gi"), "16Gi are more than four times the first size"
    message = conditions.of(api.find(VMS, "web"), "RestartRequired")["message"]
    assert message.startswith("spec.template.spec.domain.memory.guest: 4Gi -> 16Gi")
    further = {"template": {"spec": {"domain": {"memory": {"maxGuest": "16Gi"}}}}}
    await api.patch(VMS, "web", {"spec": further})
    await settled()
    assert shape(api) == (4, 1, "16Gi")
    assert conditions.of(api.find(VMS, "web"), "RestartRequired") is None
    assert api.find(VMIS, "web")["metadata"]["uid"] == first


async def test_what_is_not_live_waits_for_a_restart_and_says_so(api, make, home):
    await api.create(CLUSTER_INSTANCETYPES, size("other", memory="2Gi", ioThreadsPolicy="shared"))
    await api.create(VMS, machine(make))
    await settled()
    await rename(api, "other")
    assert shape(api) == (1, 1, "2Gi"), "what is live goes through"
    message = conditions.of(api.find(VMS, "web"), "RestartRequired")["message"]
    assert message.startswith("spec.template.spec.domain.ioThreadsPolicy: unset -> shared")
    await rename(api, "small")
    assert conditions.of(api.find(VMS, "web"), "RestartRequired") is None


async def test_an_instancetype_that_changes_later_does_not_reach_a_vm_that_has_it(api, make, home):
    await api.create(VMS, machine(make))
    await settled()
    await api.patch(CLUSTER_INSTANCETYPES, "small", {"spec": {"memory": {"guest": "3Gi"}}})
    await api.patch(VMS, "web", {"spec": {"runStrategy": "Halted"}})
    await settled()
    await api.patch(VMS, "web", {"spec": {"runStrategy": "Always"}})
    await settled()
    assert shape(api) == (1, 1, "1Gi")
    await api.delete(CLUSTER_INSTANCETYPES, "small")
    await api.patch(VMS, "web", {"metadata": {"labels": {"a": "b"}}})
    await settled()
    assert conditions.of(api.find(VMS, "web"), "Failure") is None


async def test_a_vm_waits_for_what_it_names(api, make, home):
    await api.create(
        VMS, make.vm(domain={"devices": {}}, instancetype={"name": "own", "kind": "VirtualMachineInstancetype"})
    )
    await settled()
    failure = conditions.of(api.find(VMS, "web"), "Failure")
    assert (failure["reason"], api.all(VMIS)) == ("FailedFindInstancetype", [])
    assert failure["message"].startswith("spec.instancetype.name: there is no VirtualMachineInstancetype own; make it")
    await api.create(INSTANCETYPES, size("own", guest=2))
    await settled()
    assert shape(api)[0] == 2
    assert conditions.of(api.find(VMS, "web"), "Failure") is None


async def test_a_running_guest_goes_on_when_its_vm_names_what_is_not_there_and_can_be_stopped(api, make, home):
    await api.create(VMS, machine(make))
    await settled()
    await rename(api, "nowhere")
    assert conditions.of(api.find(VMS, "web"), "Failure")["reason"] == "FailedFindInstancetype"
    assert shape(api) == (1, 1, "1Gi")
    await api.patch(VMS, "web", {"spec": {"runStrategy": "Halted"}})
    await settled()
    assert api.all(VMIS) == []


async def test_an_earlier_state_by_its_revision(api, make, home):
    await api.create(VMS, machine(make))
    await settled()
    (name,) = kept(api)
    await rename(api, "large")
    await api.patch(VMS, "web", {"spec": {"instancetype": {"name": "small", "revisionName": name}}})
    await settled()
    assert shape(api) == (1, 1, "1Gi")
    assert api.find(VMS, "web")["status"]["instancetypeRef"] == {
        "name": "small", "controllerRevisionRef": {"name": name}}  # fmt: skip


async def test_a_conflict_that_came_up_later_is_told(api, make, home):
    await api.create(VMS, make.vm(domain={"devices": {}, "memory": {"guest": "1Gi"}}, instancetype={"name": "small"}))
    await settled()
    failure = conditions.of(api.find(VMS, "web"), "Failure")
    assert failure["message"].startswith("spec.template.spec.domain.memory.guest: the instancetype sets this")
    assert api.all(VMIS) == []


async def test_a_vm_that_names_nothing_any_more_keeps_no_copy(api, make, home):
    await api.create(VMS, machine(make))
    await settled()
    sizes = {"cpu": {"sockets": 1, "maxSockets": 4}, "memory": {"guest": "1Gi", "maxGuest": "4Gi"}}
    await api.patch(VMS, "web", {"spec": {"instancetype": None, "template": {"spec": {"domain": sizes}}}})
    await settled()
    assert (kept(api), api.find(VMS, "web")["status"].get("instancetypeRef")) == ([], None)


@pytest.mark.parametrize("policy", ["expand", "expandAll"])
async def test_a_policy_can_write_it_all_into_the_vm(api, make, home, policy):
    configuration = {"instancetype": {"referencePolicy": policy}}
    await api.create(VMS, machine(make, strategy="Halted"))
    await settled()
    kubevirt = {"metadata": {"name": "kubevirt", "namespace": "kubevirt"}, "spec": {"configuration": configuration}}
    await api.create(KUBEVIRTS, kubevirt)
    await api.create(VMS, make.vm("other", domain={"devices": {}}, instancetype={"name": "large"}))
    await api.patch(VMS, "web", {"metadata": {"labels": {"a": "b"}}})
    await settled()
    other = api.find(VMS, "other")
    assert "instancetype" not in other["spec"]
    assert other["spec"]["template"]["spec"]["domain"]["memory"] == {"guest": "2Gi", "maxGuest": "4Gi"}
    assert api.find(VMIS, "other")["spec"]["domain"]["cpu"]["sockets"] == 2
    web = api.find(VMS, "web")
    assert ("instancetype" in web["spec"]) is (policy == "expand"), "one that has a copy is only expanded by expandAll"
    assert len(kept(api)) == (1 if policy == "expand" else 0)


def test_references_replace_what_was_there():
    known = {"name": "a", "kind": "x", "controllerRevisionRef": {"name": "r1"}}
    vm = {"spec": {"instancetype": {"name": "b"}}, "status": {"instancetypeRef": known}}
    assert instancetypes.references(vm, {"instancetype": "r2"}) == {
        "instancetypeRef": {"name": "b", "kind": None, "controllerRevisionRef": {"name": "r2"}}
    }


async def test_a_copy_that_is_somebody_elses_is_not_trusted(api, make, home):
    uid = api.find(CLUSTER_INSTANCETYPES, "small")["metadata"]["uid"]
    name = f"web-small-v1beta1-{uid}-1"
    await api.create(CONTROLLER_REVISIONS, {"metadata": {"name": name}, "data": {"spec": {"cpu": {"guest": 64}}}})
    await api.create(VMS, machine(make))
    await settled()
    failure = conditions.of(api.find(VMS, "web"), "Failure")
    assert failure["message"].startswith(f"ControllerRevision {name} exists and says something else: delete it")
    assert api.all(VMIS) == []
    await api.delete(CONTROLLER_REVISIONS, name)
    await settled(5)
    assert shape(api) == (1, 1, "1Gi")


async def test_a_copy_that_the_api_refuses_is_told_and_tried_again(api, make, home):
    create, full = api.create, [True]

    async def create_in_quota(resource, obj, namespace=None, **kwargs):
        if resource is CONTROLLER_REVISIONS and full[0]:
            raise Forbidden("quota exceeded: count/controllerrevisions")
        return await create(resource, obj, namespace, **kwargs)

    api.create = create_in_quota
    await api.create(VMS, machine(make))
    await settled()
    failure = conditions.of(api.find(VMS, "web"), "Failure")
    assert (failure["reason"], failure["message"]) == ("FailedCreate", "quota exceeded: count/controllerrevisions")
    full[0] = False
    await settled(2)
    assert conditions.of(api.find(VMS, "web"), "Failure") is None
    assert shape(api) == (1, 1, "1Gi")
