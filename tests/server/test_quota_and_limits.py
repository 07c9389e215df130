"""ResourceQuotas count and hold back; LimitRanges fill in and bound."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from hotvirt.kube.errors import Forbidden
from hotvirt.kube.resources import CLAIMS, CONFIG_MAPS, PODS, Resource
from hotvirt.server import limits, podamounts, quantities, quota
from hotvirt.server.inprocess import LocalClient

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
RANGES = Resource("", "v1", "limitranges", "LimitRange")


def pod(name: str, **requests: str) -> dict[str, Any]:
    container = {"name": "c", "image": "i:1", "resources": {"requests": requests} if requests else {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


async def limited(client: LocalClient, **hard: str) -> None:
    named = {key.replace("_", "."): value for key, value in hard.items()}
    quota_ = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": named}}
    await client.create(QUOTAS, quota_, "default")


async def used(client: LocalClient, wanted: dict[str, str]) -> None:
    """Until the quota's status says so."""
    async with asyncio.timeout(5):
        async for event in client.watch(QUOTAS, "default", resource_version="0"):
            if (event.object.get("status") or {}).get("used") == wanted:
                return


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", "1"), ("500m", "0.5"), ("2Gi", "2147483648"), ("1.5k", "1500"), ("3e6", "3000000"), ("1E", "1e18"),
     (4, "4"), ("100n", "1e-7"), (".5", "0.5")],
)  # fmt: skip
def test_quantities(text: Any, value: str) -> None:
    assert quantities.parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1GiB", "one", "-", "1e999"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantities.parse(text)


@pytest.mark.parametrize(
    ("value", "like", "shown"),
    [("1073741824", "4Gi", "1Gi"), ("1610612736", "4Gi", "1536Mi"), ("0.25", "2", "250m"), ("3", "10", "3"),
     ("0", "4Gi", "0Gi"), ("0.5", "1500m", "500m")],
)  # fmt: skip
def test_amounts_are_shown_in_the_unit_of_their_limit(value: str, like: str, shown: str) -> None:
    assert quantities.show(Decimal(value), like=like) == shown


def test_pods_that_are_over_use_nothing() -> None:
    over = pod("p", cpu="1") | {"status": {"phase": "Succeeded"}}
    assert quota.usage_of("/pods", over) == {"count/pods": 1}
    assert quota.usage_of("/pods", pod("p", cpu="500m"))["cpu"] == Decimal("0.5")
    assert quota.usage_of("example.com/widgets", {}) == {"count/widgets.example.com": 1}


async def test_a_quota_holds_back_what_passes_it_and_says_how_much(client: LocalClient) -> None:
    await limited(client, pods="2", requests_memory="3Gi")
    await client.create(PODS, pod("a", memory="2Gi"), "default")
    with pytest.raises(Forbidden) as refusal:
        await client.create(PODS, pod("b", memory="1536Mi"), "default")
    assert refusal.value.message == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.memory=1536Mi, used: requests.memory=2Gi, '
        "limited: requests.memory=3Gi"
    )
    await client.create(PODS, pod("b", memory="1Gi"), "default")
    await used(client, {"pods": "2", "requests.memory": "3Gi"})
    with pytest.raises(Forbidden, match="pods=1, used: pods=2, limited: pods=2"):
        await client.create(PODS, pod("c", memory="0"), "default")
    await client.delete(PODS, "a", "default")
    await used(client, {"pods": "1", "requests.memory": "1Gi"})
    await client.create(PODS, pod("c", memory="2Gi"), "default")


async def test_growing_in_place_counts_too(client: LocalClient) -> None:
    await limited(client, requests_memory="3Gi")
    await client.create(PODS, pod("a", memory="2Gi"), "default")
    larger = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "4Gi"}}}]}}
    with pytest.raises(Forbidden, match="exceeded quota"):
        await client.patch(PODS, "a", larger, "default", kind="strategic", subresource="resize")
    await client.patch(PODS, "a", {"metadata": {"labels": {"x": "y"}}}, "default")


async def test_what_could_not_be_counted_must_be_stated(client: LocalClient) -> None:
    await limited(client, requests_cpu="4", limits_memory="4Gi")
    with pytest.raises(Forbidden, match=r"must specify requests\.cpu,limits\.memory"):
        await client.create(PODS, pod("a"), "default")


async def test_two_cannot_both_take_the_last_place(client: LocalClient) -> None:
    await limited(client, **{"count/configmaps": "4"})  # one is the namespace's own
    maps = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{i}"}} for i in range(10)]
    done = await asyncio.gather(*(client.create(CONFIG_MAPS, m, "default") for m in maps), return_exceptions=True)
    await used(client, {"count/configmaps": "4"})
    assert sum(1 for each in done if isinstance(each, Forbidden)) >= 6


async def test_a_limit_range_fills_in_and_bounds(client: LocalClient) -> None:
    spec = {
        "limits": [
            {"type": "Container", "default": {"memory": "1Gi"}, "defaultRequest": {"memory": "512Mi"},
             "max": {"memory": "2Gi"}, "min": {"memory": "64Mi"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}},
        ]
    }  # fmt: skip
    await client.create(
        RANGES, {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": spec}, "default"
    )
    made = await client.create(PODS, pod("a"), "default")
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}, "requests": {"memory": "512Mi"}}
    assert made["status"]["qosClass"] == "Burstable"
    with pytest.raises(Forbidden, match="minimum memory usage per Container is 64Mi, but 1Mi is requested"):
        await client.create(PODS, pod("b", memory="1Mi"), "default")
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
    }  # fmt: skip
    with pytest.raises(Forbidden, match="maximum storage usage per PersistentVolumeClaim is 10Gi, but it is 20Gi"):
        await client.create(CLAIMS, claim, "default")


def test_stated_amounts_win_over_defaults() -> None:
    ranges = [{"spec": {"limits": [{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}}]}}]
    found = limits.with_defaults("/pods", pod("p", memory="2Gi"), ranges)
    assert found["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "1", "memory": "2Gi"},
    }


def container(*, always: bool = False, **requests: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": "c", "image": "i:1", "resources": {"requests": requests, "limits": requests}}
    return {**made, "restartPolicy": "Always"} if always else made


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container(cpu="1"), container(cpu="500m")]}, "1.5"),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="3"), container(cpu="2")]}, "3"),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="500m")]}, "1"),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="1", always=True)]}, "2"),
        ({"containers": [container(cpu="1")],
          "initContainers": [container(cpu="1", always=True), container(cpu="3")]}, "4"),
        ({"containers": [container(cpu="1")], "overhead": {"cpu": "250m", "memory": "1Mi"}}, "1.25"),
    ],
)  # fmt: skip
def test_what_a_pod_asks_for_in_all(spec: dict[str, Any], cpu: str) -> None:
    assert podamounts.total(spec, "requests")["cpu"] == Decimal(cpu)
    assert "memory" not in podamounts.total(spec, "limits")


def test_bounds_of_the_whole_pod_and_of_the_ratio() -> None:
    item: dict[str, Any] = {"type": "Pod", "max": {"memory": "3Gi"}, "maxLimitRequestRatio": {"cpu": "2"}}
    one = {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "3", "memory": "2Gi"}}}
    told = limits.check("/pods", {"spec": {"containers": [one, one]}}, [{"spec": {"limits": [item]}}])
    ratio = "cpu max limit to request ratio per Pod is 2, but the ratio is 3.00: raise the request, or lower the limit"
    assert told == [
        "spec.containers: maximum memory usage per Pod is 3Gi, but it is 4Gi: ask for at most that",
        f"spec.containers: {ratio}",
    ]
    item = {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}
    [told_one] = limits.check("/pods", {"spec": {"containers": [{}]}}, [{"spec": {"limits": [item]}}])
    assert "no request is specified" in told_one


AFFINITY = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]}}


@pytest.mark.parametrize(
    ("scope", "spec", "counts"),
    [
        ({"scopes": ["PriorityClass"]}, {"priorityClassName": "high"}, True),
        ({"scopes": ["PriorityClass"]}, {}, False),
        ({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}, {"priorityClassName": "high"}, True),
        ({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}, {"priorityClassName": "low"}, False),
        ({"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}, {}, True),
        ({"scopeName": "PriorityClass", "operator": "DoesNotExist"}, {}, True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, {"affinity": AFFINITY}, True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, {"affinity": {"podAffinity": {}}}, False),
        ({"scopes": ["NotTerminating", "BestEffort"]}, {}, True),
        ({"scopes": ["NotTerminating", "BestEffort"]}, {"activeDeadlineSeconds": 5}, False),
        ({"scopeName": "VolumeAttributesClass", "operator": "Exists"}, {"volumeAttributesClassName": "x"}, False),
    ],
)  # fmt: skip
def test_scopes(scope: dict[str, Any], spec: dict[str, Any], counts: bool) -> None:
    asked = scope if "scopes" in scope else {"scopeSelector": {"matchExpressions": [scope]}}
    assert quota.covers({"spec": asked}, "/pods", {"spec": spec}) is counts
    if scope.get("scopeName") == "VolumeAttributesClass":
        assert quota.covers({"spec": asked}, "/persistentvolumeclaims", {"spec": spec})


@pytest.mark.parametrize(
    ("spec", "node_ports", "balancers"),
    [
        ({"type": "ClusterIP", "ports": [{}]}, None, None),
        ({"type": "NodePort", "ports": [{}, {}]}, 2, None),
        ({"type": "LoadBalancer", "ports": [{}, {}]}, 2, 1),
        ({"type": "LoadBalancer", "ports": [{}, {"nodePort": 30000}], "allocateLoadBalancerNodePorts": False}, 1, 1),
    ],
)
def test_node_ports_and_balancers_count(spec: dict[str, Any], node_ports: int | None, balancers: int | None) -> None:
    found = quota.usage_of("/services", {"spec": spec})
    assert (found.get("services.nodeports"), found.get("services.loadbalancers")) == (node_ports, balancers)
    assert found["services"] == 1
