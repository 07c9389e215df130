"""What a NetworkPolicy may say. Pure.

Asked at two places: by the API server of what is written, and by the node of what is stored, as a policy from before
these checks would otherwise take all rules of the node down with it.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from hotvirt.kube.errors import Cause

Document = dict[str, Any]
INGRESS, EGRESS = "Ingress", "Egress"
TYPES = (INGRESS, EGRESS)
PROTOCOLS = ("SCTP", "TCP", "UDP")
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
SELECTOR, POLICY_TYPES = "spec.podSelector", "spec.policyTypes"
_PORT_NAME = re.compile(r"(?=.{1,15}\Z)(?=[-0-9]*[a-z])[a-z0-9]+(-[a-z0-9]+)*\Z")
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"((?=[^/]{{1,253}}/)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?{_NAME}\Z")
_VALUE = re.compile(rf"({_NAME})?\Z")
_CIDR = re.compile(r"[0-9A-Fa-f.:]+/\d{1,3}\Z")


def types(spec: Document) -> tuple[str, ...]:
    """What it is about when it does not say."""
    return tuple(spec.get("policyTypes") or (TYPES if spec.get("egress") else (INGRESS,)))


def complete(policy: Document) -> Document:
    spec = policy.get("spec") or {}
    return {**policy, "spec": {**spec, "policyTypes": list(types(spec))}}


def check(policy: Document) -> list[Cause]:
    """Every fault."""
    spec = policy.get("spec") or {}
    causes = list(_selector(spec.get("podSelector"), SELECTOR))
    asked = spec.get("policyTypes") or ()
    if len(asked) > len(TYPES):
        causes.append(_invalid(asked, "may not specify more than two policyTypes", POLICY_TYPES))
    for index, each in enumerate(asked):
        if each not in TYPES:
            causes.append(_unsupported(each, TYPES, f"{POLICY_TYPES}[{index}]"))
    for part, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(part) or ()):
            at = f"spec.{part}[{index}]"
            for number, port in enumerate(rule.get("ports") or ()):
                causes += _port(port, f"{at}.ports[{number}]")
            for number, peer in enumerate(rule.get(side) or ()):
                causes += _peer(peer, f"{at}.{side}[{number}]")
    return causes


def _port(port: Document, at: str) -> Iterator[Cause]:
    wanted, last = port.get("port"), port.get("endPort")
    if (protocol := port.get("protocol") or "TCP") not in PROTOCOLS:
        yield _unsupported(protocol, PROTOCOLS, f"{at}.protocol")
    if wanted is None:
        if last is not None:
            yield _required("must be specified when `endPort` is specified", f"{at}.port")
        return
    if isinstance(wanted, str):
        if not _PORT_NAME.match(wanted):
            words = 'a port\'s name has at most 15 of a-z, 0-9 and "-", and a letter'
            yield _invalid(wanted, words, f"{at}.port")
        if last is not None:
            yield _invalid(last, "may not be specified when `port` is non-numeric", f"{at}.endPort")
        return
    for number, key in ((wanted, "port"), (last, "endPort")):
        if number is not None and not _is_port(number):
            yield _invalid(number, "must be between 1 and 65535, inclusive", f"{at}.{key}")
    if last is not None and last < wanted:
        yield _invalid(last, "must be greater than or equal to `port`", f"{at}.endPort")


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _peer(peer: Document, at: str) -> Iterator[Cause]:
    selectors = [key for key in ("podSelector", "namespaceSelector") if peer.get(key) is not None]
    for key in selectors:
        yield from _selector(peer[key], f"{at}.{key}")
    block = peer.get("ipBlock")
    if block is None:
        if not selectors:
            yield _required("must specify a peer", at)
        return
    if selectors:
        words = "Forbidden: may not specify both ipBlock and another peer"
        yield Cause("FieldValueForbidden", words, at)
    yield from _block(block, f"{at}.ipBlock")


def _block(block: Document, at: str) -> Iterator[Cause]:
    cidr = block.get("cidr") or ""
    if not cidr:
        yield _required("", f"{at}.cidr")
    elif (whole := network(cidr)) is None:
        yield _no_network(cidr, f"{at}.cidr")
    for index, each in enumerate(block.get("except") or ()):
        if (part := network(each)) is None:
            yield _no_network(each, f"{at}.except[{index}]")
        elif cidr and whole is not None and not _is_inside(part, whole):
            yield _invalid(each, "must be a strict subset of `cidr`", f"{at}.except[{index}]")


def network(text: Any) -> IPv4Network | IPv6Network | None:
    """None for what is none. An address inside stands for the whole, as in Kubernetes."""
    if not isinstance(text, str) or not _CIDR.match(text):
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _is_inside(part: IPv4Network | IPv6Network, whole: IPv4Network | IPv6Network) -> bool:
    if isinstance(part, IPv4Network) and isinstance(whole, IPv4Network):
        return part != whole and part.subnet_of(whole)
    if isinstance(part, IPv6Network) and isinstance(whole, IPv6Network):
        return part != whole and part.subnet_of(whole)
    return False


def _selector(selector: Document | None, at: str) -> Iterator[Cause]:
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        yield from _label(key, f"{at}.matchLabels")
        yield from _value(value, f"{at}.matchLabels[{key}]")
    for index, each in enumerate((selector or {}).get("matchExpressions") or ()):
        here, operator, values = f"{at}.matchExpressions[{index}]", each.get("operator"), each.get("values") or ()
        yield from _label(each.get("key") or "", f"{here}.key")
        if operator not in OPERATORS:
            words = f"not a valid selector operator: use {', '.join(OPERATORS)}"
            yield _invalid(operator or "", words, f"{here}.operator")
        elif operator in ("In", "NotIn") and not values:
            yield _required("must be specified when `operator` is 'In' or 'NotIn'", f"{here}.values")
        elif operator in ("Exists", "DoesNotExist") and values:
            words = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            yield Cause("FieldValueForbidden", words, f"{here}.values")
        for number, value in enumerate(values):
            yield from _value(value, f"{here}.values[{number}]")


def _label(key: str, at: str) -> Iterator[Cause]:
    if not key:
        yield _required("", at)
    elif not _LABEL.match(key):
        yield _invalid(key, "must be a qualified name: [prefix/]name, at most 63 long", at)


def _value(value: str, at: str) -> Iterator[Cause]:
    if not _VALUE.match(value):
        yield _invalid(value, 'a label value has at most 63 letters, digits, "-", "_" and "."', at)


def _no_network(text: Any, at: str) -> Cause:
    return _invalid(text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)", at)


def _invalid(value: Any, words: str, at: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else value
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {words}", at)


def _required(words: str, at: str) -> Cause:
    return Cause("FieldValueRequired", f"Required value: {words}" if words else "Required value", at)


def _unsupported(value: Any, known: tuple[str, ...], at: str) -> Cause:
    names = ", ".join(f'"{each}"' for each in known)
    return Cause("FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {names}', at)
