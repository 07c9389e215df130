"""The objects that a machine's snapshot is made of, and what its status says of them. Pure."""

from datetime import datetime, timedelta
from typing import Literal

from hotvirt.api import snapshots
from hotvirt.api.validation_sets import seconds
from hotvirt.kube import conditions, owners
from hotvirt.kube.client import Document
from hotvirt.kube.resources import SNAPSHOT_CONTENTS, VOLUME_SNAPSHOTS
from hotvirt.kube.times import parse, stamp

Phase = Literal["InProgress", "Succeeded", "Failed", "Deleting"]
FINAL = ("Succeeded", "Failed")
MEANINGS = {
    "Online": "The guest ran while it was taken.",
    "Paused": "The guest stood still, as it was paused: what it had in memory and not yet on its disks is not in it.",
    "GuestAgent": "The guest's agent brought what was in memory to the disks, and held the filesystems still.",
    "NoGuestAgent": "No agent answered in the guest: the disks are as after a power cut, all at the same instant.",
    "QuiesceTimeout": "The guest's filesystems did not stand still at the instant: the disks are as after a power cut.",
    "Memory": "The guest's memory is of the same instant as the disks: a restore into its machine goes on from there.",
    "PartialSnapshot": "Some disks that could have been in it are not: see status.snapshotVolumes.",
}


def ends_at(snapshot: Document) -> datetime | None:
    """When it has failed; None for never."""
    text = (snapshot.get("spec") or {}).get("failureDeadline")
    after = snapshots.DEADLINE if text is None else seconds(text)
    began = parse(snapshot["metadata"].get("creationTimestamp"))
    return began + timedelta(seconds=after) if began and after > 0 else None


def content_name(snapshot: Document) -> str:
    named = (snapshot.get("status") or {}).get("virtualMachineSnapshotContentName")
    return str(named or f"vmsnapshot-content-{snapshot['metadata']['uid']}")


def content(snapshot: Document, vm: Document, backups: list[Document]) -> Document:
    metadata = vm["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "uid", "generation", "labels", "annotations")
            if metadata.get(key)}  # fmt: skip
    annotations = {
        k: v for k, v in (kept.get("annotations") or {}).items() if not k.startswith("kubectl.kubernetes.io")
    }
    kept = (
        {**kept, "annotations": annotations} if annotations else {k: v for k, v in kept.items() if k != "annotations"}
    )
    made: Document = {"name": content_name(snapshot), "namespace": metadata["namespace"]}
    if snapshots.wants_memory(snapshot):
        made["annotations"] = {snapshots.MEMORY: "true"}
    return {
        "apiVersion": SNAPSHOT_CONTENTS.api_version,
        "kind": SNAPSHOT_CONTENTS.kind,
        "metadata": made,
        "spec": {
            "virtualMachineSnapshotName": snapshot["metadata"]["name"],
            "source": {"virtualMachine": {"metadata": kept, "spec": vm["spec"]}},
            "volumeBackups": backups,
        },
    }


def volume_backup(snapshot: Document, volume: str, claim: Document) -> Document:
    metadata = claim["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations") if metadata.get(key)}
    return {
        "volumeName": volume,
        "persistentVolumeClaim": {"metadata": kept, "spec": claim["spec"]},
        "volumeSnapshotName": f"vmsnapshot-{snapshot['metadata']['uid']}-volume-{volume}",
    }


def volume_snapshots(content: Document, *, classes: dict[str, str], freeze: float | None) -> list[Document]:
    """One a disk, all of one instant. `classes`: by storage class."""
    metadata, spec = content["metadata"], content["spec"]
    backups = spec.get("volumeBackups") or ()
    names = [backup["volumeSnapshotName"] for backup in backups]
    notes = {snapshots.GROUP: metadata["uid"], snapshots.MEMBERS: ",".join(names)}
    if freeze is not None:
        notes[snapshots.FREEZE] = f"{freeze:.0f}"
    machine = spec["source"]["virtualMachine"]
    vm, memory = machine["metadata"], snapshots.wants_memory(content)
    if memory or snapshots.keeps_state(machine):
        notes[snapshots.MACHINE] = vm["name"]
    if memory:
        notes[snapshots.MEMORY] = "true"
    made = []
    for backup in backups:
        claim = backup["persistentVolumeClaim"]
        source: Document = {"source": {"persistentVolumeClaimName": claim["metadata"]["name"]}}
        if named := classes.get(claim["spec"].get("storageClassName") or ""):
            source["volumeSnapshotClassName"] = named
        made.append({
            "apiVersion": VOLUME_SNAPSHOTS.api_version,
            "kind": VOLUME_SNAPSHOTS.kind,
            "metadata": {
                "name": backup["volumeSnapshotName"], "namespace": metadata["namespace"], "annotations": notes,
                "labels": {snapshots.SOURCE_NAME: vm["name"][:63], snapshots.SOURCE_NAMESPACE: metadata["namespace"]},
                "ownerReferences": [owners.reference(SNAPSHOT_CONTENTS, content)],
            },
            "spec": source,
        })  # fmt: skip
    return made


def content_status(content: Document, found: list[Document | None], *, now: datetime) -> Document:
    """`found`: its VolumeSnapshots, in the order of its backups; None for one that is not there."""
    old = content.get("status") or {}
    each = [_volume_status(b["volumeSnapshotName"], vs) for b, vs in zip(_backups(content), found, strict=True)]
    ready = all(entry["readyToUse"] for entry in each)
    times = [entry["creationTime"] for entry in each if entry.get("creationTime")]
    status: Document = {"readyToUse": ready, "volumeSnapshotStatus": each, "error": None}
    if ready:
        status["creationTime"] = old.get("creationTime") or (min(times) if times else stamp(now))
    wrong = next((entry for entry in each if entry.get("error")), None)
    missing = [entry["volumeSnapshotName"] for entry in each if entry.pop("missing", False)]
    if wrong is not None:
        status["error"] = wrong["error"]
    elif missing and old.get("creationTime"):
        status["error"] = {"message": f"VolumeSnapshots {', '.join(missing)} were deleted: it cannot be restored"}
    return status


def _volume_status(name: str, found: Document | None) -> Document:
    status = (found or {}).get("status") or {}
    entry: Document = {"volumeSnapshotName": name, "readyToUse": bool(status.get("readyToUse"))}
    for field in ("creationTime", "error"):
        if status.get(field):
            entry[field] = status[field]
    return {**entry, "missing": True} if found is None else entry


def _backups(content: Document) -> list[Document]:
    return list((content.get("spec") or {}).get("volumeBackups") or ())


def indications(vmi: Document | None, *, memory: bool = False) -> list[str]:
    """What is known of a snapshot of this instance while it is taken: nothing of its filesystems yet."""
    if ((vmi or {}).get("status") or {}).get("phase") != "Running":
        return []
    if memory:
        return ["Memory", "Online"]
    return ["Online", "Paused"] if _is(vmi, "Paused") else ["Online"]


def wants_freeze(vmi: Document | None, *, memory: bool = False) -> bool:
    """Whether the filesystems are to be held still for it."""
    return indications(vmi, memory=memory) == ["Online"] and _is(vmi, "AgentConnected")


def taken(before: list[str], content: Document, found: list[Document | None]) -> list[str]:
    """How it was taken, as those say who did it. `before`: what was known then; `found`: the VolumeSnapshots. Of one
    that was copied by a driver that says nothing (any but ours), no filesystem stood still."""
    notes = [((each or {}).get("metadata", {}).get("annotations") or {}).get(snapshots.INDICATIONS) for each in found]
    words = {word for note in notes if note for word in note.split(",")}
    if None in notes or not notes:
        words |= {word for word in before if word in ("Online", "Paused", "Memory")}
        if notes and words == {"Online"} | (words & {"GuestAgent"}):
            words = {"Online", "NoGuestAgent"}
    if left_out(content):
        words.add("PartialSnapshot")
    return sorted(words)


def left_out(content: Document) -> list[str]:
    """Volumes on claims that are not in it."""
    inside = {backup["volumeName"] for backup in _backups(content)}
    return [volume for volume in snapshots.claims(content["spec"]["source"]["virtualMachine"]) if volume not in inside]


def _is(vmi: Document | None, condition: str) -> bool:
    return (conditions.of(vmi, condition) or {}).get("status") == "True"


def indicated(found: list[str]) -> Document:
    if not found:
        return {"indications": None, "sourceIndications": None}
    words = sorted(found)
    return {
        "indications": words,
        "sourceIndications": [{"indication": each, "message": MEANINGS[each]} for each in words],
    }


def snapshot_volumes(vm: Document, content: Document) -> Document:
    volumes = ((vm.get("spec") or {}).get("template") or {}).get("spec", {}).get("volumes") or ()
    inside = {backup["volumeName"] for backup in _backups(content)}
    lists = {
        "includedVolumes": [v["name"] for v in volumes if v["name"] in inside],
        "excludedVolumes": [v["name"] for v in volumes if v["name"] not in inside],
    }
    return {key: names for key, names in lists.items() if names}


def said(status: Document, *, now: datetime, progressing: tuple[bool, str], failed: str = "") -> list[Document]:
    """The conditions of a snapshot; the reasons are sentences, as KubeVirt's are."""
    ready = bool(status.get("readyToUse"))
    found = conditions.put(status.get("conditions"), "Progressing", progressing[0], now=now, reason=progressing[1])
    found = conditions.put(found, "Ready", ready, now=now, reason="Ready" if ready else "Not ready")
    return conditions.put(found, "Failure", True, now=now, reason=failed) if failed else found


def snapshotable(vm: Document, claims: dict[str, Document | None], classes: dict[str, str]) -> list[Document]:
    """A machine's `volumeSnapshotStatuses`. `claims`: by volume; `classes`: of snapshots, by storage class."""
    volumes = ((vm.get("spec") or {}).get("template") or {}).get("spec", {}).get("volumes") or ()
    return [_snapshotable(each, claims, classes) for each in volumes]


def _snapshotable(volume: Document, claims: dict[str, Document | None], classes: dict[str, str]) -> Document:
    name = volume["name"]
    if name not in claims:
        kind = next((key for key in volume if key != "name"), "no source")
        return {
            "name": name,
            "enabled": False,
            "reason": f"Snapshot is not supported for this volumeSource type [{kind}]",
        }
    claim = claims[name]
    if claim is None:
        return {"name": name, "enabled": False, "reason": "PVC not found"}
    if not classes.get(claim["spec"].get("storageClassName") or ""):
        named = claim["spec"].get("storageClassName")
        return {"name": name, "enabled": False, "reason": f"No VolumeSnapshotClass for storage class {named}"}
    return {"name": name, "enabled": True}
