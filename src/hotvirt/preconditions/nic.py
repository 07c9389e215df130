"""What a network card that comes, goes, or is plugged in and out rests on."""

from typing import Any

from hotvirt.api import attachments
from hotvirt.preconditions import guest
from hotvirt.preconditions.changes import NicAdd, NicLink, NicRemove
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, namespace, verdict

Document = dict[str, Any]
BINDINGS, UPSTREAM_BINDINGS = ("bridge",), ("bridge", "sriov")
"""Those of a second network that may come to a running guest: here, and as KubeVirt has it."""


def interfaces(vmi: Document) -> dict[str, Document]:
    """The cards the guest is to have: one that is absent stands in the spec no more than for its name."""
    devices = (vmi["spec"].get("domain") or {}).get("devices") or {}
    return {str(each.get("name")): each for each in devices.get("interfaces") or () if each.get("state") != "absent"}


def name_free(change: NicAdd, vmi: Document, _: Facts) -> Finding:
    name = _name(change)
    free = name not in interfaces(vmi)
    return Finding(
        id="nic.name",
        status=verdict(free),
        message=f"the name {name} is {'free' if free else 'the name of a card the guest has already'}",
        actual="free" if free else "taken",
        required="free",
        mend="" if free else "choose another name",
        field=f"domain.devices.interfaces[{name}]",
    )


def network(change: NicAdd, vmi: Document, facts: Facts) -> Finding:
    """A card of the pod network is there from the start; another's network is an object of its own."""
    said = str((change.network.get("multus") or {}).get("networkName") or "")
    multus = attachments.from_within(said, str(vmi["metadata"].get("namespace") or ""))
    field = f"networks[{_name(change)}].multus.networkName"
    if not multus:
        return Finding(
            id="nic.network", status="fail", message="the pod network's card belongs to the guest from its start",
            actual="the pod network", required="a NetworkAttachmentDefinition", mend="restart to add it", field=field,
        )  # fmt: skip
    if facts.attachments is None:
        return Finding(
            id="nic.network", status="fail", actual="not served here", required=f"NetworkAttachmentDefinition {multus}",
            message=f"network {multus} cannot be found: networks beside the pod network are not served here",
            mend="use the pod network", field=field,
        )  # fmt: skip
    there = multus in facts.attachments
    if not there and "/" in multus and not facts.knows_elsewhere:
        return Finding(
            id="nic.network", status="unknown", actual="not known", required="there", field=field,
            message=f"whether NetworkAttachmentDefinition {multus} exists could not be found out",
            mend="ask as somebody who may list NetworkAttachmentDefinitions of all namespaces",
        )  # fmt: skip
    own = sorted(name for name in facts.attachments if "/" not in name)
    return Finding(
        id="nic.network",
        status=verdict(there),
        message=f"NetworkAttachmentDefinition {multus} {'exists' if there else 'does not exist'}",
        actual="there" if there else f"missing; there are: {', '.join(own) or 'none'}",
        required="there",
        mend="" if there else f"create NetworkAttachmentDefinition {multus}",
        field=field,
    )


def definition(change: NicAdd, vmi: Document, facts: Facts) -> Finding | None:
    """One that exists may ask for what is not offered: a card of it would wait for ever."""
    if (joins := facts.joins.get(_full_name(change, vmi))) is None:
        return None
    said = _network_name(change)
    return Finding(
        id="nic.definition",
        status=verdict(not isinstance(joins, str)),
        message=joins if isinstance(joins, str) else f"NetworkAttachmentDefinition {said} names bridge {joins.name}",
        actual="not offered" if isinstance(joins, str) else "type bridge",
        required="type bridge, with a bridge's name",
        mend=f"kubectl edit network-attachment-definition {said.rpartition('/')[2]}" if isinstance(joins, str) else "",
        field=f"networks[{_name(change)}].multus.networkName",
    )


def bridge(change: NicAdd, vmi: Document, facts: Facts) -> Finding | None:
    """What the guest's node must have for the card to join its network."""
    joins = facts.joins.get(_full_name(change, vmi))
    if facts.places is None or not facts.places.network or (isinstance(joins, str) or joins is None):
        return None
    actual, mend = joins.name, ""
    if facts.places.network == "user":
        actual, mend = "user-mode network", "run the home as root"
        message = "the guest's home runs without root: its guests join no network beside the pod network"
    elif joins.name not in facts.places.bridges:
        there = ", ".join(sorted(facts.places.bridges)) or "none"
        actual, message = f"missing; there are: {there}", f"the guest's node has no bridge {joins.name}"
        mend = (
            f"make it (ip link add {joins.name} type bridge && ip link set {joins.name} up), or name another in the "
            f"NetworkAttachmentDefinition"
        )
    elif joins.vlan and not facts.places.bridges[joins.name]:
        actual, message = "no VLAN filtering", f"bridge {joins.name} of the guest's node keeps no VLANs apart"
        mend = f"ip link set {joins.name} type bridge vlan_filtering 1, or leave vlan out of the "
        mend += "NetworkAttachmentDefinition"
    else:
        message = f"the guest's node has bridge {joins.name}"
    return Finding(
        id="nic.bridge",
        status=verdict(not mend),
        message=message,
        actual=actual,
        required=f"bridge {joins.name}" + (f" with VLAN {joins.vlan}" if joins.vlan else ""),
        mend=mend,
        field=f"networks[{_name(change)}].multus.networkName",
    )


def binding(change: NicAdd, _: Document, __: Facts) -> Finding:
    return _binding(change, BINDINGS)


def upstream_binding(change: NicAdd, _: Document, __: Facts) -> Finding:
    return _binding(change, UPSTREAM_BINDINGS)


def _binding(change: NicAdd, offered: tuple[str, ...]) -> Finding:
    found = next((kind for kind in (*UPSTREAM_BINDINGS, "masquerade") if kind in change.interface), "none")
    fits = found in offered
    return Finding(
        id="nic.binding",
        status=verdict(fits),
        message=f"card {_name(change)} has binding {found}, which may {'' if fits else 'not '}come to a running guest",
        actual=found,
        required=" or ".join(offered),
        mend="" if fits else f"set bridge: {{}} on interface {_name(change)}",
        field=f"domain.devices.interfaces[{_name(change)}]",
    )


def port(_: NicAdd, __: Document, facts: Facts) -> Finding | None:
    if facts.places is None:
        return None
    left = facts.places.ports
    return Finding(
        id="nic.port",
        status=verdict(left > 0),
        message=f"the guest has {left} PCIe ports free",
        actual=str(left),
        required="at least 1",
        mend="" if left > 0 else "take a virtio disk or a card away, or restart",
    )


def there(change: NicRemove | NicLink, vmi: Document, _: Facts) -> Finding:
    known = interfaces(vmi)
    found = change.name in known
    return Finding(
        id="nic.there",
        status=verdict(found),
        message=f"the guest has {'' if found else 'no '}card {change.name}",
        actual="there" if found else "missing",
        required="there",
        mend="" if found else f"there are: {', '.join(known) or 'none'}",
        field=f"domain.devices.interfaces[{change.name}]",
    )


def removable(change: NicRemove, vmi: Document, _: Facts) -> Finding:
    """KubeVirt's rule: a bridge to a second network; the pod network's card stays as long as the pod."""
    has = interfaces(vmi).get(change.name) or {}
    pods = {str(n.get("name")) for n in vmi["spec"].get("networks") or () if n.get("pod") is not None}
    holds = "bridge" in has and change.name not in pods
    return Finding(
        id="nic.removable",
        status=verdict(holds),
        message=f"card {change.name} is {'' if holds else 'not '}a bridge to a second network",
        actual="bridge" if "bridge" in has else "another binding, or none",
        required="bridge, not of the pod network",
        mend="" if holds else "restart to remove it",
        field=f"domain.devices.interfaces[{change.name}]",
    )


ADD = (name_free, network, definition, bridge, binding, port, guest.standing)
REMOVE = (there, removable, guest.standing)
LINK = (there,)


def _name(change: NicAdd) -> str:
    return str(change.interface.get("name"))


def _network_name(change: NicAdd) -> str:
    return str((change.network.get("multus") or {}).get("networkName") or "")


def _full_name(change: NicAdd, vmi: Document) -> str:
    """NAMESPACE/NAME of the network's definition."""
    said = _network_name(change)
    return said if "/" in said else f"{namespace(vmi)}/{said}"
