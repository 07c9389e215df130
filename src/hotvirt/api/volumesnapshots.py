"""VolumeSnapshots, their contents and classes, as the Kubernetes group snapshot.storage.k8s.io has them. Pure.

They are the definitions of Kubernetes' CSI snapshotter, in the parts that clients read and write.
"""

from typing import Any

Document = dict[str, Any]
GROUP = "snapshot.storage.k8s.io"
_STRING: Document = {"type": "string"}
_TIME: Document = {"type": "string", "format": "date-time"}
_QUANTITY: Document = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
_ERROR: Document = {"type": "object", "properties": {"message": _STRING, "time": _TIME}}
_OPEN: Document = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_POLICY: Document = {"type": "string", "enum": ["Delete", "Retain"]}


def crds() -> list[Document]:
    return [
        _crd("VolumeSnapshot", "volumesnapshots", ["vs"], _snapshot(), columns=_COLUMNS, status=True),
        _crd(
            "VolumeSnapshotContent", "volumesnapshotcontents", ["vsc", "vscs"], _content(), scope="Cluster",
            columns=_CONTENT_COLUMNS, status=True,
        ),
        _crd(
            "VolumeSnapshotClass", "volumesnapshotclasses", ["vsclass", "vsclasses"],
            {
                "driver": _STRING, "deletionPolicy": _POLICY,
                "parameters": {"type": "object", "additionalProperties": _STRING},
            },
            scope="Cluster", columns=_CLASS_COLUMNS,
        ),
    ]  # fmt: skip


def _snapshot() -> Document:
    return {
        "spec": {
            "type": "object", "required": ["source"],
            "properties": {
                "source": {
                    "type": "object",
                    "properties": {"persistentVolumeClaimName": _STRING, "volumeSnapshotContentName": _STRING},
                },
                "volumeSnapshotClassName": _STRING,
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "boundVolumeSnapshotContentName": _STRING, "creationTime": _TIME, "error": _ERROR,
                "readyToUse": {"type": "boolean"}, "restoreSize": _QUANTITY,
            },
        },
    }  # fmt: skip


def _content() -> Document:
    return {
        "spec": {
            "type": "object", "required": ["deletionPolicy", "driver", "source", "volumeSnapshotRef"],
            "properties": {
                "deletionPolicy": _POLICY, "driver": _STRING, "sourceVolumeMode": _STRING,
                "source": {"type": "object", "properties": {"snapshotHandle": _STRING, "volumeHandle": _STRING}},
                "volumeSnapshotClassName": _STRING, "volumeSnapshotRef": _OPEN,
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "creationTime": {"type": "integer", "format": "int64"}, "error": _ERROR,
                "readyToUse": {"type": "boolean"}, "restoreSize": {"type": "integer", "format": "int64"},
                "snapshotHandle": _STRING,
            },
        },
    }  # fmt: skip


def _column(name: str, path: str, kind: str = "string") -> Document:
    return {"name": name, "type": kind, "jsonPath": path}


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_COLUMNS = [
    _column("ReadyToUse", ".status.readyToUse", "boolean"),
    _column("SourcePVC", ".spec.source.persistentVolumeClaimName"),
    _column("SourceSnapshotContent", ".spec.source.volumeSnapshotContentName"),
    _column("RestoreSize", ".status.restoreSize"),
    _column("SnapshotClass", ".spec.volumeSnapshotClassName"),
    _column("SnapshotContent", ".status.boundVolumeSnapshotContentName"),
    _column("CreationTime", ".status.creationTime", "date"),
    _AGE,
]
_CONTENT_COLUMNS = [
    _column("ReadyToUse", ".status.readyToUse", "boolean"),
    _column("RestoreSize", ".status.restoreSize", "integer"),
    _column("DeletionPolicy", ".spec.deletionPolicy"),
    _column("Driver", ".spec.driver"),
    _column("VolumeSnapshotClass", ".spec.volumeSnapshotClassName"),
    _column("VolumeSnapshot", ".spec.volumeSnapshotRef.name"),
    _column("VolumeSnapshotNamespace", ".spec.volumeSnapshotRef.namespace"),
    _AGE,
]
_CLASS_COLUMNS = [_column("Driver", ".driver"), _column("DeletionPolicy", ".deletionPolicy"), _AGE]


def _crd(
    kind: str, plural: str, short: list[str], properties: Document, *, columns: list[Document],
    scope: str = "Namespaced", status: bool = False,
) -> Document:  # fmt: skip
    schema = {
        "type": "object",
        "properties": {"apiVersion": _STRING, "kind": _STRING, "metadata": {"type": "object"}, **properties},
    }
    version: Document = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
    }  # fmt: skip
    if status:
        version["subresources"] = {"status": {}}
    names = {
        "plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List", "shortNames": short,
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # The group is Kubernetes' own, and definitions in such groups must say that they are approved.
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {
                "api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814"
            },
        },
        "spec": {"group": GROUP, "scope": scope, "names": names, "versions": [version]},
    }
