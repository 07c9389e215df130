"""All that a home asks of nftables, as one function of what there is. Pure.

A tap has no neighbours: what a guest sends comes to the host alone, which takes only what has the guest's own address,
and sends it on as services and policies say. So no guest hears, or speaks for, another.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network

from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.kube.networkpolicies import EGRESS, INGRESS
from hotvirt.node import nft, policyrules, servicerules
from hotvirt.node.network import attachment_names, interfaces
from hotvirt.node.nft import Table
from hotvirt.node.world import CREATED_BY, SERVICE_NETWORK, World, address_of, service_ports

RAW, FILTER, SOURCE_NAT = -300, 0, 100
GUARD, GUESTS = "guard", "guests"
CLIENT_MAC = {"payload": {"base": "th", "offset": (8 + 28) * 8, "len": 48}}
"""In a DHCP message, whom it is about."""
DHCP_SERVER = 67
UNSET = "0.0.0.0"  # noqa: S104  the address of who has none yet


class Place(Struct, frozen=True):
    """Whose a tap is."""

    mac: str
    address: str


def ruleset(name: str, prefix: str, subnet: IPv4Network, *, taps: Mapping[str, Place], world: World) -> Document:
    """Our tables anew, in one transaction. `prefix`: how the names of all taps on the pod network begin."""
    ports = service_ports(world)
    inet, arp = Table("inet", name), Table("arp", name)
    _guards(inet, arp, prefix, taps)
    servicerules.add(inet, ports, taps=f"{prefix}*")
    inet.hook("forward-from", "filter", at="forward", priority=FILTER - 1)
    inet.hook("forward-to", "filter", at="forward", priority=FILTER)
    inet.hook("from-host", "filter", at="output", priority=FILTER)
    unserved = nft.equal(nft.DESTINATION, nft.prefix(str(SERVICE_NETWORK)))
    inet.rule("forward-from", nft.equal(nft.IN, f"{prefix}*"), unserved, nft.REFUSE)
    inet.rule("from-host", unserved, nft.REFUSE)
    itself = servicerules.hairpins(ports)
    if itself is not None:
        inet.rule("forward-from", itself, nft.ACCEPT)
        inet.rule("forward-to", itself, nft.ACCEPT)
    policyrules.add(inet, world, direction=EGRESS, chain="forward-from")
    _listed_ports(inet, world)
    policyrules.add(inet, world, direction=INGRESS, chain="forward-to")
    inet.hook("postrouting", "nat", at="postrouting", priority=SOURCE_NAT)
    if itself is not None:
        inet.rule("postrouting", itself, nft.MASQUERADE)
    inside = nft.prefix(str(subnet))
    inet.rule(
        "postrouting", nft.equal(nft.SOURCE, inside), nft.differs(nft.DESTINATION, inside), nft.MASQUERADE
    )  # fmt: skip
    return nft.document([*inet.anew(), *arp.anew()])


def admission(name: str, tap: str, place: Place) -> Document:
    """What lets one more guest speak, beside those that do."""
    inet, arp = Table("inet", name), Table("arp", name)
    _guard(inet, arp, tap, place)
    return nft.document([*inet.added(), *arp.added()])


def removal(name: str) -> Document:
    return nft.document([*nft.removal("inet", name), *nft.removal("arp", name)])


def _guards(inet: Table, arp: Table, prefix: str, taps: Mapping[str, Place]) -> None:
    inet.hook(GUARD, "filter", at="prerouting", priority=RAW)
    arp.hook(GUARD, "filter", at="input", priority=FILTER)
    for table in (inet, arp):
        table.ways(GUESTS, of="ifname")
        table.rule(GUARD, nft.differs(nft.IN, f"{prefix}*"), nft.ACCEPT)
        table.rule(GUARD, {"vmap": {"key": nft.IN, "data": f"@{GUESTS}"}})
        table.rule(GUARD, nft.DROP)
    for tap, place in sorted(taps.items()):
        _guard(inet, arp, tap, place)


def _guard(inet: Table, arp: Table, tap: str, place: Place) -> None:
    """Only what comes from its guest, under its guest's addresses; no other protocol than IPv4, whose addresses are
    the only ones that are given here."""
    for table in (inet, arp):
        table.chain(f"from-{tap}")
        table.way(GUESTS, tap, nft.goto(f"from-{tap}"))
    chain = f"from-{tap}"
    about_another = nft.differs(CLIENT_MAC, int(place.mac.replace(":", ""), 16))
    inet.rule(chain, nft.differs(nft.payload("ether", "saddr"), place.mac), nft.DROP)
    inet.rule(chain, nft.equal(nft.payload("udp", "dport"), DHCP_SERVER), about_another, nft.DROP)
    inet.rule(chain, nft.equal(nft.SOURCE, place.address), nft.ACCEPT)
    inet.rule(
        chain, nft.equal(nft.SOURCE, UNSET), nft.equal(nft.payload("udp", "dport"), DHCP_SERVER), nft.ACCEPT
    )  # fmt: skip
    inet.rule(chain, nft.DROP)
    arp.rule(chain, nft.differs(nft.payload("arp", "saddr ether"), place.mac), nft.DROP)
    arp.rule(chain, nft.equal(nft.payload("arp", "saddr ip"), nft.any_of([UNSET, place.address])), nft.ACCEPT)
    arp.rule(chain, nft.DROP)


def _listed_ports(inet: Table, world: World) -> None:
    """An interface of binding masquerade that lists ports takes connections to these alone, from the host as well."""
    listed = listed_ports(world)
    if not listed:
        return
    to = nft.concat(nft.DESTINATION, nft.PROTOCOL, nft.PORT)
    known = nft.any_of(nft.concat(address, *port) for address, ports in listed.items() for port in sorted(ports))
    inet.chain("ports")
    inet.rule("ports", nft.ESTABLISHED, nft.ACCEPT)
    inet.rule(
        "ports", nft.equal(nft.DESTINATION, nft.any_of(sorted(listed))),
        nft.equal(nft.PROTOCOL, nft.any_of(["tcp", "udp", "sctp"])), nft.differs(to, known), nft.REFUSE,
    )  # fmt: skip
    # DHCP's answers are no connection that the guest began, as they answer a broadcast.
    inet.rule("from-host", nft.equal(nft.payload("udp", "sport"), DHCP_SERVER), nft.ACCEPT)
    for chain in ("forward-to", "from-host"):
        inet.rule(chain, nft.jump("ports"))


def listed_ports(world: World) -> dict[str, set[tuple[str, int]]]:
    """Address of a guest whose interface lists ports -> these."""
    by_instance = {
        (pod["metadata"].get("labels") or {}).get(CREATED_BY): has for pod in world.pods if (has := address_of(pod))
    }
    found = {}
    for vmi in world.instances:
        address, seconds = by_instance.get(vmi["metadata"]["uid"]), attachment_names(vmi)
        for each in interfaces(vmi):
            if address and each.get("masquerade") is not None and each["name"] not in seconds and each.get("ports"):
                found[address] = {
                    (str(port.get("protocol") or "TCP").lower(), int(port["port"])) for port in each["ports"]
                }
    return found
