"""Endpoints and disruption budgets on the API server itself, with its schemas, addresses and evictions."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from hotvirt.controllers.disruption import DisruptionController
from hotvirt.controllers.endpoints import EndpointsController
from hotvirt.kube.errors import NotFound, TooManyRequests
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import DISRUPTION_BUDGETS, ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from hotvirt.kube.times import utc_now
from hotvirt.server.app import ApiServer, ServerConfig

pytestmark = pytest.mark.server
SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
}  # fmt: skip
BUDGET = {
    "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
}  # fmt: skip
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {}}


@asynccontextmanager
async def running(tmp_path):
    server = ApiServer(ServerConfig(state_db=tmp_path / "state.db", pki=tmp_path / "pki", listen=False))
    await server.start()
    client = server.client()
    informers = SharedInformers(client)
    made = [EndpointsController(client, informers), DisruptionController(client, informers, clock=utc_now)]
    tasks = [asyncio.create_task(each) for each in (informers.run(), *(each.controller.run() for each in made))]
    try:
        yield client
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()


async def pod(client, name, address):
    container = {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"containers": [container], "nodeName": "one"}}  # fmt: skip
    await client.create(PODS, body, "default")
    status = {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
    await client.patch(PODS, name, {"status": status}, "default", subresource="status")


async def until(client, resource, holds):
    """The only object of the namespace, once it holds; each look gives the controllers their turn."""
    async with asyncio.timeout(10):
        while True:
            found = (await client.list(resource, "default"))["items"]
            if found and holds(found[0]):
                return found[0]
            await asyncio.sleep(0.01)


async def test_what_is_written_is_what_is_kept(tmp_path, caplog):
    async with running(tmp_path) as client:
        await client.create(SERVICES, SERVICE, "default")
        for number in (1, 2, 3):
            await pod(client, f"p{number}", f"10.0.0.{number}")
        whole = await until(
            client, ENDPOINTS, lambda each: len((each.get("subsets") or [{}])[0].get("addresses", [])) == 3
        )
        assert whole["subsets"][0]["ports"] == [{"port": 8080, "protocol": "TCP"}]
        part = await until(client, ENDPOINT_SLICES, lambda each: len(each["endpoints"]) == 3)
        assert part["endpoints"][0]["targetRef"]["name"] == "p1"
        await client.create(DISRUPTION_BUDGETS, BUDGET, "default")
        await until(client, DISRUPTION_BUDGETS, lambda each: (each.get("status") or {}).get("disruptionsAllowed") == 1)
        await client.post(PODS, "p1", "eviction", EVICTION, "default")
        with pytest.raises(TooManyRequests):
            await client.post(PODS, "p2", "eviction", EVICTION, "default")
        # p1 is on its way out: the note of it falls, and the place stays taken.
        status = (
            await until(client, DISRUPTION_BUDGETS, lambda each: "disruptedPods" not in (each.get("status") or {})
                        or not each["status"]["disruptedPods"])
        )["status"]  # fmt: skip
        assert (status["expectedPods"], status["currentHealthy"], status["disruptionsAllowed"]) == (3, 2, 0)
        await client.delete(PODS, "p1", "default", grace_period_seconds=0)
        await until(client, DISRUPTION_BUDGETS, lambda each: each["status"]["disruptionsAllowed"] == 1)
        await until(client, ENDPOINT_SLICES, lambda each: len(each["endpoints"]) == 2)
        await client.delete(SERVICES, "web", "default")
        async with asyncio.timeout(10):
            for resource in (ENDPOINTS, ENDPOINT_SLICES):
                while (await client.list(resource, "default"))["items"]:
                    await asyncio.sleep(0.01)
        with pytest.raises(NotFound):
            await client.get(ENDPOINTS, "web", "default")
    assert not [record for record in caplog.records if "dropped" in record.getMessage()], "the server knows every field"
