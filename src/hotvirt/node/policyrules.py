"""NetworkPolicies as rules. Pure.

A pod that policies select takes, or makes, only connections that one of them allows; one that none selects takes and
makes any. Connections that are established stay. Traffic between a guest and its own host is always allowed, as
Kubernetes has it, so DHCP, DNS, probes and a person at the host are not cut off. A policy that cannot be read lets
nothing through, and takes no other with it: what it was to allow is not known, what it was to keep out might be all.
"""

import hashlib
from collections.abc import Iterator
from ipaddress import IPv4Network, collapse_addresses
from typing import Any

from hotvirt.api import labelselectors
from hotvirt.kube import networkpolicies
from hotvirt.kube.client import Document
from hotvirt.kube.errors import Cause
from hotvirt.kube.networkpolicies import INGRESS
from hotvirt.node import nft
from hotvirt.node.nft import Expression, Table
from hotvirt.node.world import World, address_of, name_of

LONGEST_CHAIN = 128
Allowed = list[Expression]
"""What a packet must match, all of it, to be allowed."""


def add(table: Table, world: World, *, direction: str, chain: str) -> None:
    """Into a chain that sees each packet to (Ingress) or from (Egress) a guest. What it accepts is not looked at by
    its later rules any more."""
    policies = [each for each in world.policies if direction in types(each)]
    table.rule(chain, nft.ESTABLISHED, nft.ACCEPT)
    groups: dict[tuple[str, ...], list[str]] = {}
    for pod in world.pods:
        mine = tuple(name_of(each) for each in policies if selects(each, pod))
        if mine and (address := address_of(pod)):
            groups.setdefault(mine, []).append(address)
    used = {name for names in groups for name in names}
    for policy in policies:
        if name_of(policy) in used:
            table.chain(_chain(direction, name_of(policy)))
            for matches in allowed(policy, world, direction=direction):
                table.rule(_chain(direction, name_of(policy)), *matches, nft.ACCEPT)
    ways = []
    for names, addresses in sorted(groups.items()):
        gate = f"{direction.lower()}-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:12]}"
        table.chain(gate)
        for name in names:
            table.rule(gate, nft.jump(_chain(direction, name)))
        table.rule(gate, nft.DROP)
        ways += [(address, nft.goto(gate)) for address in sorted(addresses)]
    if ways:
        table.rule(chain, nft.verdicts(nft.DESTINATION if direction == INGRESS else nft.SOURCE, ways))


def enforced(policy: Document) -> tuple[Document, Cause | None]:
    """The policy as rules are made of it, and the first thing that is wrong with it. One with a fault lets nothing
    through, for the pods that it selects: all of its namespace when even the selector is at fault."""
    spec = policy.get("spec") or {}
    fault = _fault(spec)
    if fault is None:
        return policy, None
    spec = spec if isinstance(spec, dict) else {}
    selector = spec.get("podSelector")
    has_types = _fault({"policyTypes": spec.get("policyTypes")}) is None
    closed = {
        "podSelector": {} if _fault({"podSelector": selector}) else selector or {},
        "policyTypes": networkpolicies.types(spec) if has_types and spec else networkpolicies.TYPES,
    }
    return {**policy, "spec": closed}, fault


def _fault(spec: Any) -> Cause | None:
    try:
        return next(iter(networkpolicies.check({"spec": spec})), None)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # Of before the API server knew what a policy looks like: it may be anything.
        return Cause("FieldValueInvalid", f"Invalid value: cannot be read ({type(error).__name__}: {error})", "spec")


def types(policy: Document) -> tuple[str, ...]:
    return networkpolicies.types(policy.get("spec") or {})


def selects(policy: Document, pod: Document) -> bool:
    if pod["metadata"].get("namespace") != policy["metadata"].get("namespace"):
        return False
    return labelselectors.matches((policy.get("spec") or {}).get("podSelector") or {}, pod["metadata"].get("labels"))


def allowed(policy: Document, world: World, *, direction: str) -> Iterator[Allowed]:
    spec = policy.get("spec") or {}
    part, sides = ("ingress", "from") if direction == INGRESS else ("egress", "to")
    for rule in spec.get(part) or ():
        peers = rule.get(sides) or ()
        if not peers:
            yield from _with_ports([], rule, _receivers(policy, world, direction, None))
        by_label = [each for each in peers if not each.get("ipBlock")]
        pods = [pod for pod in world.pods if any(_is_peer(each, pod, policy, world) for each in by_label)]
        other_side = nft.SOURCE if direction == INGRESS else nft.DESTINATION
        addresses = sorted({address for pod in pods if (address := address_of(pod))})
        if addresses:
            receivers = _receivers(policy, world, direction, pods)
            yield from _with_ports([nft.equal(other_side, nft.any_of(addresses))], rule, receivers)
        for each in peers:
            if (block := each.get("ipBlock")) and (matches := _block(block, other_side)):
                yield from _with_ports(matches, rule, _receivers(policy, world, direction, None))


def _receivers(policy: Document, world: World, direction: str, peers: list[Document] | None) -> list[Document]:
    """Pods whose names of ports count: those that take the connection."""
    if direction == INGRESS:
        return [pod for pod in world.pods if selects(policy, pod)]
    return list(world.pods) if peers is None else peers


def _is_peer(peer: Document, pod: Document, policy: Document, world: World) -> bool:
    namespace, labels = pod["metadata"].get("namespace"), pod["metadata"].get("labels")
    if peer.get("podSelector") is not None and not labelselectors.matches(peer["podSelector"], labels):
        return False
    if (selector := peer.get("namespaceSelector")) is None:
        return peer.get("podSelector") is not None and bool(namespace == policy["metadata"].get("namespace"))
    named = next((each for each in world.namespaces if each["metadata"]["name"] == namespace), None)
    return named is not None and labelselectors.matches(selector, named["metadata"].get("labels"))


def _block(block: Document, side: Expression) -> Allowed:
    """Nothing for a network of IPv6, which no guest has an address of."""
    if not isinstance(whole := networkpolicies.network(block["cidr"]), IPv4Network):
        return []
    parts = (networkpolicies.network(each) for each in block.get("except") or ())
    left_out = collapse_addresses(each for each in parts if isinstance(each, IPv4Network))
    excepted = [nft.prefix(str(each)) for each in left_out]
    without = [nft.differs(side, nft.any_of(excepted))] if excepted else []
    return [nft.equal(side, nft.prefix(str(whole))), *without]


def _with_ports(matches: Allowed, rule: Document, receivers: list[Document]) -> Iterator[Allowed]:
    ports = rule.get("ports") or ()
    if not ports:
        yield matches
    for port in ports:
        protocol, wanted, last = str(port.get("protocol") or "TCP"), port.get("port"), port.get("endPort")
        of_protocol = nft.equal(nft.PROTOCOL, protocol.lower())
        if wanted is None:
            yield [*matches, of_protocol]
        elif isinstance(wanted, int):
            number = {"range": [wanted, int(last)]} if last and int(last) > wanted else wanted
            yield [*matches, of_protocol, nft.equal(nft.PORT, number)]
        else:
            for number, addresses in sorted(_named(wanted, protocol, receivers).items()):
                there = nft.equal(nft.DESTINATION, nft.any_of(sorted(addresses)))
                yield [*matches, there, of_protocol, nft.equal(nft.PORT, number)]


def _named(name: str, protocol: str, receivers: list[Document]) -> dict[int, set[str]]:
    """Number of a port of that name -> the pods where it is that."""
    found: dict[int, set[str]] = {}
    for pod in receivers:
        for container in (pod.get("spec") or {}).get("containers") or ():
            for port in container.get("ports") or ():
                if port.get("name") == name and (port.get("protocol") or "TCP") == protocol and address_of(pod):
                    found.setdefault(int(port["containerPort"]), set()).add(address_of(pod))
    return found


def _chain(direction: str, policy: str) -> str:
    """No chain's name is as long as a policy's may be. One that is shortened has no slash, so it is no other's."""
    name = f"{direction.lower()}-policy-{policy}"
    if len(name) <= LONGEST_CHAIN:
        return name
    return f"{direction.lower()}-policy-{hashlib.sha256(policy.encode()).hexdigest()[:32]}"
