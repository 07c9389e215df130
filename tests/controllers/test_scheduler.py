"""Binding, waiting, and being woken by room: over an API in memory."""

import asyncio

import pytest

from hotvirt.controllers import launcherpod
from hotvirt.controllers.scheduler import Scheduler
from hotvirt.kube import conditions
from hotvirt.kube.resources import NODES, PODS

pytestmark = pytest.mark.looptime


async def create_pod(api, make, name, guest="1Gi"):
    vmi = make.vmi(name, uid=name, domain={"memory": {"guest": guest}})
    return await api.create(PODS, launcherpod.render(vmi, launcherpod.Settings()))


def node_of(api, pod):
    return api.find(PODS, pod["metadata"]["name"])["spec"].get("nodeName")


async def test_a_pod_is_bound_with_one_write(api, make, controlled):
    await api.create(NODES, make.node())
    async with controlled(Scheduler):
        pod = await create_pod(api, make, "a")
        api.writes.clear()
        await asyncio.sleep(1)
        assert node_of(api, pod) == "one"
        assert [verb for verb, _, _ in api.writes] == ["bind"]


async def test_many_at_once_never_share_the_same_room(api, make, controlled):
    await api.create(NODES, make.node())
    async with controlled(Scheduler):
        pods = [await create_pod(api, make, name, "3Gi") for name in "abcd"]
        await asyncio.sleep(1)
        assert sum(node_of(api, pod) == "one" for pod in pods) == 2


async def test_one_that_waits_is_woken_by_room_and_not_before(api, make, controlled):
    await api.create(NODES, make.node())
    async with controlled(Scheduler) as [scheduler]:
        first = await create_pod(api, make, "a", "6Gi")
        await asyncio.sleep(1)
        second = await create_pod(api, make, "b", "6Gi")
        await asyncio.sleep(1)
        found = conditions.of(api.find(PODS, second["metadata"]["name"]), "PodScheduled")
        assert (found["status"], found["reason"]) == ("False", "Unschedulable")
        assert "of memory asked for" in found["message"]
        writes, done = len(api.writes), scheduler.controller.queue.counters.done
        await api.patch(NODES, "one", {"status": {"heartbeat": "1"}}, subresource="status")
        await asyncio.sleep(3600)
        assert len(api.writes) == writes + 1
        assert scheduler.controller.queue.counters.done == done
        await api.delete(PODS, first["metadata"]["name"])
        await asyncio.sleep(1)
        assert node_of(api, second) == "one"


@pytest.mark.parametrize("room", ["ends", "shrinks", "node"])
async def test_room_appears_in_other_ways_too(api, make, controlled, room):
    await api.create(NODES, make.node())
    async with controlled(Scheduler):
        first = await create_pod(api, make, "a", "6Gi")
        second = await create_pod(api, make, "b", "4Gi")
        await asyncio.sleep(1)
        assert node_of(api, second) is None
        if room == "ends":
            await api.patch(PODS, first["metadata"]["name"], {"status": {"phase": "Succeeded"}}, subresource="status")
        elif room == "shrinks":
            small = {"requests": {"memory": "1Gi", "cpu": "100m"}}
            patch = [{"op": "replace", "path": "/spec/containers/0/resources", "value": small}]
            await api.patch(PODS, first["metadata"]["name"], patch, kind="json", subresource="resize")
        else:
            await api.create(NODES, make.node("two"))
        await asyncio.sleep(1)
        assert node_of(api, second) == ("two" if room == "node" else "one")


async def test_pods_of_other_schedulers_are_left_alone(api, make, controlled):
    await api.create(NODES, make.node())
    async with controlled(Scheduler):
        pod = launcherpod.render(make.vmi(schedulerName="mine"), launcherpod.Settings())
        pod = await api.create(PODS, pod)
        await asyncio.sleep(1)
        assert node_of(api, pod) is None
