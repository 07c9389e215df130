"""Snapshots, restores, clones and exports at the API's door, and machines that one of them has locked.

Pure towards the request, as all of admission.
"""

from collections.abc import Callable, Iterator
from typing import Any

from hotvirt.api import memorysnapshots
from hotvirt.api import validation_snapshots as validation
from hotvirt.api.faults import Fault, invalid
from hotvirt.kube import conditions
from hotvirt.kube.admission import Admission, AdmissionRequest, OnlyJudges, Read, Verdict
from hotvirt.kube.resources import CLONES, EXPORTS, RESTORES, SNAPSHOTS, VMIS, VMS, Resource
from hotvirt.webhooks.callers import is_ours
from hotvirt.webhooks.causes import causes

Document = dict[str, Any]
Checks = Callable[[Document], Iterator[Fault]]


def admissions(read: Read) -> tuple[Admission, ...]:
    return (
        Snapshots(read), Fixed(CLONES, validation.clone), Fixed(EXPORTS, validation.export),
        Restores(read), LockedMachines(),
    )  # fmt: skip


class Fixed(OnlyJudges):
    """A kind that is judged once, and cannot be changed then."""

    def __init__(self, resource: Resource, check: Checks) -> None:
        self.resources: tuple[Resource, ...] = (resource,)
        self._check = check

    async def validate(self, request: AdmissionRequest) -> Verdict:
        obj, old = request.obj, request.old
        if obj is None or request.subresource:
            return Verdict()
        spec = obj.get("spec") or {}
        if old is None:
            found = causes(self._check(spec))
            return Verdict(causes=found) if found else self._created(obj, request.namespace)
        if spec == (old.get("spec") or {}):
            return Verdict()
        return Verdict(causes=causes([invalid("spec", "is immutable after creation: delete it and make another")]))

    def _created(self, obj: Document, namespace: str) -> Verdict:  # noqa: ARG002
        """What more is asked of one that is new, and well formed."""
        return Verdict()


class Snapshots(Fixed):
    """Of a guest's memory as well, where it has one that can be kept."""

    def __init__(self, read: Read) -> None:
        super().__init__(SNAPSHOTS, validation.snapshot)
        self._read = read

    def _created(self, obj: Document, namespace: str) -> Verdict:
        name = str(obj["spec"]["source"]["name"])
        vm, vmi = (self._read(kind, name, namespace) for kind in (VMS, VMIS))
        return Verdict(causes=causes(memorysnapshots.faults(obj, vm, vmi)))


class Restores(Fixed):
    """One at a time for a machine."""

    def __init__(self, read: Read) -> None:
        super().__init__(RESTORES, validation.restore)
        self._read = read

    def _created(self, obj: Document, namespace: str) -> Verdict:
        vm = self._read(VMS, str(obj["spec"]["target"]["name"]), namespace)
        other = ((vm or {}).get("status") or {}).get("restoreInProgress")
        if other and not self._is_over(str(other), namespace):
            problem = f"VirtualMachineRestore {other!r} in progress: wait for it, or delete it"
            return Verdict(causes=causes([invalid("spec.target", problem)]))
        return Verdict()

    def _is_over(self, name: str, namespace: str) -> bool:
        restore = self._read(RESTORES, name, namespace)
        status = (restore or {}).get("status") or {}
        return restore is None or bool(status.get("complete")) or conditions.of(restore, "Failure") is not None


class LockedMachines(OnlyJudges):
    """A machine's disks stay what they are while a snapshot of it is taken, and it stays off while one is restored."""

    resources: tuple[Resource, ...] = (VMS,)

    async def validate(self, request: AdmissionRequest) -> Verdict:
        obj, old = request.obj, request.old
        if obj is None or old is None or request.subresource or is_ours(request.user):
            return Verdict()
        return Verdict(causes=causes(locked(obj, old)))


def locked(vm: Document, old: Document) -> Iterator[Fault]:
    """What an edit changes that must not change now."""
    status, spec, before = old.get("status") or {}, vm.get("spec") or {}, old.get("spec") or {}
    if taken := status.get("snapshotInProgress"):
        if _disks(spec) != _disks(before):
            yield invalid("spec", f"Cannot update VM disks or volumes until snapshot {taken!r} completes")
        if (spec.get("running"), spec.get("runStrategy")) != (before.get("running"), before.get("runStrategy")):
            yield invalid("spec.runStrategy", f"Cannot update VM running state until snapshot {taken!r} completes")
    if (restored := status.get("restoreInProgress")) and _runs(spec) and not _runs(before):
        yield invalid("spec.runStrategy", f"Cannot start VM until restore {restored!r} completes")


def _disks(spec: Document) -> Any:
    template = ((spec.get("template") or {}).get("spec")) or {}
    return template.get("volumes"), ((template.get("domain") or {}).get("devices") or {}).get("disks")


def _runs(spec: Document) -> bool:
    return bool(spec.get("running")) or spec.get("runStrategy") in ("Always", "RerunOnFailure", "Once")
