"""Interfaces and their networks, names, and the order of booting. Pure."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hotvirt.api import attachments
from hotvirt.api.defaults import plain_address
from hotvirt.api.faults import Fault, duplicate, invalid, not_supported

Document = dict[str, Any]

_BINDINGS = ("masquerade", "bridge")
_OTHER_BINDINGS = ("binding", "sriov", "slirp", "macvtap", "passt", "passtBinding")
STATES = ("up", "down", "absent")
_MODELS = ("virtio", "e1000e", "e1000", "rtl8139")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_PCI = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_OF_THE_POD = "02:00:00:00:00:00"
"""The address of the pod's end of a masqueraded interface."""


def check(spec: Document, path: str) -> list[Fault]:
    """Faults of the interfaces and networks of an instance's spec at `path`, and of everything's boot order."""
    devices = (spec.get("domain") or {}).get("devices") or {}
    disks, interfaces = devices.get("disks") or [], devices.get("interfaces") or []
    networks = spec.get("networks") or []
    at = f"{path}.domain.devices"
    return [
        *_boot_order([("disks", disks), ("interfaces", interfaces)], at),
        *_interfaces(interfaces, networks, f"{at}.interfaces"),
        *_networks(networks, interfaces, f"{path}.networks"),
    ]


def names(items: Sequence[Document], path: str) -> Iterator[Fault]:
    """Faults of the names of a list that others refer to."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        name = item.get("name") or ""
        if name in seen:
            yield duplicate(f"{path}[{index}].name", f"{name!r} is there twice: names must differ")
        elif not _NAME.fullmatch(name):
            yield invalid(
                f"{path}[{index}].name", f"{name[:80]!r} is not a name: use lower case letters, digits and '-'"
            )
        seen.add(name)


def pci_address(text: str, path: str) -> Iterator[Fault]:
    if not _PCI.fullmatch(text):
        yield invalid(path, f"{text[:40]!r} is not a PCI address: write it like 0000:05:00.0")


def _boot_order(groups: list[tuple[str, Sequence[Document]]], path: str) -> Iterator[Fault]:
    seen: dict[int, str] = {}
    for group, items in groups:
        for index, item in enumerate(items):
            if (order := item.get("bootOrder")) is None:
                continue
            here = f"{path}.{group}[{index}].bootOrder"
            if order < 1:
                yield invalid(here, f"must be 1 or more, not {order}")
            elif order in seen:
                yield duplicate(here, f"{order} is the boot order of {seen[order]} already")
            seen[order] = str(item.get("name"))


def _interfaces(interfaces: Sequence[Document], networks: Sequence[Document], path: str) -> Iterator[Fault]:
    yield from names(interfaces, path)
    known = {network.get("name") for network in networks}
    beside = {network.get("name") for network in networks if network.get("multus") is not None}
    addresses: dict[str, str] = {}
    for index, interface in enumerate(interfaces):
        here = f"{path}[{index}]"
        if interface.get("name") not in known:
            yield invalid(f"{here}.name", f"no network is named {interface.get('name')!r}: add it to networks")
        bindings = [each for each in _BINDINGS if interface.get(each) is not None]
        if len(bindings) != 1 and all(interface.get(each) is None for each in _OTHER_BINDINGS):
            yield invalid(here, "needs exactly one of masquerade or bridge")
        yield from _second(interface, interface.get("name") in beside, here)
        if interface.get("model") not in (None, "", *_MODELS):
            yield invalid(f"{here}.model", f"{interface['model']!r} is unknown: use {', '.join(_MODELS)}")
        if address := interface.get("pciAddress"):
            yield from pci_address(address, f"{here}.pciAddress")
        yield from _mac_address(interface, addresses, f"{here}.macAddress")
        yield from _ports(interface.get("ports") or (), f"{here}.ports")


def _second(interface: Document, is_second: bool, path: str) -> Iterator[Fault]:
    """What only a card of a network beside the pod's may be, and may not."""
    if is_second and interface.get("masquerade") is not None:
        yield invalid(f"{path}.masquerade", "only the pod network is masqueraded: use bridge for a second network")
    state = interface.get("state") or "up"
    if state not in STATES:
        yield not_supported(f"{path}.state", f"{state[:40]!r} is unknown: use up, down or absent")
    elif state == "absent" and not is_second:
        yield invalid(f"{path}.state", "the pod network's card stays: only one of a multus network can be absent")


def _mac_address(interface: Document, taken: dict[str, str], path: str) -> Iterator[Fault]:
    """`taken`: address -> interface, of those seen before."""
    mac = interface.get("macAddress")
    if not mac:
        return
    if not _MAC.fullmatch(mac):
        yield invalid(path, f"{mac[:40]!r} is not a MAC address: write it like 02:00:00:00:00:01")
        return
    address = plain_address(mac)
    if int(mac[:2], 16) & 1:
        yield invalid(path, f"{mac} is a multicast address: make the first octet even")
    elif address == _OF_THE_POD and interface.get("masquerade") is not None:
        yield invalid(path, f"{mac} is the pod's own end: choose another address, or leave it out")
    elif address in taken:
        yield duplicate(path, f"{mac} is the address of {taken[address]} already: addresses must differ")
    taken[address] = str(interface.get("name"))


def _ports(ports: Sequence[Document], path: str) -> Iterator[Fault]:
    known: set[str] = set()
    for index, port in enumerate(ports):
        if not 0 < (port.get("port") or 0) < 65536:
            yield invalid(f"{path}[{index}].port", f"must be 1 to 65535, not {port.get('port')}")
        if port.get("protocol") not in (None, "", "TCP", "UDP"):
            yield not_supported(f"{path}[{index}].protocol", f"{port['protocol']!r} is unknown: use TCP or UDP")
        if (name := port.get("name")) and name in known:
            yield duplicate(f"{path}[{index}].name", f"{name!r} is there twice: names must differ")
        known.add(port.get("name") or "")


def _networks(networks: Sequence[Document], interfaces: Sequence[Document], path: str) -> Iterator[Fault]:
    yield from names(networks, path)
    used = {interface.get("name") for interface in interfaces}
    on_pod = 0
    for index, network in enumerate(networks):
        here = f"{path}[{index}]"
        if network.get("pod") is None and network.get("multus") is None:
            yield invalid(here, "needs a type: pod or multus")
        if (multus := network.get("multus")) is not None and not multus.get("networkName"):
            yield invalid(f"{here}.multus.networkName", "name a NetworkAttachmentDefinition")
        elif multus is not None and not attachments.REFERENCE.fullmatch(multus["networkName"]):
            yield invalid(
                f"{here}.multus.networkName", f"{multus['networkName'][:80]!r} names no NetworkAttachmentDefinition: "
                "write NAME, or NAMESPACE/NAME for one of another namespace"
            )  # fmt: skip
        on_pod += network.get("pod") is not None
        if on_pod > 1:
            yield duplicate(f"{here}.pod", "there is one pod network for a machine")
        if network.get("name") not in used:
            yield invalid(
                f"{here}.name", f"no interface is named {network.get('name')!r}: add it to devices.interfaces"
            )
