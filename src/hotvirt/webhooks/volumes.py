"""What addvolume and removevolume change in a VM's template, or in a VMI: pure decisions.

Both objects hold the same two lists (`volumes`, `domain.devices.disks`), so both functions take the spec that has
them and return the two new lists as a merge patch of that spec. What the guest then has is the controllers' work.
"""

from collections.abc import Callable
from typing import Any

from hotvirt.api import disks as api_disks
from hotvirt.api import gates
from hotvirt.kube.client import Document
from hotvirt.kube.errors import BadRequest, Conflict

Decide = Callable[[Document, Document], Document]
SOURCES = {"persistentVolumeClaim": "claimName", "dataVolume": "name"}


def add(spec: Document, options: Document) -> Document:
    """The patch of `spec` that adds the volume and disk of AddVolumeOptions."""
    name, source = _name(options), _source(options)
    if options.get("disk") is None:
        raise BadRequest("AddVolumeOptions requires disk: which target the volume gets, such as {disk: {bus: scsi}}")
    volumes, disks = _lists(spec)
    for volume in volumes:
        if volume.get("name") == name:
            raise Conflict(f"Unable to add volume [{name}] because volume with that name already exists")
        if claim := _same_source(volume, source):
            raise Conflict(
                f"Unable to add volume source [{claim}] because volume [{volume.get('name')}] uses it already"
            )
    return _patch([*volumes, {"name": name, **source}], [*disks, _disk(name, options["disk"])])


def remove(spec: Document, options: Document) -> Document:
    """The patch of `spec` that takes the named hotpluggable volume and its disk away."""
    name = _name(options)
    volumes, disks = _lists(spec)
    found = next((volume for volume in volumes if volume.get("name") == name), None)
    if found is None:
        known = ", ".join(sorted(str(v.get("name")) for v in volumes)) or "none"
        raise Conflict(f"Unable to remove volume [{name}] because it does not exist (there are: {known})")
    if not is_hotpluggable(found):
        raise Conflict(f"Unable to remove volume [{name}] because it is not hotpluggable; stop the VM and edit it")
    return _patch([v for v in volumes if v is not found], [d for d in disks if d.get("name") != name])


def temporary(vmi: Document, decide: Decide, options: Document, *, allowed: bool) -> Document:
    """The patch of an instance that a VM owns. What it gets so, its VM does not know of and its next start does not
    have; nothing else of it can be taken away so."""
    name, has = vmi["metadata"]["name"], api_disks.temporary(vmi)
    volume = str(options.get("name"))
    if volume not in has and (not allowed or decide is remove):
        gate = f" (volumes of this run only take the feature gate {gates.TEMPORARY_VOLUMES})"
        raise BadRequest(
            f"VMI {name} is owned by a VM; ask virtualmachines/{name} instead{'' if decide is remove else gate}"
        )
    spec = decide(vmi["spec"], options)
    left = [each for each in has if each != volume] + ([volume] if decide is add else [])
    return {"spec": spec, "metadata": {"annotations": api_disks.temporary_note(left)}}


def is_hotpluggable(volume: Document) -> bool:
    return any((volume.get(kind) or {}).get("hotpluggable") for kind in SOURCES)


def _lists(spec: Document) -> tuple[list[Document], list[Document]]:
    devices = (spec.get("domain") or {}).get("devices") or {}
    return spec.get("volumes") or [], devices.get("disks") or []


def _patch(volumes: list[Document], disks: list[Document]) -> Document:
    return {"volumes": volumes, "domain": {"devices": {"disks": disks}}}


def _name(options: Document) -> str:
    name = options.get("name")
    if not name or not isinstance(name, str):
        raise BadRequest("name is required: the volume's name in the VM")
    return name


def _source(options: Document) -> Document:
    given = options.get("volumeSource") or {}
    kinds = [kind for kind in SOURCES if given.get(kind)]
    if len(kinds) != 1:
        raise BadRequest("volumeSource is required: exactly one of persistentVolumeClaim or dataVolume")
    kind = kinds[0]
    if not given[kind].get(SOURCES[kind]):
        raise BadRequest(f"volumeSource.{kind}.{SOURCES[kind]} is required")
    return {kind: {**given[kind], "hotpluggable": True}}


def _same_source(volume: Document, source: Document) -> str:
    """The claim's name when `volume` already uses it (a DataVolume's claim has the DataVolume's name)."""

    def claim(of: Document) -> Any:
        return next((of[kind].get(field) for kind, field in SOURCES.items() if of.get(kind)), None)

    return str(claim(source)) if claim(volume) == claim(source) else ""


def _disk(name: str, given: Document) -> Document:
    """SCSI unless said otherwise: PCI slots are scarce, and a SCSI disk needs none."""
    disk = {**given, "name": name}
    if not any(kind in disk for kind in ("disk", "lun", "cdrom")):
        disk["disk"] = {"bus": "scsi"}
    return disk
