"""What the cluster and the machine allow, whatever the change is."""

from typing import Any

from hotvirt.preconditions.changes import Change, CpuChange, MemoryChange, VolumeAdd, VolumeRemove
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, verdict

Document = dict[str, Any]
EDIT = "kubectl edit kubevirt kubevirt -n kubevirt"
LIVE_UPDATE = ("VMLiveUpdateFeatures", "LiveResourceUpdate", "LiveUpdate")
GATES: dict[type, tuple[str, ...]] = {
    MemoryChange: LIVE_UPDATE,
    CpuChange: (*LIVE_UPDATE, "CPUHotplug"),
    VolumeAdd: ("DeclarativeHotplugVolumes", "HotplugVolumes", "HotPlugVolumes"),
    VolumeRemove: ("DeclarativeHotplugVolumes", "HotplugVolumes", "HotPlugVolumes"),
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
    off = [name for name in names if name in facts.disabled_gates]
    return Finding(
        id="cluster.feature-gate",
        status=verdict(not off),
        message=f"the feature gate {' and '.join(off) or names[0]} is {'off' if off else 'on'}",
        actual="off" if off else "on",
        required="on",
        mend=f"take it out of spec.configuration.developerConfiguration.disabledFeatureGates: {EDIT}" if off else "",
    )


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


def agent(_: Change, vmi: Document, __: Facts) -> Finding:
    """Unknown rather than missing when it does not answer: it may still be starting, and memory comes without it."""
    conditions = (vmi.get("status") or {}).get("conditions") or ()
    connected = any(c.get("type") == "AgentConnected" and c.get("status") == "True" for c in conditions)
    words = "the guest agent answers" if connected else "the guest agent does not answer (yet): the guest may not act"
    return Finding(
        id="guest.agent",
        status="pass" if connected else "unknown",
        message=words,
        actual="connected" if connected else "not connected",
        required="connected",
        mend="" if connected else "install and start qemu-guest-agent in the guest",
    )
