"""Live changes: what the VMI asks for against what its guest has, as jobs of the guest.

Each function decides and, if need be, begins or ends one job; none waits for it. What stays undone stays visible in the
jobs, from which `status` tells. Removal of a volume goes before another of the same name comes.
"""

import os
from pathlib import Path

from msgspec import structs

from hotvirt.kube.client import Document
from hotvirt.node import render
from hotvirt.node.guest import Guest
from hotvirt.node.status import SLACK
from hotvirt.node.volumes import (
    ClaimFile,
    Lookup,
    VolumeError,
    Volumes,
    disk_of,
    empty_drives,
    free,
    is_empty_drive,
    is_hotplugged,
    machine_disk,
    shown,
)
from hotvirt.qemu import cpu
from hotvirt.qemu.disks import attach_disk, detach_disk
from hotvirt.qemu.machine import Disk, File, Layer
from hotvirt.qemu.memory import resize_memory
from hotvirt.qemu.progress import Report
from hotvirt.qemu.state import Observed, read_memory


def memory(vmi: Document, guest: Guest, observed: Observed) -> None:
    wanted = render.wanted_memory(vmi["spec"])
    has = observed.memory.current
    if not wanted or (
        0 <= has - wanted <= SLACK and guest.settled is not None and abs(guest.settled - wanted) <= SLACK
    ):
        guest.drop("memory")
        return

    async def run(report: Report) -> None:
        try:
            reached = await resize_memory(guest.monitor, guest.answering, wanted, report=report)
            guest.settled = reached.current
        except BaseException:
            if not guest.is_gone:
                guest.settled = (await read_memory(guest.monitor)).current
            raise

    # A job that began without an agent is begun anew with it: only the guest can say that it uses the memory.
    guest.want("memory", (wanted, guest.view is not None), run)


def vcpus(vmi: Document, guest: Guest, observed: Observed) -> None:
    topology = render.wanted_topology(vmi["spec"])
    wanted = topology.vcpus
    how = cpu.policy(guest.accelerator)
    if guest.vcpus is not None and min(guest.vcpus, observed.plugged_vcpus) == wanted:
        guest.has_parked = True
        guest.drop("cpu")
        return
    if guest.view is None:
        return  # who booted with one vCPU too many, or is asked for fewer, needs its agent: it comes, or says so

    async def run(report: Report) -> None:
        try:
            state = await cpu.set_vcpus(guest.monitor, guest.answering, wanted, how=how, report=report)
            guest.vcpus = state.online
        finally:
            guest.has_parked = True

    guest.want("cpu", wanted, run)


async def volumes(
    vmi: Document, guest: Guest, observed: Observed, store: Volumes, lookup: Lookup
) -> dict[str, tuple[str, str]]:
    """Volume name -> (reason, message) of those that cannot be attached yet."""
    spec = vmi["spec"]
    waiting: dict[str, tuple[str, str]] = {}
    wanted = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    drives = {disk["name"] for disk in empty_drives(spec)}
    for state in observed.disks:
        if state.name in drives and not is_empty_drive(state):
            waiting[state.name] = (
                "RestartRequired",
                f"drive {state.name!r} keeps its disc until a start: restart the VM",
            )
        elif state.name not in wanted and state.name not in drives:
            _detach(guest, state.name)
    present = {state.name for state in observed.disks if state.device}
    for name, volume in wanted.items():
        if not is_hotplugged(volume) or (disk := disk_of(spec, name)) is None:
            continue
        if (has := observed.disk(name)) is not None and is_empty_drive(has):
            waiting[name] = (
                "RestartRequired",
                f"volume {name!r}: a disc goes into its drive at a start: restart the VM",
            )
            continue
        if name in present:
            job = guest.jobs.get(f"volume {name}")
            if job is not None and not job.is_running:
                guest.drop(f"volume {name}")
            continue
        try:
            source = volume.get("persistentVolumeClaim") or {"claimName": (volume.get("dataVolume") or {}).get("name")}
            file = await store.claim_file(name, source, lookup)
            job = guest.jobs.get(f"volume {name}")
            if (has is None or not has.nodes) and (job is None or job.error is not None):
                await free(name, source["claimName"], file, disk, lookup)  # else it may be this guest that uses it
        except VolumeError as error:
            waiting[name] = (error.reason, str(error))
            continue
        _attach(guest, name, disk, file)
    for kind in [kind for kind in guest.jobs if kind.startswith("volume ")]:
        name = kind.removeprefix("volume ")
        if name not in wanted and observed.disk(name) is None and not guest.jobs[kind].is_running:
            guest.drop(kind)
    return waiting


def _attach(guest: Guest, name: str, disk: Document, file: ClaimFile) -> None:
    how = shown(disk)
    read_only = how.read_only or file.read_only

    async def run(_: Report) -> None:
        descriptor = _open(file.path, read_only=read_only)
        try:
            layer = Layer(File(fd=descriptor), file.format)
            new = machine_disk(name, how, (layer,), read_only=read_only)
            await attach_disk(guest.monitor, _with_serial(new, name), agent=guest.answering)
        finally:
            os.close(descriptor)

    guest.want(f"volume {name}", ("attach", str(file.path)), run)


def _detach(guest: Guest, name: str) -> None:
    async def run(_: Report) -> None:
        await detach_disk(guest.monitor, name)

    guest.want(f"volume {name}", ("detach",), run)


def _open(path: Path, *, read_only: bool) -> int:
    return os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)


def _with_serial(disk: Disk, name: str) -> Disk:
    """KubeVirt's rule: a hot-plugged disk without a serial shows its volume's name."""
    return disk if disk.serial else structs.replace(disk, serial=name)
