"""Pause, let go on, reset and reboot one guest, now. Conflict when its state does not allow it.

A guest without an agent is rebooted by its power button: it goes off, as that is what the button asks for, and is
switched on again in the same QEMU. That it is to be is noted in its pod's directory, so the next home does it when this
one dies meanwhile. The note expires, since a guest may not listen, and go off of its own accord later.
"""

from datetime import datetime, timedelta

from hotvirt.kube.errors import Conflict, InternalError
from hotvirt.kube.times import parse, stamp
from hotvirt.node.guest import Guest
from hotvirt.node.places import PodPlace
from hotvirt.node.status import STOPPED
from hotvirt.node.stopping import PRESS_AGAIN
from hotvirt.qemu.errors import AgentError, QemuError, QemuTimeout

REBOOT_WITHIN = timedelta(seconds=90)
RESET_SECONDS = 10.0


async def pause(guest: Guest) -> None:
    if await _status(guest) in STOPPED:
        raise Conflict("VMI is already paused")
    await _tell(guest, "stop")


async def unpause(guest: Guest) -> None:
    if await _status(guest) not in STOPPED:
        raise Conflict("VMI is not paused")
    await _tell(guest, "cont")


async def reset(guest: Guest) -> None:
    """As by the reset button. A paused guest stays paused, and begins anew when it goes on."""
    await _tell(guest, "system_reset")


async def soft_reboot(guest: Guest, *, now: datetime) -> None:
    """Through its agent, else by the power button."""
    if guest.answering is not None:
        try:
            await guest.answering.shutdown(mode="reboot")
        except AgentError as error:
            raise InternalError(f"{guest.monitor.name}: {error}") from error
        return
    guest.place.reboot.write_text(stamp(now + REBOOT_WITHIN))
    await _tell(guest, "system_powerdown")
    guest.poke()


async def press_again(guest: Guest, now: datetime) -> float | None:
    """The button of a guest that is to reboot and has not gone off, as one that still boots hears nothing yet. Gives
    the seconds until the next time; None when it is not to reboot. QemuError when QEMU would not."""
    if not is_to_reboot(guest.place, now):
        return None
    await guest.monitor.execute("system_powerdown")
    return PRESS_AGAIN


def is_to_reboot(place: PodPlace, now: datetime) -> bool:
    """Whether the guest of this place went off to be rebooted."""
    try:
        until = parse(place.reboot.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return until is not None and now <= until


async def switch_on_again(guest: Guest) -> None:
    """A guest that went off begins anew. QemuError when QEMU would not."""
    with guest.monitor.events("RESET") as events:
        await guest.monitor.execute("system_reset")
        if await events.get_within(RESET_SECONDS) is None:
            raise QemuTimeout(f"QEMU of {guest.monitor.name} did not reset within {RESET_SECONDS:g} s")
    await guest.monitor.execute("cont")
    guest.place.reboot.unlink(missing_ok=True)


async def _status(guest: Guest) -> str:
    try:
        return (await guest.observe()).status
    except QemuError as error:
        raise InternalError(f"{guest.monitor.name}: {error}") from error


async def _tell(guest: Guest, command: str) -> None:
    try:
        await guest.monitor.execute(command)
    except QemuError as error:
        raise InternalError(f"{guest.monitor.name}: {error}") from error
