"""A VM's status as it should be, from the VM, its instance and what was decided. Pure.

The instance's conditions are shown on the VM too, so that one object tells all; when the instance is gone, so are they.
"""

from datetime import datetime

from msgspec import Struct

from hotvirt.api.defaults import run_strategy
from hotvirt.controllers import liveupdate, printable, runstrategy, sizes_shown
from hotvirt.controllers import spec as specs
from hotvirt.controllers.liveupdate import Update
from hotvirt.kube import conditions
from hotvirt.kube.client import Document

START_FAILED = "StartFailed"
OWN = ("Ready", "Failure", "RestartRequired", "ManualRecoveryRequired", *sizes_shown.TYPES)


class Fault(Struct, frozen=True):
    """What the API refused: `reason` is KubeVirt's (FailedCreate, FailedDelete, FailedUpdateError)."""

    reason: str
    message: str


class Outcome(Struct, frozen=True, kw_only=True):
    """What this reconcile came to. `update` is None when there was no running instance to compare."""

    failure: Document | None = None
    started: bool = False
    update: Update | None = None
    fault: Fault | None = None


def patch(vm: Document, vmi: Document | None, outcome: Outcome, *, now: datetime) -> Document | None:
    """The merge patch of the VM's status; None when it says all this already."""
    old = vm.get("status") or {}
    new = {
        "created": vmi is not None or None,
        "ready": conditions.is_true(((vmi or {}).get("status") or {}).get("conditions"), "Ready") or None,
        "printableStatus": printable.status(vm, vmi, failure=outcome.failure),
        "runStrategy": run_strategy(vm),
        "desiredGeneration": vm["metadata"].get("generation"),
        "observedGeneration": _observed(vm, vmi, outcome),
        "conditions": _conditions(vm, vmi, outcome, now) or None,
        "startFailure": outcome.failure,
        "stateChangeRequests": runstrategy.remaining(vm, vmi, started=outcome.started) or None,
    }
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    if isinstance(changed.get("startFailure"), dict) and old.get("startFailure"):
        changed["startFailure"] = {**dict.fromkeys(old["startFailure"]), **changed["startFailure"]}
    return changed or None


def _observed(vm: Document, vmi: Document | None, outcome: Outcome) -> int | None:
    """The generation that the running instance fulfils: the VM's own, unless a part of it waits."""
    if vmi is None:
        known: int | None = (vm.get("status") or {}).get("observedGeneration")
        return known
    if outcome.update is not None and outcome.update.settled:
        return int(vm["metadata"].get("generation") or 1)
    said = (vmi["metadata"].get("annotations") or {}).get(specs.GENERATION)
    return int(said) if said and said.isdigit() else None


def _conditions(vm: Document, vmi: Document | None, outcome: Outcome, now: datetime) -> list[Document]:
    old = list((vm.get("status") or {}).get("conditions") or ())
    theirs = ((vmi or {}).get("status") or {}).get("conditions") or ()
    mirrored = {c["type"] for c in theirs} - set(OWN)
    found = conditions.keep(old, mirrored | set(OWN))
    for condition in theirs:
        if condition["type"] in mirrored:
            found = _mirrored(found, condition, now)
    found = _ready(found, vmi, now)
    if (fault := outcome.fault or _failed_start(vm, vmi, outcome.failure)) is not None:
        found = conditions.put(found, "Failure", True, now=now, reason=fault.reason, message=fault.message)
    else:
        found = conditions.remove(found, "Failure")
    found = _restart_required(found, vm, outcome.update, now)
    return sizes_shown.put(found, vm, vmi, outcome.update, now=now)


def _failed_start(vm: Document, vmi: Document | None, failure: Document | None) -> Fault | None:
    """Why the machine's last start failed, kept while it is tried again: the instance that knew is gone by then."""
    if failure is None or specs.phase(vmi) == "Running":
        return None
    if vmi is None or not specs.is_final(vmi):
        known = conditions.of(vm, "Failure") or {}
        return Fault(START_FAILED, str(known.get("message"))) if known.get("reason") == START_FAILED else None
    said = (conditions.of(vmi, kind) or {} for kind in ("Synchronized", "Ready"))
    words = next((str(c["message"]) for c in said if c.get("status") == "False" and c.get("message")), "")
    return Fault(START_FAILED, words or "the guest ended before it ran; kubectl get events says more")


def _ready(found: list[Document], vmi: Document | None, now: datetime) -> list[Document]:
    if vmi is None:
        return conditions.put(
            found, "Ready", False, now=now, reason="VMINotExists", message="the machine is not running"
        )
    theirs = conditions.of(vmi, "Ready")
    if theirs is None and specs.phase(vmi) in printable.BEFORE_RUNNING:
        # The instance will say just this with its first status: one write less.
        return conditions.put(
            found, "Ready", False, now=now, reason="GuestNotRunning", message="the guest does not run yet"
        )
    if theirs is None:
        return conditions.put(found, "Ready", False, now=now, reason="VMIConditionMissing", message="")
    return _mirrored(found, theirs, now)


def _mirrored(found: list[Document], condition: Document, now: datetime) -> list[Document]:
    return conditions.put(
        found, condition["type"], str(condition.get("status")), now=now,
        reason=condition.get("reason") or "", message=condition.get("message") or "",
    )  # fmt: skip


def _restart_required(found: list[Document], vm: Document, update: Update | None, now: datetime) -> list[Document]:
    if update is None or not update.refusals:
        return conditions.remove(found, "RestartRequired")
    text = liveupdate.message(update, vm["metadata"]["name"])
    return conditions.put(found, "RestartRequired", True, now=now, reason="NotLive", message=text)
