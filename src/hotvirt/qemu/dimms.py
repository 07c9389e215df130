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
"""Seconds for a guest to let go of one. It copies what is in it elsewhere first."""
AGAIN = (1.0,)
"""Pauses before it is asked again, having said no: a page that is just being written cannot be moved, for a moment."""
_IN_PROGRESS = (0, 0x84)


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
    """False when the guest keeps it. One that is only slow may let go of it later, and QEMU tells of that."""
    for pause in (0.0, *AGAIN):
        await asyncio.sleep(pause)
        event = await _ask_out(monitor, name, timeout)
        if event is None:
            log.info("%s does not say within %g s whether it lets go of %s", monitor.name, timeout, name)
            return False
        if event.name == "DEVICE_DELETED":
            await _free(monitor, ids.dimm_backend(name))
            return True
        log.info("%s keeps %s: %s %s", monitor.name, name, event.name, event.data)
    return False


async def _ask_out(monitor: Monitor, name: str, timeout: float) -> Event | None:
    """What QEMU tells at the end of it; None for nothing in time."""
    with monitor.events("DEVICE_DELETED", "MEM_UNPLUG_ERROR", "DEVICE_UNPLUG_GUEST_ERROR", "ACPI_DEVICE_OST") as events:
        try:
            await monitor.execute("device_del", {"id": name})
        except QmpError as error:
            if "in the process of unplug" not in error.description:
                raise HotplugError("QemuRefused", f"QEMU would not remove {name}: {error.description}") from error
        try:
            async with asyncio.timeout(timeout):
                return await events.wait_for(lambda event: _ends(event, name))
        except TimeoutError:
            return None


def _ends(event: Event, name: str) -> bool:
    """Whether it tells what became of the wish for `name` to go."""
    if event.name != "ACPI_DEVICE_OST":
        return event.data.get("device") == name
    info = event.data.get("info", {})
    # Source 3 is an eject request; the guest says 0x84 on its way, and QEMU itself tells of the end.
    return info.get("device") == name and info.get("source") == 3 and info.get("status") not in _IN_PROGRESS


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
