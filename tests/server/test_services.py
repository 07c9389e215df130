"""Services: what they are given, what they keep, and what cannot be had."""

import asyncio
from ipaddress import IPv4Network
from typing import Any

import pytest

from hotvirt.kube.admission import User
from hotvirt.kube.errors import Invalid
from hotvirt.kube.resources import Resource
from hotvirt.server import serviceaddresses, services
from hotvirt.server.app import ApiServer
from hotvirt.server.inprocess import LocalClient
from hotvirt.server.keys import Key
from hotvirt.server.services import Ranges, Taken

Doc = dict[str, Any]
SERVICES = Resource("", "v1", "services", "Service")
SMALL = Ranges(addresses=IPv4Network("10.1.0.0/28"), first_port=30000, last_port=30001)


def service(name: str = "s", **spec: Any) -> Doc:
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80}], **spec},
    }  # fmt: skip


def faults(doc: Doc, old: Doc | None = None) -> set[str]:
    return {cause.field for cause in services.check(services.complete(doc, lambda _: ()), old)}


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({}, set()),
        ({"ports": []}, {"spec.ports"}),
        ({"ports": [], "clusterIP": "None"}, set()),
        ({"type": "ExternalName", "ports": []}, {"spec.externalName"}),
        ({"type": "ExternalName", "externalName": "db.example.com", "ports": []}, set()),
        ({"type": "ExternalName", "externalName": "No!", "ports": []}, {"spec.externalName"}),
        ({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.9"}, {"spec.clusterIPs"}),
        ({"clusterIP": "ten"}, {"spec.clusterIPs[0]"}),
        ({"clusterIP": "None", "type": "NodePort"}, {"spec.clusterIPs[0]"}),
        ({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.8"]}, {"spec.clusterIPs"}),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, {"spec.ports[0].nodePort"}),
        ({"ports": [{"port": 80, "targetPort": 0}]}, set()),
        ({"ports": [{"port": 80, "targetPort": 70000}]}, {"spec.ports[0].targetPort"}),
        ({"ports": [{"port": 80, "targetPort": "-"}]}, {"spec.ports[0].targetPort"}),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "a"}]}, {"spec.ports[1]", "spec.ports[1].name"}),
        ({"ports": [{"port": 53, "name": "a"}, {"port": 53, "name": "b", "protocol": "UDP"}]}, set()),
        ({"sessionAffinity": "Maybe"}, {"spec.sessionAffinity"}),
        ({"externalTrafficPolicy": "Local"}, {"spec.externalTrafficPolicy"}),
        ({"ipFamilies": ["IPv6"]}, {"spec.ipFamilies[0]"}),
        ({"ipFamilyPolicy": "RequireDualStack"}, {"spec.ipFamilyPolicy"}),
        ({"loadBalancerClass": "x/y"}, {"spec.loadBalancerClass"}),
        ({"selector": {"a": "b c"}}, {"spec.selector.a"}),
        ({"externalIPs": ["x"]}, {"spec.externalIPs[0]"}),
    ],
)
def test_faults_by_field(spec: Doc, fields: set[str]) -> None:
    assert faults(service(**spec)) == fields


def allot(doc: Doc, old: Doc | None = None, *, taken: Taken | None = None, at: int = 0) -> tuple[Doc, set[str]]:
    filled = services.complete(doc, lambda _: ())
    new, causes = services.allot(filled, old, taken or Taken(set(), set()), SMALL, lambda below: min(at, below - 1))
    return new["spec"], {f"{cause.field}: {cause.message}" for cause in causes}


def test_an_address_from_the_upper_part_then_from_the_rest_then_none() -> None:
    everything = {f"10.1.0.{number}" for number in range(1, 15)}
    spec, _ = allot(service())
    assert spec["clusterIP"] == "10.1.0.14"
    assert (spec["clusterIPs"], spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["10.1.0.14"], ["IPv4"], "SingleStack")
    spec, _ = allot(service(), taken=Taken({"10.1.0.14"}, set()))
    assert spec["clusterIP"] == "10.1.0.1"
    _, causes = allot(service(), taken=Taken(everything, set()))
    assert "all addresses of 10.1.0.0/28 are in use" in causes.pop()


@pytest.mark.parametrize(
    ("wished", "why"),
    [("10.1.0.5", "already allocated"), ("192.168.0.1", "valid IPs is 10.1.0.0/28"), ("10.1.0.0", "first or the last")],
)
def test_an_address_that_cannot_be_had(wished: str, why: str) -> None:
    _, causes = allot(service(clusterIP=wished), taken=Taken({"10.1.0.5"}, set()))
    assert why in causes.pop()


def test_node_ports() -> None:
    two = [{"port": 1, "name": "a"}, {"port": 2, "name": "b", "nodePort": 30000}]
    spec, causes = allot(service(type="NodePort", ports=two))
    assert ([port["nodePort"] for port in spec["ports"]], causes) == ([30001, 30000], set())
    _, causes = allot(service(type="NodePort", ports=two), taken=Taken(set(), {30000}))
    assert causes == {"spec.ports[1].nodePort: Invalid value: 30000: provided port is already allocated"}
    _, causes = allot(service(type="NodePort", ports=[{"port": 1, "nodePort": 22}]))
    assert "The range of valid ports is 30000-30001" in causes.pop()
    _, causes = allot(service(type="NodePort"), taken=Taken(set(), {30000, 30001}))
    assert "all node ports are in use" in causes.pop()


async def test_what_was_allotted_is_kept_and_given_back(client: LocalClient) -> None:
    made = await client.create(SERVICES, service(), "default")
    address = made["spec"]["clusterIP"]
    bare = {**service(), "metadata": {"name": "s", "namespace": "default"}}
    assert (await client.update(SERVICES, bare))["spec"]["clusterIP"] == address
    with pytest.raises(Invalid, match="may not change once set"):
        await client.patch(SERVICES, "s", {"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}}, "default")
    opened = await client.patch(SERVICES, "s", {"spec": {"type": "NodePort"}}, "default")
    number = opened["spec"]["ports"][0]["nodePort"]
    assert 30000 <= number <= 32767
    assert (await client.update(SERVICES, {**bare, "spec": {**bare["spec"], "type": "NodePort"}}))["spec"]["ports"][0][
        "nodePort"
    ] == number
    with pytest.raises(Invalid, match="already allocated"):
        await client.create(SERVICES, service("t", clusterIP=address), "default")
    ports = [{"port": 1, "nodePort": number}]
    with pytest.raises(Invalid, match="already allocated"):
        await client.create(SERVICES, service("t", type="NodePort", ports=ports), "default")
    closed = await client.patch(SERVICES, "s", {"spec": {"type": "ClusterIP"}}, "default")
    assert "nodePort" not in closed["spec"]["ports"][0]
    named = {"type": "ExternalName", "externalName": "a.example"}
    away = await client.patch(SERVICES, "s", {"spec": named}, "default")
    assert not {"clusterIP", "clusterIPs", "ipFamilies"} & away["spec"].keys()
    again = await client.create(SERVICES, service("t", clusterIP=address), "default")
    assert again["spec"]["clusterIP"] == address


async def test_no_two_get_the_same_at_once(client: LocalClient) -> None:
    asked = (client.create(SERVICES, service(f"s{n}", type="NodePort"), "default") for n in range(60))
    made = await asyncio.gather(*asked)
    assert len({each["spec"]["clusterIP"] for each in made}) == 60
    assert len({each["spec"]["ports"][0]["nodePort"] for each in made}) == 60


async def test_services_from_before_there_were_addresses_get_theirs(client: LocalClient, server: ApiServer) -> None:
    made = await client.create(SERVICES, service(), "default")
    older = {**made, "spec": {"type": "ClusterIP", "ports": made["spec"]["ports"]}, "metadata": {**made["metadata"]}}
    await server.store.put(Key("/services", "default", "s"), older)
    assert "clusterIP" not in (await client.get(SERVICES, "s", "default"))["spec"]
    await serviceaddresses.complete_older(server.verbs, User("system:apiserver", ()))
    given = (await client.get(SERVICES, "s", "default"))["spec"]
    assert given["clusterIPs"] == [given["clusterIP"]]
