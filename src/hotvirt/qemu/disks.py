"""Disks while the guest runs: attach, detach, grow. Level-based: read what is there, take the next step, read again, so
that a half-done attach or detach of an earlier home is completed by calling again.

A disk goes onto the SCSI controller (room for 255) unless the virtio bus is asked for, which takes a free root port.
Image files are handed over as descriptors (`add-fd`), so QEMU needs no right to their paths. QEMU and the guest's
kernel take away a mounted disk without complaint, so the guest's agent is asked first whether it is in use.

Different disks may be changed at the same time only from one task each guest: places are picked from what is free now.
"""

import asyncio

from msgspec import Struct, structs

from hotvirt.qemu import argv, facts, ids
from hotvirt.qemu.errors import AgentError, HotplugError, NotThere, QmpError
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.machine import MIB, Disk, File, Layer
from hotvirt.qemu.progress import pauses
from hotvirt.qemu.qmp import Event, Monitor, Subscription
from hotvirt.qemu.state import DiskState, read_devices, read_disks, read_fdsets, read_free_ports

SCSI_TARGETS = 255


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
    monitor: Monitor, disk: Disk, *, agent: GuestAgent | None = None, timeout: float = 30.0
) -> DiskState:
    """Make the disk appear in the guest. The descriptors in `disk.layers` are *ours* here (and stay ours).

    With an agent it returns when the guest itself lists a disk of that serial (if the disk has one).
    """
    try:
        async with asyncio.timeout(timeout):
            while True:
                state = await read_disk(monitor, disk.name)
                step = next_to_attach(disk, state)
                if isinstance(step, Done):
                    assert state is not None
                    break
                await _attach_step(monitor, disk, step)
            if agent is not None and disk.serial and disk.kind == "disk":
                await _visible(agent, disk.serial)
            return state
    except TimeoutError as error:
        raise HotplugError("TimedOut", f"disk {disk.name!r} is not seen in the guest after {timeout:g} s") from error


async def detach_disk(monitor: Monitor, name: str, *, agent: GuestAgent | None = None, timeout: float = 30.0) -> None:
    """Take the disk out of the guest and close its image. Nothing to do when it is not there.

    With an agent, one that the guest has mounted is left to it: HotplugError with reason GuestUses.
    """
    with monitor.events("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR") as events:
        try:
            async with asyncio.timeout(timeout):
                while not isinstance(step := next_to_detach(await read_disk(monitor, name)), Done):
                    if isinstance(step, DeleteDevice):
                        if agent is not None:
                            await _unused(monitor, agent, name)
                        await delete_device(monitor, ids.disk_id(name), events)
                    elif isinstance(step, CloseImages):
                        await close_images(monitor, step.nodes)
                await release(monitor, name)
        except TimeoutError as error:
            raise HotplugError(
                "TimedOut", f"the guest did not let go of disk {name!r} within {timeout:g} s; is its kernel running?"
            ) from error


async def read_disk(monitor: Monitor, name: str) -> DiskState | None:
    hashed = ids.node_name(name).removeprefix(ids.DISK_PREFIX)
    disks = await read_disks(monitor)
    return next((d for d in disks if d.name == name), None) or next((d for d in disks if d.name == hashed), None)


async def grow_disk(
    monitor: Monitor, name: str, size: int, *, agent: GuestAgent | None = None, timeout: float = 30.0
) -> None:
    """Grow a disk until, with an agent, the guest itself sees it as large."""
    await block_resize(monitor, name, size)
    if agent is None:
        return
    device = f"/machine/peripheral/{ids.disk_id(name)}"
    try:
        async with asyncio.timeout(timeout):
            serial = str(await monitor.execute("qom-get", {"path": device, "property": "serial"}) or "")
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
        try:
            await monitor.execute("block_resize", {"node-name": state.nodes[0], "size": size})
        except QmpError as error:
            raise HotplugError("QemuRefused", f"QEMU would not grow disk {name!r}: {error.description}") from error
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


async def _attach_step(monitor: Monitor, disk: Disk, step: Step) -> None:
    if isinstance(step, OpenImages):
        await open_images(monitor, disk)
    elif isinstance(step, CloseImages):
        await close_images(monitor, step.nodes)
        await release(monitor, disk.name)
    else:
        await _add_device(monitor, disk)


async def open_images(monitor: Monitor, disk: Disk) -> None:
    handed = await _hand_over(monitor, disk)
    opened: list[str] = []
    try:
        for node in argv.disk_nodes(handed):
            await monitor.execute("blockdev-add", node)
            opened.insert(0, node["node-name"])
    except QmpError as error:
        await close_images(monitor, tuple(opened))
        await release(monitor, disk.name)
        raise HotplugError("QemuRefused", f"QEMU cannot open disk {disk.name!r}: {error.description}") from error


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


async def _add_device(monitor: Monitor, disk: Disk) -> None:
    if disk.bus in ("sata", "usb"):
        raise HotplugError(
            "BusNotHotpluggable", f"disk {disk.name!r}: the {disk.bus} bus takes no disk now; use scsi or virtio"
        )
    place = await _place(monitor, disk)
    try:
        await monitor.execute("device_add", argv.disk_device(disk, place=place))
    except QmpError as error:
        state = await read_disk(monitor, disk.name)
        if state and not state.device:
            await close_images(monitor, state.nodes)
            await release(monitor, disk.name)
        raise HotplugError("QemuRefused", f"QEMU would not attach disk {disk.name!r}: {error.description}") from error


async def _place(monitor: Monitor, disk: Disk) -> argv.Options:
    if disk.bus == "virtio":
        return await free_port(monitor, f"disk {disk.name!r}")
    taken = set()
    for device, driver in (await read_devices(monitor)).items():
        if driver in ("scsi-hd", "scsi-cd", "scsi-block"):
            where = {"path": f"/machine/peripheral/{device}", "property": "scsi-id"}
            taken.add(await monitor.execute("qom-get", where))
    target = next((number for number in range(SCSI_TARGETS) if number not in taken), None)
    if target is None:
        raise HotplugError("NoFreePlace", f"disk {disk.name!r}: the guest's SCSI controller has no room left")
    return {"bus": f"{ids.SCSI_CONTROLLER}.0", "scsi-id": target, "lun": 0}


async def free_port(monitor: Monitor, what: str) -> argv.Options:
    """A place for one more PCI device."""
    ports = await read_free_ports(monitor)
    if not ports:
        raise HotplugError(
            "NoFreePort", f"{what}: all PCI ports of the guest are taken; use bus scsi for disks, or restart"
        )
    return {"bus": ports[0]} if ids.port_index(ports[0]) is not None else {"bus": "pci.0", "addr": ports[0]}


async def close_images(monitor: Monitor, nodes: tuple[str, ...]) -> None:
    for node in nodes:
        try:
            await monitor.execute("blockdev-del", {"node-name": node})
        except NotThere:
            continue
        except QmpError as error:
            raise HotplugError("QemuRefused", f"QEMU would not close {node}: {error.description}") from error


async def release(monitor: Monitor, name: str) -> None:
    """Descriptors nobody uses any more."""
    for number, opaque in (await read_fdsets(monitor)).items():
        if opaque == name:
            try:
                await monitor.execute("remove-fd", {"fdset-id": number})
            except QmpError:
                continue  # closed by itself when its last user went


async def _unused(monitor: Monitor, agent: GuestAgent, name: str) -> None:
    device = f"/machine/peripheral/{ids.disk_id(name)}"
    try:
        serial = str(await monitor.execute("qom-get", {"path": device, "property": "serial"}) or "")
        places = await facts.uses(agent, serial) if serial else ()
    except (QmpError, AgentError):
        return  # a guest that cannot be asked must not keep a disk for ever
    if places:
        where = ", ".join(places[:3])
        raise HotplugError(
            "GuestUses", f"the guest uses disk {name!r} ({where}): unmount it there, and it goes by itself"
        )


async def _visible(agent: GuestAgent, serial: str) -> None:
    """Until the guest lists a disk of this serial. virtio-blk shows 20 characters of it."""
    for pause in pauses():
        try:
            devices = await facts.disks(agent)
        except AgentError as error:
            raise HotplugError(
                "GuestUnknown", f"the disk is attached, but the guest cannot be asked: {error}"
            ) from error
        if devices is None or any(device.serial and serial.startswith(device.serial) for device in devices):
            return
        await asyncio.sleep(pause)
