"""Discs in CD-ROM drives while the guest runs: inserted and ejected. Level-based, as `disks`.

The drive is part of the machine; its medium comes and goes through its tray. A guest locks the tray of a disc that it
has mounted: then it is asked to eject, as by the button of a real drive, and the disc stays until it does.

One call at a time for a drive.
"""

import asyncio
from typing import Any

from msgspec import Struct

from hotvirt.qemu import ids
from hotvirt.qemu.disks import AddDevice, CloseImages, Done, OpenImages, close_images, open_images, read_disk, release
from hotvirt.qemu.errors import HotplugError, refused_as
from hotvirt.qemu.machine import Disk
from hotvirt.qemu.qmp import Monitor, Subscription
from hotvirt.qemu.state import DiskState

UNLOCKS = 5.0
"""Seconds that a guest is given to let go of a disc when it is asked to."""


class Drive(Struct, frozen=True):
    """`node` is the medium's block node, "" for none."""

    node: str = ""
    is_open: bool = False
    is_locked: bool = False
    """By the guest, which uses the disc."""


class OpenTray(Struct, frozen=True):
    pass


class CloseTray(Struct, frozen=True):
    pass


class TakeOut(Struct, frozen=True):
    pass


class PutIn(Struct, frozen=True):
    node: str


Step = OpenImages | CloseImages | OpenTray | CloseTray | TakeOut | PutIn | Done


def next_to_insert(drive: Drive, nodes: tuple[str, ...], layers: int) -> Step:
    """`nodes`: what is open of the disc's `layers` images, the top first. Pure."""
    if drive.node:
        return CloseTray() if drive.is_open else Done()
    if not nodes:
        return OpenImages(tuple(reversed(range(layers))))
    if len(nodes) < layers:
        return CloseImages(nodes)
    return PutIn(nodes[0]) if drive.is_open else OpenTray()


def next_to_eject(drive: Drive, nodes: tuple[str, ...]) -> Step:
    """Pure."""
    if drive.node:
        return TakeOut() if drive.is_open else OpenTray()
    if nodes:
        return CloseImages(nodes)
    return CloseTray() if drive.is_open else Done()


async def insert_disc(monitor: Monitor, disk: Disk, *, timeout: float = 30.0) -> DiskState:
    """Into an empty drive. The descriptors in `disk.layers` are ours (and stay ours)."""
    with monitor.events("DEVICE_TRAY_MOVED") as events:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    drive, state = await _read(monitor, disk.name)
                    step = next_to_insert(drive, state.nodes, len(disk.layers))
                    if isinstance(step, Done):
                        return state
                    if isinstance(step, OpenImages):
                        await open_images(monitor, disk)
                    else:
                        await _do(monitor, disk.name, step, drive, events)
        except TimeoutError as error:
            raise HotplugError("TimedOut", f"disc {disk.name!r} is not in its drive after {timeout:g} s") from error


async def eject_disc(monitor: Monitor, name: str, *, timeout: float = 30.0) -> None:
    """The drive stays, empty and closed. Nothing to do when it is."""
    with monitor.events("DEVICE_TRAY_MOVED") as events:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    drive, state = await _read(monitor, name)
                    step = next_to_eject(drive, state.nodes)
                    if isinstance(step, Done):
                        return
                    await _do(monitor, name, step, drive, events)
        except TimeoutError as error:
            raise HotplugError("TimedOut", f"disc {name!r} is still in its drive after {timeout:g} s") from error


def parse_drives(blocks: list[dict[str, Any]]) -> dict[str, Drive]:
    """Of `query-block`: the drives by their disk's name. Pure."""
    found = {}
    for block in blocks:
        name = ids.disk_name(str(block.get("qdev", "")).rpartition("/")[2])
        if name is not None and block.get("removable"):
            node = str((block.get("inserted") or {}).get("node-name", ""))
            found[name] = Drive(node, bool(block.get("tray_open")), bool(block.get("locked")))
    return found


async def read_drives(monitor: Monitor) -> dict[str, Drive]:
    return parse_drives(await monitor.execute("query-block"))


async def _read(monitor: Monitor, name: str) -> tuple[Drive, DiskState]:
    drives, state = await asyncio.gather(read_drives(monitor), read_disk(monitor, name))
    if name not in drives or state is None:
        raise HotplugError("NoSuchDrive", f"the guest has no CD-ROM drive {name!r}: it comes with the next start")
    return drives[name], state


async def _do(monitor: Monitor, name: str, step: Step | AddDevice, drive: Drive, events: Subscription) -> None:
    device = {"id": ids.disk_id(name)}
    with refused_as(f"QEMU would not change drive {name!r}"):
        if isinstance(step, CloseImages):
            await close_images(monitor, step.nodes)
            await release(monitor, name)
        elif isinstance(step, OpenTray):
            await _open_tray(monitor, name, drive, events)
        elif isinstance(step, TakeOut):
            await monitor.execute("blockdev-remove-medium", device)
        elif isinstance(step, PutIn):
            await monitor.execute("blockdev-insert-medium", {**device, "node-name": step.node})
        else:
            await monitor.execute("blockdev-close-tray", device)


async def _open_tray(monitor: Monitor, name: str, drive: Drive, events: Subscription) -> None:
    device = ids.disk_id(name)
    await monitor.execute("blockdev-open-tray", {"id": device, "force": False})
    if not drive.is_locked:
        return
    try:
        async with asyncio.timeout(UNLOCKS):
            await events.wait_for(lambda event: event.data.get("id") == device and bool(event.data.get("tray-open")))
    except TimeoutError as error:
        raise HotplugError(
            "GuestUses", f"the guest has locked drive {name!r}, as it uses the disc: unmount it there, or eject it"
        ) from error
