"""`status.printableStatus`: one word for a VM's state, in KubeVirt's words and order of precedence. Pure."""

from hotvirt.api.defaults import run_strategy
from hotvirt.controllers import spec as specs
from hotvirt.kube import conditions
from hotvirt.kube.client import Document

BEFORE_RUNNING = ("", "Pending", "Scheduling", "Scheduled")
WAITS_FOR_CLAIM = "WaitingForClaim"
"""Reason of `Provisioning` while a claim is not bound to a volume yet."""
DATA_VOLUME_ERROR = "DataVolumeError"
"""Its reason while a data volume cannot be filled."""


def status(vm: Document, vmi: Document | None, *, failure: Document | None) -> str:
    if specs.is_deleting(vm):
        return "Terminating"
    if vmi is not None and not specs.is_final(vmi):
        return _of_instance(vmi)
    if failure is not None and run_strategy(vm) in ("Always", "RerunOnFailure", "Once"):
        return "CrashLoopBackOff"
    return "WaitingForReceiver" if vmi is None and run_strategy(vm) == "WaitAsReceiver" else "Stopped"


def _of_instance(vmi: Document) -> str:
    found = (vmi.get("status") or {}).get("conditions")
    synchronized = conditions.get(found, "Synchronized") or {}
    why = synchronized.get("reason") if synchronized.get("status") == "False" else ""
    scheduled = conditions.get(found, "PodScheduled") or {}
    provisioning = conditions.get(found, "Provisioning") or {}
    waits = provisioning if provisioning.get("status") == "True" else {}
    table = (
        (specs.is_deleting(vmi), "Stopping"),
        (_migrates(vmi), "Migrating"),
        (specs.is_paused(vmi), "Paused"),
        (specs.phase(vmi) == "Running", "Running"),
        (why == "FailedPvcNotFound", "ErrorPvcNotFound"),
        (waits.get("reason") == DATA_VOLUME_ERROR, "DataVolumeError"),
        (scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable", "ErrorUnschedulable"),
        (waits and waits.get("reason") != WAITS_FOR_CLAIM, "Provisioning"),
        (waits, "WaitingForVolumeBinding"),
        (why in ("ErrImagePull", "ErrImageNeverPull"), "ErrImagePull"),
        (why == "ImagePullBackOff", "ImagePullBackOff"),
        (specs.phase(vmi) in BEFORE_RUNNING, "Starting"),
        (specs.phase(vmi) == "WaitingForSync", "WaitingForReceiver"),
    )
    return next((word for holds, word in table if holds), "Unknown")


def _migrates(vmi: Document) -> bool:
    state = (vmi.get("status") or {}).get("migrationState") or {}
    return bool(state) and not (state.get("completed") or state.get("failed"))
