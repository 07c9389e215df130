"""NetworkAttachmentDefinition: a network beside the pod network, as the Kubernetes network plumbing group has it. Pure.

Its config is a CNI plugin's, as JSON. Type `bridge` is what guests are connected by here: their cards' taps join the
bridge that it names, which the node must have.
"""

import json
from typing import Any

Document = dict[str, Any]
PLURAL, GROUP = "network-attachment-definitions", "k8s.cni.cncf.io"


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


def bridge(document: Document) -> str:
    """The bridge that a definition names."""
    name = str(document["metadata"]["name"])
    text = (document.get("spec") or {}).get("config") or ""
    try:
        config = json.loads(text)
        plugin = config["plugins"][0] if isinstance(config, dict) and config.get("plugins") else config
        kind, found = plugin.get("type"), plugin.get("bridge")
    except (ValueError, TypeError, AttributeError, LookupError):
        kind = found = None
    if kind != "bridge" or not isinstance(found, str) or not 0 < len(found) <= 15:
        raise AttachmentError(
            f"NetworkAttachmentDefinition {name}: spec.config is not of type bridge with a bridge's name: write "
            '{"type": "bridge", "bridge": "br1"}; other types are not offered here'
        )
    return found
