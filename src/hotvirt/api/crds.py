"""CustomResourceDefinitions of kubevirt.io, made from the table in `api.schemas`. Pure.

Columns, short names and categories are KubeVirt's. `VirtualMachineInstance` has no status subresource, as upstream:
admission restores the status for people instead.
"""

from functools import cache
from typing import Any

from hotvirt.api import explain, schemas, support
from hotvirt.api.fields import ROOTS, accounts

Document = dict[str, Any]

_SCALARS: dict[str, Document] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "uint32": {"type": "integer", "format": "int64", "minimum": 0},
    "int64": {"type": "integer", "format": "int64"},
    "number": {"type": "number"},
    "bytes": {"type": "string", "format": "byte"},
    "time": {"type": "string", "format": "date-time", "nullable": True},
    "duration": {"type": "string"},
    "quantity": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    "intstr": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    "object": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
}


def _column(name: str, path: str, kind: str = "string", *, priority: int = 0, description: str = "") -> Document:
    column: Document = {"name": name, "type": kind, "jsonPath": path}
    if priority:
        column["priority"] = priority
    if description:
        column["description"] = description
    return column


def _condition(name: str) -> str:
    return f".status.conditions[?(@.type=='{name}')].status"


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_VM_COLUMNS = [
    _AGE,
    _column("Status", ".status.printableStatus", description="What the machine does, in a word"),
    _column("Ready", _condition("Ready")),
]
_VMI_COLUMNS = [
    _AGE,
    _column("Phase", ".status.phase"),
    _column("IP", ".status.interfaces[0].ipAddress"),
    _column("NodeName", ".status.nodeName"),
    _column("Ready", _condition("Ready")),
    _column("Live-Migratable", _condition("LiveMigratable"), priority=1),
    _column("Paused", _condition("Paused"), priority=1),
]
_KUBEVIRT_COLUMNS = [_AGE, _column("Phase", ".status.phase")]


@cache
def crds() -> tuple[Document, ...]:
    """All that hotvirt installs, ready to be applied. Shared: do not change what is returned."""
    return (
        _crd("VirtualMachine", "virtualmachines", ("vm", "vms"), _VM_COLUMNS, subresources=("status",)),
        _crd("VirtualMachineInstance", "virtualmachineinstances", ("vmi", "vmis"), _VMI_COLUMNS),
        _crd("KubeVirt", "kubevirts", ("kv", "kvs"), _KUBEVIRT_COLUMNS, subresources=("status",), required=()),
    )


def _crd(
    kind: str,
    plural: str,
    short_names: tuple[str, ...],
    columns: list[Document],
    *,
    subresources: tuple[str, ...] = (),
    required: tuple[str, ...] = ("spec",),
) -> Document:
    schema = {
        "type": "object",
        "description": _OF_KIND[kind],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {**_object(f"{kind}Spec"), "description": explain.WORDS.get(f"{kind}.spec", "")},
            "status": {**_object(f"{kind}Status"), "description": explain.WORDS.get(f"{kind}.status", "")},
        },
    }
    if required:
        schema["required"] = list(required)
    version: Document = {"served": True, "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns}
    if subresources:
        version["subresources"] = {name: {} for name in subresources}
    old = {"deprecated": True, "deprecationWarning": f"kubevirt.io/v1alpha3 {kind} is deprecated: use kubevirt.io/v1"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.kubevirt.io", "labels": {"app.kubernetes.io/managed-by": "hotvirt"}},
        "spec": {
            "group": "kubevirt.io",
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(short_names),
                "categories": ["all"],
            },
            "versions": [
                {"name": "v1", "storage": True, **version},
                {"name": "v1alpha3", "storage": False, **version, **old},
            ],
        },
    }


_OF_KIND = {
    "VirtualMachine": "A virtual machine: what it is, and whether it shall run.",
    "VirtualMachineInstance": "One running guest. Made from its VM, and edited there.",
    "KubeVirt": "Settings of the whole installation.",
}


@cache
def _object(name: str) -> Document:
    properties = {}
    fields = schemas.fields(name)
    for field, kind in fields.items():
        shown = _kind(kind)
        if words := _words(name, field):
            shown = {**shown, "description": words}
        properties[field] = shown
    schema: Document = {"type": "object"}
    if properties:
        schema["properties"] = properties
    if required := [field for field, kind in fields.items() if kind.required]:
        schema["required"] = required
    return schema


def _words(name: str, field: str) -> str:
    """In a spec, what becomes of a field is said of all; a status is silent about what is not reported yet."""
    if name in _of_specs():
        return support.sentence(name, field)
    return explain.WORDS.get(f"{name}.{field}", "")


@cache
def _of_specs() -> frozenset[str]:
    """Types of the machines' specs that are described field by field."""
    return frozenset(account.name for root, path in ROOTS.values() for account in accounts(root, path))


def _kind(kind: schemas.Kind) -> Document:
    item = _SCALARS[kind.item] if kind.is_scalar else _object(kind.item)
    if kind.values:
        item = {**item, "enum": list(kind.values)}
    if kind.shape == "map":
        return {"type": "object", "additionalProperties": item}
    if kind.shape == "list":
        schema: Document = {"type": "array", "items": item}
        if kind.keys == ("set",):
            schema["x-kubernetes-list-type"] = "set"
        elif kind.keys:
            schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(kind.keys)}
        return schema
    return item
