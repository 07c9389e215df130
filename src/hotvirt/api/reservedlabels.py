"""Labels of instances that the control plane alone writes: which node a guest is on, which pod is its own. They come
into templates with a manifest copied from a running guest, and would then be lies about each guest made of it. Pure."""

from collections.abc import Iterator
from typing import Any

from hotvirt.api import schemas
from hotvirt.api.faults import Fault, not_supported

Document = dict[str, Any]

RESERVED = tuple(
    f"kubevirt.io/{name}"
    for name in ("created-by", "migrationJobUID", "nodeName", "migrationTargetNodeName", "schedulable",
                 "install-strategy")
)  # fmt: skip
_SCHEMAS = {
    "VirtualMachine": "VirtualMachineSpec",
    "VirtualMachineInstanceReplicaSet": "VirtualMachineInstanceReplicaSetSpec",
    "VirtualMachinePool": "VirtualMachinePoolSpec",
}


def of_instance(obj: Document, before: Document | None) -> Iterator[Fault]:
    """Those that are not as they were, and those that went: whoever looks for a guest looks for them."""
    new, old = _labels(obj), _labels(before)
    yield from (_fault(label, "") for label in RESERVED if new.get(label) != old.get(label))


def of_template(kind: str, obj: Document, before: Document | None) -> Iterator[Fault]:
    """Those in the template of an instance that `obj` has. What was stored already stays, and may go."""
    new, old = _labels(_template(kind, obj)), _labels(_template(kind, before))
    path = ".".join(_path(kind)) + "."
    yield from (_fault(label, path) for label in RESERVED if label in new and new[label] != old.get(label))


def _fault(label: str, path: str) -> Fault:
    return not_supported(f"{path}metadata.labels[{label}]", f"{label} is set by hotvirt alone: remove it")


def _template(kind: str, obj: Document | None) -> Document | None:
    if not schemas.fits((obj or {}).get("spec"), _SCHEMAS[kind]):
        return None
    found: Document | None = obj
    for field in _path(kind):
        found = (found or {}).get(field)
    return found


def _path(kind: str) -> tuple[str, ...]:
    inner = ("virtualMachineTemplate", "spec") if kind == "VirtualMachinePool" else ()
    return ("spec", *inner, "template")


def _labels(obj: Document | None) -> Document:
    """A template's metadata is free of any schema."""
    metadata = (obj or {}).get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return labels if isinstance(labels, dict) else {}
