"""Pools over an API in memory, with the VM controller and played guests: machines come, change, heal and go."""

import asyncio

import pytest

from hotvirt.controllers.pool import PoolController
from hotvirt.controllers.virtualmachine import VirtualMachineController
from hotvirt.kube import conditions
from hotvirt.kube.errors import Forbidden
from hotvirt.kube.resources import CLAIMS, CLUSTER_INSTANCETYPES, CONTROLLER_REVISIONS, EVENTS, POOLS, VMIS, VMS

pytestmark = pytest.mark.looptime
REVISION = "kubevirt.io/vm-pool-revision-name"


def make_pool(count=2, *, template=None, domain=None, strategy="Always", **spec):
    domain = domain or {"memory": {"guest": "1Gi", "maxGuest": "4Gi"}, "cpu": {"sockets": 1, "maxSockets": 4},
                        "devices": {}}  # fmt: skip
    inner = {"spec": {"domain": domain, **(template or {})}}
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": count,
            "selector": {"matchLabels": {"app": "web"}},
            "virtualMachineTemplate": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"runStrategy": strategy, "template": inner},
            },
            **spec,
        },
    }


@pytest.fixture
async def home(controlled, guests):
    async with controlled(PoolController, VirtualMachineController):
        yield guests


async def settled(seconds=1):
    await asyncio.sleep(seconds)


async def made(api, *args, **spec):
    await api.create(POOLS, make_pool(*args, **spec))
    await settled()


async def edit(api, **spec):
    await api.patch(POOLS, "web", {"spec": spec})
    await settled()


async def edit_template(api, **spec):
    await edit(api, virtualMachineTemplate={"spec": {"template": {"spec": spec}}})


def names(api):
    return sorted(vm["metadata"]["name"] for vm in api.all(VMS))


def status_of(api):
    return api.find(POOLS, "web")["status"]


def reasons(api):
    return {event["reason"] for event in api.all(EVENTS) if event["involvedObject"]["kind"] == "VirtualMachinePool"}


def uids(api):
    return {vmi["metadata"]["name"]: vmi["metadata"]["uid"] for vmi in api.all(VMIS)}


def pool_revisions(api):
    return sorted(
        r["metadata"]["name"] for r in api.all(CONTROLLER_REVISIONS) if r["metadata"]["name"].startswith("web-")
    )


async def test_scales_with_numbers_for_names(api, home):
    await made(api, 1)
    assert (names(api), status_of(api)) == (["web-0"], {"replicas": 1, "readyReplicas": 1, "labelSelector": "app=web"})
    vm = api.find(VMS, "web-0")
    assert vm["metadata"]["labels"] == {"app": "web", REVISION: "web-1"}
    assert vm["metadata"]["ownerReferences"][0]["kind"] == "VirtualMachinePool"
    assert api.find(VMIS, "web-0")["metadata"]["labels"][REVISION] == "web-1"
    await edit(api, replicas=3)
    assert names(api) == ["web-0", "web-1", "web-2"]
    await api.delete(VMS, "web-1")
    await settled()
    assert names(api) == ["web-0", "web-1", "web-2"], "one that was deleted by hand is made again"
    await edit(api, replicas=1)
    assert (len(names(api)), status_of(api)["replicas"]) == (1, 1)
    assert reasons(api) == {"SuccessfulCreate", "SuccessfulDelete"}
    assert pool_revisions(api) == ["web-1"] or len(pool_revisions(api)) == 1
    api.writes.clear()
    await settled(3600)
    assert api.writes == []


async def test_a_name_that_is_taken_is_left_alone(api, make, home):
    await api.create(VMS, make.vm("web-0", strategy="Halted"))
    await made(api, 2)
    assert names(api) == ["web-0", "web-1", "web-2"]
    assert not api.find(VMS, "web-0")["metadata"].get("ownerReferences")


async def test_a_guest_that_is_killed_comes_again(api, home):
    await made(api, 1)
    before = uids(api)
    await api.delete(VMIS, "web-0")
    await settled()
    assert uids(api).keys() == before.keys()
    assert (uids(api) != before, status_of(api)["readyReplicas"]) == (True, 1)


async def test_what_is_live_reaches_guests_without_a_restart(api, home):
    await made(api, 2)
    before = uids(api)
    await edit_template(api, domain={"memory": {"guest": "2Gi"}})
    assert [vmi["spec"]["domain"]["memory"]["guest"] for vmi in api.all(VMIS)] == ["2Gi", "2Gi"]
    assert uids(api) == before
    assert {vmi["metadata"]["labels"][REVISION] for vmi in api.all(VMIS)} == {"web-2"}
    assert pool_revisions(api) == ["web-2"]


async def test_proactive_updates_restart_for_the_rest(api, home):
    await made(api, 2)
    before = uids(api)
    await edit_template(api, domain={"cpu": {"cores": 2}})
    assert [vmi["spec"]["domain"]["cpu"]["cores"] for vmi in api.all(VMIS)] == [2, 2]
    assert not set(uids(api).values()) & set(before.values())
    assert "SuccessfulUpdate" in reasons(api)


@pytest.mark.parametrize("strategy", ["proactive", "opportunistic"])
async def test_labels_of_guests_need_a_new_guest_and_those_of_machines_do_not(api, home, strategy):
    await made(api, 1, updateStrategy={strategy: {}})
    before = uids(api)
    await edit(api, virtualMachineTemplate={"metadata": {"labels": {"new": "x"}}})
    assert (api.find(VMS, "web-0")["metadata"]["labels"]["new"], uids(api)) == ("x", before)
    assert api.find(VMIS, "web-0")["metadata"]["labels"][REVISION] == "web-2"
    await edit(api, virtualMachineTemplate={"spec": {"template": {"metadata": {"labels": {"new": "y"}}}}})
    assert api.find(VMS, "web-0")["spec"]["template"]["metadata"]["labels"]["new"] == "y"
    found = api.find(VMIS, "web-0")["metadata"]["labels"].get("new")
    assert (found, uids(api) != before) == (("y", True) if strategy == "proactive" else (None, False))


async def test_one_at_a_time(api, home):
    await made(
        api, 3, maxUnavailable=1, updateStrategy={"proactive": {"selectionPolicy": {"sortPolicy": "AscendingOrder"}}}
    )
    before = uids(api)
    home.runs = False
    await edit_template(api, domain={"cpu": {"cores": 2}})
    going = [vmi["metadata"]["name"] for vmi in api.all(VMIS) if vmi["metadata"].get("deletionTimestamp")]
    assert going == ["web-0"]
    home.runs = True
    await api.patch(POOLS, "web", {"metadata": {"labels": {"a": "b"}}})
    await settled(5)
    assert not set(uids(api).values()) & set(before.values())


async def test_opportunistic_updates_wait_for_the_next_start(api, home):
    await made(api, 1, updateStrategy={"opportunistic": {}})
    before = uids(api)
    await edit_template(api, domain={"cpu": {"cores": 2}})
    assert uids(api) == before
    assert api.find(VMS, "web-0")["spec"]["template"]["spec"]["domain"]["cpu"]["cores"] == 2
    assert pool_revisions(api) == ["web-1", "web-2"]
    await api.delete(VMIS, "web-0")
    await settled()
    assert api.find(VMIS, "web-0")["spec"]["domain"]["cpu"]["cores"] == 2
    assert pool_revisions(api) == ["web-2"]


async def test_unmanaged_updates_are_for_new_machines(api, home):
    await made(api, 1, updateStrategy={"unmanaged": {}})
    await edit_template(api, domain={"cpu": {"cores": 2}})
    await edit(api, replicas=2)
    cores = {
        vm["metadata"]["name"]: vm["spec"]["template"]["spec"]["domain"]["cpu"].get("cores") for vm in api.all(VMS)
    }
    assert cores == {"web-0": None, "web-1": 2}


async def test_another_instancetype_reaches_all_guests_without_a_restart(api, home):
    for name, memory in (("small", "1Gi"), ("large", "2Gi")):
        sizes = {"cpu": {"guest": 1, "maxSockets": 4}, "memory": {"guest": memory, "maxGuest": "4Gi"}}
        await api.create(CLUSTER_INSTANCETYPES, {"metadata": {"name": name}, "spec": sizes})
    wanted = make_pool(2, domain={"devices": {}})
    wanted["spec"]["virtualMachineTemplate"]["spec"]["instancetype"] = {"name": "small"}
    await api.create(POOLS, wanted)
    await settled()
    before = uids(api)
    await edit(api, virtualMachineTemplate={"spec": {"instancetype": {"name": "large"}}})
    assert [vmi["spec"]["domain"]["memory"]["guest"] for vmi in api.all(VMIS)] == ["2Gi", "2Gi"]
    assert uids(api) == before
    assert {vmi["metadata"]["labels"][REVISION] for vmi in api.all(VMIS)} == {"web-2"}


async def test_controllers_that_start_again_find_all_in_order(api, controlled, guests):
    parts = (PoolController, VirtualMachineController)
    async with controlled(*parts):
        await made(api, 2, scaleInStrategy={"proactive": {"statePreservation": "Offline"}})
    api.writes.clear()
    async with controlled(*parts):
        await settled()
        assert api.writes == []
        await edit(api, replicas=3)
    async with controlled(*parts):
        await settled()
    assert names(api) == ["web-0", "web-1", "web-2"]


async def test_machines_without_an_owner_restart_by_request(api, home):
    await made(api, 1, strategy="Manual")
    await api.patch(VMS, "web-0", {"status": {"stateChangeRequests": [{"action": "Start"}]}}, subresource="status")
    await settled()
    before = uids(api)
    await edit_template(api, domain={"cpu": {"cores": 2}})
    assert (uids(api).keys(), uids(api) != before) == (before.keys(), True)


async def test_a_paused_pool_is_left_alone(api, home):
    await made(api, 1)
    await edit(api, paused=True, replicas=3)
    assert names(api) == ["web-0"]
    assert conditions.of(api.find(POOLS, "web"), "ReplicaPaused")["reason"] == "SuccessfulPaused"
    await edit(api, paused=False)
    assert (len(names(api)), status_of(api).get("conditions")) == (3, None)
    assert {"SuccessfulPaused", "SuccessfulResume"} < reasons(api)


@pytest.mark.parametrize("strategy", ["unmanaged", "opportunistic"])
async def test_scaled_in_by_hand(api, home, strategy):
    await made(api, 3, scaleInStrategy={strategy: {}})
    await edit(api, replicas=2)
    assert len(names(api)) == 3
    await api.delete(VMS, "web-0")
    await settled()
    assert names(api) == ["web-1", "web-2"]


@pytest.mark.parametrize("kind", ["proactive", "opportunistic"])
async def test_disks_can_outlast_their_machine(api, home, kind):
    volumes = [{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}]
    await made(api, 1, template={"volumes": volumes}, scaleInStrategy={kind: {"statePreservation": "Offline"}})
    vm = api.find(VMS, "web-0")
    assert "pool.kubevirt.io/finalizer" in vm["metadata"]["finalizers"]
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "web-0", "uid": vm["metadata"]["uid"],
             "controller": True}  # fmt: skip
    await api.create(CLAIMS, {"metadata": {"name": "root", "namespace": "default", "ownerReferences": [owner]}})
    await edit(api, replicas=0)
    if kind == "opportunistic":
        await api.delete(VMS, "web-0")
        await settled()
    assert names(api) == []
    assert api.find(CLAIMS, "root")["metadata"].get("ownerReferences") is None
    await edit(api, scaleInStrategy=None)
    assert api.find(POOLS, "web")["metadata"].get("finalizers") is None


async def test_a_pool_on_its_way_out_holds_up_no_machine(api, home):
    await made(api, 1, scaleInStrategy={"proactive": {"statePreservation": "Offline"}})
    await api.delete(POOLS, "web")
    await settled()
    assert api.all(POOLS) == []
    await api.delete(VMS, "web-0")
    await settled()
    assert api.all(VMS) == []


async def test_machines_that_cannot_start_are_replaced(api, home):
    await made(api, 1, autohealing={"startUpFailureThreshold": 2})
    first = api.find(VMS, "web-0")["metadata"]["uid"]
    home.broken.add("web-0")
    await api.delete(VMIS, "web-0")
    await settled(60)
    home.broken.clear()
    await settled(600)
    assert names(api) == ["web-0"]
    assert api.find(VMS, "web-0")["metadata"]["uid"] != first
    assert status_of(api)["readyReplicas"] == 1


async def test_a_machine_is_let_go_when_its_labels_change(api, home):
    await made(api, 1)
    await api.patch(VMS, "web-0", {"metadata": {"labels": {"app": "debug"}}})
    await settled()
    assert names(api) == ["web-0", "web-1"]
    assert not api.find(VMS, "web-0")["metadata"].get("ownerReferences")


async def test_a_refusal_is_told_until_it_is_over(api, home):
    create, full = api.create, [True]

    async def create_in_quota(resource, obj, namespace=None, **kwargs):
        if resource is VMS and full[0]:
            raise Forbidden("quota exceeded")
        return await create(resource, obj, namespace, **kwargs)

    api.create = create_in_quota
    await made(api, 1)
    failure = conditions.of(api.find(POOLS, "web"), "ReplicaFailure")
    assert (failure["reason"], failure["message"]) == ("FailedScaleOut", "quota exceeded")
    full[0] = False
    await settled(2)
    assert (status_of(api).get("conditions"), names(api)) == (None, ["web-0"])
