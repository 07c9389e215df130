"""Judges one change to one running guest: a finding for each fact it rests on. Pure.

Only what hotvirt needs is asked. Upstream asks more, since it moves the guest to a new pod: a second node, a migratable
guest, at least 1 GiB. None of that matters to a change made in the running QEMU.
"""

from collections.abc import Iterator
from typing import Any

from hotvirt.api import quantity
from hotvirt.preconditions.changes import Change, CpuChange, MemoryChange, VolumeAdd, VolumeRemove
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, Status

Document = dict[str, Any]
MIB = 1 << 20
STEP = 2 * MIB
LEAST = 32 * MIB
HOTPLUG_BUSES = ("scsi", "virtio")


def check(change: Change, vmi: Document, facts: Facts) -> list[Finding]:
    """`vmi` is the running instance: its limits were fixed when it started."""
    findings = [_rollout(facts)]
    domain = vmi["spec"].get("domain") or {}
    match change:
        case MemoryChange():
            findings += _memory(change, domain, vmi)
        case CpuChange():
            findings += _cpu(change, domain, vmi)
        case VolumeAdd():
            findings += _add(change, vmi, facts)
        case VolumeRemove():
            findings += _remove(change, vmi)
    return findings


def _verdict(holds: bool) -> Status:
    return "pass" if holds else "fail"


def _rollout(facts: Facts) -> Finding:
    live = facts.rollout_strategy == "LiveUpdate"
    return Finding(
        id="cluster.rollout-strategy",
        status=_verdict(live),
        message="changes reach running guests" if live else "the cluster applies changes at the next restart only",
        actual=facts.rollout_strategy,
        required="LiveUpdate",
        mend="" if live else "set spec.configuration.vmRolloutStrategy to LiveUpdate in the KubeVirt object",
    )


def _agent(vmi: Document) -> Finding:
    conditions = (vmi.get("status") or {}).get("conditions") or ()
    connected = any(c.get("type") == "AgentConnected" and c.get("status") == "True" for c in conditions)
    return Finding(
        id="guest.agent",
        status="pass" if connected else "unknown",
        message="the guest agent answers"
        if connected
        else "the guest agent does not answer (yet): the guest may not act",
        actual="connected" if connected else "not connected",
        required="connected",
        mend="" if connected else "install and start qemu-guest-agent in the guest",
    )


def _memory(change: MemoryChange, domain: Document, vmi: Document) -> Iterator[Finding]:
    field = "domain.memory.guest"
    wanted = quantity.format_bytes(change.guest)
    memory = domain.get("memory") or {}
    most = memory.get("maxGuest")
    at_boot = (vmi.get("status") or {}).get("memory", {}).get("guestAtBoot") or memory.get("guest")
    aligned = change.guest % STEP == 0
    yield Finding(
        id="memory.alignment",
        status=_verdict(aligned),
        message=f"memory {wanted} is {'' if aligned else 'not '}a multiple of 2Mi, the guest's block size",
        actual=wanted,
        required="a multiple of 2Mi",
        mend="" if aligned else f"use {quantity.format_bytes(change.guest // STEP * STEP)}",
        field=field,
    )
    if change.guest < LEAST:
        yield Finding(
            id="memory.least",
            status="fail",
            message=f"memory {wanted} is too little for a guest",
            actual=wanted,
            required="32Mi",
            mend="use at least 32Mi",
            field=field,
        )
    if most is None:
        if at_boot is not None and change.guest > quantity.parse_bytes(at_boot):
            yield Finding(
                id="memory.max-guest",
                status="fail",
                message=f"the guest was started without a maximum, so memory cannot grow to {wanted} while it runs",
                actual="no maxGuest",
                required=f"maxGuest of at least {wanted}",
                mend=f"set domain.memory.maxGuest to {wanted} or more, and restart",
                field=field,
            )
    else:
        fits = change.guest <= quantity.parse_bytes(most)
        yield Finding(
            id="memory.max-guest",
            status=_verdict(fits),
            message=f"memory {wanted} is {'within' if fits else 'more than'} the guest's maximum, {most}",
            actual=wanted,
            required=f"at most {most}",
            mend="" if fits else f"use at most {most}, or raise domain.memory.maxGuest and restart",
            field=field,
        )
    yield _agent(vmi)


def _cpu(change: CpuChange, domain: Document, vmi: Document) -> Iterator[Finding]:
    cpu = domain.get("cpu") or {}
    most = int(cpu.get("maxSockets") or cpu.get("sockets") or 1)
    fits = 1 <= change.sockets <= most
    yield Finding(
        id="cpu.max-sockets",
        status=_verdict(fits),
        message=f"{change.sockets} sockets are {'' if fits else 'not '}within what the guest started with, 1 to {most}",
        actual=str(change.sockets),
        required=f"1 to {most}",
        mend="" if fits else f"use at most {most}, or raise domain.cpu.maxSockets and restart",
        field="domain.cpu.sockets",
    )
    yield _agent(vmi)


def _add(change: VolumeAdd, vmi: Document, facts: Facts) -> Iterator[Finding]:
    name = str(change.volume.get("name"))
    field = f"volumes[{name}]"
    source = change.volume.get("persistentVolumeClaim")
    is_claim = bool(source and source.get("hotpluggable"))
    yield Finding(
        id="disk.source",
        status=_verdict(is_claim),
        message=f"volume {name} is {'' if is_claim else 'not '}a claim marked hotpluggable",
        required="persistentVolumeClaim with hotpluggable: true",
        mend="" if is_claim else f"hotvirt addvolume {_owner(vmi)} --volume-name={name} --persist",
        field=field,
    )
    target = next((kind for kind in ("disk", "lun", "cdrom") if change.disk.get(kind) is not None), "disk")
    bus = str((change.disk.get(target) or {}).get("bus") or "scsi")
    pluggable = bus in HOTPLUG_BUSES
    yield Finding(
        id="disk.bus",
        status=_verdict(pluggable),
        message=f"disk {name} is on bus {bus}, which can{'' if pluggable else 'not'} hot-plug",
        actual=bus,
        required="scsi or virtio",
        mend="" if pluggable else f"set the bus of disk {name} to scsi",
        field=f"domain.devices.disks[{name}].{target}.bus",
    )
    if is_claim and source and facts.claims is not None:
        claim = str(source.get("claimName"))
        there = claim in facts.claims
        # Not a blocker: the attachment waits for its claim, as a pod does.
        yield Finding(
            id="disk.claim",
            status="pass" if there else "unknown",
            message=f"claim {claim} {'exists' if there else 'does not exist yet'}",
            actual="there" if there else "missing",
            required="there",
            mend="" if there else f"create PersistentVolumeClaim {claim}",
            field=f"{field}.persistentVolumeClaim.claimName",
        )


def _remove(change: VolumeRemove, vmi: Document) -> Iterator[Finding]:
    volume = next((v for v in vmi["spec"].get("volumes") or () if v.get("name") == change.name), None)
    source = (volume or {}).get("persistentVolumeClaim") or (volume or {}).get("dataVolume") or {}
    removable = bool(source.get("hotpluggable"))
    yield Finding(
        id="disk.removable",
        status=_verdict(removable),
        message=f"volume {change.name} was {'' if removable else 'not '}attached as hotpluggable",
        required="hotpluggable: true",
        mend="" if removable else "restart to remove it",
        field=f"volumes[{change.name}]",
    )


def _owner(vmi: Document) -> str:
    return str((vmi.get("metadata") or {}).get("name") or "NAME")
