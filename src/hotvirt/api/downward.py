"""What a pod's downward API says of it: fields of its metadata, and what its container asks for. Pure."""

import json
import re
from typing import Any

from hotvirt.api import quantity

Document = dict[str, Any]
_METADATA = ("name", "namespace", "uid")
_MAPS = ("labels", "annotations")
_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
RESOURCES = tuple(
    f"{kind}.{what}" for kind in ("limits", "requests") for what in ("cpu", "memory", "ephemeral-storage")
)
COMPUTE = "compute"
"""The launcher's container, meant where none is named."""
FIELDS = (
    *(f"metadata.{name}" for name in (*_METADATA, *_MAPS)),
    "metadata.labels['KEY']",
    "metadata.annotations['KEY']",
)


class UnknownField(ValueError):
    """The text names the field and what there is instead."""


def is_field(path: str) -> bool:
    return path in FIELDS[:5] or _KEYED.fullmatch(path) is not None


def is_resource(name: str) -> bool:
    return name in RESOURCES


def value(pod: Document, item: Document) -> str:
    """The content of one file, as the kubelet writes it."""
    if reference := item.get("fieldRef"):
        return _field(pod, str(reference.get("fieldPath") or ""))
    return _resource(pod, item.get("resourceFieldRef") or {})


def _field(pod: Document, path: str) -> str:
    metadata: Document = pod["metadata"]
    if keyed := _KEYED.fullmatch(path):
        return str((metadata.get(keyed[1]) or {}).get(keyed[2]) or "")
    _, _, name = path.partition(".")
    if not is_field(path):
        raise UnknownField(f"fieldPath {path!r} is unknown: use {', '.join(FIELDS)}")
    if name in _MAPS:
        found = sorted((metadata.get(name) or {}).items())
        return "\n".join(f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in found)
    return str(metadata.get(name) or "")


def _resource(pod: Document, reference: Document) -> str:
    """In whole divisors, rounded up."""
    named, what = str(reference.get("containerName") or COMPUTE), str(reference.get("resource") or "")
    if not is_resource(what):
        raise UnknownField(f"resource {what!r} is unknown: use {', '.join(RESOURCES)}")
    container = next((each for each in pod["spec"]["containers"] if each["name"] == named), None)
    if container is None:
        raise UnknownField(f"containerName {named!r} is no container of the guest's pod: use {COMPUTE}")
    kind, _, resource = what.partition(".")
    has: Document = (container.get("resources") or {}).get(kind) or {}
    if resource not in has:
        raise UnknownField(f"{what} is not set for the guest's pod: set it in domain.resources, or leave the file out")
    divisor = quantity.parse(reference.get("divisor") or 1) or 1
    return str(-int(-quantity.parse(has[resource]) / divisor // 1))
