"""What a volume that comes or goes rests on."""

from typing import Any

from hotvirt.api import disks
from hotvirt.preconditions import guest
from hotvirt.preconditions.changes import VolumeAdd, VolumeRemove
from hotvirt.preconditions.cluster import permission
from hotvirt.preconditions.facts import MAKE_CLAIM, READ_CLAIM, Claim, Facts
from hotvirt.preconditions.findings import Finding, machine, verdict

Document = dict[str, Any]
WHY_NOT = {
    "sata": "SATA disks belong to a machine from its start",
    "ide": "IDE disks belong to a machine from its start",
    "usb": "USB disks are not plugged into a running guest here",
}
WRITABLE = ("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany")


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
    kind = next((each for each in change.volume if each != "name"), "none")
    command = f"hotvirt addvolume {machine(vmi)} --volume-name={_claim(change) or 'CLAIM'} --persist"
    return Finding(
        id="disk.source",
        status=verdict(holds),
        message=f"volume {name} is {'' if holds else 'not '}a claim marked hotpluggable",
        actual=f"{kind} with hotpluggable: true" if holds else f"{kind}, not hotpluggable" if _claim(change) else kind,
        required="persistentVolumeClaim with hotpluggable: true",
        mend="" if holds else f"set persistentVolumeClaim.hotpluggable: true, or {command}",
        field=f"volumes[{name}]",
    )


def bus(change: VolumeAdd, vmi: Document, _: Facts) -> Finding | None:
    if _has_drive(change, vmi):
        return None
    name, kind = _name(change), disks.target(change.disk)
    found = _bus(change)
    fits = found in disks.HOTPLUG_BUSES
    why = WHY_NOT.get(found, "")
    return Finding(
        id="disk.bus",
        status=verdict(fits),
        message=f"disk {name} is on bus {found}, which can{'' if fits else 'not'} hot-plug{f': {why}' if why else ''}",
        actual=found,
        required="scsi or virtio",
        mend="" if fits else f"set the bus of disk {name} to scsi",
        field=f"domain.devices.disks[{name}].{kind}.bus",
    )


def place(change: VolumeAdd, vmi: Document, facts: Facts) -> Finding | None:
    """A virtio disk takes a PCIe port, of which few are kept free; a SCSI disk a target of its controller."""
    if _has_drive(change, vmi) or facts.places is None or (found := _bus(change)) not in disks.HOTPLUG_BUSES:
        return None
    left, what, mend = facts.places.scsi, "targets of its SCSI controller", "take a disk away, or restart"
    if found == "virtio":
        left, what, mend = facts.places.ports, "PCIe ports", "use bus scsi, or restart"
    return Finding(
        id="disk.place",
        status=verdict(left > 0),
        message=f"the guest has {left} {what} free",
        actual=str(left),
        required="at least 1",
        mend="" if left > 0 else mend,
        field=f"domain.devices.disks[{_name(change)}]",
    )


def claim_exists(change: VolumeAdd, _: Document, facts: Facts) -> Finding | None:
    """A claim, not a bare PersistentVolume: volumes are named by their claims alone."""
    claim = _claim(change)
    if not claim or facts.claims is None:
        return None
    there = claim in facts.claims
    known = ", ".join(sorted(facts.claims)[:10])
    return Finding(
        id="disk.claim",
        status=verdict(there),
        message=f"PersistentVolumeClaim {claim} {'exists' if there else 'does not exist: the disk would wait for it'}",
        actual="there" if there else f"missing; there are: {known or 'none'}",
        required="there",
        mend="" if there else f"create PersistentVolumeClaim {claim}",
        field=_claim_field(change),
    )


def claim_bound(change: VolumeAdd, _: Document, facts: Facts) -> Finding | None:
    """One that waits may be bound at any moment; one that lost its volume never is again."""
    claim = _claim(change)
    if (found := _known(change, facts)) is None:
        return None
    status = {"Bound": True, "Lost": False}.get(found.phase)
    if status is None and found.waits:
        status = True
    bound = "is bound" if found.phase == "Bound" else "is bound when it is used"
    words = {True: bound, False: "has lost its volume", None: "is not bound yet: the disk waits for it"}
    return Finding(
        id="disk.claim-bound",
        status=verdict(status),
        message=f"claim {claim} {words[status]}{f' ({found.size})' if status and found.size else ''}",
        actual=found.phase,
        required="Bound",
        mend="" if status else f"see why: kubectl describe pvc {claim}",
        field=_claim_field(change),
    )


def access_mode(change: VolumeAdd, _: Document, facts: Facts) -> Finding | None:
    """A disk that is written to needs a mode that allows it. Which of them matters only to a guest that migrates."""
    if (found := _known(change, facts)) is None:
        return None
    modes = ", ".join(found.modes) or "none"
    target = change.disk.get(disks.target(change.disk)) or {}
    reads_only = bool(target.get("readonly")) or disks.target(change.disk) == "cdrom"
    fits = reads_only or any(mode in found.modes for mode in WRITABLE)
    shared = "ReadWriteMany" in found.modes
    note = "a guest with it can migrate" if shared else "enough here; a guest with it cannot migrate to another node"
    return Finding(
        id="disk.access-mode",
        status=verdict(fits),
        message=f"claim {_claim(change)} is {modes}: {note if fits else 'a disk cannot be written on it'}",
        actual=modes,
        required="ReadWriteOnce, ReadWriteOncePod or ReadWriteMany",
        mend="" if fits else f"set readonly: true on disk {_name(change)}, or use a claim with ReadWriteOnce",
        field=_claim_field(change),
    )


def read_claim(change: VolumeAdd, vmi: Document, facts: Facts) -> Finding | None:
    words = f"read PersistentVolumeClaim {_claim(change)}"
    return permission(facts.caller, READ_CLAIM, vmi, id_="caller.read-claim", words=words, role="view")


def make_claim(change: VolumeAdd, vmi: Document, facts: Facts) -> Finding | None:
    """Only where the claim has yet to be made."""
    if facts.claims is None or _claim(change) in facts.claims:
        return None
    words = f"create PersistentVolumeClaim {_claim(change)}"
    return permission(facts.caller, MAKE_CLAIM, vmi, id_="caller.create-claim", words=words, role="edit")


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


ADD = (
    name_free, source, bus, place, claim_exists, claim_bound, access_mode, claim_free, guest.standing,
    guest.pci_hotplug, read_claim, make_claim,
)  # fmt: skip
REMOVE = (removable, guest.standing)


def _name(change: VolumeAdd) -> str:
    return str(change.volume.get("name"))


def _has_drive(change: VolumeAdd, vmi: Document) -> bool:
    """A disc for a drive that is part of the machine: it needs no place, and every drive takes discs while it runs."""
    devices = (vmi["spec"].get("domain") or {}).get("devices") or {}
    there = disks.by_name(devices.get("disks")).get(_name(change)) or {}
    return disks.target(there) == "cdrom"


def _claim(change: VolumeAdd) -> str:
    return disks.claim(change.volume)


def _claim_field(change: VolumeAdd) -> str:
    kind = next(kind for kind in disks.HOTPLUG_SOURCES if change.volume.get(kind))
    return f"volumes[{_name(change)}].{kind}.{disks.HOTPLUG_SOURCES[kind]}"


def _bus(change: VolumeAdd) -> str:
    return str((change.disk.get(disks.target(change.disk)) or {}).get("bus") or "scsi")


def _known(change: VolumeAdd, facts: Facts) -> Claim | None:
    return (facts.claims or {}).get(_claim(change))
