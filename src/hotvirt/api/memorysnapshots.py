"""Which machines' memory can be kept with a snapshot, and what stands in the way of others. Pure.

A guest that goes on from its memory must find each disk as it was at that instant, so all that it writes to has to be
in the snapshot; and QEMU must be able to make each of its devices again as it was.
"""

from collections.abc import Iterator
from typing import Any

from hotvirt.api import snapshots
from hotvirt.api.faults import Fault, invalid

Document = dict[str, Any]
PATH = f"metadata.annotations[{snapshots.MEMORY}]"
WITH_THE_GUEST = ("emptyDisk", "containerDisk", "ephemeral", "hostDisk")
"""Volumes that no snapshot holds, and that a guest writes to."""
BOUND = {"hostDevices": "a device of the host", "gpus": "a GPU", "filesystems": "a shared file system"}


def faults(snapshot: Document, vm: Document | None, vmi: Document | None) -> Iterator[Fault]:
    """Of a VirtualMachineSnapshot when it is made."""
    given = (snapshot["metadata"].get("annotations") or {}).get(snapshots.MEMORY)
    if given not in (None, "true", "false"):
        yield invalid(PATH, f"{str(given)[:40]!r} is neither true nor false: write true to keep the guest's memory")
    if given != "true" or vm is None:
        return
    name = vm["metadata"]["name"]
    if ((vmi or {}).get("status") or {}).get("phase") != "Running":
        yield invalid(PATH, f"VM {name} does not run, so it has no memory: start it, or leave the annotation out")
        return
    for words in blockers((vmi or {}).get("spec") or {}):
        yield invalid(PATH, words)


def blockers(spec: Document) -> Iterator[str]:
    """Of an instance's spec: why its memory cannot be kept, and the mend."""
    devices = (spec.get("domain") or {}).get("devices") or {}
    by_name = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    writable = [each["name"] for each in devices.get("disks") or () if _is_written(each)]
    found = False
    for name in writable:
        kind = next((each for each in WITH_THE_GUEST if by_name.get(name, {}).get(each) is not None), "")
        if kind:
            found = True
            yield f"volume {name} ({kind}) is in no snapshot, and the guest writes to it: put it on a claim"
    if not found and not any(by_name.get(name, {}).get(kind) for name in writable
                             for kind in ("persistentVolumeClaim", "dataVolume")):  # fmt: skip
        yield "the guest writes to no claim, so there is no disk to keep its memory with: give it one"
    if (tpm := devices.get("tpm")) is not None and tpm.get("enabled") is not False:
        yield "domain.devices.tpm: what a TPM is in the midst of cannot be kept: take a snapshot without the memory"
    for field, words in BOUND.items():
        if devices.get(field):
            yield f"domain.devices.{field}: {words} cannot be made again as it was: remove it, and restart the VM"


def _is_written(disk: Document) -> bool:
    if disk.get("cdrom") is not None:
        return False
    return not ((disk.get("disk") or disk.get("lun") or {}).get("readonly"))


def changed(before: Document, now: Document) -> str:
    """What of an instance was changed while it ran, in words; "" for nothing. A QEMU that is started for it anew would
    be another machine."""
    for path, words in (
        (("domain", "memory"), "domain.memory"), (("domain", "cpu"), "domain.cpu"), (("volumes",), "volumes"),
        (("domain", "devices", "disks"), "domain.devices.disks"),
        (("domain", "devices", "interfaces"), "domain.devices.interfaces"), (("networks",), "networks"),
    ):  # fmt: skip
        if _at(before, path) != _at(now, path):
            return words
    return ""


def _at(spec: Document, path: tuple[str, ...]) -> Any:
    found: Any = spec
    for key in path:
        found = (found or {}).get(key)
    return found or None
