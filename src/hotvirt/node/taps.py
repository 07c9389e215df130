"""Guests' network devices on the host: taps of the pod network, each a wire of its own to the host, and on bridges.

On the pod network nothing connects taps but the host's routing: a guest's address is routed to its tap, and the host
answers for all other guests when it is asked for them (proxy ARP). So what goes from guest to guest passes the host's
filter hooks whatever this kernel has (conntrack for bridges, br_netfilter), answers find back to where a service's
address was replaced, and there is no other way from guest to guest.

Which taps there are is read from the kernel: that cannot disagree with what is. Blocking, and short.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hotvirt.api.attachments import Bridge
from hotvirt.node.network import EMPTY, NetworkError
from hotvirt.node.rules import Place

TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x400454CA, 0x0002, 0x1000, 0x4000, 0x0100
NAME_LIMIT = 15
PERMANENT, LINK_SCOPE = 0x80, 253
PVID, UNTAGGED = 2, 4
SYSCTL = Path("/proc/sys/net")
OF_A_TAP = {
    "ipv4/conf/{}/proxy_arp": "1",
    "ipv4/neigh/{}/proxy_delay": "0",
    "ipv4/conf/{}/forwarding": "1",
    "ipv6/conf/{}/disable_ipv6": "1",
}
"""Settings of a device of ours alone. The delay is for many that answer; here there is one."""


@contextmanager
def said(what: str) -> Iterator[None]:
    """What the kernel refuses, as NetworkError."""
    import errno

    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except (OSError, NetlinkError) as error:
        code, why = (error.errno, error.strerror) if isinstance(error, OSError) else error.args[:2]
        mend = ": give it the capability NET_ADMIN" if code == errno.EPERM else ""
        raise NetworkError(f"{what}: {why}{mend}") from error


def set_up(name: str) -> None:
    """A device's own settings. OSError where /proc/sys cannot be written, as in containers."""
    for path, value in OF_A_TAP.items():
        file = SYSCTL / path.format(name)
        if file.exists() and file.read_text().strip() != value:
            file.write_text(value)


def open_tap(name: str, *, one_of_many: bool = False) -> int:
    """Its descriptor: the tap is gone when the last holder closes it. `one_of_many`: a queue, to be opened again for
    each further one."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (IFF_MULTI_QUEUE if one_of_many else 0)
        request = struct.pack("16sH22x", name.encode(), flags)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def route(name: str, place: Place) -> None:
    """Leads a guest's address to its device. Idempotent."""
    from pyroute2 import IPRoute

    with said(f"the tap {name} cannot be set up"), IPRoute() as ip:
        index = socket.if_nametoindex(name)
        set_up(name)
        ip.link("set", index=index, state="up", ifalias=f"{place.mac} {place.address}")
        # So that DHCP's answer, to an address that the guest does not have yet, is not asked about.
        ip.neigh("replace", dst=place.address, lladdr=place.mac, ifindex=index, state=PERMANENT)
        ip.route("replace", dst=f"{place.address}/32", oif=index, scope=LINK_SCOPE)


def join(name: str, wanted: Bridge) -> None:
    """Puts a device on a bridge that is the node's own. That is not made here: it would be connected to nothing."""
    from pyroute2 import IPRoute

    bridge = wanted.name
    with said(f"the tap {name} cannot be put on bridge {bridge}"), IPRoute() as ip:
        indexes = ip.link_lookup(ifname=bridge, kind="bridge")
        if not indexes:
            raise NetworkError(
                f"this node has no bridge {bridge}: make it (ip link add {bridge} type bridge && ip link set {bridge} "
                f"up), or name another in the NetworkAttachmentDefinition"
            )
        if wanted.vlan and not filters_vlans(ip, indexes[0]):
            raise NetworkError(
                f"bridge {bridge} keeps no VLANs apart: ip link set {bridge} type bridge vlan_filtering 1, or leave "
                f"vlan out of the NetworkAttachmentDefinition"
            )
        index = ip.link_lookup(ifname=name)[0]
        if wanted.mtu:
            ip.link("set", index=index, mtu=wanted.mtu)
        ip.link("set", index=index, master=indexes[0])
        if wanted.vlan:
            ip.vlan_filter("add", index=index, vlan_info={"vid": wanted.vlan, "flags": PVID | UNTAGGED})
            if wanted.vlan != 1:
                ip.vlan_filter("del", index=index, vlan_info={"vid": 1})
        ip.link("set", index=index, state="up")


def bridges() -> dict[str, bool]:
    """The node's -> whether they keep VLANs apart."""
    from pyroute2 import IPRoute

    with said("the node's bridges cannot be listed"), IPRoute() as ip:
        return {link.get_attr("IFLA_IFNAME"): _filters_vlans(link) for link in ip.get_links(kind="bridge")}


def filters_vlans(ip: Any, index: int) -> bool:
    (link,) = ip.get_links(index)
    return _filters_vlans(link)


def _filters_vlans(link: Any) -> bool:
    info = link.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    return bool(data is not None and data.get_attr("IFLA_BR_VLAN_FILTERING"))


def mtu_of(name: str) -> int:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        (link,) = ip.get_links(ip.link_lookup(ifname=name)[0])
        return int(link.get_attr("IFLA_MTU"))


def found(prefix: str, *, known: Mapping[str, Place | None] = EMPTY) -> dict[str, Place | None]:
    """Taps by name, with whose they are: that is written on each on the pod network, and on no other. The kernel is
    asked for their names, and about those that are not `known`: a list of all it has to say takes as long as a guest's
    whole start, for some dozens."""
    from pyroute2.netlink.exceptions import NetlinkError

    places: dict[str, Place | None] = {}
    with said("the taps of guests cannot be listed"):
        for name in _names(prefix):
            try:
                places[name] = known[name] if name in known else _place(name)
            except (OSError, NetlinkError):
                if name in _names(prefix):  # else it has gone meanwhile
                    raise
    return places


def _names(prefix: str) -> list[str]:
    return [name for _, name in socket.if_nameindex() if name.startswith(prefix)]


def _place(name: str) -> Place | None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        links = ip.get_links(socket.if_nametoindex(name))
        alias = links[0].get_attr("IFLA_IFALIAS") if links else None
        return Place(*alias.split()) if alias else None


def open_vhost() -> int | None:
    """The kernel's own way from a tap to a guest, where this host has it."""
    try:
        return os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
