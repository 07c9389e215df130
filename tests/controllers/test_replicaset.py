"""Replica sets: as many guests as asked for, whichever way they end."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pytest

from hotvirt.controllers import replicas, replicaset
from hotvirt.controllers.replicaset import ReplicaSetController
from hotvirt.kube import conditions
from hotvirt.kube.errors import Forbidden
from hotvirt.kube.resources import EVENTS, REPLICA_SETS, VMIS

pytestmark = pytest.mark.looptime
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DOMAIN = {"memory": {"guest": "1Gi"}, "cpu": {"sockets": 1}, "devices": {}}


def make_set(count=2, *, labels=None, **spec):
    template = {"metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}}, "spec": {"domain": DOMAIN}}
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": count, "selector": {"matchLabels": labels or {"app": "web"}}, "template": template, **spec
        },
    }  # fmt: skip


@pytest.fixture
async def home(controlled, guests):
    letters = itertools.count()

    class Named(ReplicaSetController):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, letter=lambda known: known[next(letters) // 5 % len(known)], **kwargs)

    async with controlled(Named):
        yield guests


async def settled(seconds=1):
    await asyncio.sleep(seconds)


async def scale(api, count):
    await api.patch(REPLICA_SETS, "web", {"spec": {"replicas": count}})
    await settled()


def status_of(api):
    return api.find(REPLICA_SETS, "web")["status"]


def names(api):
    return {vmi["metadata"]["name"] for vmi in api.all(VMIS)}


def reasons(api):
    return {event["reason"]: event["message"] for event in api.all(EVENTS)}


async def test_scales_and_tells_how_many_there_are(api, home):
    await api.create(REPLICA_SETS, make_set(3))
    await settled()
    assert status_of(api) == {"replicas": 3, "readyReplicas": 3, "labelSelector": "app=web"}
    vmi = api.all(VMIS)[0]["metadata"]
    assert vmi["name"].startswith("web-")
    assert (vmi["labels"], vmi["annotations"]) == ({"app": "web"}, {"a": "b"})
    assert vmi["ownerReferences"][0]["kind"] == "VirtualMachineInstanceReplicaSet"
    before = names(api)
    await scale(api, 1)
    assert (len(names(api)), names(api) < before, status_of(api)["replicas"]) == (1, True, 1)
    await scale(api, 0)
    assert (names(api), status_of(api)["readyReplicas"]) == (set(), 0)
    assert reasons(api).keys() == {"SuccessfulCreate", "SuccessfulDelete"}
    api.writes.clear()
    await settled(3600)
    assert api.writes == []


async def test_a_paused_set_is_left_alone(api, home):
    await api.create(REPLICA_SETS, make_set(1))
    await settled()
    await api.patch(REPLICA_SETS, "web", {"spec": {"paused": True, "replicas": 3}})
    await settled()
    assert len(names(api)) == 1
    assert conditions.of(api.find(REPLICA_SETS, "web"), "ReplicaPaused")["reason"] == "Paused"
    await api.patch(REPLICA_SETS, "web", {"spec": {"paused": False}})
    await settled()
    assert (len(names(api)), status_of(api).get("conditions")) == (3, None)
    assert {"SuccessfulPaused", "SuccessfulResumed"} < reasons(api).keys()


async def test_what_ended_is_replaced(api, home):
    await api.create(REPLICA_SETS, make_set(2))
    await settled()
    before = names(api)
    await home.become(api.all(VMIS)[0], "Succeeded")
    await settled()
    assert len(names(api) & before) == 1
    assert len(names(api)) == 2
    await api.delete(VMIS, min(names(api)))
    await settled()
    assert (len(names(api)), status_of(api)["readyReplicas"]) == (2, 2)


async def test_guests_that_cannot_run_are_not_made_again_without_end(api, home):
    home.broken = {f"web-{letter * 5}" for letter in replicaset.LETTERS}
    await api.create(REPLICA_SETS, make_set(1))
    await settled(35)
    assert api.count("create", "virtualmachineinstances") == 4
    home.broken = set()
    await settled(10)
    assert status_of(api)["readyReplicas"] == 1


async def test_guests_are_taken_in_and_let_go_by_their_labels(api, make, home):
    stray = make.vmi("stray")
    stray["metadata"]["labels"] = {"app": "web"}
    await api.create(VMIS, stray)
    await api.create(REPLICA_SETS, make_set(1))
    await settled()
    assert names(api) == {"stray"}
    assert api.find(VMIS, "stray")["metadata"]["ownerReferences"][0]["name"] == "web"
    await api.patch(VMIS, "stray", {"metadata": {"labels": {"app": "debug"}}})
    await settled()
    assert api.find(VMIS, "stray")["metadata"].get("ownerReferences") is None
    assert len(names(api)) == 2


async def test_a_refusal_is_told_until_it_is_over(api, home):
    create, full = api.create, [True]

    async def create_in_quota(resource, obj, namespace=None, **kwargs):
        if resource is VMIS and full[0]:
            raise Forbidden("quota exceeded: at most 1Gi")
        return await create(resource, obj, namespace, **kwargs)

    api.create = create_in_quota
    await api.create(REPLICA_SETS, make_set(1))
    await settled()
    failure = conditions.of(api.find(REPLICA_SETS, "web"), "ReplicaFailure")
    assert (failure["reason"], failure["message"]) == ("FailedCreate", "quota exceeded: at most 1Gi")
    assert reasons(api)["FailedCreate"] == "quota exceeded: at most 1Gi"
    full[0] = False
    await settled(2)
    assert (status_of(api).get("conditions"), len(names(api))) == (None, 1)


# Decisions


def vmi(name, phase="Running", *, ready=True, why="", created=NOW, failed=None, ran=None, **metadata):
    stamps = [
        {"phase": p, "phaseTransitionTimestamp": at.isoformat()}
        for p, at in (("Running", ran), ("Failed", failed))
        if at
    ]
    return {
        "metadata": {"name": name, "uid": f"u-{name}", "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
                     **metadata},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready), "reason": why}],
                   "phaseTransitionTimestamps": stamps},
    }  # fmt: skip


def planned(count, *mine):
    found = replicaset.plan(make_set(count), mine, NOW)
    return found.create, [each["metadata"]["name"] for each in found.delete], found.wait


SECOND = timedelta(seconds=1)
PLANS = {
    "nothing yet": (2, [], (2, [], None)),
    "not more than a burst": (500, [], (50, [], None)),
    "the one not ready goes first": (1, [vmi("a"), vmi("b", ready=False)], (0, ["b"], None)),
    "and before it the one that does not run": (
        1, [vmi("a", ready=False), vmi("b", "Scheduling", ready=False)], (0, ["b"], None)),
    "of equals the younger": (1, [vmi("a", created=NOW + SECOND), vmi("b")], (0, ["a"], None)),
    "one on its way out does not count": (1, [vmi("a", deletionTimestamp="now")], (1, [], None)),
    "one whose pod is deleted is not waited for": (1, [vmi("a", ready=False, why="PodTerminating")], (1, ["a"], None)),
    "nor when the guest has gone with it": (
        1, [vmi("a", "Failed", ready=False, why="PodTerminating", failed=NOW)], (1, ["a"], None)),
    "ended well": (1, [vmi("a", "Succeeded")], (1, ["a"], None)),
    "failed at once": (1, [vmi("a", "Failed", failed=NOW - 4 * SECOND)], (0, [], 6.0)),
    "failed at once, a while ago": (1, [vmi("a", "Failed", failed=NOW - 10 * SECOND)], (1, ["a"], None)),
    "failed after a long run": (
        1, [vmi("a", "Failed", failed=NOW - SECOND, ran=NOW - 100 * SECOND)], (1, ["a"], None)),
    "too many, one of them failed": (0, [vmi("a", "Failed", failed=NOW), vmi("b")], (0, ["b"], 10.0)),
}  # fmt: skip


@pytest.mark.parametrize(("count", "mine", "expected"), PLANS.values(), ids=PLANS)
def test_plan(count, mine, expected):
    assert planned(count, *mine) == expected


def test_nothing_is_planned_for_a_set_on_its_way_out():
    going = make_set(3)
    going["metadata"]["deletionTimestamp"] = "now"
    assert replicaset.plan(going, (), NOW) == replicaset.Plan()


def test_claims():
    owner = {"metadata": {"uid": "o"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}}

    def obj(name, app, uid=None):
        owners = [{"uid": uid, "controller": True}] if uid else []
        return {"metadata": {"name": name, "labels": {"app": app}, "ownerReferences": owners}}

    ended = {**obj("ended", "web"), "status": {"phase": "Succeeded"}}
    objects = [ended, obj("mine", "web", "o"), obj("other's", "web", "x"), obj("free", "web"), obj("gone", "db", "o"),
               obj("none", "db")]  # fmt: skip
    found = replicas.claim(owner, objects)
    assert [[each["metadata"]["name"] for each in part] for part in (found.mine, found.adopt, found.release)] == [
        ["mine"], ["free"], ["gone"],
    ]  # fmt: skip
