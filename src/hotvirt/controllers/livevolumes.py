"""Volumes of an edited VM against those of its running instance: what comes and goes while it runs. Pure.

Live are volumes that are marked hotpluggable, with their disks. What a CD-ROM drive holds comes and goes likewise, the
drive itself with a start only. Volumes that only the instance was given are nobody's business here.
"""

from collections.abc import Iterator
from typing import Any

from hotvirt.api import disks as api_disks
from hotvirt.controllers import spec as specs
from hotvirt.controllers.livecards import Judge
from hotvirt.controllers.templatediff import Difference, diff, shown
from hotvirt.preconditions import VolumeAdd, VolumeRemove

Document = dict[str, Any]


def plan(new: Document, wanted: Document, vmi: Document, judge: Judge) -> bool:
    """Fills in `new`, the instance's spec to be. Volumes are told by their names: one whose source changed goes first,
    and comes when it has left the guest. True when one waits for that."""
    named = {volume["name"]: volume for volume in wanted.get("volumes") or ()}
    hot = {name: volume for name, volume in named.items() if api_disks.is_hotpluggable(volume)}
    has = {volume["name"]: volume for volume in new.get("volumes") or ()}
    leaving = {entry["name"] for entry in (vmi.get("status") or {}).get("volumeStatus") or ()} - has.keys()
    waits = False
    for name, volume in list(has.items()):
        changed = name in hot and api_disks.claim(hot[name]) != api_disks.claim(volume)
        if not api_disks.is_hotpluggable(volume) or (name in named and not changed):
            continue
        if name not in named and name in api_disks.temporary(vmi):
            continue  # the machine was never to have it
        target = shown(api_disks.claim(hot[name])) if changed else "unset"
        if judge(VolumeRemove(name=name), f"volumes[{name}]", shown(api_disks.claim(volume)), target):
            _unplug(new, name)
            waits = waits or changed
    for name, volume in hot.items():
        if name in has:
            continue
        if name in leaving:
            waits = True
            continue
        disk = _disk(wanted, name)
        if disk.get("cdrom") is not None and all(known["name"] != name for known in _disks(new)):
            continue  # its drive comes with a start, and that is said of the disk
        if judge(VolumeAdd(volume=volume, disk=disk), f"volumes[{name}]", "unset", shown(api_disks.claim(volume))):
            _plug(new, volume, disk)
    return waits


def unlike(wanted: Document, has: Document, new: Document) -> Iterator[Difference]:
    """Where a hot-plugged volume, or its disk, is to be another than the one that runs and stays: only coming anew
    makes it that. `has` is the running instance's spec, `new` is it to be."""
    running, stays = api_disks.by_name(has.get("volumes")), api_disks.by_name(new.get("volumes"))
    shown_as, asked = api_disks.by_name(_disks(has)), api_disks.by_name(_disks(wanted))
    for name, volume in api_disks.by_name(wanted.get("volumes")).items():
        before = running.get(name)
        if before is None or name not in stays or api_disks.claim(before) != api_disks.claim(volume):
            continue
        if not (api_disks.is_hotpluggable(before) and api_disks.is_hotpluggable(volume)):
            continue  # cold ones are compared with what the machine was started with
        old, new_one = (bool((each.get("persistentVolumeClaim") or {}).get("readOnly")) for each in (before, volume))
        if old != new_one:
            yield Difference(f"volumes[{name}].persistentVolumeClaim.readOnly", old, new_one)
        disk = shown_as.get(name)
        if disk is not None and "cdrom" not in (api_disks.target(disk), api_disks.target(asked.get(name) or {})):
            yield from diff(_plain(disk), _plain(_like(asked.get(name), disk)), f"domain.devices.disks[{name}]")


def _like(asked: Document | None, disk: Document) -> Document:
    """The disk that is asked for, on the bus of the one that runs where it names none: what that would be differs
    between a start and a hot-plug."""
    if asked is None:
        return {"name": disk["name"], "disk": {"bus": "scsi"}}
    kind = api_disks.target(asked)
    bus = {"bus": api_disks.bus(disk)} if kind == api_disks.target(disk) else {}
    return {**asked, kind: {**bus, **_said(asked.get(kind) or {})}}


def _plain(disk: Document) -> Document:
    kind = api_disks.target(disk)
    return {**_said(disk), kind: _said(disk.get(kind) or {})}


def _said(fields: Document) -> Document:
    """Without what says no more than silence does: `serial: ""`, `readonly: false`."""
    return {field: value for field, value in fields.items() if value not in (None, "", False)}


def without(spec: Document) -> tuple[list[Document], list[Document]]:
    """Volumes and disks without what `plan` looks after."""
    hot = {volume["name"] for volume in spec.get("volumes") or () if api_disks.is_hotpluggable(volume)}
    volumes = [volume for volume in spec.get("volumes") or () if volume["name"] not in hot]
    return volumes, [disk for disk in _disks(spec) if disk["name"] not in hot or disk.get("cdrom")]


def adopted(vm: Document, vmi: Document) -> Document:
    """The annotations that say so when the machine has come to name volumes that only its instance had."""
    has, named = api_disks.temporary(vmi), {volume["name"] for volume in specs.template_spec(vm).get("volumes") or ()}
    left = [name for name in has if name not in named]
    return {} if len(left) == len(has) else api_disks.temporary_note(left)


def _plug(new: Document, volume: Document, disk: Document) -> None:
    new["volumes"] = [*(new.get("volumes") or ()), volume]
    disks = _disks(new)
    if all(known["name"] != disk["name"] for known in disks):  # an empty CD-ROM drive is there already
        _set_disks(new, [*disks, disk])


def _unplug(new: Document, name: str) -> None:
    new["volumes"] = [volume for volume in new["volumes"] if volume["name"] != name]
    _set_disks(new, [disk for disk in _disks(new) if disk["name"] != name or disk.get("cdrom")])


def _disk(wanted: Document, name: str) -> Document:
    """The volume's disk. SCSI unless said otherwise: PCI slots are scarce, and a SCSI disk needs none."""
    disk: Document = next((disk for disk in _disks(wanted) if disk["name"] == name), {"name": name})
    kind = next((kind for kind in ("disk", "lun", "cdrom") if disk.get(kind) is not None), "disk")
    return {**disk, kind: {"bus": "scsi"} | dict(disk.get(kind) or {})}


def _disks(spec: Document) -> list[Document]:
    return list((specs.domain(spec).get("devices") or {}).get("disks") or ())


def _set_disks(new: Document, disks: list[Document]) -> None:
    new["domain"]["devices"] = {**(new["domain"].get("devices") or {}), "disks": disks}
