"""What a restore makes: claims that begin as a snapshot's disks, and the machine that uses them. Pure."""

import json
from typing import Any

from hotvirt.api import datavolumes, quantity, snapshots
from hotvirt.api.volumesnapshots import GROUP
from hotvirt.controllers import datavolumetemplates
from hotvirt.kube.client import Document
from hotvirt.kube.resources import CLAIMS, VMS

NOT_KEPT = ("pv.kubernetes.io", "volume.beta.kubernetes.io", "volume.kubernetes.io", "cdi.kubevirt.io", "k8s.io/Clone")
IMMEDIATE = "cdi.kubevirt.io/storage.bind.immediate.requested"
"""The claim is to have its disk at once, and not when a guest first needs it: until then it could lose its source."""


class RestoreError(Exception):
    """The text says what is wrong and the mend."""


def names(restore: Document, content: Document) -> list[Document]:
    """The restore's `status.restores`: which claim becomes what."""
    machine, found = content["spec"]["source"]["virtualMachine"], []
    for backup in content["spec"].get("volumeBackups") or ():
        name = _claim_name(restore, backup)
        entry = {
            "volumeName": backup["volumeName"],
            "persistentVolumeClaim": name,
            "volumeSnapshotName": backup["volumeSnapshotName"],
        }
        found.append({**entry, "dataVolumeName": name} if _template(machine, backup["volumeName"]) else entry)
    return found


def _template(machine: Document, volume: str) -> str:
    """The name of the machine's own data volume that a volume is on; "" for none."""
    spec = machine["spec"]
    used: Document = next((v for v in spec["template"]["spec"].get("volumes") or () if v["name"] == volume), {})
    name = str((used.get("dataVolume") or {}).get("name") or "")
    return name if name in _templates(spec) else ""


def _templates(spec: Document) -> list[str]:
    return [str((t.get("metadata") or {}).get("name")) for t in spec.get("dataVolumeTemplates") or ()]


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
    if name := entry.get("dataVolumeName"):
        annotations[datavolumes.POPULATED_FOR] = name
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
    """The machine's spec as it was, on the restored claims. A data volume of its own has the claim's name now; what
    was another's is the claim itself. Nothing is put into either again."""
    spec: Document = snapshot_vm["spec"]
    by_volume = {entry["volumeName"]: entry for entry in entries}
    template, renamed = spec["template"], {}
    volumes = []
    for volume in template["spec"].get("volumes") or ():
        if volume.get("memoryDump"):
            continue
        if (entry := by_volume.get(volume["name"])) is not None:
            kind = "dataVolume" if volume.get("dataVolume") else "persistentVolumeClaim"
            source = volume.get(kind) or {}
            kept = {"hotpluggable": True} if source.get("hotpluggable") else {}
            if name := entry.get("dataVolumeName"):
                renamed[source.get("name")] = name
                volume = {"name": volume["name"], "dataVolume": {"name": name, **kept}}
            else:
                claim = {"claimName": entry["persistentVolumeClaim"], **kept}
                volume = {"name": volume["name"], "persistentVolumeClaim": claim}
        volumes.append(volume)
    new = {**spec, "template": {**template, "spec": {**template["spec"], "volumes": volumes}}}
    if spec.get("dataVolumeTemplates"):
        new["dataVolumeTemplates"] = [
            {**each, "metadata": {**each["metadata"], "name": renamed.get(name, name)}}
            for name, each in zip(_templates(spec), spec["dataVolumeTemplates"], strict=True)
        ]
    return new


def data_volumes(vm: Document, restore: Document) -> list[Document]:
    """The data volumes of a restored machine's own: each takes over the claim of its name, and fills nothing."""
    entries = (restore.get("status") or {}).get("restores") or ()
    wanted = {entry["dataVolumeName"] for entry in entries if entry.get("dataVolumeName")}
    made = []
    for name, template in zip(_templates(vm["spec"]), vm["spec"].get("dataVolumeTemplates") or (), strict=True):
        if name in wanted:
            volume = datavolumetemplates.render(vm, template)
            volume["metadata"]["annotations"] |= prepopulated(name, restore)
            made.append(volume)
    return made


def prepopulated(name: str, restore: Document) -> dict[str, str]:
    return {datavolumes.PREPOPULATED: name, snapshots.RESTORE_NAME: restore["metadata"]["name"]}


def deleted_data_volumes(vm: Document, spec: Document) -> list[str]:
    """Those that the machine made for itself and does not use any more."""
    return sorted(set(_templates(vm["spec"])) - set(_templates(spec)))


def with_spec(vm: Document, spec: Document) -> Document:
    """The machine with another spec; whether it is to run stays as it is."""
    kept = {key: vm["spec"][key] for key in ("running", "runStrategy") if vm["spec"].get(key) is not None}
    return {**vm, "spec": {**{k: v for k, v in spec.items() if k not in ("running", "runStrategy")}, **kept}}


def changed_machine(vm: Document, spec: Document, restore: Document, content: Document) -> Document:
    """The machine as restored."""
    memory = snapshots.wants_memory(content) and not snapshots.refuses_memory(restore)
    return {**with_spec(vm, spec), "metadata": _marked(vm["metadata"], restore, _state(content, memory=memory))}


def new_machine(spec: Document, restore: Document, content: Document) -> Document:
    """A machine of its own, which does not run yet, and boots from its disks: the memory holds addresses and names that
    are another's. RestoreError for patches that do not fit."""
    was = content["spec"]["source"]["virtualMachine"].get("metadata") or {}
    metadata: Document = {
        "name": restore["spec"]["target"]["name"], "namespace": restore["metadata"]["namespace"],
        "labels": dict(was.get("labels") or {}), "annotations": dict(was.get("annotations") or {}),
    }  # fmt: skip
    spec = {**{k: v for k, v in spec.items() if k not in ("running", "runStrategy")}, "runStrategy": "Halted"}
    machine: Document = {"apiVersion": VMS.api_version, "kind": VMS.kind, "metadata": metadata, "spec": spec}
    machine = patched(machine, restore["spec"].get("patches") or ())
    return {**machine, "metadata": _marked(machine["metadata"], restore, _state(content, memory=False))}


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


def _state(content: Document, *, memory: bool) -> dict[str, str]:
    """What has the node put the machine's state in its place."""
    if not memory and not snapshots.keeps_state(content["spec"]["source"]["virtualMachine"]):
        return {}
    return {snapshots.STATE_FROM: content["metadata"]["uid"] + ("/memory" if memory else "")}


def _marked(metadata: Document, restore: Document, state: dict[str, str]) -> Document:
    kept = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != snapshots.STATE_FROM}
    return {**metadata, "annotations": {**kept, snapshots.LAST_RESTORE: snapshots.restore_mark(restore), **state}}
