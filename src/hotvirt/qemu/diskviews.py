"""A disk as the guest itself sees it: whether it is there, and who uses it. In few exchanges with its agent.

Linux gives a disk the first free name of its kind, so the new one is among as many names as QEMU shows disks of that
kind, and one more: their serials are asked for at once, with no list of disks before. Where that finds nothing (a guest
with more disks, another system) the list is asked for.
"""

import asyncio
from collections.abc import Awaitable, Sequence

from hotvirt.qemu import facts
from hotvirt.qemu.errors import AgentError, AgentLacks, AgentRefused, HotplugError
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.machine import Disk
from hotvirt.qemu.progress import pauses
from hotvirt.qemu.state import DiskState

MOST_GUESSED = 8
LOOKS = 8
"""How often likely names are looked for before the guest is asked for its list."""
_KINDS = {"virtio-blk-pci": "vd", "scsi-hd": "sd", "scsi-block": "sd", "ide-hd": "sd"}


def likely_names(prefix: str, count: int) -> list[str]:
    """The first `count` names; none when they are too many to try."""
    return [prefix + chr(ord("a") + number) for number in range(count)] if count <= MOST_GUESSED else []


def _alike(prefix: str, present: Sequence[DiskState]) -> int:
    return sum(_KINDS.get(disk.driver) == prefix for disk in present)


async def visible(agent: GuestAgent, disk: Disk, present: Sequence[DiskState]) -> None:
    """Until the guest lists a disk of this serial. `present`: what it had before. virtio-blk shows 20 characters."""
    prefix = "vd" if disk.bus == "virtio" else "sd"
    names = likely_names(prefix, _alike(prefix, present) + 1)
    try:
        for look, pause in enumerate(pauses(0.004, longest=0.016)):
            if look < LOOKS and names:
                found = await _serials(agent, names)
                if found is None or any(_is(disk.serial, serial) for serial in found.values()):
                    return
                names = [name for name in names if name not in found]
            else:
                devices = await facts.disks(agent)
                if devices is None or any(_is(disk.serial, device.serial) for device in devices):
                    return
            await asyncio.sleep(pause)
    except AgentError as error:
        raise HotplugError("GuestUnknown", f"the disk is attached, but the guest cannot be asked: {error}") from error


async def uses(
    agent: GuestAgent, serial: Awaitable[str], state: DiskState, present: Sequence[DiskState]
) -> tuple[str, ...]:
    """Where the guest uses its disk of that serial: mount points, and `swap`. Nothing when it does not say. Who knows
    the serial is asked at the same time."""
    prefix = _KINDS.get(state.driver, "sd")
    names = likely_names(prefix, _alike(prefix, present))
    paths = [facts.serial_path(name) for name in names]
    own, (mounts, swaps, *serials) = await asyncio.gather(
        serial, agent.files_read(["/proc/mounts", "/proc/swaps", *paths])
    )
    if not own:
        return ()
    named = {name: facts.parse_serial(name, data) for name, data in zip(names, serials, strict=True)}
    mine = [name for name, found in named.items() if _is(own, found)]
    if not mine:
        return await facts.uses(agent, own)
    return facts.parse_uses(facts.decoded(mounts), facts.decoded(swaps), mine)


async def _serials(agent: GuestAgent, names: Sequence[str]) -> dict[str, str] | None:
    """Of those disks that are there; None when the guest does not say."""
    found = await agent.files_read([facts.serial_path(name) for name in names], limit=4096)
    if all(isinstance(data, AgentLacks) for data in found):
        return None
    return {
        name: facts.parse_serial(name, data)
        for name, data in zip(names, found, strict=True)
        if not isinstance(data, AgentRefused)
    }


def _is(serial: str, shown: str) -> bool:
    return bool(shown) and serial.startswith(shown)
