"""NetworkAttachmentDefinition: a network beside the pod network, as the Kubernetes network plumbing group has it. Pure.

Its config is a CNI plugin's, as JSON. Type `bridge` is what guests are connected by here: their cards' taps join the
bridge that it names, which the node must have.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

Document = dict[str, Any]
PLURAL, GROUP = "network-attachment-definitions", "k8s.cni.cncf.io"


_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
REFERENCE = re.compile(rf"({_LABEL}/)?(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
MTU, VLANS = range(68, 65536), range(1, 4095)
NOT_OFFERED = {
    "ipam": "remove it, the network's own DHCP server or the guest's cloud-init gives addresses",
    "vlanTrunk": "remove it, and write one vlan",
    "macspoofchk": "remove it, guests on a bridge of the host's are not watched",
}
"""Fields that ask for what would not be done, with what to do instead."""


class AttachmentError(Exception):
    """The text says what is wrong with the object and what to write instead."""


def crd() -> Document:
    spec = {"type": "object", "properties": {"config": {"type": "string", "description": "A CNI config, as JSON."}}}
    schema = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "spec": spec,
        },
    }  # fmt: skip
    names = {
        "plural": PLURAL, "singular": "network-attachment-definition", "kind": "NetworkAttachmentDefinition",
        "listKind": "NetworkAttachmentDefinitionList", "shortNames": ["net-attach-def"],
    }  # fmt: skip
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class Bridge(Struct, frozen=True, kw_only=True):
    """A bridge of the node, and how a guest is connected to it. 0: as the bridge has it."""

    name: str
    mtu: int = 0
    vlan: int = 0


def named(spec: Document) -> Iterator[tuple[str, str]]:
    """Network -> what it says of its definition, of those beside the pod network."""
    for network in spec.get("networks") or ():
        if name := (network.get("multus") or {}).get("networkName"):
            yield str(network.get("name")), str(name)


def reference(said: str, namespace: str) -> tuple[str, str]:
    """(namespace, name) of what a network of that namespace says: NAME is one of its own, NAMESPACE/NAME another's."""
    where, _, name = said.rpartition("/")
    return where or namespace, name


def from_within(said: str, namespace: str) -> str:
    """The same as that namespace calls it: one of its own by its name alone."""
    where, name = reference(said, namespace)
    return name if where == namespace else f"{where}/{name}"


def bridge(document: Document, *, called: str = "") -> Bridge:
    """The bridge that a definition names. `called`: what people know it by, when that is not its name alone."""
    name = called or str(document["metadata"]["name"])
    config = _plugin(document)
    kind, found = config.get("type"), config.get("bridge")
    if kind != "bridge" or not isinstance(found, str) or not 0 < len(found) <= 15:
        raise AttachmentError(
            f"NetworkAttachmentDefinition {name}: spec.config is not of type bridge with a bridge's name: write "
            '{"type": "bridge", "bridge": "br1"}; other types are not offered here'
        )
    for field, mend in NOT_OFFERED.items():
        if config.get(field):
            raise AttachmentError(f"NetworkAttachmentDefinition {name}: {field} is not offered here: {mend}")
    return Bridge(
        name=found, mtu=_number(config, "mtu", MTU, name=name), vlan=_number(config, "vlan", VLANS, name=name)
    )


def _plugin(document: Document) -> Document:
    try:
        config = json.loads((document.get("spec") or {}).get("config") or "")
        found = config["plugins"][0] if isinstance(config, dict) and config.get("plugins") else config
    except (ValueError, TypeError, LookupError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(config: Document, field: str, offered: range, *, name: str) -> int:
    found = config.get(field) or 0
    if found and (not isinstance(found, int) or found not in offered):
        raise AttachmentError(
            f"NetworkAttachmentDefinition {name}: {field} {found!r} is none: write a number from {offered.start} to "
            f"{offered.stop - 1}, or leave it out"
        )
    return int(found)
