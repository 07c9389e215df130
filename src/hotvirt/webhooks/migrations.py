"""Migrations and their policies at the API's door: KubeVirt's rules. A guest that cannot move is not asked to, and
whoever asks is told why: in a home there is one node.

Pure towards the request, as all of admission.
"""

from collections.abc import Iterator
from typing import Any

from hotvirt.api import quantity
from hotvirt.api.faults import Fault, invalid, required
from hotvirt.api.quantity import QuantityError
from hotvirt.kube import conditions
from hotvirt.kube.admission import AdmissionRequest, OnlyJudges, Read, Verdict
from hotvirt.kube.resources import MIGRATION_POLICIES, MIGRATIONS, VMIS, Resource
from hotvirt.webhooks.causes import causes
from hotvirt.webhooks.lifecycle import FINAL_PHASES

Document = dict[str, Any]


class Migrations(OnlyJudges):
    """VirtualMachineInstanceMigrations."""

    resources: tuple[Resource, ...] = (MIGRATIONS,)

    def __init__(self, read: Read) -> None:
        self._read = read

    async def validate(self, request: AdmissionRequest) -> Verdict:
        obj, old = request.obj, request.old
        if obj is None or request.subresource:
            return Verdict()
        spec = obj.get("spec") or {}
        if old is not None:
            changed = spec != (old.get("spec") or {})
            return Verdict(
                causes=causes([invalid("spec", "a migration cannot be changed: delete it")] if changed else [])
            )
        name = spec.get("vmiName")
        if not isinstance(name, str) or not name:
            return Verdict(causes=causes([required("spec.vmiName", "name the instance to move")]))
        if spec.get("priority"):
            return Verdict(causes=causes([invalid("spec.priority", "is set by hotvirt alone: remove it")]))
        vmi = self._read(VMIS, name, str(obj["metadata"].get("namespace") or ""))
        return Verdict(denied=_obstacle(vmi, name))


def _obstacle(vmi: Document | None, name: str) -> str:
    """Why this instance cannot move now; "" when it can."""
    if vmi is None:
        return f'the VMI "{name}" does not exist: name one that runs (kubectl get vmi)'
    status = vmi.get("status") or {}
    if status.get("phase") in FINAL_PHASES:
        return f'Cannot migrate VMI in finalized state: "{name}" has ended'
    found = conditions.of(vmi, "LiveMigratable")
    if found is not None and found.get("status") == "True":
        return ""
    reason, message = ("NotReady", "it is not known yet whether it can") if found is None else (
        found.get("reason", ""), found.get("message", ""),
    )  # fmt: skip
    return f"Cannot migrate VMI, Reason: {reason}, Message: {message}"


class MigrationPolicies(OnlyJudges):
    resources: tuple[Resource, ...] = (MIGRATION_POLICIES,)

    async def validate(self, request: AdmissionRequest) -> Verdict:
        if request.obj is None or request.subresource:
            return Verdict()
        return Verdict(causes=causes(policy_faults(request.obj.get("spec") or {})))


def policy_faults(spec: Document) -> Iterator[Fault]:
    """What is wrong with a MigrationPolicy's spec."""
    for field in ("completionTimeoutPerGiB", "maxDowntimeMs"):
        value = spec.get(field)
        if isinstance(value, int) and value < 0:
            yield invalid(f"spec.{field}", f"must not be negative: {value}")
    if (bandwidth := spec.get("bandwidthPerMigration")) is not None:
        try:
            if quantity.parse(bandwidth) < 0:
                yield invalid("spec.bandwidthPerMigration", f"must not be negative: {bandwidth}")
        except QuantityError as error:
            yield invalid("spec.bandwidthPerMigration", str(error))
