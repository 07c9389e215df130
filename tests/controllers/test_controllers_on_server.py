"""The controllers on the API server itself, with its admission, schemas and garbage collection; guests are played."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest

from hotvirt import controllers
from hotvirt.api.crds import crds
from hotvirt.kube.admission import User
from hotvirt.kube.errors import TooManyRequests
from hotvirt.kube.resources import CONTROLLER_REVISIONS, NODES, PODS, VMIS, VMS
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.webhooks.admission import admissions
from hotvirt.webhooks.evictions import Evictions

pytestmark = pytest.mark.server
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kubevirt", "system:masters", "system:authenticated")
CONTROLLER = User("system:serviceaccount:kubevirt:hotvirt-controller", GROUPS)
VM = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachine",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "runStrategy": "Always",
        "template": {
            "spec": {
                "domain": {"memory": {"guest": "1Gi", "maxGuest": "4Gi"}, "cpu": {"sockets": 1}, "devices": {}},
            }
        },
    },
}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one", "labels": {"kubevirt.io/schedulable": "true"}}}


async def events(client, resource):
    listed = await client.list(resource)
    async for event in client.watch(resource, resource_version=listed["metadata"]["resourceVersion"]):
        yield event.type, event.object


async def until(client, resource, holds, name="web"):
    """The object once `holds` says so; by watching, from what is there now."""
    listed = await client.list(resource, "default")
    for obj in listed["items"]:
        if obj["metadata"]["name"] == name and holds(obj):
            return obj
    async with asyncio.timeout(10):
        async for event in client.watch(resource, "default", resource_version=listed["metadata"]["resourceVersion"]):
            if event.type != "BOOKMARK" and event.object["metadata"]["name"] == name and holds(event.object):
                return event.object
    raise AssertionError("the watch ended")


async def until_gone(client, resource):
    listed = await client.list(resource, "default")
    left = {obj["metadata"]["name"] for obj in listed["items"]}
    async with asyncio.timeout(10):
        events_after = client.watch(resource, "default", resource_version=listed["metadata"]["resourceVersion"])
        while left:
            event = await anext(events_after)
            if event.type == "DELETED":
                left.discard(event.object["metadata"]["name"])
        await events_after.aclose()


async def play_pods(client):
    async for kind, pod in events(client, PODS):
        name = pod["metadata"]["name"]
        if kind == "DELETED" or not pod["spec"].get("nodeName"):
            continue
        if pod["metadata"].get("deletionTimestamp"):
            await client.delete(PODS, name, "default", grace_period_seconds=0)
        elif pod["status"].get("phase") != "Running":
            conditions = [*pod["status"]["conditions"], {"type": "Ready", "status": "True"}]
            compute = {"name": "compute", "ready": True, "image": "", "imageID": "", "restartCount": 0}
            status = {"phase": "Running", "conditions": conditions, "containerStatuses": [compute]}
            await client.patch(PODS, name, {"status": status}, "default", subresource="status")


async def play_guests(client):
    async for kind, vmi in events(client, VMIS):
        phase = (vmi.get("status") or {}).get("phase")
        going = vmi["metadata"].get("deletionTimestamp")
        becomes = "Running" if phase == "Scheduled" else "Succeeded" if phase == "Running" and going else None
        if kind != "DELETED" and becomes:
            await client.patch(VMIS, vmi["metadata"]["name"], {"status": {"phase": becomes}}, "default")


@asynccontextmanager
async def home(directory):
    server = ApiServer(
        ServerConfig(state_db=directory / "state.db", pki=directory / "pki", listen=False),
        admissions=(
            *admissions(lambda: None),
            Evictions(lambda *where: server.client().peek(*where), lambda: server.client(CONTROLLER)),
        ),
        crds=crds(),
    )
    await server.start()
    client = server.client(CONTROLLER)
    tasks = []
    try:
        await client.create(NODES, NODE)
        allocatable = {"status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}}
        await client.patch(NODES, "one", allocatable, subresource="status")
        parts = (controllers.run(client), play_pods(client), play_guests(client))
        tasks += [asyncio.create_task(part) for part in parts]
        yield client
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


async def test_a_machine_comes_up_changes_while_it_runs_and_goes(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "hotvirt")
    async with home(tmp_path) as client:
        await client.create(VMS, VM)
        vm = await until(client, VMS, lambda vm: vm.get("status", {}).get("ready"))
        assert vm["status"]["printableStatus"] == "Running"

        edit = {"memory": {"guest": "2Gi"}, "cpu": {"sockets": 2, "cores": 2}}
        await client.patch(VMS, "web", {"spec": {"template": {"spec": {"domain": edit}}}}, "default")
        vmi = await until(client, VMIS, lambda vmi: vmi["spec"]["domain"]["memory"]["guest"] == "2Gi")
        assert (vmi["spec"]["domain"]["cpu"]["sockets"], vmi["spec"]["domain"]["cpu"]["cores"]) == (2, 1)
        pod = (await client.list(PODS))["items"][0]["metadata"]["name"]
        await until(client, PODS, lambda p: "2160Mi" in str(p["spec"]["containers"][0]["resources"]), name=pod)
        await until(client, VMS, lambda vm: "domain.cpu.cores" in str(vm.get("status", {}).get("conditions")))

        await client.delete(VMS, "web", "default")
        for resource in (VMS, VMIS, PODS, CONTROLLER_REVISIONS):
            await until_gone(client, resource)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_orphan_is_adopted_and_an_eviction_is_answered_by_its_strategy(tmp_path, caplog):
    async with home(tmp_path) as client:
        await client.create(VMS, VM)
        await until(client, VMS, lambda vm: vm.get("status", {}).get("ready"))
        instance = await client.get(VMIS, "web", "default")
        await client.delete(VMS, "web", "default", propagation="Orphan")
        await until_gone(client, VMS)
        left = await client.get(VMIS, "web", "default")
        assert left["metadata"]["uid"] == instance["metadata"]["uid"]
        assert not left["metadata"].get("ownerReferences")
        assert not left["metadata"].get("deletionTimestamp")

        external = {"evictionStrategy": "External", **VM["spec"]["template"]["spec"]}
        spec = {**VM["spec"], "template": {"spec": external}}
        again = await client.create(VMS, {**VM, "spec": spec})
        await until(client, VMS, lambda vm: vm.get("status", {}).get("ready"))
        adopted = await client.get(VMIS, "web", "default")
        assert adopted["metadata"]["uid"] == instance["metadata"]["uid"]
        assert [o["uid"] for o in adopted["metadata"]["ownerReferences"]] == [again["metadata"]["uid"]]
        assert len((await client.list(CONTROLLER_REVISIONS))["items"]) == 1

        (pod,) = (await client.list(PODS))["items"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}}
        await client.patch(VMIS, "web", {"spec": {"evictionStrategy": "External"}}, "default")
        with pytest.raises(TooManyRequests, match='Eviction triggered evacuation of VMI "default/web"'):
            await client.post(PODS, pod["metadata"]["name"], "eviction", eviction, "default")
        marked = await until(client, VMS, lambda vm: "EvictionRequested" in str(vm["status"].get("conditions")))
        assert (await client.get(VMIS, "web", "default"))["status"]["evacuationNodeName"] == "one"
        await client.patch(VMIS, "web", {"status": {"evacuationNodeName": None}}, "default")
        await until(client, VMS, lambda vm: "EvictionRequested" not in str(vm["status"].get("conditions")))

        await client.patch(VMIS, "web", {"spec": {"evictionStrategy": "LiveMigrate"}}, "default")
        with pytest.raises(TooManyRequests, match="VMI web is configured with an eviction strategy but is not live"):
            await client.post(PODS, pod["metadata"]["name"], "eviction", eviction, "default")
        await client.patch(VMIS, "web", {"spec": {"evictionStrategy": "None"}}, "default")
        await client.post(PODS, pod["metadata"]["name"], "eviction", eviction, "default")
        uid = pod["metadata"]["uid"]
        await until(client, VMIS, lambda vmi: vmi["metadata"]["uid"] != instance["metadata"]["uid"])
        await until(client, VMS, lambda vm: vm.get("status", {}).get("ready"))
        assert [each["metadata"]["uid"] == uid for each in (await client.list(PODS))["items"]] == [False]
        assert marked["status"]["printableStatus"] == "Running"
