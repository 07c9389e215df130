"""Kubernetes' named formats (`format.dns1123Label()`), as what is wrong with a text. Pure.

A format is a value like those of `kinds`: a map with its type under "".
"""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from hotvirt.server.schema_formats import FORMATS

Value = dict[str, Any]
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SIGNS = "a lowercase RFC 1123"
_DNS: dict[str, tuple[re.Pattern[str], int, str]] = {
    "dns1123Label": (re.compile(rf"{_LABEL}\Z"), 63, f"{_SIGNS} label: lower case letters, digits and '-'"),
    "dns1123Subdomain": (
        re.compile(rf"{_LABEL}(\.{_LABEL})*\Z"), 253, f"{_SIGNS} subdomain: lower case letters, digits, '-' and '.'"),
    "dns1035Label": (
        re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z"), 63, "a DNS-1035 label: it begins with a letter"),
    "labelValue": (
        re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z"), 63,
        "a valid label value: letters, digits, '-', '_' and '.', or empty"),
}  # fmt: skip
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")


def _dns(name: str, *, prefix: bool = False) -> Callable[[str], list[str]]:
    pattern, most, words = _DNS[name]

    def faults(text: str) -> list[str]:
        found = [f"must be no more than {most} characters"] if len(text) > most else []
        checked = text.removesuffix("-") + "a" if prefix and text.endswith("-") else text
        return found if pattern.match(checked) else [*found, f"must be {words}"]

    return faults


def _qualified(text: str) -> list[str]:
    prefix, slash, name = text.rpartition("/")
    found = []
    if slash and (not prefix or _dns("dns1123Subdomain")(prefix)):
        found.append("prefix part must be a DNS subdomain")
    if not name or len(name) > 63 or not _QUALIFIED.match(name):
        found.append("name part must be letters, digits, '-', '_' and '.', at most 63")
    return found


def _openapi(name: str) -> Callable[[str], list[str]]:
    holds = FORMATS[name]
    return lambda text: [] if holds(text) else [f"invalid {name}"]


def _base64(text: str) -> list[str]:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ["invalid base64"]
    return []


CHECKS: dict[str, Callable[[str], list[str]]] = {
    **{name: _dns(name) for name in _DNS},
    **{f"{name}Prefix": _dns(name, prefix=True) for name in ("dns1123Label", "dns1123Subdomain", "dns1035Label")},
    "qualifiedName": _qualified,
    "uri": _openapi("uri"),
    "uuid": _openapi("uuid"),
    "byte": _base64,
    "date": _openapi("date"),
    "datetime": _openapi("datetime"),
}


def format_(name: str) -> Value:
    return {"": "format", "is": name}


def named(name: str) -> list[Value]:
    """In a list; an empty one when there is none of that name."""
    return [format_(name)] if name in CHECKS else []


def validate(value: Value, text: str) -> list[list[str]]:
    """The faults in a list; an empty one when there are none."""
    faults = CHECKS[value["is"]](text)
    return [faults] if faults else []
