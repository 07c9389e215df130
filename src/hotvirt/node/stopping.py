"""How a guest comes to its end: when it is to stop, asked and asked again, its power cut when its time is over.

Of one guest one task does this at a time (`Guest.stopping`). It shows as run state `shutdown`, or as the end of QEMU; a
QEMU that does not even take that is killed. How it ended is noted in the pod's directory before QEMU is told to go.
"""

import asyncio
import logging
import signal
from datetime import datetime
from typing import NoReturn

from hotvirt.kube.client import Document
from hotvirt.kube.times import parse
from hotvirt.node import freezing
from hotvirt.node.guest import Guest
from hotvirt.node.places import PodPlace
from hotvirt.node.podprocess import read_identity
from hotvirt.node.unhealthy import Note
from hotvirt.qemu import state
from hotvirt.qemu.errors import AgentError, QemuError, QemuTimeout
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.process import Process
from hotvirt.qemu.qmp import Subscription

log = logging.getLogger(__name__)

USUAL_GRACE = 30
"""Seconds that a guest has whose instance does not say."""
POD_MARGIN = 30
"""Seconds that a pod may live longer than its guest is given to shut down (as the launcher pod is rendered)."""
PRESS_AGAIN = 3.0
HASTENED = 1.0
KILL_AFTER = 10.0
"""Seconds beyond the guest's own for QEMU to end."""


def grace(spec: Document) -> float:
    """Seconds that an instance gives its guest. Pure."""
    given = spec.get("terminationGracePeriodSeconds")
    return float(USUAL_GRACE if given is None else int(given))


def seconds_left(vmi: Document, pod: Document | None, note: Note | None, *, now: datetime) -> float | None:
    """Seconds the guest still has, when it is to stop; None when it is not. Pure. `note`: its probe's, if it failed."""
    whole = grace(vmi["spec"])
    if (asked := parse(vmi["metadata"].get("deletionTimestamp"))) is not None:
        return max(0.0, min(whole - (now - asked).total_seconds(), whole))
    if pod is not None and (end := parse(pod["metadata"].get("deletionTimestamp"))) is not None:
        return max(0.0, (end - now).total_seconds() - POD_MARGIN)
    if note is not None:
        return min(whole, max(0.0, whole - (now - note.since).total_seconds()))
    return None


def shut_down(guest: Guest, *, seconds: float, else_: str = "Succeeded") -> None:
    """Ask the guest to power off; after `seconds` its power is cut, and a QEMU that hangs is killed: then its outcome
    is `else_`. Asked again with less time, that counts."""
    deadline = asyncio.get_running_loop().time() + seconds
    if guest.stopping is not None and not guest.stopping.done():
        if deadline > guest.stops_by - HASTENED:
            return
        guest.stopping.cancel()
    guest.stops_by = deadline
    guest.stopping = asyncio.create_task(bring_down(guest, seconds, else_), name=f"guest-stop {guest.uid}")


async def dismiss(guest: Guest, outcome: str) -> None:
    """End QEMU. The outcome is noted first: whoever looks later must know how it ended."""
    guest.place.outcome.write_text(outcome)
    try:
        await guest.monitor.execute("quit", timeout=5)
    except QemuError as error:
        log.debug("quit: %s", error)


def kill(place: PodPlace, outcome: str = "Succeeded") -> None:
    """End a pod's process that was to stop. Its pod is told of it by whoever watches the process."""
    identity = read_identity(place.pid)
    process = Process.open(identity) if identity else None
    if process is not None:
        with process:
            place.cut_off.touch()
            place.outcome.write_text(outcome)
            process.send(signal.SIGKILL)


async def bring_down(guest: Guest, seconds: float, else_: str = "Succeeded") -> bool:
    """As `shut_down`, until it is over. Whether the guest went by itself."""
    try:
        async with asyncio.timeout(seconds + KILL_AFTER):
            if await _powers_off(guest, seconds):
                return True
            guest.place.cut_off.touch()
            await dismiss(guest, else_)
            await asyncio.wait([guest.monitor.closed])
    except TimeoutError:
        log.warning("QEMU of %s does not answer and has to go: killing it", guest.monitor.name)
        kill(guest.place, else_)
    except (QemuError, FileNotFoundError):
        return True  # it is gone, or even its pod's directory: that is what was wanted
    finally:
        guest.poke()
    return False


async def _powers_off(guest: Guest, seconds: float) -> bool:
    """Whether the guest did so by itself."""
    try:
        with guest.monitor.events("SHUTDOWN") as events:
            status = await state.read_status(guest.monitor)
            if status == "paused":
                await guest.monitor.execute("cont")
            return status in ("running", "paused") and await _goes_down(guest, events, seconds)
    except QemuTimeout:
        return False


async def _goes_down(guest: Guest, events: Subscription, seconds: float) -> bool:
    """Whether the guest powered off in time. Whoever asks it does so beside: an agent that is on its way out with its
    guest leaves its caller waiting, and the guest is down before that."""
    if not seconds:
        return False
    waiting = asyncio.ensure_future(events.get_within(seconds))
    asking = asyncio.ensure_future(_keep_asking(guest))
    try:
        await asyncio.wait([waiting, asking], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            asking.result()  # which failed
        return waiting.result() is not None
    finally:
        for each in (waiting, asking):
            each.cancel()
        await asyncio.gather(waiting, asking, return_exceptions=True)


async def _keep_asking(guest: Guest) -> NoReturn:
    """Again and again: a guest that still boots hears nothing yet, and an agent that was found just now may answer only
    by the next time, and only then tell that its filesystems are frozen."""
    while True:
        if guest.view is not None and guest.view.frozen:
            await _thaw(guest)  # or it cannot write what it has to
        await guest.monitor.execute("system_powerdown")
        if (agent := guest.answering) is not None:
            await _ask_agent(agent)
        await asyncio.sleep(PRESS_AGAIN)


async def _thaw(guest: Guest) -> None:
    try:
        await guest.agent.fsfreeze_thaw()
    except AgentError as error:
        log.debug("guest-fsfreeze-thaw: %s", error)
    else:
        freezing.thawed(guest)


async def _ask_agent(agent: GuestAgent) -> None:
    try:
        await agent.shutdown()
    except AgentError as error:
        log.debug("guest-shutdown: %s", error)
