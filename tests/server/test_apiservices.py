"""APIServices: what is served is listed, what is not any more goes, and what others name is called unavailable."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hotvirt.kube.errors import Invalid
from hotvirt.kube.resources import CRDS, Resource
from hotvirt.server.inprocess import LocalClient

API_SERVICES = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False)
Doc = dict[str, Any]


async def until(client: LocalClient, holds: Callable[[dict[str, Doc]], bool]) -> dict[str, Doc]:
    """The APIServices by name, once it holds: each look gives the keeper its turn."""
    async with asyncio.timeout(5):
        while True:
            listed = await client.list(API_SERVICES)
            found = {each["metadata"]["name"]: each for each in listed["items"]}
            if holds(found):
                return found
            await asyncio.sleep(0.005)


def available(doc: Doc) -> tuple[str, str]:
    [condition] = doc["status"]["conditions"]
    assert condition["lastTransitionTime"]
    return condition["status"], condition["reason"]


async def test_all_that_is_served_is_listed(client: LocalClient) -> None:
    found = await until(client, lambda found: "v1alpha1.example.com" in found)
    assert {"v1.", "v1.apps", "v2.autoscaling", "v1.autoscaling", "v1.authorization.k8s.io"} < found.keys()
    assert "v1.apiregistration.k8s.io" not in found
    assert {available(each) for each in found.values()} == {("True", "Local")}
    core, custom = found["v1."], found["v1.example.com"]
    assert core["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert (core["spec"]["groupPriorityMinimum"], custom["spec"]["groupPriorityMinimum"]) == (18000, 1000)
    older = found["v1alpha1.example.com"]["spec"]["versionPriority"]
    assert custom["spec"]["versionPriority"] > older


async def test_one_that_is_deleted_comes_back_and_one_of_a_deleted_crd_goes(client: LocalClient) -> None:
    before = await until(client, lambda found: "v1.example.com" in found)
    await client.delete(API_SERVICES, "v1.apps")
    uid = before["v1.apps"]["metadata"]["uid"]
    await until(client, lambda found: found.get("v1.apps", before["v1.apps"])["metadata"]["uid"] != uid)
    await client.delete(CRDS, "widgets.example.com")
    await until(client, lambda found: "v1.example.com" not in found)


async def test_one_of_somebody_elses_is_kept_and_unavailable(client: LocalClient) -> None:
    spec = {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": "metrics-server", "namespace": "kube-system"}}  # fmt: skip
    body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": spec}  # fmt: skip
    made = await client.create(API_SERVICES, body)
    assert available(made) == ("False", "NotForwarded")
    with pytest.raises(Invalid, match=r"metadata.name.*v1beta1.metrics.k8s.io"):
        await client.create(API_SERVICES, {**body, "metadata": {"name": "other"}})
    other = {**spec, "version": "v1", "groupPriorityMinimum": 0}
    with pytest.raises(Invalid, match="groupPriorityMinimum"):
        await client.create(API_SERVICES, {**body, "metadata": {"name": "v1.metrics.k8s.io"}, "spec": other})
