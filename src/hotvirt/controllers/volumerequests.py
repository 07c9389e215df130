"""`status.volumeRequests` of a VM, by which an older KubeVirt's addvolume and removevolume asked, as an edit of it.

Pure, and the same when it is done twice: a volume that is there is not added again, one that is gone not removed. What
cannot be done is said and dropped with the rest, since nothing that the VM says later could make it right.
"""

from typing import Any

from msgspec import Struct

from hotvirt.api import disks
from hotvirt.controllers import spec as specs

Document = dict[str, Any]


class Answer(Struct, frozen=True):
    """`patch`: of the template's spec, {} for none. `refused`: sentences."""

    patch: Document = {}
    refused: tuple[str, ...] = ()


def requests(vm: Document) -> list[Document]:
    return list((vm.get("status") or {}).get("volumeRequests") or ())


def answer(vm: Document) -> Answer:
    template = specs.template_spec(vm)
    volumes = list(template.get("volumes") or ())
    shown = list((specs.domain(template).get("devices") or {}).get("disks") or ())
    before = (list(volumes), list(shown))
    refused = []
    for request in requests(vm):
        if options := request.get("addVolumeOptions"):
            why = _add(options, volumes, shown)
        else:
            why = _remove(request.get("removeVolumeOptions") or {}, volumes, shown)
        if why:
            refused.append(why)
    if (volumes, shown) == before:
        return Answer({}, tuple(refused))
    return Answer({"volumes": volumes, "domain": {"devices": {"disks": shown}}}, tuple(refused))


def _add(options: Document, volumes: list[Document], shown: list[Document]) -> str:
    name, source = str(options.get("name") or ""), options.get("volumeSource") or {}
    kind = next((kind for kind, field in disks.HOTPLUG_SOURCES.items() if (source.get(kind) or {}).get(field)), None)
    if not name or kind is None:
        return f"volumeRequests: volume {name!r} cannot be added: it needs a name, and a claim as its volumeSource"
    volume = {"name": name, kind: {**source[kind], "hotpluggable": True}}
    known = disks.by_name(volumes).get(name)
    if known is not None:
        same = disks.claim(known) == disks.claim(volume)
        return "" if same else f"volumeRequests: volume {name} is there with another source: remove it first"
    volumes.append(volume)
    disk = {**(options.get("disk") or {}), "name": name}
    if not disks.targets(disk):
        disk["disk"] = {"bus": "scsi"}
    if name not in disks.by_name(shown):
        shown.append(disk)
    return ""


def _remove(options: Document, volumes: list[Document], shown: list[Document]) -> str:
    name = str(options.get("name") or "")
    known = disks.by_name(volumes).get(name)
    if known is None:
        return "" if name else "volumeRequests: a request names neither a volume to add nor one to remove"
    if not disks.is_hotpluggable(known):
        return f"volumeRequests: volume {name} is not hotpluggable: stop the VM and edit it"
    volumes[:] = [volume for volume in volumes if volume.get("name") != name]
    shown[:] = [disk for disk in shown if disk.get("name") != name or disk.get("cdrom") is not None]
    return ""
