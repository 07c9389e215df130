"""What to do next about one instance, from its launcher pod and its claims. Pure: `decide(seen, now)` gives a plan.

The phases up to Scheduled are decided here. From Scheduled on the guest is in the node agent's hands, which sets
Running, Succeeded and Failed; here an instance ends only when its pod did. `Ready`, `PodScheduled`, `Provisioning`,
`EvictionRequested` and `Synchronized` with one of `OUR_REASONS` are the conditions written here; all others belong to
the node agent (which says `Ready` once, as the guest begins to run).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from hotvirt.api import datavolumes
from hotvirt.controllers import launcherpod
from hotvirt.controllers import spec as specs
from hotvirt.controllers.newinstance import REVISION
from hotvirt.controllers.printable import DATA_VOLUME_ERROR, WAITS_FOR_CLAIM
from hotvirt.kube import conditions, owners
from hotvirt.kube.client import Document

NODE_LABEL = "kubevirt.io/nodeName"
NO_CLAIM = "FailedPvcNotFound"
FAILED_CREATE = "FailedCreate"
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff")
OUR_REASONS = (NO_CLAIM, FAILED_CREATE, *IMAGE_REASONS)


class Note(Struct, frozen=True):
    """An event to record about the instance."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


class Seen(Struct, frozen=True):
    """`claims` has an entry for every claim the spec names, None for one that does not exist; `data_volumes` those of
    the same names that exist. `classes` maps StorageClass names to their documents."""

    vmi: Document
    pod: Document | None = None
    claims: Mapping[str, Document | None] = field(default_factory=dict)
    classes: Mapping[str, Document] = field(default_factory=dict)
    data_volumes: Mapping[str, Document] = field(default_factory=dict)
    settings: launcherpod.Settings = launcherpod.Settings()


class Plan(Struct, frozen=True, kw_only=True):
    """To be carried out in the order of the fields. `patch` is a merge patch of the instance without its version."""

    create_pod: Document | None = None
    delete_pod: bool = False
    patch: Document | None = None
    resize: list[Document] | None = None
    gate: list[Document] | None = None
    """The pod's conditions, where its readiness gate is to change."""
    notes: tuple[Note, ...] = ()
    pod_gone: bool = False
    """The plan rests on the pod being gone: make sure of it before carrying it out."""


def decide(seen: Seen, now: datetime) -> Plan:
    vmi, phase = seen.vmi, specs.phase(seen.vmi)
    if phase in specs.FINAL:
        return _finished(seen, now)
    if specs.is_deleting(vmi) and (seen.pod is None or phase != "Running"):
        return _called_off(seen)
    if phase in ("", "Pending"):
        return _starting(seen, now)
    if phase in ("Scheduling", *specs.ON_A_NODE):
        return _watched(seen, phase, now)
    return Plan()


def failed_to_create(seen: Seen, error: str, now: datetime) -> Plan:
    """The pod was refused by the API."""
    message = f"the launcher pod could not be created: {error}"
    patch = _status_patch(seen.vmi, "Pending", _out_of_sync(seen.vmi, FAILED_CREATE, message, now), now)
    return Plan(patch=patch, notes=(Note("Warning", FAILED_CREATE, message),))


# On the way to a node


def _starting(seen: Seen, now: datetime) -> Plan:
    if seen.pod is not None:
        return _watched(seen, "Scheduling", now)
    if missing := [c for c in specs.claims(seen.vmi["spec"]) if not c.hotpluggable and not _is_there(seen, c)]:
        message = "; ".join(_no_claim(seen.vmi, claim) for claim in missing)
        found = conditions.remove(_out_of_sync(seen.vmi, NO_CLAIM, message, now), "Provisioning")
        return Plan(
            patch=_status_patch(seen.vmi, "Pending", _with_ready(found, seen, "Pending", now), now),
            notes=(Note("Warning", NO_CLAIM, message),) if _said_before(seen.vmi) != message else (),
        )
    if unbound := _unbound(seen):
        reason, message = _waits_for(seen, unbound)
        found = conditions.put(_in_sync(seen.vmi), "Provisioning", True, now=now, reason=reason, message=message)
        found = _filled(found, seen, False, now)
        return Plan(patch=_status_patch(seen.vmi, "Pending", _with_ready(found, seen, "Pending", now), now))
    pod = launcherpod.render(seen.vmi, seen.settings)
    found = _filled(conditions.remove(_in_sync(seen.vmi), "Provisioning"), seen, True, now)
    note = Note("Normal", "SuccessfulCreate", f"Created virtual machine pod {pod['metadata']['name']}")
    return Plan(
        create_pod=pod,
        patch=_status_patch(seen.vmi, "Scheduling", _with_ready(found, seen, "Scheduling", now), now),
        notes=(note,),
    )


def _is_there(seen: Seen, claim: specs.Claim) -> bool:
    """Or will be: a data volume makes its claim."""
    return seen.claims.get(claim.name) is not None or seen.data_volumes.get(claim.name) is not None


def _waits_for(seen: Seen, unbound: list[specs.Claim]) -> tuple[str, str]:
    """The reason of `Provisioning`, and its message."""
    filled = [claim for claim in unbound if seen.data_volumes.get(claim.name) is not None]
    for claim in filled:
        if why := _failure(seen.data_volumes[claim.name]):
            return DATA_VOLUME_ERROR, f"DataVolume {claim.name} (volume {claim.volume}): {why}"
    names = ", ".join(f"{claim.name} (volume {claim.volume})" for claim in unbound)
    if len(filled) == len(unbound):
        message = f"waits until DataVolume {names} is filled; how far it is: kubectl get dv {unbound[0].name}"
        return "DataVolumesNotReady", message
    name = unbound[0].name
    return WAITS_FOR_CLAIM, f"waits until {names} is bound; what holds it up: kubectl describe pvc {name}"


def _failure(volume: Document | None) -> str:
    """Why a data volume is not being filled."""
    if (((volume or {}).get("status") or {}).get("phase")) == "Succeeded":
        return ""
    running = conditions.of(volume, "Running") or {}
    is_error = running.get("status") == "False" and running.get("reason") == "Error"
    return str(running.get("message") or "it failed") if is_error else ""


def _filled(found: list[Document], seen: Seen, ready: bool, now: datetime) -> list[Document]:
    """`DataVolumesReady`, for instances that use some."""
    if not any(claim.is_data_volume for claim in specs.claims(seen.vmi["spec"])):
        return found
    if ready:
        words = "All of the VMI's DVs are bound and ready"
        return conditions.put(found, "DataVolumesReady", True, now=now, reason="AllDVsReady", message=words)
    words = "Not all of the VMI's DVs are ready"
    return conditions.put(found, "DataVolumesReady", False, now=now, reason="NotAllDVsReady", message=words)


def _no_claim(vmi: Document, claim: specs.Claim) -> str:
    namespace = vmi["metadata"].get("namespace")
    return (
        f'{_above(vmi)}.{claim.field} is "{claim.name}", but namespace {namespace} has no such '
        "PersistentVolumeClaim; create it and the machine starts by itself"
    )


def _above(vmi: Document) -> str:
    """Where a person finds the instance's spec: in its VM, if it has one."""
    owner = owners.controller_of(vmi)
    return "spec.template.spec" if owner and owner.get("kind") == "VirtualMachine" else "spec"


def _said_before(vmi: Document) -> str:
    found = conditions.of(vmi, "Synchronized")
    return str(found.get("message")) if found else ""


def _unbound(seen: Seen) -> list[specs.Claim]:
    """Claims to wait for. One that is bound only when a pod uses it needs the pod first."""
    waiting = []
    for claim in specs.claims(seen.vmi["spec"]):
        document = seen.claims.get(claim.name)
        if claim.hotpluggable or ((document or {}).get("status") or {}).get("phase") == "Bound":
            continue
        if document is None or datavolumes.is_populated(document):
            waiting.append(claim)  # nobody is to start with it before it is filled
            continue
        storage_class = seen.classes.get((document.get("spec") or {}).get("storageClassName") or "")
        if (storage_class or {}).get("volumeBindingMode") != "WaitForFirstConsumer":
            waiting.append(claim)
    return waiting


# With a pod


def _watched(seen: Seen, phase: str, now: datetime) -> Plan:
    """Scheduling, Scheduled or Running: the pod leads to Scheduled, and its end is the instance's end."""
    vmi, pod = seen.vmi, seen.pod
    if pod is None:
        message = f"pod {launcherpod.name(vmi)} is gone"
        return Plan(
            patch=_ended(seen, "Failed", "PodNotExists", message, now), pod_gone=True,
            notes=(Note("Warning", "Stopped", f"{message}, and the guest with it"),),
        )  # fmt: skip
    pod_phase = (pod.get("status") or {}).get("phase")
    if pod_phase in specs.FINAL:
        ended = str(pod_phase) if phase in specs.ON_A_NODE else "Failed"
        words = _last_words(pod)
        # The node agent, which knows the guest, tells of its end as a rule; the pod's end may be seen first.
        note = (
            Note("Normal", "Stopped", words)
            if ended == "Succeeded"
            else Note("Warning", "Stopped", f"QEMU ended: {words}")
        )
        return Plan(
            patch=_ended(seen, ended, "GuestNotRunning", words, now), notes=(note,) if phase == "Running" else ()
        )
    if phase == "Scheduling":
        if specs.is_deleting(pod):
            return Plan(patch=_ended(seen, "Failed", "PodTerminating", "the launcher pod was deleted", now))
        return _scheduling(seen, pod, now)
    found = _evicted(_in_sync(vmi), vmi, now)
    if specs.is_deleting(pod) or specs.is_deleting(vmi):
        return Plan(patch=_status_patch(vmi, phase, _with_ready(found, seen, phase, now), now))
    gate = launcherpod.gate(vmi, pod, now) if phase == "Running" else None
    if gate is None or (conditions.of(pod, "Ready") or {}).get("reason") != "ReadinessGatesNotReady":
        found = _with_ready(found, seen, phase, now)  # else the pod is about to be ready: that is told at once
    resize = launcherpod.resize(vmi, pod, seen.settings)
    return Plan(patch=_status_patch(vmi, phase, found, now), resize=resize, gate=gate)


def _scheduling(seen: Seen, pod: Document, now: datetime) -> Plan:
    vmi = seen.vmi
    found = conditions.remove(_in_sync(vmi), "Provisioning")
    if _is_up(pod):
        node, status = pod["spec"]["nodeName"], pod.get("status") or {}
        found = _with_ready(conditions.remove(found, "PodScheduled"), seen, "Scheduled", now)
        more = {"nodeName": node, "activePods": {pod["metadata"]["uid"]: node}}
        if quality := status.get("qosClass"):
            more["qosClass"] = quality
        patch = _status_patch(vmi, "Scheduled", found, now, **more) or {}
        labels = {"labels": {NODE_LABEL: node}}
        return Plan(patch={**patch, "metadata": {**patch.get("metadata", {}), **labels}})
    if waiting := _image_trouble(pod):
        found = _out_of_sync(vmi, str(waiting.get("reason")), str(waiting.get("message") or ""), now)
    scheduled = conditions.of(pod, "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        found = conditions.copy(found, scheduled)
    else:
        found = conditions.remove(found, "PodScheduled")
    return Plan(patch=_status_patch(vmi, "Scheduling", _with_ready(found, seen, "Scheduling", now), now))


def _evicted(found: list[Document], vmi: Document, now: datetime) -> list[Document]:
    """`EvictionRequested` while somebody asked for the instance to leave its node and it has not been called off."""
    node = (vmi.get("status") or {}).get("evacuationNodeName")
    if not node:
        return conditions.remove(found, "EvictionRequested")
    return conditions.put(
        found, "EvictionRequested", True, now=now, reason="EvictionRequested", message=f"it was asked to leave {node}"
    )


def _is_up(pod: Document) -> bool:
    status = pod.get("status") or {}
    # Started is enough: a readiness probe asks the guest, which is yet to be started.
    compute = [c for c in status.get("containerStatuses") or () if c.get("name") == launcherpod.COMPUTE]
    is_up = any(each.get("started") or each.get("ready") for each in compute)
    return bool(status.get("phase") == "Running" and pod["spec"].get("nodeName") and is_up)


def _image_trouble(pod: Document) -> Document | None:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") in IMAGE_REASONS:
            found: Document = waiting
            return found
    return None


def _last_words(pod: Document) -> str:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("message"):
            return str(ended["message"])
    return str(status.get("message") or f"the launcher pod has {str(status.get('phase')).lower()}")


# At the end


def _called_off(seen: Seen) -> Plan:
    """Deleted before a guest ran, or with its pod gone. A guest that is just starting is stopped with its pod."""
    if seen.pod is None:
        return Plan(patch=_released(seen.vmi), pod_gone=True)
    return _without_pod(seen.pod)


def _finished(seen: Seen, now: datetime) -> Plan:
    if specs.is_deleting(seen.vmi):
        return _called_off(seen)
    plan = _without_pod(seen.pod) if seen.pod is not None else Plan()
    found = _conditions(seen.vmi)
    if conditions.is_true(found, "Ready"):
        found = conditions.put(found, "Ready", False, now=now, reason="GuestNotRunning", message="the guest has ended")
    return Plan(
        delete_pod=plan.delete_pod, notes=plan.notes,
        patch=_status_patch(seen.vmi, specs.phase(seen.vmi), found, now),
    )  # fmt: skip


def _without_pod(pod: Document) -> Plan:
    if specs.is_deleting(pod):
        return Plan()
    note = Note("Normal", "SuccessfulDelete", f"Deleted virtual machine pod {pod['metadata']['name']}")
    return Plan(delete_pod=True, notes=(note,))


def _released(vmi: Document) -> Document | None:
    """Without our finalizer; None when it is gone already."""
    finalizers = vmi["metadata"].get("finalizers") or []
    if specs.VMI_FINALIZER not in finalizers:
        return None
    return {"metadata": {"finalizers": [f for f in finalizers if f != specs.VMI_FINALIZER]}}


def _ended(seen: Seen, phase: str, reason: str, message: str, now: datetime) -> Document | None:
    found = conditions.remove(_in_sync(seen.vmi), "PodScheduled", "Provisioning")
    found = conditions.put(found, "Ready", False, now=now, reason=reason, message=message)
    return _status_patch(seen.vmi, phase, found, now)


# Status


def _conditions(vmi: Document) -> list[Document]:
    return list((vmi.get("status") or {}).get("conditions") or ())


def _out_of_sync(vmi: Document, reason: str, message: str, now: datetime) -> list[Document]:
    return conditions.put(_conditions(vmi), "Synchronized", False, now=now, reason=reason, message=message)


def _in_sync(vmi: Document) -> list[Document]:
    """Without a `Synchronized` that we set; one that the node agent set stays."""
    found = conditions.of(vmi, "Synchronized")
    if found is not None and found.get("reason") in OUR_REASONS:
        return conditions.remove(_conditions(vmi), "Synchronized")
    return _conditions(vmi)


def _with_ready(found: list[Document], seen: Seen, phase: str, now: datetime) -> list[Document]:
    status, reason, message = _readiness(seen, phase)
    return conditions.put(found, "Ready", status, now=now, reason=reason, message=message)


def _readiness(seen: Seen, phase: str) -> tuple[bool, str, str]:
    if phase != "Running":
        return False, "GuestNotRunning", "the guest does not run yet"
    pod = seen.pod
    assert pod is not None
    if specs.is_deleting(pod):
        return False, "PodTerminating", "the launcher pod is being deleted"
    if specs.is_paused(seen.vmi):
        return False, "GuestNotRunning", "the guest is paused; go on with: hotvirt unpause"
    ready = conditions.of(pod, "Ready")
    if ready is None:
        return False, "PodConditionMissing", "the launcher pod does not say whether it is ready"
    return ready.get("status") == "True", str(ready.get("reason") or ""), str(ready.get("message") or "")


def _status_patch(vmi: Document, phase: str, found: list[Document], now: datetime, **more: Any) -> Document | None:
    """What differs from the stored status, and our finalizer where an instance was made without it."""
    old = vmi.get("status") or {}
    phases = ("Pending", phase) if phase in ("Scheduling", "Scheduled") else (phase,)
    new = {
        "phase": phase, "conditions": found,
        "phaseTransitionTimestamps": specs.transitions(vmi, *phases, now=now), **more,
    }  # fmt: skip
    if revision := (vmi["metadata"].get("annotations") or {}).get(REVISION):
        new["virtualMachineRevisionName"] = revision
    status = {key: value for key, value in new.items() if old.get(key) != value}
    patch: Document = {"status": status} if status else {}
    finalizers = vmi["metadata"].get("finalizers") or []
    if specs.VMI_FINALIZER not in finalizers and not specs.is_deleting(vmi) and phase not in specs.FINAL:
        patch["metadata"] = {"finalizers": [*finalizers, specs.VMI_FINALIZER]}
    return patch or None
