"""What the cluster and the machine allow, whatever the change is."""

from typing import Any

from hotvirt.api import gates
from hotvirt.preconditions.changes import (
    Change,
    CpuChange,
    CpuLimit,
    MemoryChange,
    MemoryLimit,
    NicAdd,
    NicLink,
    NicRemove,
    VolumeAdd,
    VolumeRemove,
)
from hotvirt.preconditions.facts import PATCH_VM, Caller, Facts
from hotvirt.preconditions.findings import Finding, machine, namespace, verdict

Document = dict[str, Any]
DISABLED = "spec.configuration.developerConfiguration.disabledFeatureGates"
EDIT = "kubectl edit kubevirt kubevirt -n kubevirt"
LIVE_UPDATE = ("VMLiveUpdateFeatures", "LiveResourceUpdate", "LiveUpdate")
HOTPLUG_VOLUMES = ("DeclarativeHotplugVolumes", "HotplugVolumes", "HotPlugVolumes")
HOTPLUG_NICS = ("HotplugNICs",)
GATES: dict[type, tuple[str, ...]] = {
    MemoryChange: LIVE_UPDATE,
    CpuChange: (*LIVE_UPDATE, "CPUHotplug"),
    MemoryLimit: LIVE_UPDATE,
    CpuLimit: (*LIVE_UPDATE, "CPUHotplug"),
    VolumeAdd: HOTPLUG_VOLUMES,
    VolumeRemove: HOTPLUG_VOLUMES,
    NicAdd: HOTPLUG_NICS,
    NicRemove: HOTPLUG_NICS,
    NicLink: HOTPLUG_NICS,
}
"""The gates of a change, the first under its present name. All are on unless they are disabled by name."""


def rollout(_: Change, __: Document, facts: Facts) -> Finding:
    live = facts.rollout_strategy == "LiveUpdate"
    return Finding(
        id="cluster.rollout-strategy",
        status=verdict(live),
        message="changes reach running guests" if live else "the cluster applies changes at the next restart only",
        actual=facts.rollout_strategy,
        required="LiveUpdate",
        mend="" if live else f"set spec.configuration.vmRolloutStrategy to LiveUpdate: {EDIT}",
    )


def gate(change: Change, _: Document, facts: Facts) -> Finding:
    names = GATES[type(change)]
    off = [name for name in names if name in facts.disabled_gates and not _has_stand_in(name, facts)]
    what, them = f"feature gate {(off or names)[0]} is", "it"
    if len(off) > 1:
        what, them = f"feature gates {' and '.join(off)} are", "them"
    return Finding(
        id="cluster.feature-gate",
        status=verdict(not off),
        message=f"the {what} {'off' if off else 'on'}",
        actual="off" if off else "on",
        required="on",
        mend=f"take {them} out of {DISABLED}: {EDIT}" if off else "",
    )


def _has_stand_in(name: str, facts: Facts) -> bool:
    """Upstream's way back to volumes that come by commands: the one gate off, and the other, of these, on. Here volumes
    come and go with either."""
    return name == HOTPLUG_VOLUMES[0] and gates.TEMPORARY_VOLUMES in facts.listed_gates


def architecture(_: Change, vmi: Document, __: Facts) -> Finding:
    found = str(vmi["spec"].get("architecture") or "amd64")
    fits = found == "amd64"
    return Finding(
        id="guest.architecture",
        status=verdict(fits),
        message=f"{found} guests {'can' if fits else 'cannot'} be resized while they run",
        actual=found,
        required="amd64",
        field="architecture",
    )


def patch_vm(_: Change, vmi: Document, facts: Facts) -> Finding | None:
    return permission(
        facts.caller, PATCH_VM, vmi, id_="caller.patch-vm", words=f"change VM {machine(vmi)}", role="edit"
    )


def permission(caller: Caller | None, what: str, vmi: Document, *, id_: str, words: str, role: str) -> Finding | None:
    """A finding about what the caller may; None when the API was not asked."""
    if caller is None or what not in caller.may:
        return None
    may = caller.may[what]
    return Finding(
        id=id_,
        status=verdict(may),
        message=f"you may {'' if may else 'not '}{words}",
        actual="allowed" if may else f"denied to {caller.name}" if caller.name else "denied",
        required=what,
        mend="" if may else f"ask an administrator for: {_grant(caller.name, role, namespace(vmi))}",
    )


def _grant(name: str, role: str, space: str) -> str:
    prefix = "system:serviceaccount:"
    who = f"--serviceaccount={name.removeprefix(prefix)}" if name.startswith(prefix) else f"--user={name or 'YOU'}"
    return f"kubectl create rolebinding vm-{role} -n {space} --clusterrole={role} {who}"
