"""What a restore makes: claims that begin as a snapshot's disks, and the machine that uses them. Pure."""

import json
from typing import Any

from hotvirt.api import quantity, snapshots
from hotvirt.api.volumesnapshots import GROUP
from hotvirt.kube.client import Document
from hotvirt.kube.resources import CLAIMS, VMS

NOT_KEPT = ("pv.kubernetes.io", "volume.beta.kubernetes.io", "volume.kubernetes.io", "cdi.kubevirt.io", "k8s.io/Clone")
IMMEDIATE = "cdi.kubevirt.io/storage.bind.immediate.requested"
"""The claim is to have its disk at once, and not when a guest first needs it: until then it could lose its source."""


class RestoreError(Exception):
    """The text says what is wrong and the mend."""


def names(restore: Document, content: Document) -> list[Document]:
    """The restore's `status.restores`: which claim becomes what."""
    return [
        {
            "volumeName": backup["volumeName"],
            "persistentVolumeClaim": _claim_name(restore, backup),
            "volumeSnapshotName": backup["volumeSnapshotName"],
        }
        for backup in content["spec"].get("volumeBackups") or ()
    ]


def _claim_name(restore: Document, backup: Document) -> str:
    volume, spec = backup["volumeName"], restore["spec"]
    if named := _override(restore, volume).get("restoreName"):
        return str(named)
    policy = spec.get("volumeRestorePolicy")
    if policy == "InPlace":
        return str(backup["persistentVolumeClaim"]["metadata"]["name"])
    if policy == "PrefixTargetName":
        return f"{spec['target']['name']}-{volume}"
    return f"restore-{restore['metadata']['uid']}-{volume}"


def _override(restore: Document, volume: str) -> Document:
    given = restore["spec"].get("volumeRestoreOverrides") or ()
    found: Document = next((each for each in given if each.get("volumeName") == volume), {})
    return found


def claim(
    restore: Document, backup: Document, entry: Document, *, size: str | None, owner: Document | None
) -> Document:
    """`size`: what the snapshot needs; `owner`: the reference of the machine it goes with."""
    was, metadata = backup["persistentVolumeClaim"], restore["metadata"]
    before = was.get("metadata") or {}
    annotations = {
        **{k: v for k, v in (before.get("annotations") or {}).items() if not k.startswith(NOT_KEPT)},
        **(_override(restore, backup["volumeName"]).get("annotations") or {}),
        snapshots.RESTORE_NAME: metadata["name"], snapshots.LAST_RESTORE: snapshots.restore_mark(restore),
        IMMEDIATE: "",
    }  # fmt: skip
    labels = {**(before.get("labels") or {}), **(_override(restore, backup["volumeName"]).get("labels") or {})}
    spec = {k: v for k, v in was["spec"].items() if k not in ("volumeName", "dataSource", "dataSourceRef", "selector")}
    spec["dataSource"] = {"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": entry["volumeSnapshotName"]}
    asked = (spec.get("resources") or {}).get("requests", {}).get("storage")
    if size and quantity.parse_bytes(size) > quantity.parse_bytes(asked or 0):
        spec["resources"] = {"requests": {"storage": size}}
    made: Document = {
        "name": entry["persistentVolumeClaim"], "namespace": metadata["namespace"], "annotations": annotations,
    }  # fmt: skip
    if labels:
        made["labels"] = labels
    if owner is not None:
        made["ownerReferences"] = [owner]
    return {"apiVersion": "v1", "kind": CLAIMS.kind, "metadata": made, "spec": spec}


def machine_spec(snapshot_vm: Document, entries: list[Document]) -> Document:
    """The machine's spec as it was, on the restored claims. A volume that was a DataVolume is its claim now: what
    filled it the first time must not do so again."""
    spec: Document = snapshot_vm["spec"]
    claims = {entry["volumeName"]: entry["persistentVolumeClaim"] for entry in entries}
    template, gone = spec["template"], set()
    volumes = []
    for volume in template["spec"].get("volumes") or ():
        if volume.get("memoryDump"):
            continue
        if (name := claims.get(volume["name"])) is not None:
            kind = "dataVolume" if volume.get("dataVolume") else "persistentVolumeClaim"
            source = volume.get(kind) or {}
            if kind == "dataVolume":
                gone.add(source.get("name"))
            kept = {"hotpluggable": True} if source.get("hotpluggable") else {}
            volume = {"name": volume["name"], "persistentVolumeClaim": {"claimName": name, **kept}}
        volumes.append(volume)
    new = {**spec, "template": {**template, "spec": {**template["spec"], "volumes": volumes}}}
    left = [t for t in spec.get("dataVolumeTemplates") or () if (t.get("metadata") or {}).get("name") not in gone]
    if left:
        new["dataVolumeTemplates"] = left
    else:
        new.pop("dataVolumeTemplates", None)
    return new


def deleted_data_volumes(vm: Document, spec: Document) -> list[str]:
    """Those that the machine made for itself and does not use any more."""

    def named(of: Document) -> set[str]:
        return {str((t.get("metadata") or {}).get("name")) for t in of.get("dataVolumeTemplates") or ()}

    return sorted(named(vm["spec"]) - named(spec))


def with_spec(vm: Document, spec: Document) -> Document:
    """The machine with another spec; whether it is to run stays as it is."""
    kept = {key: vm["spec"][key] for key in ("running", "runStrategy") if vm["spec"].get(key) is not None}
    return {**vm, "spec": {**{k: v for k, v in spec.items() if k not in ("running", "runStrategy")}, **kept}}


def changed_machine(vm: Document, spec: Document, restore: Document) -> Document:
    """The machine as restored."""
    return {**with_spec(vm, spec), "metadata": _marked(vm["metadata"], restore)}


def new_machine(snapshot_vm: Document, spec: Document, restore: Document) -> Document:
    """A machine of its own, which does not run yet. RestoreError for patches that do not fit."""
    was = snapshot_vm.get("metadata") or {}
    metadata: Document = {
        "name": restore["spec"]["target"]["name"], "namespace": restore["metadata"]["namespace"],
        "labels": dict(was.get("labels") or {}), "annotations": dict(was.get("annotations") or {}),
    }  # fmt: skip
    spec = {**{k: v for k, v in spec.items() if k not in ("running", "runStrategy")}, "runStrategy": "Halted"}
    machine: Document = {"apiVersion": VMS.api_version, "kind": VMS.kind, "metadata": metadata, "spec": spec}
    machine = patched(machine, restore["spec"].get("patches") or ())
    return {**machine, "metadata": _marked(machine["metadata"], restore)}


def patched(machine: Document, patches: Any) -> Document:
    """Each of the patches is one JSON patch operation, as text."""
    if not patches:
        return machine
    import jsonpatch

    try:
        operations = [json.loads(each) for each in patches]
        made: Document = jsonpatch.JsonPatch(operations).apply(machine)
    except (ValueError, TypeError, KeyError, jsonpatch.JsonPatchException) as error:
        raise RestoreError(f"spec.patches do not fit the machine: {error}") from error
    return made


def _marked(metadata: Document, restore: Document) -> Document:
    annotations = {**(metadata.get("annotations") or {}), snapshots.LAST_RESTORE: snapshots.restore_mark(restore)}
    return {**metadata, "annotations": annotations}
