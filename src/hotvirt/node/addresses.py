"""A guest's addresses, as its agent tells them. Pure.

The guest is hostile: only what is an address is passed on, and no more than a person would read. What it claims to have
leads nobody anywhere: services and the API use the pod's own address, which comes first.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

MOST, MOST_CARDS = 16, 16
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def of(said: Mapping[str, Any]) -> list[str]:
    """Those of one interface that others could use."""
    found: list[str] = []
    entries = said.get("ip-addresses")
    for each in entries[: 4 * MOST] if isinstance(entries, list) else ():
        try:
            address = ipaddress.ip_address(str(each.get("ip-address")))
        except (ValueError, AttributeError):
            continue
        if not (address.is_loopback or address.is_link_local or str(address) in found):
            found.append(str(address))
    return found[:MOST]


def beside(view: Sequence[Mapping[str, Any]], known: Collection[str]) -> list[dict[str, Any]]:
    """Interfaces that the guest made itself (bridges, tunnels, VLANs), as KubeVirt lists them; `known` are the MAC
    addresses of its cards."""
    found = []
    for said in view:
        mac, name = str(said.get("hardware-address", "")).lower(), str(said.get("name", ""))
        if mac in known or name == "lo" or not _MAC.fullmatch(mac) or not (addresses := of(said)):
            continue
        found.append({
            "interfaceName": name, "mac": mac, "infoSource": "guest-agent",
            "ipAddress": addresses[0], "ipAddresses": addresses,
        })  # fmt: skip
    return found[:MOST_CARDS]
