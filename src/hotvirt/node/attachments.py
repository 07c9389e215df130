"""Volumes of a running guest: what its VMI names against the disks that QEMU shows, as jobs of the guest.

Decides and begins or ends jobs, and waits for none. A hot-pluggable volume is attached as a disk or put into its drive;
what the VMI names no more is taken away, when the guest lets go; a disk whose claim has grown grows. A volume whose
source changed leaves before it comes anew: that is the VM controller's to see to.
"""

import os
from contextlib import ExitStack

from msgspec import structs

from hotvirt.api import disks as api_disks
from hotvirt.kube.client import Document
from hotvirt.node.guest import Guest, fresh
from hotvirt.node.shown import disk_of, empty_drives, is_empty_drive, is_hotplugged, machine_disk, shown
from hotvirt.node.volumes import ClaimFile, Lookup, VolumeError, Volumes, capacity, free
from hotvirt.qemu.disks import attach_disk, detach_disk, grow_disk
from hotvirt.qemu.drives import eject_disc, insert_disc
from hotvirt.qemu.machine import Disk, File, Layer
from hotvirt.qemu.progress import Report
from hotvirt.qemu.state import DiskState, Observed

Waiting = dict[str, tuple[str, str]]
"""Volume name -> (reason, message) of those that cannot be attached yet."""


def job_of(volume: str) -> str:
    return f"volume {volume}"


async def volumes(vmi: Document, guest: Guest, observed: Observed, store: Volumes, lookup: Lookup) -> Waiting:
    spec = vmi["spec"]
    waiting: Waiting = {}
    wanted = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    drives = {disk["name"] for disk in empty_drives(spec)}
    for state in observed.disks:
        if state.name in drives:
            if not is_idle(state):
                _eject(guest, state.name)
        elif state.name not in wanted:
            _detach(guest, state.name, observed)
    for name, volume in wanted.items():
        disk = disk_of(spec, name)
        has = observed.disk(name)
        if disk is None:
            continue
        if has is not None and has.device and not is_empty_drive(has):
            await _keep(guest, volume, has, lookup)
        elif is_hotplugged(volume) and shown(disk).is_open:
            said = f"volume {name!r}: the tray of its drive is open: set cdrom.tray to closed, and restart the machine"
            waiting[name] = ("TrayOpen", said)
        elif is_hotplugged(volume):
            try:
                await _bring(guest, volume, disk, observed, store, lookup)
            except VolumeError as error:
                waiting[name] = (error.reason, str(error))
    for kind in [kind for kind in guest.jobs if kind.startswith("volume ")]:
        name = kind.removeprefix("volume ")
        left = observed.disk(name)
        if name not in wanted and (left is None or is_idle(left)) and not guest.jobs[kind].is_running:
            guest.drop(kind)
    return waiting


def is_idle(state: DiskState) -> bool:
    """A drive with nothing in it and nothing open for it."""
    return is_empty_drive(state) and not state.nodes


async def _keep(guest: Guest, volume: Document, has: DiskState, lookup: Lookup) -> None:
    """A disk that is there: as large as its claim."""
    name = volume["name"]
    job = guest.jobs.get(job_of(name))
    size = 0 if has.read_only else await capacity(volume, lookup)
    is_behind = job is not None and job.error is not None and job.target == ("grow", size)
    if size > has.size > 0 or (is_behind and size):

        async def run(_: Report) -> None:
            await grow_disk(guest.monitor, name, size, agent=guest.answering)

        guest.want(job_of(name), ("grow", size), run)
    elif job is not None and not job.is_running:
        guest.drop(job_of(name))


async def _bring(
    guest: Guest, volume: Document, disk: Document, observed: Observed, store: Volumes, lookup: Lookup
) -> None:
    name = volume["name"]
    has = observed.disk(name)
    source = {**(volume.get("persistentVolumeClaim") or {}), "claimName": api_disks.claim(volume)}
    file = await store.claim_file(name, source, lookup)
    if shown(disk).kind == "lun" and not file.is_device:
        raise VolumeError(
            "NotADevice",
            f"volume {name!r}: a lun is a SCSI device of the host, and claim {source['claimName']!r} is a file: "
            f"say disk in place of lun",
        )
    job = guest.jobs.get(job_of(name))
    if (has is None or not has.nodes) and (job is None or job.error is not None):
        await free(name, source["claimName"], file, disk, lookup)  # else it may be this guest that uses it
    _attach(guest, name, disk, file, observed)


def _attach(guest: Guest, name: str, disk: Document, file: ClaimFile, observed: Observed) -> None:
    has = observed.disk(name)
    into_drive = has is not None and is_empty_drive(has)
    known = fresh(guest, job_of(name), observed)
    how = shown(disk)
    read_only = how.read_only or file.read_only

    async def run(_: Report) -> None:
        with ExitStack() as opened:
            descriptor = file.open(read_only=read_only)
            opened.callback(os.close, descriptor)
            layers = [Layer(File(fd=descriptor, block_device=file.is_device), file.format)]
            for base in file.below:
                descriptor = os.open(base.path, os.O_RDONLY | os.O_CLOEXEC)
                opened.callback(os.close, descriptor)
                layers.append(Layer(File(fd=descriptor), "qcow2" if base.format == "qcow2" else "raw"))
            new = machine_disk(name, how, tuple(layers), read_only=read_only)
            if into_drive:
                await insert_disc(guest.monitor, new)
            else:
                found = await attach_disk(guest.monitor, _with_serial(new, name), agent=guest.answering, observed=known)
                guest.note_disk(name, found)

    guest.want(job_of(name), ("attach", str(file.path)), run)


def _detach(guest: Guest, name: str, observed: Observed) -> None:
    known = fresh(guest, job_of(name), observed)

    async def run(_: Report) -> None:
        await detach_disk(guest.monitor, name, agent=guest.answering, observed=known)
        guest.note_disk(name, None)

    guest.want(job_of(name), ("detach",), run)


def _eject(guest: Guest, name: str) -> None:
    async def run(_: Report) -> None:
        await eject_disc(guest.monitor, name)

    guest.want(job_of(name), ("eject",), run)


def _with_serial(disk: Disk, name: str) -> Disk:
    """KubeVirt's rule: a hot-plugged disk without a serial shows its volume's name."""
    return disk if disk.serial else structs.replace(disk, serial=name)
