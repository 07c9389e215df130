"""What a network card that comes, goes, or is plugged in and out rests on."""

from typing import Any

from hotvirt.api import attachments
from hotvirt.preconditions import guest
from hotvirt.preconditions.changes import NicAdd, NicLink, NicRemove
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, verdict

Document = dict[str, Any]
BINDINGS = ("bridge", "sriov")
"""Those of a second network that may come to a running guest, as KubeVirt has it."""


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


def binding(change: NicAdd, _: Document, __: Facts) -> Finding:
    found = next((kind for kind in (*BINDINGS, "masquerade") if kind in change.interface), "none")
    fits = found in BINDINGS
    return Finding(
        id="nic.binding",
        status=verdict(fits),
        message=f"card {_name(change)} has binding {found}, which may {'' if fits else 'not '}come to a running guest",
        actual=found,
        required=" or ".join(BINDINGS),
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


ADD = (name_free, network, binding, port, guest.standing)
REMOVE = (there, removable, guest.standing)
LINK = (there,)


def _name(change: NicAdd) -> str:
    return str(change.interface.get("name"))
