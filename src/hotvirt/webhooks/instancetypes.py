"""Instancetypes and preferences at the API's door: of VMs that name them, and the four kinds themselves.

A VM is judged as what it becomes with them. One that names what is not there yet is let in with a warning, as its
controller waits for it; one that contradicts what it names is refused with each field.
"""

from typing import Any

from hotvirt.api import instancetype as sizes
from hotvirt.api import instancetype_matchers as matchers
from hotvirt.api import validation, validation_instancetype, validation_sets
from hotvirt.api.faults import Fault
from hotvirt.api.instancetype_matchers import Matcher
from hotvirt.api.validation import Checked
from hotvirt.kube.admission import AdmissionRequest, OnlyJudges, Read, Verdict
from hotvirt.kube.resources import (
    CLAIMS,
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
    CONTROLLER_REVISIONS,
    DATA_VOLUMES,
    INSTANCETYPES,
    PREFERENCES,
    Resource,
)
from hotvirt.webhooks.causes import causes

Document = dict[str, Any]
RESOURCES = {each.kind: each for each in (INSTANCETYPES, CLUSTER_INSTANCETYPES, PREFERENCES, CLUSTER_PREFERENCES)}
_SOURCES = {
    "PersistentVolumeClaim": CLAIMS,
    "DataVolume": DATA_VOLUMES,
    "DataSource": Resource("cdi.kubevirt.io", "v1beta1", "datasources", "DataSource"),
    "VolumeSnapshot": Resource("snapshot.storage.k8s.io", "v1", "volumesnapshots", "VolumeSnapshot"),
}


class Sizes:
    """`read` answers from what is stored at the moment, so that a VM may follow what it names in one manifest."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def completed(self, vm: Document, old: Document | None) -> Document:
        """With what its volumes' labels name, and with what has to be known before its instance is made: kinds,
        architecture, machine type, storage class of its data volumes. The same object when nothing is missing."""
        spec = vm["spec"]
        if not spec.get("instancetype") and not spec.get("preference"):
            return vm
        vm, _ = matchers.inferred(matchers.answered(vm, old), self._lookup)
        vm = matchers.completed(vm)
        found = matchers.matcher(vm, matchers.PREFERENCE)
        taste = self.find(vm, found) if found else None
        return _with_taste(vm, taste["spec"]) if taste and sizes.is_sound(matchers.PREFERENCE, taste) else vm

    def check(self, vm: Document, old: Document | None) -> Checked:
        """All that `validation.virtual_machine` finds in the machine that it becomes, and what does not go together."""
        asked = [found for what in matchers.BOTH if (found := matchers.matcher(vm, what)) is not None]
        faults = [*matchers.check(vm, old), *matchers.inferred(vm, self._lookup)[1]]
        faults += validation_sets.template_metadata(vm["spec"].get("template") or {}, "spec.template")
        if not asked or faults:
            return _joined(faults, _without_sizes(validation.virtual_machine(vm), asked))
        objects = {each.what: self.find(vm, each) for each in asked}
        missing = [each for each in asked if objects[each.what] is None]
        size, taste = objects.get(matchers.INSTANCETYPE), objects.get(matchers.PREFERENCE)
        if any(each.what == matchers.INSTANCETYPE for each in missing):
            taste = None  # whose requirements cannot be judged yet
        template, clashes = sizes.apply(vm["spec"].get("template") or {}, size, taste)
        checked = validation.virtual_machine({**vm, "spec": {**vm["spec"], "template": template}})
        if clashes or missing:
            checked = _without_sizes(checked, asked)
        else:
            checked = _attributed(checked, validation.virtual_machine(vm), asked)
        warnings = tuple(f"{each.field}: {_not_there(each)}; the machine starts once it is" for each in missing)
        return _joined(clashes, Checked(checked.faults, checked.warnings + warnings))

    def find(self, vm: Document, found: Matcher) -> Document | None:
        """The instancetype or preference: as it was when the VM took it, else as it is."""
        namespace = str(vm["metadata"].get("namespace") or "default")
        if name := matchers.revision_of(vm, found):
            revision = self._read(CONTROLLER_REVISIONS, name, namespace)
            return (revision or {}).get("data")
        resource = RESOURCES.get(found.kind)
        if resource is None or not found.name:
            return None
        return self._read(resource, found.name, namespace if resource.namespaced else "")

    def _lookup(self, kind: str, name: str, namespace: str) -> Document | None:
        return self._read(_SOURCES[kind], name, namespace)


class SizeKinds(OnlyJudges):
    """The four kinds themselves."""

    resources: tuple[Resource, ...] = tuple(RESOURCES.values())

    async def validate(self, request: AdmissionRequest) -> Verdict:
        if request.obj is None:
            return Verdict()
        is_size = request.resource in (INSTANCETYPES, CLUSTER_INSTANCETYPES)
        checked = (validation_instancetype.instancetype if is_size else validation_instancetype.preference)(request.obj)
        return Verdict(causes=causes(checked.faults), warnings=checked.warnings)


def _with_taste(vm: Document, taste: Document) -> Document:
    template = vm["spec"].get("template") or {}
    inner = template.get("spec") or {}
    domain = inner.get("domain") or {}
    machine = domain.get("machine") or {}
    kind = (taste.get("machine") or {}).get("preferredMachineType")
    new = dict(inner)
    if kind and not machine.get("type"):
        new["domain"] = {**domain, "machine": {**machine, "type": kind}}
    if taste.get("preferredArchitecture") and not inner.get("architecture"):
        new["architecture"] = taste["preferredArchitecture"]
    spec = dict(vm["spec"])
    if new != inner:
        spec["template"] = {**template, "spec": new}
    storage = (taste.get("volumes") or {}).get("preferredStorageClassName")
    if storage and spec.get("dataVolumeTemplates"):
        spec["dataVolumeTemplates"] = [_stored_in(storage, each) for each in spec["dataVolumeTemplates"]]
    return vm if spec == vm["spec"] else {**vm, "spec": spec}


def _stored_in(storage: str, template: Document) -> Document:
    spec = dict(template.get("spec") or {})
    for form in ("pvc", "storage"):
        if spec.get(form) is not None and spec[form].get("storageClassName") is None:
            spec[form] = {**spec[form], "storageClassName": storage}
    return {**template, "spec": spec}


def _joined(faults: list[Fault], checked: Checked) -> Checked:
    return Checked((*faults, *checked.faults), checked.warnings)


def _without_sizes(checked: Checked, asked: list[Matcher]) -> Checked:
    """Without asking for the memory that an instancetype would tell."""
    if all(each.what != matchers.INSTANCETYPE for each in asked):
        return checked
    told = "spec.template.spec.domain.memory.guest"
    kept = (f for f in checked.faults if (f.reason, f.field) != ("FieldValueRequired", told))
    return Checked(tuple(kept), checked.warnings)


def _attributed(checked: Checked, alone: Checked, asked: list[Matcher]) -> Checked:
    """Saying whose words are at fault where they are not the VM's own."""
    whose = " and ".join(f"{each.what} {each.name}" for each in asked)
    faults = (
        fault if fault in alone.faults else Fault(fault.reason, fault.field, f"with {whose}: {fault.message}")
        for fault in checked.faults
    )
    return Checked(tuple(faults), checked.warnings)


def _not_there(found: Matcher) -> str:
    return f"there is no {found.kind or found.what} {found.name}"
