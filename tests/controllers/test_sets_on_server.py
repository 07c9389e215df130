"""Pools, replica sets and instancetypes on the API server itself, with its schemas, admission and garbage collection.

No guest is needed: machines are halted, and instances wait for a node that never comes.
"""

import asyncio
import logging

import pytest

from hotvirt import controllers
from hotvirt.api.crds import crds
from hotvirt.kube.admission import User
from hotvirt.kube.errors import Invalid
from hotvirt.kube.resources import (
    AUTOSCALERS,
    CLAIMS,
    CLUSTER_INSTANCETYPES,
    CONTROLLER_REVISIONS,
    POOLS,
    REPLICA_SETS,
    VMIS,
    VMS,
    Resource,
)
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.webhooks.admission import admissions

pytestmark = pytest.mark.server
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kubevirt", "system:masters", "system:authenticated")
OLD_POOLS = Resource("pool.kubevirt.io", "v1alpha1", "virtualmachinepools", "VirtualMachinePool")
LABELS = {"app": "web"}
INSTANCE = {"spec": {"domain": {"memory": {"guest": "1Gi"}, "devices": {}}}}
SIZE = {
    "apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": "VirtualMachineClusterInstancetype",
    "metadata": {"name": "small"}, "spec": {"cpu": {"guest": 1}, "memory": {"guest": "1Gi"}},
}  # fmt: skip


def pool(resource=POOLS, template=None, **spec):
    machine = {"runStrategy": "Halted", "template": INSTANCE, **(template or {})}
    return {
        "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"matchLabels": LABELS},
                 "virtualMachineTemplate": {"metadata": {"labels": LABELS}, "spec": machine}, **spec},
    }  # fmt: skip


@pytest.fixture
async def client(tmp_path, caplog):
    caplog.set_level(logging.WARNING)

    def read(resource, name, namespace):
        return server.client().peek(resource, name, namespace)

    server = ApiServer(
        ServerConfig(state_db=tmp_path / "state.db", pki=tmp_path / "pki", listen=False),
        admissions=admissions(lambda: None, read), crds=crds(),
    )  # fmt: skip
    await server.start()
    ours = server.client(User("system:serviceaccount:kubevirt:hotvirt-controller", GROUPS))
    task = asyncio.create_task(controllers.run(ours))
    yield server.client(User("admin", ("system:masters", "system:authenticated")))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await server.stop()
    assert [r.getMessage() for r in caplog.records if "dropped" in r.getMessage() or r.levelname == "ERROR"] == []


async def until(client, resource, holds):
    """All objects of a kind, once they are as they should be; by watching."""
    listed = await client.list(resource, "default")
    found = {obj["metadata"]["name"]: obj for obj in listed["items"]}
    async with asyncio.timeout(10):
        events = client.watch(resource, "default", resource_version=listed["metadata"]["resourceVersion"])
        while not holds(found):
            event = await anext(events)
            if event.type == "DELETED":
                found.pop(event.object["metadata"]["name"], None)
            elif event.type != "BOOKMARK":
                found[event.object["metadata"]["name"]] = event.object
        await events.aclose()
    return found


def named(*names):
    return lambda found: sorted(found) == sorted(names)


def counted(name, count):
    return lambda found: (found[name].get("status") or {}).get("replicas") == count


async def test_a_pool_by_its_older_version_is_scaled_and_orphaned(client):
    await client.create(OLD_POOLS, pool(OLD_POOLS))
    await until(client, VMS, named("web-0", "web-1"))
    scaled = await client.patch(POOLS, "web", {"spec": {"replicas": 3}}, "default", subresource="scale")
    assert scaled["spec"]["replicas"] == 3
    await until(client, VMS, named("web-0", "web-1", "web-2"))
    await until(client, POOLS, counted("web", 3))
    await client.delete(POOLS, "web", "default", propagation="Orphan")
    await until(client, POOLS, named())
    left = await until(
        client, VMS, lambda found: not any(vm["metadata"].get("ownerReferences") for vm in found.values())
    )
    assert sorted(left) == ["web-0", "web-1", "web-2"]


async def test_what_a_pool_made_goes_with_it(client):
    await client.create(POOLS, pool())
    await until(client, VMS, named("web-0", "web-1"))
    await client.delete(POOLS, "web", "default")
    await until(client, VMS, named())
    await until(client, CONTROLLER_REVISIONS, named())


async def test_a_pool_of_an_instancetype(client):
    await client.create(CLUSTER_INSTANCETYPES, SIZE)
    bare = {"template": {"spec": {"domain": {"devices": {}}}}, "instancetype": {"name": "small"}}
    with pytest.raises(Invalid, match=r"spec\.virtualMachineTemplate\.spec\.template\.spec\.domain\.memory\.guest"):
        await client.create(POOLS, pool(template={"instancetype": {"name": "small"}}))
    await client.create(POOLS, pool(template=bare, replicas=1))
    found = await until(client, VMS, lambda found: (found.get("web-0") or {}).get("status", {}).get("instancetypeRef"))
    reference = found["web-0"]["status"]["instancetypeRef"]
    kept = await client.get(CONTROLLER_REVISIONS, reference["controllerRevisionRef"]["name"], "default")
    assert (kept["data"]["spec"], kept["data"]["kind"]) == (SIZE["spec"], "VirtualMachineClusterInstancetype")


async def test_a_replica_set_and_its_scale(client):
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, **INSTANCE},
    }
    await client.create(
        REPLICA_SETS,
        {"apiVersion": "kubevirt.io/v1", "kind": REPLICA_SETS.kind,
         "metadata": {"name": "set", "namespace": "default"}, "spec": spec},
    )  # fmt: skip
    await until(client, VMIS, lambda found: len(found) == 1)
    await client.patch(REPLICA_SETS, "set", {"spec": {"replicas": 3}}, "default", subresource="scale")
    await until(client, VMIS, lambda found: len(found) == 3)
    await until(client, REPLICA_SETS, counted("set", 3))
    await client.delete(REPLICA_SETS, "set", "default")
    await until(client, VMIS, named())


async def test_an_autoscaler_keeps_a_pool_within_its_limits(client):
    await client.create(POOLS, pool(replicas=1))
    reference = {"apiVersion": POOLS.api_version, "kind": POOLS.kind, "name": "web"}
    usage = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    await client.create(
        AUTOSCALERS,
        {"apiVersion": AUTOSCALERS.api_version, "kind": AUTOSCALERS.kind,
         "metadata": {"name": "web", "namespace": "default"},
         "spec": {"scaleTargetRef": reference, "minReplicas": 3, "maxReplicas": 5,
                  "metrics": [{"type": "Resource", "resource": usage}]}},
    )  # fmt: skip
    await until(client, VMS, named("web-0", "web-1", "web-2"))
    found = await until(client, AUTOSCALERS, lambda found: found["web"]["status"].get("currentReplicas") == 3)
    assert found["web"]["status"]["desiredReplicas"] == 3
    await client.patch(POOLS, "web", {"spec": {"replicas": 9}}, "default", subresource="scale")
    await until(client, VMS, lambda found: len(found) == 5)


async def test_a_vm_is_told_by_its_claim(client):
    await client.create(CLUSTER_INSTANCETYPES, SIZE)
    labels = {"instancetype.kubevirt.io/default-instancetype": "small"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await client.create(CLAIMS, {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                                 "metadata": {"name": "root", "namespace": "default", "labels": labels},
                                 "spec": claim})  # fmt: skip
    volumes = [{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}]
    made = await client.create(
        VMS,
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "web", "namespace": "default"},
         "spec": {"runStrategy": "Halted", "instancetype": {"inferFromVolume": "root"},
                  "template": {"spec": {"domain": {"devices": {}}, "volumes": volumes}}}},
    )  # fmt: skip
    assert made["spec"]["instancetype"] == {"name": "small", "kind": "virtualmachineclusterinstancetype"}
