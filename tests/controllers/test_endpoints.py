"""Which pods are behind a service, and what is written of it."""

import asyncio

import pytest

from hotvirt.controllers import endpoints_of
from hotvirt.controllers.endpoints import EndpointsController
from hotvirt.kube.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES

pytestmark = pytest.mark.looptime


def service(**spec):
    return {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "uid": "s-1", "labels": {"tier": "front"}},
        "spec": {"clusterIP": "10.96.0.7", "selector": {"app": "web"},
                 "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}], **spec},
    }  # fmt: skip


def pod(name="a", ip="10.0.0.2", *, ready=True, phase="Running", labels=None, spec=None, **metadata):
    containers = [{"name": "c", "ports": [{"name": "http", "containerPort": 3000}]}]
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"u-{name}", "labels": labels or {"app": "web"},
                     **metadata},
        "spec": {"nodeName": "one", "containers": containers, **(spec or {})},
        "status": {**status, **({"podIP": ip} if ip else {})},
    }  # fmt: skip


def both(found_service, *pods):
    found = endpoints_of.members(found_service, pods)
    return endpoints_of.endpoints(found_service, found), endpoints_of.slices(found_service, found)


def test_ready_and_not_ready():
    whole, [part] = both(service(), pod("b", "10.0.0.10"), pod("a", "10.0.0.9"), pod("c", "10.0.0.3", ready=False))
    [subset] = whole["subsets"]
    assert [each["ip"] for each in subset["addresses"]] == ["10.0.0.9", "10.0.0.10"]
    assert [each["ip"] for each in subset["notReadyAddresses"]] == ["10.0.0.3"]
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]
    reference = {"kind": "Pod", "name": "a", "namespace": "default", "uid": "u-a"}
    assert subset["addresses"][0]["targetRef"] == reference
    assert [(each["addresses"], each["conditions"]["ready"]) for each in part["endpoints"]] == [
        (["10.0.0.3"], False), (["10.0.0.9"], True), (["10.0.0.10"], True),
    ]  # fmt: skip
    assert part["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    assert part["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert part["metadata"]["labels"]["tier"] == "front"
    assert part["metadata"]["ownerReferences"][0]["uid"] == "s-1"


@pytest.mark.parametrize(
    "other",
    [pod(ip=""), pod(phase="Succeeded"), pod(phase="Failed"), pod(labels={"app": "db"}), pod(labels={"x": "y"})],
)
def test_who_is_not_behind_it(other):
    whole, [part] = both(service(), other)
    assert "subsets" not in whole
    assert part["endpoints"] == []


def test_one_on_its_way_out_is_in_slices_alone():
    whole, [part] = both(service(), pod(deletionTimestamp="2026-01-01T00:00:00Z"))
    assert "subsets" not in whole
    assert part["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_names_of_ports_and_of_pods_and_readiness_that_does_not_count():
    named = service(ports=[{"name": "web", "port": 80, "targetPort": "http"}, {"name": "x", "port": 1,
                    "targetPort": "none"}], clusterIP="None", publishNotReadyAddresses=True)  # fmt: skip
    whole, [part] = both(named, pod(ready=False, spec={"hostname": "one", "subdomain": "web"}))
    assert whole["subsets"][0]["ports"] == [{"name": "web", "port": 3000, "protocol": "TCP"}]
    assert whole["subsets"][0]["addresses"][0]["hostname"] == "one"
    assert (part["endpoints"][0]["conditions"]["ready"], part["endpoints"][0]["hostname"]) == (True, "one")
    assert whole["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_many_are_split():
    pods = [pod(f"p{n}", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(1005)]
    whole, parts = both(service(), *pods)
    assert len(whole["subsets"][0]["addresses"]) == 1000
    assert whole["metadata"]["annotations"] == {"endpoints.kubernetes.io/over-capacity": "truncated"}
    assert [len(each["endpoints"]) for each in parts] == [100] * 10 + [5]
    assert len({each["metadata"]["name"] for each in parts}) == 11


async def test_written_once_kept_current_and_taken_away(api, controlled):
    made = await api.create(SERVICES, service())
    name = endpoints_of.slice_name(made, 0)
    async with controlled(EndpointsController):
        await asyncio.sleep(1)
        assert "subsets" not in api.find(ENDPOINTS, "web")
        await api.create(PODS, pod())
        await api.patch(PODS, "a", {"status": pod()["status"]}, "default", subresource="status")
        await asyncio.sleep(1)
        assert api.find(ENDPOINTS, "web")["subsets"][0]["addresses"][0]["ip"] == "10.0.0.2"
        assert api.find(ENDPOINT_SLICES, name)["endpoints"][0]["addresses"] == ["10.0.0.2"]
        writes = len(api.writes)
        await api.patch(PODS, "a", {"status": {"reason": "Busy"}}, "default", subresource="status")
        await asyncio.sleep(1)
        assert len(api.writes) == writes + 1
        await api.patch(ENDPOINTS, "web", {"subsets": None}, "default")  # somebody meddles
        await asyncio.sleep(1)
        assert api.find(ENDPOINTS, "web")["subsets"][0]["addresses"]
        await api.patch(PODS, "a", {"metadata": {"labels": {"app": "other"}}}, "default")
        await asyncio.sleep(1)
        assert "subsets" not in api.find(ENDPOINTS, "web")
        await api.delete(SERVICES, "web", "default")
        await asyncio.sleep(1)
        assert api.find(ENDPOINTS, "web") is None


async def test_without_a_selector_it_is_their_makers_to_fill(api, controlled):
    await api.create(SERVICES, service(selector=None))
    mine = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}]}]}  # fmt: skip
    await api.create(ENDPOINTS, mine)
    async with controlled(EndpointsController):
        await asyncio.sleep(1)
        assert api.find(ENDPOINTS, "web")["subsets"] == mine["subsets"]
        await api.delete(SERVICES, "web", "default")
        await asyncio.sleep(1)
        assert api.find(ENDPOINTS, "web") is not None
