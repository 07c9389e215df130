"""DIMMs while the guest runs: plugged, and taken away where the guest lets go. What is to be done `memory` decides.

A DIMM is a device and the memory behind it, which is freed by itself with neither: `sweep` frees what a home that ended
in between left. Whether the guest lets go of a DIMM is its own business: what was onlined other than as movable it
mostly cannot give back, and it says so by ACPI, or not at all.

One call at a time for a guest.
"""

import asyncio
import logging

from hotvirt.qemu import ids
from hotvirt.qemu.errors import HotplugError, QmpError
from hotvirt.qemu.machine import MIB
from hotvirt.qemu.qmp import Event, Monitor
from hotvirt.qemu.state import MemoryState

log = logging.getLogger(__name__)

LETS_GO = 10.0
"""Seconds for a guest to say that it is about to let go of one. Then it copies what is in it elsewhere."""
AGAIN = (1.0,)
"""Pauses before it is asked again, having said no: a page that is just being written cannot be moved, for a moment."""
_EJECT, _SUCCESS, _WORKING = 3, 0, 0x84
"""What a guest answers to, and what it answers, by ACPI's _OST."""


async def plug(monitor: Monitor, state: MemoryState, size: int) -> None:
    """One more of this size. The guest's kernel takes it in by itself; onlining is another matter."""
    await sweep(monitor, state)
    taken = {dimm.id for dimm in state.dimms}
    name = next(ids.dimm_id(n) for n in range(state.slots) if ids.dimm_id(n) not in taken)
    backend = ids.dimm_backend(name)
    memory = {"qom-type": "memory-backend-memfd", "id": backend, "size": size, "reserve": False}
    try:
        await monitor.execute("object-add", memory)
        await monitor.execute("device_add", {"driver": "pc-dimm", "id": name, "memdev": backend})
    except QmpError as error:
        await _free(monitor, backend)
        raise HotplugError("QemuRefused", f"QEMU would not add {size // MIB} MiB: {error.description}") from error


async def unplug(monitor: Monitor, name: str, *, timeout: float = LETS_GO) -> bool:
    """False when the guest keeps it. One that says it is at it is waited for to the end, whenever that is: who takes as
    much from it by the balloon meanwhile takes it twice. `timeout`: seconds for a guest to say anything."""
    for pause in (0.0, *AGAIN):
        await asyncio.sleep(pause)
        event = await _ask_out(monitor, name, timeout)
        if event is None:
            log.info("%s says nothing to the wish for %s within %g s", monitor.name, name, timeout)
            return False
        if event.name == "DEVICE_DELETED":
            await _free(monitor, ids.dimm_backend(name))
            return True
        log.info("%s keeps %s: %s %s", monitor.name, name, event.name, event.data)
    return False


async def _ask_out(monitor: Monitor, name: str, timeout: float) -> Event | None:
    """What QEMU tells at the end of it; None when the guest does not answer."""
    with monitor.events("DEVICE_DELETED", "MEM_UNPLUG_ERROR", "DEVICE_UNPLUG_GUEST_ERROR", "ACPI_DEVICE_OST") as events:
        is_at_it = False
        try:
            await monitor.execute("device_del", {"id": name})
        except QmpError as error:
            if "in the process of unplug" not in error.description:
                raise HotplugError("QemuRefused", f"QEMU would not remove {name}: {error.description}") from error
            is_at_it = await _is_at_it(monitor, name)
        try:
            async with asyncio.timeout(None if is_at_it else timeout):
                event = await events.wait_for(lambda event: _tells(event, name))
        except TimeoutError:
            return None
        while not _ends(event):
            event = await events.wait_for(lambda event: _tells(event, name))
        return event


async def _is_at_it(monitor: Monitor, name: str) -> bool:
    told = await monitor.execute("query-acpi-ospm-status")
    return any((each.get("device"), each["source"], each["status"]) == (name, _EJECT, _WORKING) for each in told)


def _tells(event: Event, name: str) -> bool:
    """Whether it is about the wish for `name` to go."""
    if event.name != "ACPI_DEVICE_OST":
        return bool(event.data.get("device") == name)
    info = event.data.get("info", {})
    return bool(info.get("device") == name and info.get("source") == _EJECT)


def _ends(event: Event) -> bool:
    """Of success QEMU itself tells, as the guest's word may come before."""
    return event.name != "ACPI_DEVICE_OST" or event.data["info"].get("status") not in (_SUCCESS, _WORKING)


async def sweep(monitor: Monitor, state: MemoryState) -> None:
    """Free memory that no DIMM shows."""
    used = {ids.dimm_backend(dimm.id) for dimm in state.dimms}
    for child in await monitor.execute("qom-list", {"path": "/objects"}):
        name = str(child["name"])
        if name.startswith(ids.DIMM_PREFIX) and name not in used:
            await _free(monitor, name)


async def _free(monitor: Monitor, backend: str) -> None:
    try:
        await monitor.execute("object-del", {"id": backend})
    except QmpError:
        pass  # there is none, or a DIMM on its way out still holds it: the next sweep
