"""Services: defaults, what may be said and changed, and which addresses and node ports are theirs. Pure.

`complete` and `carried` come before the checks, `allot` after them, under a lock, with what others have. Nothing here
routes anything: an address that is allotted is only promised to nobody else.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any

from msgspec import Struct

from hotvirt.kube.errors import Cause
from hotvirt.server.kind_checks import unsupported
from hotvirt.server.objectmeta import FORBIDDEN, INVALID, REQUIRED

Document = dict[str, Any]
STORE = "/services"
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PROTOCOLS = ("SCTP", "TCP", "UDP")
HEADLESS = "None"
STICKY_SECONDS = 10800
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_PORT_NAME = re.compile(r"(?=.{1,15}\Z)(?=[-0-9]*[a-z])[a-z0-9]+(-[a-z0-9]+)*\Z")
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL_VALUE = re.compile(r"(?=.{0,63}\Z)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")


class Ranges(Struct, frozen=True, kw_only=True):
    """Where addresses and node ports come from. `first_port` to `last_port`, both included."""

    addresses: IPv4Network = IPv4Network("10.96.0.0/16")
    first_port: int = 30000
    last_port: int = 32767


class Taken(Struct):
    """What other services have."""

    addresses: set[str]
    ports: set[int]


# -- defaults


def complete(doc: Document, _: Callable[[str], Iterable[Document]]) -> Document:
    spec = dict(doc.get("spec") or {})
    kind = spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        spec.setdefault("sessionAffinityConfig", {"clientIP": {"timeoutSeconds": STICKY_SECONDS}})
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if isinstance(spec.get("ports"), list):
        spec["ports"] = [_port(each) for each in spec["ports"]]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    doc = {**doc, "spec": spec}
    doc.setdefault("status", {"loadBalancer": {}})
    return doc


def _port(port: Any) -> Any:
    if not isinstance(port, dict) or "port" not in port:
        return port
    given = {k: v for k, v in port.items() if not (k in ("nodePort", "targetPort") and v in (0, ""))}
    return {"protocol": "TCP", "targetPort": port["port"], **given}


def carried(new: Document, old: Document) -> Document:
    """An update that leaves out what was allotted keeps it; what a new type has no use for goes, if it is unchanged."""
    if not isinstance(new.get("spec"), dict):
        return new
    spec, before = dict(new["spec"]), old.get("spec") or {}
    kind, was = spec.get("type", "ClusterIP"), before.get("type", "ClusterIP")
    if kind != "ExternalName" and was != "ExternalName":
        if not spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec |= {key: before[key] for key in ("clusterIP", "clusterIPs") if key in before}
        for key in ("ipFamilies", "ipFamilyPolicy"):
            if key not in spec and key in before:
                spec[key] = before[key]
    if kind == "ExternalName" != was:
        _drop(spec, before, ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"))
    has_ports = ("NodePort", "LoadBalancer")
    keep = kind in has_ports and was in has_ports
    if isinstance(spec.get("ports"), list):
        spec["ports"] = _carried_ports(spec["ports"], before.get("ports") or (), keep=keep)
    if kind not in has_ports and was in has_ports:
        _drop(spec, before, ("externalTrafficPolicy", "healthCheckNodePort"))
    if kind != "LoadBalancer" and was == "LoadBalancer":
        _drop(spec, before, ("allocateLoadBalancerNodePorts", "loadBalancerClass"))
    return {**new, "spec": spec}


def _carried_ports(ports: list[Any], before: Iterable[Any], *, keep: bool) -> list[Any]:
    known = {(p.get("protocol", "TCP"), p.get("port")): p.get("nodePort") for p in before}
    result = []
    for port in ports:
        if isinstance(port, dict):
            had = known.get((port.get("protocol", "TCP"), port.get("port")))
            if keep and had and not port.get("nodePort"):
                port = {**port, "nodePort": had}
            elif not keep and port.get("nodePort") and port["nodePort"] in known.values():
                port = {k: v for k, v in port.items() if k != "nodePort"}
        result.append(port)
    return result


def _drop(spec: Document, before: Document, keys: Iterable[str]) -> None:
    for key in keys:
        if key in spec and spec[key] == before.get(key):
            del spec[key]


# -- faults


def check(new: Document, old: Document | None) -> list[Cause]:
    spec = new.get("spec") or {}
    kind = spec.get("type")
    causes: list[Cause] = [] if kind in TYPES else [unsupported(kind, TYPES, "spec.type")]
    causes += [*_check_ports(spec), *_check_addresses(spec), *_check_policies(spec)]
    for key, value in (spec.get("selector") or {}).items():
        if not isinstance(value, str) or not _LABEL_VALUE.match(value):
            message = f'Invalid value: "{value}": a label value has at most 63 letters, digits, "-", "_" and "."'
            causes.append(Cause(INVALID, message, f"spec.selector.{key}"))
    if kind == "ExternalName":
        name = spec.get("externalName") or ""
        if not name:
            causes.append(Cause(REQUIRED, "Required value", "spec.externalName"))
        elif not _SUBDOMAIN.match(name.rstrip(".")):
            message = f'Invalid value: "{name}": a lowercase RFC 1123 subdomain is wanted: a DNS name'
            causes.append(Cause(INVALID, message, "spec.externalName"))
    if old is not None:
        causes += _check_change(spec, old.get("spec") or {})
    return causes


def _check_ports(spec: Document) -> Iterator[Cause]:
    ports, kind = spec.get("ports") or (), spec.get("type")
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != HEADLESS:
        yield Cause(REQUIRED, "Required value", "spec.ports")
    names: set[str] = set()
    numbers: set[tuple[Any, Any]] = set()
    node_ports: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        number, protocol, name = port.get("port"), port.get("protocol"), port.get("name")
        if not _is_port(number):
            yield Cause(INVALID, f"Invalid value: {number or 0}: must be between 1 and 65535, inclusive", f"{at}.port")
        if protocol not in PROTOCOLS:
            yield unsupported(protocol, PROTOCOLS, f"{at}.protocol")
        if len(ports) > 1 and not name:
            yield Cause(REQUIRED, "Required value: each of several ports needs a name", f"{at}.name")
        elif name and not _LABEL.match(name):
            yield Cause(INVALID, f'Invalid value: "{name}": use a-z, 0-9 and "-", at most 63', f"{at}.name")
        elif name in names:
            yield _duplicate(f'"{name}"', f"{at}.name")
        if (protocol, number) in numbers:
            yield _duplicate(f"{protocol} {number}", at)
        if port.get("targetPort") != number:  # else it only follows the port
            yield from _check_target(port.get("targetPort"), f"{at}.targetPort")
        if wished := port.get("nodePort"):
            if kind not in ("NodePort", "LoadBalancer"):
                message = f"Forbidden: may not be used when `type` is '{kind}'"
                yield Cause(FORBIDDEN, message, f"{at}.nodePort")
            elif (protocol, wished) in node_ports:
                yield _duplicate(str(wished), f"{at}.nodePort")
            node_ports.add((protocol, wished))
        names.add(name or "")
        numbers.add((protocol, number))


def _check_target(target: Any, at: str) -> Iterator[Cause]:
    if isinstance(target, int) and not _is_port(target):
        yield Cause(INVALID, f"Invalid value: {target}: must be between 1 and 65535, inclusive", at)
    elif isinstance(target, str) and not _PORT_NAME.match(target):
        message = f'Invalid value: "{target}": a port\'s name has at most 15 of a-z, 0-9 and "-", and a letter'
        yield Cause(INVALID, message, at)


def _check_addresses(spec: Document) -> Iterator[Cause]:
    kind, address, every = spec.get("type"), spec.get("clusterIP") or "", spec.get("clusterIPs") or []
    if kind == "ExternalName":
        if address or every:
            yield Cause(FORBIDDEN, "Forbidden: may not be set when type is 'ExternalName'", "spec.clusterIPs")
        return
    if every and address != every[0]:
        message = f"Invalid value: {every}: first value must match `clusterIP`"
        yield Cause(INVALID, message, "spec.clusterIPs")
    if address == HEADLESS:
        if kind in ("NodePort", "LoadBalancer"):
            message = f"Invalid value: [\"None\"]: may not be set to 'None' for {kind} services"
            yield Cause(INVALID, message, "spec.clusterIPs[0]")
    elif address and not _is_address(address):
        message = f'Invalid value: "{address}": must be a valid IP address, None or nothing'
        yield Cause(INVALID, message, "spec.clusterIPs[0]")
    if len(every) > 1:
        message = f"Invalid value: {every}: this server gives one address to a service, of IPv4"
        yield Cause(INVALID, message, "spec.clusterIPs")
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family != "IPv4":
            message = f'Invalid value: "{family}": not configured on this server'
            yield Cause(INVALID, message, f"spec.ipFamilies[{index}]")
    if spec.get("ipFamilyPolicy") == "RequireDualStack":
        message = 'Invalid value: "RequireDualStack": this server is not configured for dual-stack services'
        yield Cause(INVALID, message, "spec.ipFamilyPolicy")
    for index, external in enumerate(spec.get("externalIPs") or ()):
        if not _is_address(external):
            message = f'Invalid value: "{external}": must be a valid IP address'
            yield Cause(INVALID, message, f"spec.externalIPs[{index}]")


def _check_policies(spec: Document) -> Iterator[Cause]:
    kind = spec.get("type")
    for key, known in (
        ("sessionAffinity", ("ClientIP", "None")),
        ("internalTrafficPolicy", ("Cluster", "Local")),
        ("externalTrafficPolicy", ("Cluster", "Local")),
        ("ipFamilyPolicy", ("PreferDualStack", "RequireDualStack", "SingleStack")),
    ):
        if spec.get(key) and spec[key] not in known:
            yield unsupported(spec[key], known, f"spec.{key}")
    if spec.get("externalTrafficPolicy") and kind not in ("NodePort", "LoadBalancer") and not spec.get("externalIPs"):
        message = (
            f'Invalid value: "{spec["externalTrafficPolicy"]}": may only be set for externally-accessible services'
        )
        yield Cause(INVALID, message, "spec.externalTrafficPolicy")
    for key in ("loadBalancerClass", "allocateLoadBalancerNodePorts", "loadBalancerSourceRanges"):
        if spec.get(key) and kind != "LoadBalancer":
            yield Cause(FORBIDDEN, "Forbidden: may only be used when `type` is 'LoadBalancer'", f"spec.{key}")


def _check_change(spec: Document, before: Document) -> Iterator[Cause]:
    had, has = before.get("clusterIP") or "", spec.get("clusterIP") or ""
    if had and has != had and "ExternalName" not in (spec.get("type"), before.get("type")):
        message = f'Invalid value: ["{has}"]: may not change once set: it is {had}; delete and create the service'
        yield Cause(INVALID, message, "spec.clusterIPs[0]")
    was = before.get("loadBalancerClass")
    if was and spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") != was:
        yield Cause(INVALID, f'Invalid value: "{was}": may not change once set', "spec.loadBalancerClass")


def _duplicate(what: str, at: str) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {what}", at)


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _is_address(text: Any) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return isinstance(text, str)


# -- addresses and ports


def taken(others: Iterable[Document]) -> Taken:
    found = Taken(set(), set())
    for other in others:
        spec = other.get("spec") or {}
        found.addresses.update(spec.get("clusterIPs") or [spec.get("clusterIP") or HEADLESS])
        found.ports.update(p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort"))
        if spec.get("healthCheckNodePort"):
            found.ports.add(spec["healthCheckNodePort"])
    return found


def allot(
    new: Document, old: Document | None, others: Taken, ranges: Ranges, pick: Callable[[int], int]
) -> tuple[Document, list[Cause]]:
    """`new` with an address and node ports where it needs them. `pick` gives a number below its argument: where the
    search for a free one begins."""
    spec, before = dict(new["spec"]), (old or {}).get("spec") or {}
    if spec["type"] == "ExternalName":
        return new, []
    causes: list[Cause] = []
    wished = spec.get("clusterIP") or ""
    if not wished:
        wished = _free_address(others.addresses, ranges.addresses, pick)
        if not wished:
            message = f"Internal error: all addresses of {ranges.addresses} are in use: delete a service"
            causes.append(Cause(INVALID, message, "spec.clusterIPs"))
    elif wished not in (HEADLESS, before.get("clusterIP")) and (why := _unfit(wished, others.addresses, ranges)):
        message = f'Invalid value: ["{wished}"]: failed to allocate IP {wished}: {why}'
        causes.append(Cause(INVALID, message, "spec.clusterIPs"))
    spec |= {"clusterIP": wished, "clusterIPs": [wished]}
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec["type"] == "NodePort" or (spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts")):
        spec["ports"], faults = _node_ports(spec.get("ports") or (), before, others.ports, ranges, pick)
        causes += faults
    return {**new, "spec": spec}, causes


def _unfit(address: str, used: Collection[str], ranges: Ranges) -> str:
    parsed = ip_address(address)
    network = ranges.addresses
    if not isinstance(parsed, IPv4Address) or parsed not in network:
        return f"the provided IP is not in the valid range. The range of valid IPs is {network}"
    if parsed in (network.network_address, network.broadcast_address):
        return f"the provided IP is not in the valid range: it is the first or the last of {network}"
    return "provided IP is already allocated" if address in used else ""


def _free_address(used: Collection[str], network: IPv4Network, pick: Callable[[int], int]) -> str:
    """From the upper part first, so that the lower stays for those who name an address themselves."""
    size = network.num_addresses - 2
    kept = min(max(16, size // 16), 256, size - 1)
    upper = size - kept
    start = pick(upper)
    numbers = itertools.chain(((start + step) % upper + kept for step in range(upper)), range(kept))
    addresses = (str(network.network_address + 1 + number) for number in numbers)
    return next((address for address in addresses if address not in used), "")


def _node_ports(
    ports: Iterable[Document], before: Document, used: set[int], ranges: Ranges, pick: Callable[[int], int]
) -> tuple[list[Document], list[Cause]]:
    own = {p.get("nodePort") for p in before.get("ports") or ()}
    wished = {p["nodePort"] for p in ports if p.get("nodePort")}
    causes, result = [], []
    for index, port in enumerate(ports):
        number = port.get("nodePort")
        if not number:
            number = _free_port(used | wished, ranges, pick)
            wished.add(number)
        elif number not in own and (why := _unfit_port(number, used, ranges)):
            causes.append(Cause(INVALID, f"Invalid value: {number}: {why}", f"spec.ports[{index}].nodePort"))
        if not number:
            message = "Internal error: all node ports are in use: delete a service of type NodePort"
            causes.append(Cause(INVALID, message, f"spec.ports[{index}].nodePort"))
        result.append({**port, "nodePort": number})
    return result, causes


def _unfit_port(number: int, used: Collection[int], ranges: Ranges) -> str:
    if not ranges.first_port <= number <= ranges.last_port:
        return (
            "provided port is not in the valid range. The range of valid ports is "
            f"{ranges.first_port}-{ranges.last_port}"
        )
    return "provided port is already allocated" if number in used else ""


def _free_port(used: Collection[int], ranges: Ranges, pick: Callable[[int], int]) -> int:
    size = ranges.last_port - ranges.first_port + 1
    start = pick(size)
    numbers = (ranges.first_port + (start + step) % size for step in range(size))
    return next((number for number in numbers if number not in used), 0)
