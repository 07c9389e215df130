"""VolumeSnapshots and their contents as the node reads and makes them; nothing here waits or writes."""

from hotvirt.api.snapshots import GROUP, MEMBERS
from hotvirt.kube.client import Document
from hotvirt.kube.informer import Informer, Key
from hotvirt.kube.resources import VOLUME_SNAPSHOT_CONTENTS, VOLUME_SNAPSHOTS
from hotvirt.node.snapshotfiles import is_name
from hotvirt.node.volumes import PROVISIONER

PROTECTION = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"


def group_of(snapshot: Document) -> Key:
    """The instant that it is of: its group's, else its own."""
    metadata = snapshot["metadata"]
    name = (metadata.get("annotations") or {}).get(GROUP) or ""
    return Key(metadata["namespace"], name if is_name(name) else metadata["uid"])


def members(snapshot: Document) -> set[str]:
    """Names of all snapshots of its group."""
    metadata = snapshot["metadata"]
    annotations = metadata.get("annotations") or {}
    if not is_name(annotations.get(GROUP) or ""):
        return {metadata["name"]}
    return set((annotations.get(MEMBERS) or metadata["name"]).split(","))


def content_name(snapshot: Document) -> str:
    return f"snapcontent-{snapshot['metadata']['uid']}"


def volume_snapshot_content(snapshot: Document, storage_class: Document | None, handle: str) -> Document:
    """`handle`: where the copy is, see `snapshotfiles`."""
    metadata = snapshot["metadata"]
    spec: Document = {
        "deletionPolicy": (storage_class or {}).get("deletionPolicy") or "Delete",
        "driver": PROVISIONER,
        "source": {"snapshotHandle": handle},
        "volumeSnapshotRef": {
            "apiVersion": VOLUME_SNAPSHOTS.api_version, "kind": "VolumeSnapshot", "name": metadata["name"],
            "namespace": metadata["namespace"], "uid": metadata["uid"],
        },
    }  # fmt: skip
    if storage_class is not None:
        spec["volumeSnapshotClassName"] = storage_class["metadata"]["name"]
    return {
        "apiVersion": VOLUME_SNAPSHOT_CONTENTS.api_version,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": content_name(snapshot), "finalizers": [PROTECTION]},
        "spec": spec,
    }


def handle_of(snapshot: Document, contents: Informer) -> str:
    """Where its copy is; "" for nowhere. A content counts only for the very snapshot that it names: whoever may write a
    snapshot's status must not come by another's disk."""
    content = contents.get(str((snapshot.get("status") or {}).get("boundVolumeSnapshotContentName") or ""))
    spec = (content or {}).get("spec") or {}
    if (spec.get("volumeSnapshotRef") or {}).get("uid") != snapshot["metadata"]["uid"]:
        return ""
    return str((spec.get("source") or {}).get("snapshotHandle") or "")
