"""File systems that the guest mounts by their name (virtiofs): which volumes they can be of. Pure."""

from collections.abc import Collection, Iterator
from typing import Any

from hotvirt.api import disks as api_disks
from hotvirt.api import gates
from hotvirt.api.faults import Fault, invalid, required
from hotvirt.api.validation_network import names

Document = dict[str, Any]

OF_CONFIGURATION = ("configMap", "secret", "serviceAccount", "downwardAPI")
LONGEST_NAME = 36
"""The device has room for no more, and the guest mounts by it."""


def check(spec: Document, path: str) -> Iterator[Fault]:
    devices = (spec.get("domain") or {}).get("devices") or {}
    found, here = devices.get("filesystems") or (), f"{path}.domain.devices.filesystems"
    volumes, shown = api_disks.by_name(spec.get("volumes")), api_disks.by_name(devices.get("disks"))
    yield from names(found, here)
    for index, each in enumerate(found):
        at, name = f"{here}[{index}]", str(each.get("name") or "")
        if each.get("virtiofs") is None:
            yield required(f"{at}.virtiofs", "say virtiofs: {}, the one kind there is")
        if len(name) > LONGEST_NAME:
            yield invalid(f"{at}.name", f"has {len(name)} characters: the guest mounts it by at most {LONGEST_NAME}")
        volume = volumes.get(name)
        if volume is None:
            yield invalid(f"{at}.name", f"no volume is named {name!r}: add it to volumes, or remove the file system")
            continue
        if name in shown:
            yield invalid(f"{at}.name", f"volume {name!r} is shown as a disk, too: keep one of the two")
        if volume.get("ephemeral") or not (api_disks.claim(volume) or any(volume.get(k) for k in OF_CONFIGURATION)):
            kinds = ", ".join((*OF_CONFIGURATION, *api_disks.HOTPLUG_SOURCES))
            yield invalid(f"{at}.name", f"volume {name!r} is none of {kinds}: show it as a disk")
        elif api_disks.is_hotpluggable(volume):
            message = f"volume {name!r} is hotpluggable, which file systems are not: remove hotpluggable"
            yield invalid(f"{at}.name", message)


def gated(spec: Document, path: str, listed: Collection[str]) -> Iterator[Fault]:
    """As in KubeVirt, those of claims need a feature gate."""
    volumes = api_disks.by_name(spec.get("volumes"))
    for index, each in enumerate(((spec.get("domain") or {}).get("devices") or {}).get("filesystems") or ()):
        gate = gates.CLAIMS_AS_FILESYSTEMS
        if gate not in listed and api_disks.claim(volumes.get(str(each.get("name"))) or {}):
            message = f"a claim as a file system needs the feature gate {gate}: add it to {gates.FIELD}"
            yield invalid(f"{path}.domain.devices.filesystems[{index}]", message)
