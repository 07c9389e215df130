"""CustomResourceDefinitions of KubeVirt's groups, made from the table in `api.schemas`. Pure.

Columns, short names and categories are KubeVirt's. `VirtualMachineInstance` has no status subresource, as upstream:
admission restores the status for people instead.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from msgspec import Struct

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


def _condition(name: str, field: str = "status") -> str:
    return f".status.conditions[?(@.type=='{name}')].{field}"


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_VM_COLUMNS = [
    _AGE,
    _column("Status", ".status.printableStatus", description="What the machine does, in a word"),
    _column("Ready", _condition("Ready")),
    _column("Memory", _condition("MemoryAsAsked", "message"), priority=1, description="As asked/as the guest has it"),
    _column("CPUs", _condition("CPUAsAsked", "message"), priority=1, description="As asked/as the guest has them"),
    _column("Pending", _condition("ResizePending", "message"), priority=1, description="Why the two differ"),
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
_MIGRATION_COLUMNS = [
    _column("Phase", ".status.phase"),
    _column("VMI", ".spec.vmiName", description="The guest that moves"),
    _AGE,
]
_KUBEVIRT_COLUMNS = [_AGE, _column("Phase", ".status.phase")]
_REPLICA_COLUMNS = [
    _column("Desired", ".spec.replicas", "integer", description="How many there shall be"),
    _column("Current", ".status.replicas", "integer", description="How many there are, ended and leaving ones aside"),
    _column("Ready", ".status.readyReplicas", "integer", description="How many are ready"),
    _AGE,
]
_DATA_VOLUME_COLUMNS = [
    _column("Phase", ".status.phase", description="How far it is"),
    _column("Progress", ".status.progress", description="In percent, while something is copied"),
    _column("Restarts", ".status.restartCount", "integer", description="How often it was begun anew"),
    _AGE,
]
_PROFILE_COLUMNS = [_column("StorageClass", ".status.storageClass"), _AGE]
_READY = _column("ReadyToUse", ".status.readyToUse", "boolean")
_MADE = _column("CreationTime", ".status.creationTime", "date")
_ERROR = _column("Error", ".status.error.message")
_SOURCE_COLUMNS = [
    _column("SourceKind", ".spec.source.kind"),
    _column("SourceName", ".spec.source.name"),
    _column("Phase", ".status.phase"),
]
_RESTORE_COLUMNS = [
    _column("TargetKind", ".spec.target.kind"),
    _column("TargetName", ".spec.target.name"),
    _column("Complete", ".status.complete", "boolean"),
    _column("RestoreTime", ".status.restoreTime", "date"),
]
_CLONE_COLUMNS = [
    _column("Phase", ".status.phase"),
    _column("SourceVirtualMachine", ".spec.source.name"),
    _column("TargetVirtualMachine", ".spec.target.name"),
]
_SUBRESOURCES: dict[str, Document] = {
    "status": {},
    "scale": {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.labelSelector",
    },
}


class _Group(Struct, frozen=True):
    """An API group: the version stored, and the one that is served beside it for old manifests."""

    name: str
    version: str
    old: str = ""


_KUBEVIRT = _Group("kubevirt.io", "v1", "v1alpha3")
_MIGRATIONS = _Group("migrations.kubevirt.io", "v1alpha1")
_POOL = _Group("pool.kubevirt.io", "v1beta1", "v1alpha1")
_INSTANCETYPE = _Group("instancetype.kubevirt.io", "v1beta1")
_SNAPSHOT = _Group("snapshot.kubevirt.io", "v1beta1", "v1alpha1")
_CLONE = _Group("clone.kubevirt.io", "v1beta1", "v1alpha1")
_EXPORT = _Group("export.kubevirt.io", "v1", "v1beta1")
_CDI = _Group("cdi.kubevirt.io", "v1beta1")


@cache
def crds() -> tuple[Document, ...]:
    """All that hotvirt installs, ready to be applied. Shared: do not change what is returned."""
    return (
        _crd("VirtualMachine", "virtualmachines", ("vm", "vms"), _VM_COLUMNS, subresources=("status",)),
        _crd("VirtualMachineInstance", "virtualmachineinstances", ("vmi", "vmis"), _VMI_COLUMNS),
        _crd("KubeVirt", "kubevirts", ("kv", "kvs"), _KUBEVIRT_COLUMNS, subresources=("status",), required=()),
        _crd(
            "VirtualMachineInstanceReplicaSet", "virtualmachineinstancereplicasets", ("vmirs", "vmirss"),
            _REPLICA_COLUMNS, subresources=("status", "scale"),
        ),
        _crd(
            "VirtualMachinePool", "virtualmachinepools", ("vmpool", "vmpools"),
            _REPLICA_COLUMNS, group=_POOL, subresources=("status", "scale"),
        ),
        _crd(
            "VirtualMachineInstanceMigration", "virtualmachineinstancemigrations", ("vmim", "vmims"),
            _MIGRATION_COLUMNS, subresources=("status",),
        ),
        _crd("MigrationPolicy", "migrationpolicies", (), [], group=_MIGRATIONS, subresources=("status",)),
        *(
            _crd(kind, f"{kind.lower()}s", short_names, [], group=_INSTANCETYPE)
            for kind, short_names in _SIZES.items()
        ),
        _crd(
            "VirtualMachineSnapshot", "virtualmachinesnapshots", ("vmsnapshot", "vmsnapshots"),
            [*_SOURCE_COLUMNS, _READY, _MADE, _ERROR], group=_SNAPSHOT, subresources=("status",),
        ),
        _crd(
            "VirtualMachineSnapshotContent", "virtualmachinesnapshotcontents",
            ("vmsnapshotcontent", "vmsnapshotcontents"), [_READY, _MADE, _ERROR], group=_SNAPSHOT,
            subresources=("status",),
        ),
        _crd(
            "VirtualMachineRestore", "virtualmachinerestores", ("vmrestore", "vmrestores"), _RESTORE_COLUMNS,
            group=_SNAPSHOT, subresources=("status",),
        ),
        _crd(
            "VirtualMachineClone", "virtualmachineclones", ("vmclone", "vmclones"), _CLONE_COLUMNS, group=_CLONE,
            subresources=("status",),
        ),
        _crd(
            "VirtualMachineExport", "virtualmachineexports", ("vmexport", "vmexports"), _SOURCE_COLUMNS,
            group=_EXPORT, subresources=("status",),
        ),
        *_storage(),
    )  # fmt: skip


def _storage() -> Iterator[Document]:
    yield _crd("DataVolume", "datavolumes", ("dv", "dvs"), _DATA_VOLUME_COLUMNS, group=_CDI, subresources=("status",))
    yield _crd("DataSource", "datasources", ("das",), [_AGE], group=_CDI, subresources=("status",))
    yield _crd("StorageProfile", "storageprofiles", (), _PROFILE_COLUMNS, group=_CDI, subresources=("status",))
    yield _crd(
        "CDI", "cdis", ("cdi", "cdis"), [_AGE, _column("Phase", ".status.phase")], group=_CDI, subresources=("status",)
    )
    yield _crd("CDIConfig", "cdiconfigs", (), [_AGE], group=_CDI, subresources=("status",))
    for kind in ("VolumeImportSource", "VolumeUploadSource", "VolumeCloneSource"):
        yield _crd(kind, f"{kind.lower()}s", (), [_AGE], group=_CDI)


def _crd(
    kind: str,
    plural: str,
    short_names: tuple[str, ...],
    columns: list[Document],
    *,
    group: _Group = _KUBEVIRT,
    subresources: tuple[str, ...] = (),
    required: tuple[str, ...] = ("spec",),
) -> Document:
    version: Document = {"served": True, "schema": {"openAPIV3Schema": _schema(kind, required)}}
    if columns:
        version["additionalPrinterColumns"] = columns
    if subresources:
        version["subresources"] = {name: _SUBRESOURCES[name] for name in subresources}
    versions = [{"name": group.version, "storage": True, **version}]
    if group.old:
        warning = f"{group.name}/{group.old} {kind} is deprecated: use {group.name}/{group.version}"
        old = {"deprecated": True, "deprecationWarning": warning}
        versions.append({"name": group.old, "storage": False, **version, **old})
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group.name}", "labels": {"app.kubernetes.io/managed-by": "hotvirt"}},
        "spec": {
            "group": group.name,
            "scope": "Cluster" if kind in _OF_CLUSTER else "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(short_names),
                **({} if kind in _OF_CLUSTER else {"categories": ["all"]}),
            },
            "versions": versions,
        },
    }


def _schema(kind: str, required: tuple[str, ...]) -> Document:
    parts = {part: name for part in ("spec", "status") if (name := _type_of(kind, part)) in schemas.types()}
    schema: Document = {
        "type": "object",
        "description": _OF_KIND[kind],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            **{
                part: {**_object(name), "description": explain.WORDS.get(f"{kind}.{part}", "")}
                for part, name in parts.items()
            },
        },
    }
    if required:
        schema["required"] = list(required)
    return schema


def _type_of(kind: str, part: str) -> str:
    """`VirtualMachineClusterPreference` has the spec of `VirtualMachinePreference`."""
    return f"{kind.replace('Cluster', '')}{part.capitalize()}"


_SIZES = {
    "VirtualMachineInstancetype": ("vminstancetype", "vminstancetypes", "vmf", "vmfs"),
    "VirtualMachineClusterInstancetype": ("vmclusterinstancetype", "vmclusterinstancetypes", "vmcf", "vmcfs"),
    "VirtualMachinePreference": ("vmpref", "vmprefs", "vmp", "vmps"),
    "VirtualMachineClusterPreference": ("vmcp", "vmcps"),
}
_OF_CLUSTER = (
    "VirtualMachineClusterInstancetype", "VirtualMachineClusterPreference", "MigrationPolicy", "StorageProfile", "CDI",
    "CDIConfig",
)  # fmt: skip
_OF_KIND = {
    "VirtualMachine": "A virtual machine: what it is, and whether it shall run.",
    "VirtualMachineInstance": "One running guest. Made from its VM, and edited there.",
    "KubeVirt": "Settings of the whole installation.",
    "VirtualMachineInstanceReplicaSet": "A number of running guests that are all alike and keep nothing.",
    "VirtualMachinePool": "A number of machines made from one template, each with a number in its name.",
    "VirtualMachineInstanceMigration": "A move of a running guest to another node.",
    "MigrationPolicy": "How guests are moved, for those that its selectors match.",
    "VirtualMachineInstancetype": "CPU and memory of machines by name, for this namespace.",
    "VirtualMachineSnapshot": "A machine's disks and settings as they were at one moment.",
    "VirtualMachineSnapshotContent": "What a snapshot holds. Made by hotvirt.",
    "VirtualMachineRestore": "A snapshot put back into its machine, or into a new one.",
    "VirtualMachineClone": "A new machine that begins as a copy of another, or of a snapshot.",
    "VirtualMachineExport": "A machine's or snapshot's disks, or a claim, to be downloaded.",
    "VirtualMachineClusterInstancetype": "CPU and memory of machines by name, for all namespaces.",
    "VirtualMachinePreference": "What a guest works best with, for this namespace. Machines' words come first.",
    "VirtualMachineClusterPreference": "What a guest works best with, for all namespaces. Machines' words come first.",
    "DataVolume": "A claim and what is to be in it: an image from somewhere, a copy of another claim, or nothing.",
    "DataSource": "A name for a claim or snapshot to make copies of, such as the newest image of a distribution.",
    "StorageProfile": "What claims of a storage class get when a data volume leaves it open.",
    "CDI": "That data volumes are offered here.",
    "CDIConfig": "Settings for data volumes, and where images are uploaded to.",
    "VolumeImportSource": "An image that claims may name as their dataSourceRef.",
    "VolumeUploadSource": "Claims that name this as their dataSourceRef wait for an upload.",
    "VolumeCloneSource": "A claim that claims may name as their dataSourceRef to become a copy of it.",
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
