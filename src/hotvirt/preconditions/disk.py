"""What a volume that comes or goes rests on."""

from typing import Any

from hotvirt.api import disks
from hotvirt.preconditions.changes import VolumeAdd, VolumeRemove
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, verdict

Document = dict[str, Any]


def name_free(change: VolumeAdd, vmi: Document, _: Facts) -> Finding:
    name = _name(change)
    free = name not in disks.by_name(vmi["spec"].get("volumes"))
    return Finding(
        id="disk.name",
        status=verdict(free),
        message=f"the name {name} is {'free' if free else 'the name of a volume the guest has already'}",
        actual="free" if free else "taken",
        required="free",
        mend="" if free else "choose another name",
        field=f"volumes[{name}]",
    )


def source(change: VolumeAdd, vmi: Document, _: Facts) -> Finding:
    """KubeVirt's mark for what may come and go; other volumes belong to the machine from its start."""
    name, holds = _name(change), bool(_claim(change) and disks.is_hotpluggable(change.volume))
    command = f"hotvirt addvolume {_machine(vmi)} --volume-name={_claim(change) or 'CLAIM'} --persist"
    return Finding(
        id="disk.source",
        status=verdict(holds),
        message=f"volume {name} is {'' if holds else 'not '}a claim marked hotpluggable",
        required="persistentVolumeClaim with hotpluggable: true",
        mend="" if holds else f"set persistentVolumeClaim.hotpluggable: true, or {command}",
        field=f"volumes[{name}]",
    )


def bus(change: VolumeAdd, _: Document, __: Facts) -> Finding:
    name, kind = _name(change), disks.target(change.disk)
    found = str((change.disk.get(kind) or {}).get("bus") or "scsi")
    fits = found in disks.HOTPLUG_BUSES
    return Finding(
        id="disk.bus",
        status=verdict(fits),
        message=f"disk {name} is on bus {found}, which can{'' if fits else 'not'} hot-plug",
        actual=found,
        required="scsi or virtio",
        mend="" if fits else f"set the bus of disk {name} to scsi",
        field=f"domain.devices.disks[{name}].{kind}.bus",
    )


def claim_exists(change: VolumeAdd, _: Document, facts: Facts) -> Finding | None:
    """Never in the way: the attachment waits for its claim, as a pod does."""
    claim = _claim(change)
    if not claim or facts.claims is None:
        return None
    there = claim in facts.claims
    return Finding(
        id="disk.claim",
        status="pass" if there else "unknown",
        message=f"claim {claim} {'exists' if there else 'does not exist yet: the disk waits for it'}",
        actual="there" if there else "missing",
        required="there",
        mend="" if there else f"create PersistentVolumeClaim {claim}",
        field=_claim_field(change),
    )


def claim_free(change: VolumeAdd, vmi: Document, facts: Facts) -> Finding | None:
    """One writer for each disk: two guests that write to the same one ruin it."""
    claim = _claim(change)
    if not claim:
        return None
    name = _name(change)
    here = next((n for n, v in disks.by_name(vmi["spec"].get("volumes")).items() if disks.claim(v) == claim), "")
    there = (facts.claim_users or {}).get(claim, "")
    shared = bool(change.disk.get("shareable"))
    user = f"volume {here} of this machine" if here and here != name else "" if shared else there
    if not user and facts.claim_users is None:
        return None
    return Finding(
        id="disk.claim-free",
        status=verdict(not user),
        message=f"claim {claim} is {f'in use by {user}' if user else 'free'}",
        actual=user or "free",
        required="free",
        mend=f"detach it there, or use another claim for {name}" if user else "",
        field=_claim_field(change),
    )


def removable(change: VolumeRemove, vmi: Document, _: Facts) -> Finding:
    volumes = disks.by_name(vmi["spec"].get("volumes"))
    volume = volumes.get(change.name)
    holds = volume is not None and disks.is_hotpluggable(volume)
    if volume is None:
        how, mend = "not there", f"there are: {', '.join(volumes) or 'none'}"
    else:
        how = f"{'' if holds else 'not '}attached as hotpluggable"
        mend = "" if holds else "restart to remove it"
    return Finding(
        id="disk.removable",
        status=verdict(holds),
        message=f"volume {change.name} is {how}",
        actual=how,
        required="attached with hotpluggable: true",
        mend=mend,
        field=f"volumes[{change.name}]",
    )


ADD = (name_free, source, bus, claim_exists, claim_free)
REMOVE = (removable,)


def _name(change: VolumeAdd) -> str:
    return str(change.volume.get("name"))


def _claim(change: VolumeAdd) -> str:
    return disks.claim(change.volume)


def _claim_field(change: VolumeAdd) -> str:
    kind = next(kind for kind in disks.HOTPLUG_SOURCES if change.volume.get(kind))
    return f"volumes[{_name(change)}].{kind}.{disks.HOTPLUG_SOURCES[kind]}"


def _machine(vmi: Document) -> str:
    return str((vmi.get("metadata") or {}).get("name") or "NAME")
