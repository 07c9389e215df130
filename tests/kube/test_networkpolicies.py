"""What a NetworkPolicy may not say: every fault, by its field, in the API server's words."""

import pytest

from hotvirt.kube import networkpolicies


def said(**spec):
    return {cause.field: cause.message for cause in networkpolicies.check({"spec": spec})}


def ports(*found):
    return {"ingress": [{"ports": list(found)}]}


def peers(*found):
    return {"egress": [{"to": list(found)}]}


PORT, PEER, SELECTOR = "spec.ingress[0].ports[0]", "spec.egress[0].to[0]", "spec.podSelector"
ONE_OF = 'supported values: "SCTP", "TCP", "UDP"'


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (ports({"port": 0}), {f"{PORT}.port": "Invalid value: 0: must be between 1 and 65535, inclusive"}),
        (ports({"port": 70000}), {f"{PORT}.port": "Invalid value: 70000: must be between 1 and 65535, inclusive"}),
        (ports({"protocol": "FOO"}), {f"{PORT}.protocol": f'Unsupported value: "FOO": {ONE_OF}'}),
        (ports({"port": 9, "endPort": 8}),
         {f"{PORT}.endPort": "Invalid value: 8: must be greater than or equal to `port`"}),
        (ports({"port": 9, "endPort": 65536}),
         {f"{PORT}.endPort": "Invalid value: 65536: must be between 1 and 65535, inclusive"}),
        (ports({"port": "http", "endPort": 99}),
         {f"{PORT}.endPort": "Invalid value: 99: may not be specified when `port` is non-numeric"}),
        (ports({"endPort": 99}), {f"{PORT}.port": "Required value: must be specified when `endPort` is specified"}),
        (ports({"port": "no name"}),
         {f"{PORT}.port": 'Invalid value: "no name": a port\'s name has at most 15 of a-z, 0-9 and "-", and a letter'}),
        (peers({}), {PEER: "Required value: must specify a peer"}),
        (peers({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
         {PEER: "Forbidden: may not specify both ipBlock and another peer"}),
        (peers({"ipBlock": {"cidr": ""}}), {f"{PEER}.ipBlock.cidr": "Required value"}),
        (peers({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}),
         {f"{PEER}.ipBlock.except[0]": 'Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`'}),
        (peers({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "fd00::/8"]}}),
         {f"{PEER}.ipBlock.except[1]": 'Invalid value: "fd00::/8": must be a strict subset of `cidr`'}),
        ({"policyTypes": ["ingress"]},
         {"spec.policyTypes[0]": 'Unsupported value: "ingress": supported values: "Ingress", "Egress"'}),
        ({"podSelector": {"matchExpressions": [{"operator": "Exists"}]}},
         {f"{SELECTOR}.matchExpressions[0].key": "Required value"}),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
         {f"{SELECTOR}.matchExpressions[0].values":
          "Required value: must be specified when `operator` is 'In' or 'NotIn'"}),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
         {f"{SELECTOR}.matchExpressions[0].values":
          "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"}),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is", "values": ["b"]}]}},
         {f"{SELECTOR}.matchExpressions[0].operator":
          'Invalid value: "Is": not a valid selector operator: use In, NotIn, Exists, DoesNotExist'}),
    ],
    ids=lambda value: " ".join(value)[:70] if isinstance(value, dict) else None,
)  # fmt: skip
def test_each_fault_is_told_by_its_field(spec, wanted):
    assert said(**spec) == wanted


@pytest.mark.parametrize("cidr", ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/255.0.0.0", "lan", "fd00::/129"])
def test_what_is_no_block_of_addresses(cidr):
    assert list(said(**peers({"ipBlock": {"cidr": cidr}}))) == [f"{PEER}.ipBlock.cidr"]
    inside = {"cidr": "0.0.0.0/0", "except": [cidr]}
    assert list(said(**peers({"ipBlock": inside}))) == [f"{PEER}.ipBlock.except[0]"]


@pytest.mark.parametrize(
    "selector",
    [{"matchLabels": {"A/b": "c"}}, {"matchLabels": {"a": "b c"}}, {"matchLabels": {"a" * 64: ""}}],
    ids=str,
)
def test_labels_that_nothing_can_have(selector):
    for spec, at in (
        ({"podSelector": selector}, SELECTOR),
        (peers({"podSelector": selector}), f"{PEER}.podSelector"),
        (peers({"namespaceSelector": selector}), f"{PEER}.namespaceSelector"),
    ):
        found = said(**spec)
        assert len(found) == 1
        assert next(iter(found)).startswith(f"{at}.matchLabels")


def test_every_fault_is_found():
    both = {**ports({"port": 0}, {"port": 80}, {"protocol": "X"}), **peers({"podSelector": {}}, {})}
    assert set(said(**both)) == {
        "spec.ingress[0].ports[0].port", "spec.ingress[0].ports[2].protocol", "spec.egress[0].to[1]",
    }  # fmt: skip


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"podSelector": {}},
        ports({}, {"port": 1, "endPort": 65535}, {"port": 5, "endPort": 5}, {"port": "http", "protocol": "SCTP"}),
        peers({"podSelector": {"matchLabels": {"example.com/a": ""}}, "namespaceSelector": {}}),
        peers({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.1.0.0/16"]}}),
        peers({"ipBlock": {"cidr": "10.1.2.3/8"}}, {"ipBlock": {"cidr": "fd00::/8", "except": ["fd00:1::/32"]}}),
        {"ingress": [{}], "egress": [], "policyTypes": ["Ingress", "Egress"]},
    ],
    ids=lambda spec: str(spec)[:60],
)
def test_what_is_good(spec):
    assert said(**spec) == {}


def test_its_types_are_filled_in():
    assert networkpolicies.complete({})["spec"] == {"policyTypes": ["Ingress"]}
    assert networkpolicies.complete({"spec": {"egress": [{}]}})["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert networkpolicies.complete({"spec": {"policyTypes": ["Egress"]}})["spec"] == {"policyTypes": ["Egress"]}
