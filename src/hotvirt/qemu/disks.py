"""Disks while the guest runs: attach, detach, grow. Level-based: from what is there to the next step, so that a
half-done attach or detach of an earlier home is completed by calling again. On a machine with many guests each answer
of QEMU or of an agent waits its turn, which is most of what a change takes: so what a reply tells is not asked anew,
and what does not rest on an answer is sent without waiting for it.

A disk goes onto the SCSI controller (room for 255) unless the virtio bus is asked for, which takes a free root port.
Image files are handed over as descriptors (`add-fd`), so QEMU needs no right to their paths. QEMU and the guest's
kernel take away a mounted disk without complaint, so the guest's agent is asked first whether it is in use.

Different disks and cards may be changed at the same time: who picks a place that is free now holds `placing`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from msgspec import Struct, structs

from hotvirt.qemu import devices, diskviews, facts, ids
from hotvirt.qemu.errors import AgentError, HotplugError, NotThere, QmpError, refused_as
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.machine import MIB, Disk, File, Layer
from hotvirt.qemu.progress import pauses
from hotvirt.qemu.qmp import Event, Monitor, Subscription
from hotvirt.qemu.state import DiskState, Observed, read_disks, read_fdsets, read_free_ports

SCSI_TARGETS = 255
_placing: WeakKeyDictionary[Monitor, asyncio.Lock] = WeakKeyDictionary()


class OpenImages(Struct, frozen=True):
    """Open the block nodes `layers` (deepest first) of the disk."""

    layers: tuple[int, ...]


class AddDevice(Struct, frozen=True):
    pass


class DeleteDevice(Struct, frozen=True):
    pass


class CloseImages(Struct, frozen=True):
    """Close these nodes, in this order, and the descriptors they had."""

    nodes: tuple[str, ...]


class Done(Struct, frozen=True):
    pass


Step = OpenImages | AddDevice | DeleteDevice | CloseImages | Done


def next_to_attach(disk: Disk, state: DiskState | None) -> Step:
    """Pure."""
    if state is not None and state.device:
        return Done()
    present = len(state.nodes) if state else 0
    if state and present < len(disk.layers):
        # Nodes come deepest first, so a chain that is not whole lacks its top and shows up as none: start over.
        return CloseImages(state.nodes)
    return AddDevice() if present else OpenImages(tuple(reversed(range(len(disk.layers)))))


def next_to_detach(state: DiskState | None) -> Step:
    """Pure."""
    if state is None:
        return Done()
    return DeleteDevice() if state.device else CloseImages(state.nodes)


async def attach_disk(
    monitor: Monitor,
    disk: Disk,
    *,
    agent: GuestAgent | None = None,
    observed: Observed | None = None,
    timeout: float = 30.0,
) -> DiskState:
    """Make the disk appear in the guest. The descriptors in `disk.layers` are *ours* here (and stay ours). `observed`:
    the guest as it was just read, to save a look.

    With an agent it returns when the guest itself lists a disk of that serial (if the disk has one).
    """
    try:
        async with asyncio.timeout(timeout):
            present = observed.disks if observed is not None else await read_disks(monitor)
            while not isinstance(step := next_to_attach(disk, _find(present, disk.name)), Done):
                if isinstance(step, CloseImages):
                    present = await _dismiss(monitor, step.nodes, await _descriptors(monitor, disk.name))
                else:
                    await _appear(monitor, disk, opened=isinstance(step, AddDevice))
                    break
            if agent is None or not disk.serial or disk.kind != "disk":
                found = await read_disk(monitor, disk.name)
            else:
                found, _ = await asyncio.gather(read_disk(monitor, disk.name), diskviews.visible(agent, disk, present))
            if found is None:
                raise HotplugError("NoSuchDisk", f"disk {disk.name!r} went as soon as it had come")
            return found
    except TimeoutError as error:
        raise HotplugError("TimedOut", f"disk {disk.name!r} is not seen in the guest after {timeout:g} s") from error


async def detach_disk(
    monitor: Monitor,
    name: str,
    *,
    agent: GuestAgent | None = None,
    observed: Observed | None = None,
    timeout: float = 30.0,
) -> None:
    """Take the disk out of the guest and close its image. Nothing to do when it is not there. `observed`: the guest as
    it was just read, to save a look.

    With an agent, one that the guest has mounted is left to it: HotplugError with reason GuestUses.
    """
    with monitor.events("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR") as events:
        try:
            async with asyncio.timeout(timeout):
                if observed is None:
                    present, numbers = await asyncio.gather(read_disks(monitor), _descriptors(monitor, name))
                else:
                    present, numbers = observed.disks, _of(name, observed.fdsets)
                while not isinstance(step := next_to_detach(state := _find(present, name)), Done) or numbers:
                    if isinstance(step, DeleteDevice) and state is not None:
                        if agent is not None:
                            await _unused(monitor, agent, state, present)
                        await delete_device(monitor, ids.disk_id(name), events)
                    present, numbers = await _dismiss(monitor, state.nodes if state else (), numbers), []
        except TimeoutError as error:
            raise HotplugError(
                "TimedOut", f"the guest did not let go of disk {name!r} within {timeout:g} s; is its kernel running?"
            ) from error


async def read_disk(monitor: Monitor, name: str) -> DiskState | None:
    return _find(await read_disks(monitor), name)


def _find(disks: tuple[DiskState, ...], name: str) -> DiskState | None:
    hashed = ids.node_name(name).removeprefix(ids.DISK_PREFIX)
    return next((d for d in disks if d.name == name), None) or next((d for d in disks if d.name == hashed), None)


async def grow_disk(
    monitor: Monitor, name: str, size: int, *, agent: GuestAgent | None = None, timeout: float = 30.0
) -> None:
    """Grow a disk until, with an agent, the guest itself sees it as large."""
    await block_resize(monitor, name, size)
    if agent is None:
        return
    try:
        async with asyncio.timeout(timeout):
            serial = await _serial(monitor, name)
            for pause in pauses():
                found = await facts.disks(agent) if serial else None
                mine = [d for d in found or () if d.serial and serial.startswith(d.serial)]
                if not mine or any(disk.size_bytes >= size for disk in mine):
                    return
                await asyncio.sleep(pause)
    except (QmpError, AgentError):
        return  # QEMU has done it, and this guest does not say
    except TimeoutError as error:
        raise HotplugError(
            "GuestBehind", f"disk {name!r} has {size // MIB} MiB, which the guest does not see: rescan it there"
        ) from error


async def block_resize(monitor: Monitor, name: str, size: int) -> int:
    """Grow a disk; the guest sees it at once. Returns its size. Never shrinks: QEMU would, and cut off data."""
    state = await read_disk(monitor, name)
    if state is None or not state.nodes:
        raise HotplugError("NoSuchDisk", f"the guest has no disk {name!r}")
    if size < state.size:
        raise HotplugError(
            "WouldShrink",
            f"disk {name!r} has {state.size // MIB} MiB and cannot shrink to {size // MIB} MiB: data would be lost",
        )
    if size > state.size:
        with refused_as(f"QEMU would not grow disk {name!r}"):
            await monitor.execute("block_resize", {"node-name": state.nodes[0], "size": size})
    return size


async def delete_device(monitor: Monitor, device: str, events: Subscription) -> None:
    """Ask for the device's removal and wait for the guest to let it go. `events` must be open already."""
    try:
        await monitor.execute("device_del", {"id": device})
    except NotThere:
        return
    except QmpError as error:
        if "in the process of unplug" not in error.description:
            raise HotplugError("QemuRefused", f"QEMU would not remove {device}: {error.description}") from error
    # A virtio device emits two events; the first speaks of an inner part and has no "device".
    event = await events.wait_for(lambda event: event.data.get("device") == device)
    if event.name != "DEVICE_DELETED":
        raise HotplugError("GuestRefused", f"the guest would not let go of {device}{_because(event)}")


def _because(event: Event) -> str:
    path = event.data.get("path")
    return f" ({path})" if path else ""


async def open_images(monitor: Monitor, disk: Disk) -> None:
    handed = await _hand_over(monitor, disk)
    await _in_order(monitor, disk, [("blockdev-add", node) for node in devices.disk_nodes(handed)])


async def _appear(monitor: Monitor, disk: Disk, *, opened: bool) -> None:
    """Open its images, unless they are, and show the device: each rests on the one before, and QEMU keeps the order."""
    if disk.bus == "sata":
        raise HotplugError(
            "BusNotHotpluggable", f"disk {disk.name!r}: the sata bus takes no disk now; use scsi or virtio"
        )
    nodes = [] if opened else devices.disk_nodes(await _hand_over(monitor, disk))
    async with placing(monitor):
        device = devices.disk_device(disk, place=await _place(monitor, disk))
        await _in_order(monitor, disk, [*(("blockdev-add", node) for node in nodes), ("device_add", device)])


async def _in_order(monitor: Monitor, disk: Disk, commands: Sequence[tuple[str, devices.Options]]) -> None:
    """Sent at once. The first that QEMU refuses is the one that counts, and nothing stays open then."""
    answers = await _all(monitor, commands)
    for (command, _), answer in zip(commands, answers, strict=True):
        if isinstance(answer, QmpError):
            nodes = tuple(ids.node_name(disk.name, layer) for layer in range(len(disk.layers)))
            await _dismiss(monitor, nodes, await _descriptors(monitor, disk.name))
            full = "no free target" in answer.description
            words = "open" if command == "blockdev-add" else "attach"
            raise HotplugError(
                "NoFreePlace" if full else "QemuRefused",
                f"disk {disk.name!r}: the guest's SCSI controller has no room left"
                if full
                else f"QEMU cannot {words} disk {disk.name!r}: {answer.description}",
            ) from answer


async def _hand_over(monitor: Monitor, disk: Disk) -> Disk:
    """The same disk with QEMU's fdset numbers in place of our descriptors."""
    layers: list[Layer] = []
    for layer in disk.layers:
        file = layer.file
        if file.fd is not None:
            number = await monitor.add_fd(file.fd, opaque=disk.name)
            file = File(fd=number, block_device=file.block_device)
        layers.append(structs.replace(layer, file=file))
    return structs.replace(disk, layers=tuple(layers))


async def _place(monitor: Monitor, disk: Disk) -> devices.Options:
    """Of the SCSI controller's targets QEMU picks the first that is free."""
    if disk.bus == "virtio":
        return await free_port(monitor, f"disk {disk.name!r}")
    return {"bus": f"{ids.SCSI_CONTROLLER}.0", "lun": 0}


def placing(monitor: Monitor) -> asyncio.Lock:
    """Of this guest: held from choosing a place that is free until a device is there. Two on one PCIe port are never
    both seen."""
    return _placing.setdefault(monitor, asyncio.Lock())


async def free_port(monitor: Monitor, what: str) -> devices.Options:
    """A place for one more PCI device."""
    ports = await read_free_ports(monitor)
    if not ports:
        raise HotplugError(
            "NoFreePort", f"{what}: all PCI ports of the guest are taken; use bus scsi for disks, or restart"
        )
    return {"bus": ports[0]} if ids.port_index(ports[0]) is not None else {"bus": "pci.0", "addr": ports[0]}


async def close_images(monitor: Monitor, nodes: tuple[str, ...]) -> None:
    """The guest's first."""
    _check_closed(nodes, await _all(monitor, [("blockdev-del", {"node-name": node}) for node in nodes]))


async def _dismiss(monitor: Monitor, nodes: tuple[str, ...], numbers: list[int]) -> tuple[DiskState, ...]:
    """Close images, and let go of their descriptors, which QEMU closes when the last that uses them is. Returns what is
    left. All is sent at once, and QEMU keeps the order."""
    closing: list[tuple[str, devices.Options]] = [("blockdev-del", {"node-name": node}) for node in nodes]
    closing += [("remove-fd", {"fdset-id": number}) for number in numbers]
    answers, left = await asyncio.gather(_all(monitor, closing), read_disks(monitor))
    _check_closed(nodes, answers)
    return left


async def _all(monitor: Monitor, commands: Sequence[tuple[str, devices.Options]]) -> list[object]:
    """In this order, without waiting in between. An error of QEMU's stands in the place of its answer."""
    answers = await asyncio.gather(*(monitor.execute(*each) for each in commands), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, QmpError):
            raise answer
    return answers


def _check_closed(nodes: tuple[str, ...], answers: Sequence[object]) -> None:
    for node, answer in zip(nodes, answers, strict=False):
        if isinstance(answer, QmpError) and not isinstance(answer, NotThere):
            raise HotplugError("QemuRefused", f"QEMU would not close {node}: {answer.description}") from answer


async def release(monitor: Monitor, name: str) -> None:
    """Descriptors nobody uses any more. One that QEMU does not know went with its last user."""
    await _all(monitor, [("remove-fd", {"fdset-id": number}) for number in await _descriptors(monitor, name)])


async def _descriptors(monitor: Monitor, name: str) -> list[int]:
    return _of(name, await read_fdsets(monitor))


def _of(name: str, fdsets: Mapping[int, str]) -> list[int]:
    return [number for number, opaque in fdsets.items() if opaque == name]


async def _serial(monitor: Monitor, name: str) -> str:
    where = {"path": f"/machine/peripheral/{ids.disk_id(name)}", "property": "serial"}
    return str(await monitor.execute("qom-get", where) or "")


async def _unused(monitor: Monitor, agent: GuestAgent, state: DiskState, present: tuple[DiskState, ...]) -> None:
    try:
        places = await diskviews.uses(agent, _serial(monitor, state.name), state, present)
    except (QmpError, AgentError):
        return  # a guest that cannot be asked must not keep a disk for ever
    if places:
        where = ", ".join(places[:3])
        raise HotplugError(
            "GuestUses", f"the guest uses disk {state.name!r} ({where}): unmount it there, and it goes by itself"
        )
