"""KubeVirt's kinds at the API's door: defaults, validation, and who may write what.

Pure towards the request, and called for dry runs too. People edit VMs; instances are the controllers', so an edit of
one is refused with the VM to edit.
"""

from collections.abc import Callable
from typing import Any

from hotvirt.api import (
    defaults,
    gates,
    reservedlabels,
    schemas,
    validation,
    validation_filesystems,
    validation_settings,
    validation_volumes,
)
from hotvirt.api.defaults import ClusterSettings
from hotvirt.kube.admission import Admission, AdmissionRequest, OnlyJudges, Read, Verdict
from hotvirt.kube.errors import Cause
from hotvirt.kube.resources import KUBEVIRTS, VMIS, VMS, Resource
from hotvirt.webhooks import livewarnings, snapshots
from hotvirt.webhooks.callers import is_ours
from hotvirt.webhooks.causes import causes
from hotvirt.webhooks.instancetypes import SizeKinds, Sizes
from hotvirt.webhooks.migrations import MigrationPolicies, Migrations
from hotvirt.webhooks.sets import Sets

Document = dict[str, Any]
KubeVirtSource = Callable[[], Document | None]
"""The KubeVirt object in force, or None before there is one."""

VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"


def _nothing(resource: Resource, name: str, namespace: str) -> Document | None:  # noqa: ARG001
    return None


def admissions(kubevirt: KubeVirtSource, read: Read = _nothing) -> tuple[Admission, ...]:
    """The plug-ins the API server is given. `read` looks up what objects refer to."""
    sets = Sets(Sizes(read))
    others: tuple[Admission, ...] = (Migrations(read), MigrationPolicies(), *snapshots.admissions(read))
    return (VirtualMachines(kubevirt, read), Instances(kubevirt), KubeVirts(), SizeKinds(), sets, *others)


class VirtualMachines:
    """A spec that did not change is not judged again: labels and finalizers of a VM stay writable when the rules or the
    cluster have changed since it was stored."""

    resources: tuple[Resource, ...] = (VMS,)

    def __init__(self, kubevirt: KubeVirtSource, read: Read = _nothing) -> None:
        self._kubevirt, self._read, self._sizes = kubevirt, read, Sizes(read)

    def mutate(self, request: AdmissionRequest) -> Document | None:
        obj = request.obj
        if obj is None or request.subresource or is_deleting(obj) or not _has_template(obj):
            return None
        sized = self._sizes.completed(obj, request.old)
        filled = defaults.machine(sized, ClusterSettings.of(self._kubevirt()), old=request.old)
        if request.operation == "CREATE":
            filled = _finalized(filled)
        return None if filled is obj else filled

    async def validate(self, request: AdmissionRequest) -> Verdict:
        obj, old = request.obj, request.old
        if obj is None or request.subresource or is_deleting(obj):
            return Verdict()
        if old is not None and obj.get("spec") == old.get("spec"):
            return Verdict()
        checked = self._sizes.check(obj, old) if _has_template(obj) else validation.virtual_machine(obj)
        faults = list(checked.faults)
        if not is_ours(request.user):
            faults += reservedlabels.of_template(VMS.kind, obj, old)
        live: tuple[str, ...] = ()
        if old is not None and not faults and not is_ours(request.user):
            live = livewarnings.warnings(obj, read=self._read, kubevirt=self._kubevirt)
        found = causes(faults)
        if not found and _has_template(obj):
            found = _gated(obj["spec"]["template"]["spec"], "spec.template.spec", self._kubevirt())
        return Verdict(causes=found, warnings=(*checked.warnings, *live))


class Instances:
    """VirtualMachineInstances. `mutate` fills in what a new one is silent about, and gives people back the status they
    tried to change (there is no status subresource, as upstream)."""

    resources: tuple[Resource, ...] = (VMIS,)

    def __init__(self, kubevirt: KubeVirtSource) -> None:
        self._kubevirt = kubevirt

    def mutate(self, request: AdmissionRequest) -> Document | None:
        obj = request.obj
        if obj is None:
            return None
        if request.operation == "CREATE":
            if not _can_be_filled(obj):
                return None  # `validate` and the schema say what is wrong
            filled = defaults.instance(obj, ClusterSettings.of(self._kubevirt()))
            if is_ours(request.user):
                return filled
            return {key: value for key, value in filled.items() if key != "status"}
        if not is_ours(request.user) and request.old is not None and obj.get("status") != request.old.get("status"):
            return {**{k: v for k, v in obj.items() if k != "status"}, **_status(request.old)}
        return None

    async def validate(self, request: AdmissionRequest) -> Verdict:
        obj, old = request.obj, request.old
        if obj is None:
            return Verdict()
        if request.operation == "CREATE":
            faults = causes(validation.instance(obj)) or _gated(obj.get("spec") or {}, "spec", self._kubevirt())
            reserved = () if is_ours(request.user) else causes(reservedlabels.of_instance(obj, None))
            return Verdict(causes=faults + reserved)
        if is_ours(request.user) or old is None:
            return Verdict()
        if obj.get("spec") != old.get("spec"):
            return Verdict(denied=_edit_the_vm(old))
        return Verdict(causes=causes(reservedlabels.of_instance(obj, old)))


class KubeVirts(OnlyJudges):
    resources: tuple[Resource, ...] = (KUBEVIRTS,)

    async def validate(self, request: AdmissionRequest) -> Verdict:
        if request.obj is None or request.subresource:
            return Verdict()
        checked = validation_settings.kubevirt(request.obj)
        return Verdict(causes=causes(checked.faults), warnings=checked.warnings)


def _gated(spec: Document, path: str, kubevirt: Document | None) -> tuple[Cause, ...]:
    if not schemas.fits(spec, "VirtualMachineInstanceSpec"):
        return ()
    listed = gates.listed(kubevirt)
    return causes([*validation_volumes.gated(spec, path, listed), *validation_filesystems.gated(spec, path, listed)])


def _finalized(vm: Document) -> Document:
    """With the finalizer of the controller that stops its instance first, which saves a write of its own."""
    known = vm["metadata"].get("finalizers") or []
    if VM_FINALIZER in known:
        return vm
    return {**vm, "metadata": {**vm["metadata"], "finalizers": [*known, VM_FINALIZER]}}


def is_deleting(obj: Document) -> bool:
    """An object on its way out is only waiting for its finalizers: its spec is nobody's concern any more."""
    return bool((obj.get("metadata") or {}).get("deletionTimestamp"))


def _has_template(vm: Document) -> bool:
    """Whether there is something to fill in, of the shape it should have."""
    spec = vm.get("spec")
    return schemas.fits(spec, "VirtualMachineSpec") and bool(((spec or {}).get("template") or {}).get("spec"))


def _can_be_filled(vmi: Document) -> bool:
    spec = vmi.get("spec")
    fits = schemas.fits(spec, "VirtualMachineInstanceSpec") and bool((spec or {}).get("domain"))
    return fits and not validation.instance(vmi)


def _status(old: Document) -> Document:
    return {"status": old["status"]} if "status" in old else {}


def _edit_the_vm(vmi: Document) -> str:
    metadata = vmi["metadata"]
    owner = next((o["name"] for o in metadata.get("ownerReferences") or () if o.get("kind") == "VirtualMachine"), None)
    if owner is None:
        return (
            "update of VMI object is restricted: no VM owns this instance, so it cannot be changed while it runs; "
            "make a VirtualMachine of it to resize it"
        )
    return (
        "update of VMI object is restricted: edit its VM instead, the running guest follows: "
        f"kubectl edit vm {owner} -n {metadata.get('namespace', 'default')}"
    )
