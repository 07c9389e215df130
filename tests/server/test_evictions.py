"""Evictions and the budgets that are about their pods: never more at once than is allowed."""

import asyncio
from typing import Any

import pytest

from hotvirt.kube.errors import Conflict, InternalError, NotFound, TooManyRequests
from hotvirt.kube.resources import DISRUPTION_BUDGETS, PODS
from hotvirt.server.inprocess import LocalClient

EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {}}


async def make_pod(client: LocalClient, name: str, *, phase: str = "Running", ready: bool = True) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
    await client.create(PODS, body, "default")
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]}
    await client.patch(PODS, name, {"status": status}, "default", subresource="status")


async def make_budget(client: LocalClient, name: str = "b", *, spec: Any = None, **status: int) -> None:
    body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}, **(spec or {})}}  # fmt: skip
    await client.create(DISRUPTION_BUDGETS, body, "default")
    patch = {"status": {"observedGeneration": 1, **status}}
    await client.patch(DISRUPTION_BUDGETS, name, patch, "default", subresource="status")


async def evict(client: LocalClient, name: str, **options: Any) -> Any:
    return await client.post(PODS, name, "eviction", {**EVICTION, **options}, "default")


async def is_there(client: LocalClient, name: str) -> bool:
    try:
        await client.get(PODS, name, "default")
    except NotFound:
        return False
    return True


async def test_no_more_go_at_once_than_are_allowed(client: LocalClient) -> None:
    for number in range(6):
        await make_pod(client, f"p{number}")
    await make_budget(client, disruptionsAllowed=2, currentHealthy=6, desiredHealthy=4)
    answers = await asyncio.gather(*(evict(client, f"p{number}") for number in range(6)), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, TooManyRequests)]
    assert len(refused) == 4
    assert refused[0].retry_after == 0
    assert [cause.reason for cause in refused[0].causes] == ["DisruptionBudget"]
    assert "needs 4 healthy pods" in refused[0].causes[0].message
    assert sum([await is_there(client, f"p{number}") for number in range(6)]) == 4
    status = (await client.get(DISRUPTION_BUDGETS, "b", "default"))["status"]
    assert (status["disruptionsAllowed"], len(status["disruptedPods"])) == (0, 2)


@pytest.mark.parametrize(
    ("pod", "spec", "status", "goes"),
    [
        ({}, {}, {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1}, False),
        ({}, {}, {"observedGeneration": 0, "disruptionsAllowed": 1}, False),
        ({"phase": "Pending", "ready": False}, {}, {"disruptionsAllowed": 0}, True),
        ({"phase": "Failed", "ready": False}, {}, {"disruptionsAllowed": 0}, True),
        ({"ready": False}, {}, {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1}, True),
        ({"ready": False}, {}, {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 1}, False),
        ({"ready": False}, {"unhealthyPodEvictionPolicy": "AlwaysAllow"}, {"disruptionsAllowed": 0}, True),
        ({}, {"selector": {"matchLabels": {"app": "db"}}}, {"disruptionsAllowed": 0}, True),
        ({}, {"selector": {}}, {"disruptionsAllowed": 0}, False),
    ],
)
async def test_who_goes(client: LocalClient, pod: Any, spec: Any, status: Any, goes: bool) -> None:
    await make_pod(client, "p", **pod)
    await make_budget(client, spec=spec, **status)
    if goes:
        await evict(client, "p")
    else:
        with pytest.raises(TooManyRequests):
            await evict(client, "p")
    assert await is_there(client, "p") is not goes


async def test_what_is_refused_anyway_takes_no_place(client: LocalClient) -> None:
    await make_pod(client, "p")
    await make_budget(client, disruptionsAllowed=1, currentHealthy=1, desiredHealthy=0)
    with pytest.raises(Conflict, match="UID in precondition: other"):
        await evict(client, "p", deleteOptions={"preconditions": {"uid": "other"}})
    assert (await client.get(DISRUPTION_BUDGETS, "b", "default"))["status"]["disruptionsAllowed"] == 1


async def test_two_budgets_for_one_pod_are_refused(client: LocalClient) -> None:
    await make_pod(client, "p")
    await make_budget(client, "a", disruptionsAllowed=1)
    await make_budget(client, "b", disruptionsAllowed=1)
    with pytest.raises(InternalError, match="more than one PodDisruptionBudget"):
        await evict(client, "p")
