"""What a disruption budget allows."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from hotvirt.controllers import disruption
from hotvirt.controllers.disruption import DisruptionController
from hotvirt.kube.resources import DISRUPTION_BUDGETS, PODS
from hotvirt.kube.times import stamp

pytestmark = pytest.mark.looptime
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def budget(**spec):
    return {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default", "generation": 2},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
    }  # fmt: skip


def pod(name, *, ready=True, phase="Running", app="web", **metadata):
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}, **metadata},
        "spec": {}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }  # fmt: skip


def judged(spec, *pods, **status):
    found = disruption.judge({**budget(**spec), "status": status}, pods, NOW).status
    return found["expectedPods"], found["desiredHealthy"], found["currentHealthy"], found["disruptionsAllowed"]


THREE = (pod("a"), pod("b"), pod("c", ready=False), pod("d", app="db"), pod("e", phase="Succeeded"))


@pytest.mark.parametrize(
    ("spec", "numbers"),
    [
        ({"minAvailable": 1}, (3, 1, 2, 1)),
        ({"minAvailable": 2}, (3, 2, 2, 0)),
        ({"minAvailable": 5}, (3, 5, 2, 0)),
        ({"minAvailable": "50%"}, (3, 2, 2, 0)),
        ({"minAvailable": "0%"}, (3, 0, 2, 2)),
        ({"maxUnavailable": 0}, (3, 3, 2, 0)),
        ({"maxUnavailable": 2}, (3, 1, 2, 1)),
        ({"maxUnavailable": "34%"}, (3, 1, 2, 1)),
        ({"minAvailable": 0, "selector": {}}, (4, 0, 3, 3)),
        ({"minAvailable": 0, "selector": None}, (0, 0, 0, 0)),
        ({"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]}}, (1, 0, 1, 1)),
    ],
)
def test_numbers(spec, numbers):
    assert judged(spec, *THREE) == numbers


def test_who_goes_or_was_let_go_is_not_healthy():
    noted = {"b": stamp(NOW - timedelta(seconds=30)), "c": stamp(NOW - timedelta(minutes=3)), "gone": stamp(NOW)}
    pods = pod("a", deletionTimestamp=stamp(NOW)), pod("b"), pod("c")
    verdict = disruption.judge({**budget(minAvailable=1), "status": {"disruptedPods": noted}}, pods, NOW)
    assert (verdict.status["currentHealthy"], verdict.status["disruptionsAllowed"]) == (1, 0)
    assert verdict.status["disruptedPods"] == {"b": noted["b"]}
    assert verdict.again == 90


async def test_kept_current_with_no_more_writes_than_changes(api, controlled):
    await api.create(PODS, pod("a"))
    await api.patch(PODS, "a", {"status": pod("a")["status"]}, "default", subresource="status")
    await api.create(DISRUPTION_BUDGETS, budget(minAvailable=1))
    async with controlled(DisruptionController):
        await asyncio.sleep(1)
        status = api.find(DISRUPTION_BUDGETS, "b")["status"]
        assert status["disruptionsAllowed"] == 0
        [condition] = status["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "InsufficientPods")
        await api.create(PODS, pod("b"))
        await api.patch(PODS, "b", {"status": pod("b")["status"]}, "default", subresource="status")
        await asyncio.sleep(1)
        assert api.find(DISRUPTION_BUDGETS, "b")["status"]["disruptionsAllowed"] == 1
        writes = len(api.writes)
        await api.patch(PODS, "b", {"status": {"reason": "Busy"}}, "default", subresource="status")
        await asyncio.sleep(600)
        assert len(api.writes) == writes + 1
