"""What is wrong with a snapshot, restore, clone or export, before anything is done about it. Pure."""

import json
import re
from collections.abc import Iterator
from typing import Any

from hotvirt.api.faults import Fault, invalid, required

Document = dict[str, Any]
SNAPSHOT_GROUP, VM_GROUP = "snapshot.kubevirt.io", "kubevirt.io"
READINESS = ("WaitGracePeriodAndFail", "WaitEventually", "FailImmediate", "StopTarget")
RESTORE_NAMES = ("RandomizeNames", "InPlace", "PrefixTargetName")
_DURATION = re.compile(r"0|([0-9]+(\.[0-9]*)?(ns|us|ms|s|m|h))+")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_PATCHED = ("/spec/", "/metadata/labels", "/metadata/annotations")


def snapshot(spec: Document) -> Iterator[Fault]:
    yield from _reference(spec.get("source"), "spec.source", ((VM_GROUP, "VirtualMachine"),))
    yield from _one_of(spec, "deletionPolicy", ("Delete", "Retain"))
    yield from _duration(spec, "failureDeadline")


def restore(spec: Document) -> Iterator[Fault]:
    yield from _reference(spec.get("target"), "spec.target", ((VM_GROUP, "VirtualMachine"),))
    if not spec.get("virtualMachineSnapshotName"):
        yield required("spec.virtualMachineSnapshotName", "name the VirtualMachineSnapshot to restore")
    yield from _one_of(spec, "targetReadinessPolicy", READINESS)
    yield from _one_of(spec, "volumeRestorePolicy", RESTORE_NAMES)
    yield from _one_of(spec, "volumeOwnershipPolicy", ("Vm", "None"))
    for index, override in enumerate(spec.get("volumeRestoreOverrides") or ()):
        if not override.get("volumeName"):
            yield required(f"spec.volumeRestoreOverrides[{index}].volumeName", "name the volume that it is for")
    yield from _patches(spec.get("patches") or (), allowed=_PATCHED)


def clone(spec: Document) -> Iterator[Fault]:
    source, target = spec.get("source") or {}, spec.get("target") or {}
    kinds = ((VM_GROUP, "VirtualMachine"), (SNAPSHOT_GROUP, "VirtualMachineSnapshot"))
    yield from _reference(source, "spec.source", kinds)
    if spec.get("target") is not None:
        yield from _reference({"name": "-", **target}, "spec.target", ((VM_GROUP, "VirtualMachine"),))
        if target.get("name") and (target["name"], target.get("kind")) == (source.get("name"), source.get("kind")):
            yield invalid("spec.target.name", f"is the source, {target['name']}: name another machine")
    for name, address in (spec.get("newMacAddresses") or {}).items():
        if not _MAC.fullmatch(str(address)):
            where = f"spec.newMacAddresses[{name}]"
            yield invalid(where, f"{str(address)[:40]!r} is not a MAC address: write it like 02:00:00:00:00:01")
    template = spec.get("template") or {}
    for path, filters in (
        ("spec.labelFilters", spec.get("labelFilters")), ("spec.annotationFilters", spec.get("annotationFilters")),
        ("spec.template.labelFilters", template.get("labelFilters")),
        ("spec.template.annotationFilters", template.get("annotationFilters")),
    ):  # fmt: skip
        yield from _filters(filters or (), path)
    yield from _one_of(spec, "volumeNamePolicy", ("RandomizeNames", "PrefixTargetName"))
    yield from _patches(spec.get("patches") or (), allowed=("/",))


def export(spec: Document) -> Iterator[Fault]:
    kinds = (("", "PersistentVolumeClaim"), (VM_GROUP, "VirtualMachine"), (SNAPSHOT_GROUP, "VirtualMachineSnapshot"))
    yield from _reference(spec.get("source"), "spec.source", kinds)
    yield from _duration(spec, "ttlDuration")


def _reference(given: Any, path: str, kinds: tuple[tuple[str, str], ...]) -> Iterator[Fault]:
    found = given or {}
    names = ", ".join(f"{kind} of {group or 'the core group'}" for group, kind in kinds)
    by_kind = {kind: group for group, kind in kinds}
    if found.get("kind") not in by_kind:
        yield invalid(f"{path}.kind", f"{str(found.get('kind'))[:60]!r} cannot be this: use {names}")
    elif (found.get("apiGroup") or "") != by_kind[found["kind"]]:
        yield invalid(f"{path}.apiGroup", f"{found.get('kind')} is of group {by_kind[found['kind']]!r}: write that")
    if not found.get("name"):
        yield required(f"{path}.name", "name the object")


def _one_of(spec: Document, field: str, values: tuple[str, ...]) -> Iterator[Fault]:
    value = spec.get(field)
    if value is not None and value not in values:
        yield invalid(f"spec.{field}", f"{str(value)[:60]!r} is unknown: use {', '.join(values)}")


def _duration(spec: Document, field: str) -> Iterator[Fault]:
    value = spec.get(field)
    if value is not None and not _DURATION.fullmatch(str(value)):
        yield invalid(f"spec.{field}", f"{str(value)[:40]!r} is not a duration: write it like 5m or 1h30m")


def _filters(filters: Any, path: str) -> Iterator[Fault]:
    for index, each in enumerate(filters):
        text = str(each).removeprefix("!")
        if not text or "!" in text:
            yield invalid(f"{path}[{index}]", "is a pattern such as app* or !app*, with ! in front only")


def _patches(patches: Any, *, allowed: tuple[str, ...]) -> Iterator[Fault]:
    for index, text in enumerate(patches):
        path = f"spec.patches[{index}]"
        try:
            operation = json.loads(text)
            where, what = operation["path"], operation["op"]
        except (ValueError, TypeError, KeyError):
            yield invalid(path, 'is not a JSON patch operation: write it like {"op": "remove", "path": "/spec/..."}')
            continue
        if what not in ("add", "remove", "replace", "move", "copy", "test"):
            yield invalid(path, f"{str(what)[:40]!r} is no operation of JSON patch")
        elif not str(where).startswith(allowed):
            yield invalid(path, f"patches may change what is below {', '.join(allowed)} only, not {str(where)[:80]!r}")
