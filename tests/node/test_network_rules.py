"""What nftables and the name server are told, as pure functions of the objects.

The rules of each case are in `golden/`; after a change that is meant, write them anew and read the difference:
`GOLDEN=write pytest tests/node/test_network_rules.py`. That they do what they are for is asked in
tests/node/test_dataplane_root.py.
"""

import json
import os
import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from hotvirt.node import dataplane, dnsnames, nft, policyrules, rules
from hotvirt.node.rules import Place
from hotvirt.node.world import SERVICE_NETWORK, World
from hotvirt.server.services import Ranges

GOLDEN = Path(__file__).parent / "golden"
SUBNET = IPv4Network("10.213.0.0/20")
TAPS = {"hv0-a0": Place("02:00:00:00:00:01", "10.213.0.2"), "hv0-b0": Place("02:00:00:00:00:02", "10.213.0.3")}


def pod(name, address, namespace="default", *, port=8080, **labels):
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubevirt.io/created-by": name, **labels}},
        "spec": {"hostname": name, "containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"podIP": address, "phase": "Running"},
    }


PODS = (
    pod("a", "10.213.0.2", app="a"),
    pod("b", "10.213.0.3", app="b", port=8081),
    pod("c", "10.213.0.4", "other", app="c"),
    {**pod("gone", "10.213.0.2", app="a"), "status": {"podIP": "10.213.0.2", "phase": "Succeeded"}},
)
NAMESPACES = tuple({"metadata": {"name": n, "labels": {"team": n}}} for n in ("default", "other"))


def service(name, address="10.96.0.7", **spec):
    ports = [
        {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": address, "ports": ports, **spec}}


def behind(name, *endpoints):
    return {
        "metadata": {"name": f"{name}-1", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def endpoint(address, *, ready=True, **more):
    return {"addresses": [address], "conditions": {"ready": ready}, **more}


READY = behind("web", endpoint("10.213.0.3"), endpoint("10.213.0.2"), endpoint("10.213.0.9", ready=False))


def policy(name, select, **spec):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"podSelector": select, **spec}}


BY_LABEL = [{"podSelector": {"matchLabels": {"app": "b"}}}, {"namespaceSelector": {"matchLabels": {"team": "other"}}}]
BLOCK = [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]
POLICIES = (
    policy("deny", {}, policyTypes=["Ingress", "Egress"]),
    policy(
        "open", {"matchLabels": {"app": "a"}},
        ingress=[{"from": BY_LABEL, "ports": [{"port": "http"}, {"port": 90, "endPort": 99, "protocol": "UDP"}]}],
        egress=[{"to": BLOCK}, {"ports": [{"protocol": "UDP"}, {"port": "http"}]}],
    ),
)  # fmt: skip
LISTED = {"name": "default", "masquerade": {}, "ports": [{"port": 8080}, {"port": 53, "protocol": "UDP"}]}
INSTANCE = {"metadata": {"uid": "a", "name": "a"}, "spec": {"domain": {"devices": {"interfaces": [LISTED]}}}}
WORLDS = {
    "guests": World(),
    "service": World(services=(service("web"),), slices=(READY,)),
    "sticky": World(services=(service("web", sessionAffinity="ClientIP"),), slices=(READY,)),
    "policies": World(pods=PODS, namespaces=NAMESPACES, policies=POLICIES),
    "ports": World(pods=PODS, instances=(INSTANCE,)),
}


def ruleset(world):
    return rules.ruleset("hotvirt", "hv0-", SUBNET, taps=TAPS, world=world)


@pytest.mark.parametrize("case", WORLDS)
def test_rules(case):
    found, file = ruleset(WORLDS[case]), GOLDEN / f"rules-{case}.json"
    # A command a line: a difference is then one of rules.
    text = "[\n" + ",\n".join(json.dumps(each) for each in found["nftables"]) + "\n]\n"
    if os.environ.get("GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def understood(world, tmp_path):
    """By nft itself."""
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(ruleset(world)))
    told = subprocess.run(["nft", "-c", "-j", "-f", file], capture_output=True, text=True, timeout=20, check=False)
    if "Operation not permitted" in told.stderr:
        pytest.skip("nft looks at rules for root only")
    assert told.returncode == 0, told.stderr


with_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")


@with_nft
def test_nft_understands_the_rules(tmp_path):
    everything = World(
        services=(service("web"),), slices=(READY,), pods=PODS, namespaces=NAMESPACES, policies=POLICIES,
        instances=(INSTANCE,),
    )  # fmt: skip
    understood(everything, tmp_path)


def test_our_tables_are_replaced_and_no_other_is_touched():
    commands = ruleset(WORLDS["service"])["nftables"]
    tables = {(part.get("table") or part["name"]) for each in commands for of in each.values() for part in of.values()}
    assert tables == {"hotvirt"}
    for family in ("inet", "arp"):
        table = {"table": {"family": family, "name": "hotvirt"}}
        start = commands.index({"delete": table})
        assert commands[start - 1 : start + 2] == [{"add": table}, {"delete": table}, {"add": table}]


def test_a_new_guest_is_let_in_beside_the_others():
    commands = rules.admission("hotvirt", "hv0-c0", Place("02:00:00:00:00:03", "10.213.0.4"))["nftables"]
    assert all("add" in each and "table" not in each["add"] for each in commands)
    verdicts = [each["add"]["element"]["elem"] for each in commands if "element" in each["add"]]
    assert verdicts == [[["hv0-c0", {"goto": {"target": "from-hv0-c0"}}]]] * 2


def test_a_policy_without_types_is_about_what_comes_in_and_about_what_goes_out_if_it_says_so():
    assert policyrules.types(policy("p", {})) == ("Ingress",)
    assert policyrules.types(policy("p", {}, egress=[{}])) == ("Ingress", "Egress")
    assert policyrules.types(policy("p", {}, policyTypes=["Egress"])) == ("Egress",)


def test_a_policy_of_another_namespace_selects_nobody_here():
    there = {**policy("p", {}), "metadata": {"name": "p", "namespace": "other"}}
    assert [each["metadata"]["name"] for each in PODS if policyrules.selects(there, each)] == ["c"]


def bad_port(**port):
    return policy("bad", {"matchLabels": {"app": "a"}}, ingress=[{"ports": [port]}])


UNREADABLE = {  # a policy of an older version's store -> its first fault
    "port": (bad_port(port=70000), "spec.ingress[0].ports[0].port"),
    "truth": (bad_port(port=True), "spec.ingress[0].ports[0].port"),
    "protocol": (bad_port(port=80, protocol="FOO"), "spec.ingress[0].ports[0].protocol"),
    "range": (bad_port(port="http", endPort=90), "spec.ingress[0].ports[0].endPort"),
    "except": (
        policy("bad", {"matchLabels": {"app": "a"}}, ingress=[
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.213.0/20"]}}]}
        ]), "spec.ingress[0].from[0].ipBlock.except[0]",
    ),
    "shape": (policy("bad", {"matchLabels": {"app": "a"}}, ingress="all"), "spec"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_policy_that_cannot_be_read_closes_what_it_selects_and_nothing_else(case, tmp_path):
    bad, field = UNREADABLE[case]
    read, fault = policyrules.enforced(bad)
    assert fault.field == field
    assert read["spec"] == {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ("Ingress",)}
    assert list(policyrules.allowed(read, World(pods=PODS), direction="Ingress")) == []
    if shutil.which("nft"):
        understood(World(pods=PODS, namespaces=NAMESPACES, policies=(read, *POLICIES)), tmp_path)


@pytest.mark.parametrize(
    ("spec", "closed"),
    [
        ({"podSelector": {"matchExpressions": [{"operator": "Exists"}]}}, ("Ingress",)),
        ({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}, "egress": [{}]},
         ("Ingress", "Egress")),
        ({"podSelector": ["app"], "policyTypes": ["Egress"]}, ("Egress",)),
        ({"policyTypes": ["Outward"]}, ("Ingress", "Egress")),
        ({"policyTypes": "Egress"}, ("Ingress", "Egress")),
        ("closed", ("Ingress", "Egress")),
    ],
    ids=str,
)  # fmt: skip
def test_a_policy_whose_pods_are_not_known_closes_its_namespace(spec, closed):
    read, fault = policyrules.enforced({"metadata": {"name": "bad", "namespace": "default"}, "spec": spec})
    assert fault is not None
    assert policyrules.types(read) == closed
    assert [each["metadata"]["name"] for each in PODS if policyrules.selects(read, each)] == ["a", "b", "gone"]


def test_a_good_policy_is_as_it_is():
    assert [policyrules.enforced(each) for each in POLICIES] == [(each, None) for each in POLICIES]


@with_nft
def test_a_policy_may_have_the_longest_name(tmp_path):
    names = [f"{end}{'a.' * 126}a" for end in "bc"]
    long = [policy(name, {"matchLabels": {"app": "a"}}, ingress=[{}], policyTypes=["Ingress"]) for name in names]
    world = World(pods=PODS, policies=tuple(long))
    understood(world, tmp_path)
    commands = [each["add"] for each in ruleset(world)["nftables"] if "add" in each]
    chains = {each["chain"]["name"] for each in commands if "chain" in each}
    assert len({name for name in chains if name.startswith("ingress-policy-")}) == 2


@with_nft
def test_blocks_that_are_left_out_may_overlap(tmp_path):
    block = {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32"]}
    world = World(pods=PODS, policies=(policy("p", {}, ingress=[{"from": [{"ipBlock": block}]}]),))
    understood(world, tmp_path)
    assert '"addr": "10.1.0.0"' not in json.dumps(ruleset(world))


def test_services_addresses_are_those_that_the_api_gives():
    assert Ranges().addresses == SERVICE_NETWORK


def test_names():
    headless = service("all", "None")
    members = behind("all", endpoint("10.213.0.2", hostname="one"), endpoint("10.213.0.3", ready=False))
    outside = {"metadata": {"name": "out", "namespace": "default"}, "spec": {"type": "ExternalName"}}
    world = World(services=(service("web"), headless, outside), slices=(members,), pods=PODS)
    assert dnsnames.hosts(world).splitlines() == [
        "10.213.0.2 10-213-0-2.default.pod.cluster.local",
        "10.213.0.2 a.default.pod.cluster.local",
        "10.213.0.2 all.default.svc.cluster.local",
        "10.213.0.2 one.all.default.svc.cluster.local",
        "10.213.0.3 10-213-0-3.default.pod.cluster.local",
        "10.213.0.3 b.default.pod.cluster.local",
        "10.213.0.4 10-213-0-4.other.pod.cluster.local",
        "10.213.0.4 c.other.pod.cluster.local",
        "10.96.0.7 web.default.svc.cluster.local",
    ]


def test_what_changes_all_the_time_changes_no_rule():
    before = {**pod("a", "10.213.0.2"), "kind": "Pod"}
    after = {**before, "status": {**before["status"], "conditions": [{"type": "Ready"}]}}
    assert dataplane.matters("Pod", before) == dataplane.matters("Pod", after)
    container = {"name": "compute", "resources": {"requests": {"memory": "1Gi"}}}
    for given in ({}, {"ports": [{"name": "http", "containerPort": 80}]}):
        one = {**before, "spec": {"hostname": "a", "containers": [{**container, **given}]}}
        grown = {**container, **given, "resources": {"requests": {"memory": "2Gi"}}}
        assert dataplane.matters("Pod", one) == dataplane.matters(
            "Pod", {**one, "spec": {**one["spec"], "containers": [grown]}}
        )
        assert dataplane.matters("Pod", one)["spec"]["containers"] == ([given] if given else [])
    moved = {**before, "status": {**before["status"], "podIP": "10.213.0.5"}}
    assert dataplane.matters("Pod", before) != dataplane.matters("Pod", moved)


def test_an_empty_map_is_no_rule():
    assert not any(
        "vmap" in json.dumps(each) and '"set": []' in json.dumps(each) for each in ruleset(World())["nftables"]
    )
    assert nft.removal("inet", "x") == [
        {verb: {"table": {"family": "inet", "name": "x"}}} for verb in ("add", "delete")
    ]
