"""The value types of Kubernetes' CEL libraries that are not CEL's own: quantities, semantic versions, URLs, addresses.

A value is a map with its type's name under "", and what it is made of in one form: equal values are equal maps.
Functions raise ValueError with the words that a person gets to see. Pure.
"""

import ipaddress
import re
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hotvirt.server import quantities

Value = dict[str, Any]
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?\Z",
    re.ASCII,
)
_LOOSE = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(.*)\Z", re.ASCII | re.DOTALL)
_LONGEST = 4096


def holds(parse: Any) -> Any:
    """`isQuantity` from `quantity`."""

    def check(*arguments: Any) -> bool:
        try:
            parse(*arguments)
        except ValueError:
            return False
        return True

    return check


# -- quantities


def quantity(text: str) -> Value:
    try:
        number = quantities.parse(text)
    except ValueError:
        raise ValueError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        ) from None
    return _quantity(number)


def _quantity(number: Decimal) -> Value:
    return {"": "quantity", "is": format(number.normalize() if number else Decimal(0), "f")}


def _number(value: Value | int) -> Decimal:
    return Decimal(value) if isinstance(value, int) else Decimal(value["is"])


def quantity_is_integer(value: Value) -> bool:
    number = _number(value)
    return number == number.to_integral_value() and -(2**63) <= number < 2**63


def quantity_as_integer(value: Value) -> int:
    if not quantity_is_integer(value):
        raise ValueError("cannot convert value to integer")
    return int(_number(value))


def quantity_as_float(value: Value) -> float:
    return float(_number(value))


def quantity_sign(value: Value) -> int:
    number = _number(value)
    return (number > 0) - (number < 0)


def quantity_add(value: Value, other: Value | int) -> Value:
    return _quantity(_number(value) + _number(other))


def quantity_sub(value: Value, other: Value | int) -> Value:
    return _quantity(_number(value) - _number(other))


# -- semantic versions


def semver(text: str, normalize: bool = False) -> Value:
    if normalize and (loose := _LOOSE.match(text)):
        text = ".".join(str(int(part or 0)) for part in loose.groups()[:3]) + loose.group(4)
    match = _SEMVER.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a semantic version: write one such as 1.2.3")
    major, minor, patch, before = match.groups()
    return {"": "semver", "is": [int(major), int(minor), int(patch)], "before": before or ""}


def semver_part(index: int) -> Any:
    return lambda version: version["is"][index]


def _rank(version: Value) -> Any:
    before = version["before"]
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in before.split(".")] if before else []
    return version["is"], not before, parts


# -- comparing either


def compare(value: Value, other: Value) -> int:
    mine: Any
    theirs: Any
    if value.get("") == other.get("") == "semver":
        mine, theirs = _rank(value), _rank(other)
    elif value.get("") == other.get("") == "quantity":
        mine, theirs = _number(value), _number(other)
    else:
        raise ValueError("no such overload: compare quantities with quantities, versions with versions")
    return int(mine > theirs) - int(mine < theirs)


def is_less(value: Value, other: Value) -> bool:
    return compare(value, other) < 0


def is_greater(value: Value, other: Value) -> bool:
    return compare(value, other) > 0


# -- URLs


def url(text: str) -> Value:
    """What Go's ParseRequestURI takes: an absolute URL, or an absolute path."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # a property that checks
    except ValueError as error:
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: {error}") from None
    if not text or any(ord(c) <= 32 or ord(c) == 127 for c in text) or not (parts.scheme or text.startswith("/")):
        raise ValueError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return {"": "url", "is": text}


def url_part(name: str) -> Any:
    def read(value: Value) -> Any:
        parts = urlsplit(value["is"])
        host = parts.netloc.rpartition("@")[2]
        found: dict[str, Any] = {
            "scheme": parts.scheme,
            "host": host,
            "hostname": host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0],
            "port": str(parts.port) if parts.port is not None else "",
            "path": parts.path,
        }
        return parse_qs(parts.query, keep_blank_values=True) if name == "query" else found[name]

    return read


# -- addresses and networks

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _address(text: str) -> Address:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"IP Address {text!r} parse error during conversion from string") from None
    if isinstance(found, ipaddress.IPv6Address) and (found.ipv4_mapped or found.scope_id):
        raise ValueError(f"IP Address {text!r}: IPv4-mapped IPv6 addresses and zones are not allowed")
    return found


def ip(text: str) -> Value:
    return {"": "ip", "is": str(_address(text))}


def ip_is_canonical(text: str) -> bool:
    return str(_address(text)) == text


def ip_family(value: Value) -> int:
    return _address(value["is"]).version


def ip_is(kind: str) -> Any:
    def check(value: Value) -> bool:
        found = _address(value["is"])
        if kind == "link_local_multicast":
            low = ipaddress.ip_network("224.0.0.0/24") if found.version == 4 else ipaddress.ip_network("ff02::/16")
            return found in low
        if kind == "global_unicast":
            apart = found.is_unspecified or found.is_loopback or found.is_multicast or found.is_link_local
            return not apart and str(found) != "255.255.255.255"
        return bool(getattr(found, f"is_{kind}"))

    return check


def cidr(text: str) -> Value:
    host, slash, width = text.partition("/")
    address = _address(host)
    if not slash or not width.isdigit() or not width.isascii() or int(width) > address.max_prefixlen:
        raise ValueError(f"network address parse error during conversion from string: {text!r} is no CIDR")
    return {"": "cidr", "is": f"{address}/{int(width)}"}


def _network(value: Value | str) -> Network:
    return ipaddress.ip_network((cidr(value) if isinstance(value, str) else value)["is"], strict=False)


def cidr_contains_ip(value: Value, other: Value | str) -> bool:
    return _address(other if isinstance(other, str) else other["is"]) in _network(value)


def cidr_contains_cidr(value: Value, other: Value | str) -> bool:
    mine, theirs = _network(value), _network(other)
    if mine.version != theirs.version:
        return False
    return theirs.prefixlen >= mine.prefixlen and theirs.network_address in mine


def cidr_ip(value: Value) -> Value:
    return ip(value["is"].partition("/")[0])


def cidr_masked(value: Value) -> Value:
    return {"": "cidr", "is": str(_network(value))}


def address_text(value: Value) -> str:
    """`string()` of an address or network."""
    if value.get("") not in ("ip", "cidr"):
        raise ValueError("no such overload: string(map)")
    return str(value["is"])


def cidr_width(value: Value) -> int:
    return int(value["is"].partition("/")[2])
