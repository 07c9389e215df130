"""Events, leases, revisions, priorities and endpoints: every fault by its field, and what is there from the start."""

from typing import Any

import pytest

from hotvirt.kube.errors import Forbidden
from hotvirt.kube.resources import NAMESPACES, PODS, Resource
from hotvirt.server import bookkeeping_checks, kinds
from hotvirt.server.inprocess import LocalClient

Doc = dict[str, Any]
PRIORITIES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
EVENT = {
    "apiVersion": "events.k8s.io/v1", "regarding": {"namespace": "n", "name": "p"}, "eventTime": "2026-01-01T00:00:00Z",
    "type": "Normal", "reason": "Started", "action": "Start", "reportingController": "example.com/c",
    "reportingInstance": "c-1", "note": "well",
}  # fmt: skip
SLICE = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "a", "port": 1}]}
SUBSET = {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}


def faults(store: str, new: Doc, old: Doc | None = None, *, name: str = "x", namespace: str = "n") -> set[str]:
    check = kinds.for_kind(store).check
    assert check is not None
    meta = {"metadata": {"name": name, "namespace": namespace}}
    return {cause.field for cause in check({**new, **meta}, {**old, **meta} if old is not None else None)}


@pytest.mark.parametrize(
    ("store", "doc", "wanted"),
    [
        ("/events", EVENT, set()),
        ("/events", {"apiVersion": "events.k8s.io/v1", "regarding": {"namespace": "n"}},
         {"eventTime", "reportingController", "reportingInstance", "action", "reason", "type"}),
        ("/events", {**EVENT, "note": "x" * 1025, "action": "x" * 129, "type": "Odd", "deprecatedCount": 2},
         {"note", "action", "type", "deprecatedCount"}),
        ("/events", {**EVENT, "regarding": {"namespace": "other"}}, {"regarding.namespace"}),
        ("/events", {**EVENT, "reportingController": "no good!"}, {"reportingController"}),
        ("/events", {"involvedObject": {"kind": "Node", "name": "one"}}, {"involvedObject.namespace"}),
        ("/events", {"involvedObject": {"namespace": "n"}}, set()),
        ("coordination.k8s.io/leases", {"spec": {"leaseDurationSeconds": 15, "leaseTransitions": 0}}, set()),
        ("coordination.k8s.io/leases", {"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}},
         {"spec.leaseDurationSeconds", "spec.leaseTransitions"}),
        ("apps/controllerrevisions", {"revision": 1, "data": {}}, set()),
        ("apps/controllerrevisions", {"revision": -1}, {"data", "revision"}),
        ("scheduling.k8s.io/priorityclasses", {"value": 10**9, "preemptionPolicy": "Never"}, set()),
        ("scheduling.k8s.io/priorityclasses", {"value": 10**9 + 1, "preemptionPolicy": "Maybe"},
         {"value", "preemptionPolicy"}),
        ("/endpoints", {"subsets": [SUBSET]}, set()),
        ("/endpoints", {"subsets": [{"ports": [{"port": 80}]}, "x"]}, {"subsets[0]", "subsets[1]"}),
        ("/endpoints", {"subsets": [{"addresses": [{"ip": "x"}], "ports": [{"port": 0}, {"port": 1, "name": "a",
                                                                                        "protocol": "ICMP"}]}]},
         {"subsets[0].addresses[0].ip", "subsets[0].ports[0].port", "subsets[0].ports[0].name",
          "subsets[0].ports[1].protocol"}),
        ("discovery.k8s.io/endpointslices", SLICE, set()),
        ("discovery.k8s.io/endpointslices", {"addressType": "IPX", "endpoints": [{}]},
         {"addressType", "endpoints[0].addresses"}),
        ("discovery.k8s.io/endpointslices", {**SLICE, "endpoints": [{"addresses": ["fd00::1"]}],
                                             "ports": [{"name": "a", "port": 70000}, {"name": "a"}]},
         {"endpoints[0].addresses[0]", "ports[0].port", "ports[1].name"}),
        ("discovery.k8s.io/endpointslices", {"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]}, set()),
    ],
)  # fmt: skip
def test_faults(store: str, doc: Doc, wanted: set[str]) -> None:
    assert faults(store, doc) == wanted


@pytest.mark.parametrize(
    ("store", "old", "new", "wanted"),
    [
        ("/events", EVENT, {**EVENT, "series": {"count": 2}}, set()),
        ("/events", EVENT, {**EVENT, "note": "else", "reason": "Other"}, {"note", "reason"}),
        ("apps/controllerrevisions", {"data": {"a": 1}, "revision": 1}, {"data": {"a": 2}, "revision": 2}, {"data"}),
        ("scheduling.k8s.io/priorityclasses", {"value": 1}, {"value": 2}, {"value"}),
        ("discovery.k8s.io/endpointslices", SLICE, {**SLICE, "addressType": "FQDN"}, {"addressType"}),
    ],
)
def test_what_stays(store: str, old: Doc, new: Doc, wanted: set[str]) -> None:
    assert faults(store, new, old) == wanted


def test_names_of_the_systems_priorities_are_its_own() -> None:
    check = "scheduling.k8s.io/priorityclasses"
    assert faults(check, {"value": 5}, name="system-mine") == {"metadata.name"}
    for each in bookkeeping_checks.priority_classes():
        assert faults(check, each, name=each["metadata"]["name"]) == set()


async def test_what_is_there_from_the_start_and_stays(client: LocalClient) -> None:
    listed = (await client.list(PRIORITIES))["items"]
    found = {each["metadata"]["name"]: each["value"] for each in listed}
    assert found == {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
    for resource, name in ((PRIORITIES, "system-node-critical"), (NAMESPACES, "default"), (NAMESPACES, "kube-public")):
        with pytest.raises(Forbidden, match="be deleted"):
            await client.delete(resource, name)
    spec = {"priorityClassName": "system-node-critical", "containers": [{"name": "c", "image": "i"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    assert (await client.create(PODS, pod, "default"))["spec"]["priority"] == 2_000_001_000


async def test_one_priority_is_everybodys(client: LocalClient) -> None:
    def named(name: str) -> Doc:
        head = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        return {**head, "value": 5, "globalDefault": True}

    made = await client.create(PRIORITIES, named("a"))
    assert made["preemptionPolicy"] == "PreemptLowerPriority"
    with pytest.raises(Forbidden, match="a is already marked as default"):
        await client.create(PRIORITIES, named("b"))
    await client.patch(PRIORITIES, "a", {"metadata": {"labels": {"x": "y"}}})
