"""Guests that run although no home does: found by what their pod directories hold, and shut down over QMP.

Used after the home has stopped, so nobody else talks to these guests. One task per guest; all shut down at once.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from hotvirt.node.places import PodPlace
from hotvirt.node.podprocess import holders, read_identity
from hotvirt.qemu.errors import QemuError
from hotvirt.qemu.process import Identity, Process
from hotvirt.qemu.qmp import Monitor, Subscription

Say = Callable[[str], None]


class Patience(Struct, frozen=True):
    """In seconds: how long a guest may take, and after how long its power button is pressed again."""

    grace: float
    press_again: float = 4.0


class Leftover(Struct, frozen=True):
    """One pod directory. `identity` is None when it names no process."""

    place: PodPlace
    identity: Identity | None


def find(pods: Path) -> list[Leftover]:
    """Every pod directory below, whether its process lives or not."""
    try:
        directories = sorted(path for path in pods.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    places = [PodPlace(directory) for directory in directories]
    return [Leftover(place, read_identity(place.pid)) for place in places]


async def shut_down(found: list[Leftover], *, patience: Patience, say: Say) -> bool:
    """Ends every guest and removes its directory. False when one would not end."""
    if not found:
        return True
    outcomes = await asyncio.gather(*(_end(each, patience, say) for each in found), return_exceptions=True)
    for each, outcome in zip(found, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            say(f"pod {each.place.directory.name}: {outcome}")
    return all(outcome is True for outcome in outcomes)


async def _end(leftover: Leftover, patience: Patience, say: Say) -> bool:
    process = Process.open(leftover.identity) if leftover.identity else None
    if process is not None:
        with process:
            name = await _ask_to_shut_down(leftover.place.qmp, process, patience, say)
            await process.stop(grace=5)
            say(f"{name} is down")
    # What was started but not noted, as the home died in between.
    for pid in holders(leftover.place):
        os.kill(pid, signal.SIGKILL)
    leftover.place.remove()
    return True


def shown(guest: str) -> str:
    """A QEMU's name, NAMESPACE_NAME, as a person names the machine."""
    namespace, _, name = guest.partition("_")
    if not name:
        return guest
    return f"vm/{name}" if namespace == "default" else f"vm/{name}/{namespace}"


async def _press_until_down(monitor: Monitor, events: Subscription, patience: Patience) -> bool:
    """Again and again, as a guest that still boots does not notice the button."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience.grace
    while True:
        await monitor.execute("system_powerdown")
        left = max(0.0, deadline - loop.time())
        if await events.get_within(min(patience.press_again, left)) is not None:
            return True
        if left <= patience.press_again:
            return False


async def _ask_to_shut_down(monitor_path: Path, process: Process, patience: Patience, say: Say) -> str:
    """Presses the power button and waits for the guest to come to its end; powers it off when it does not within
    `grace` seconds. What has no monitor (yet) has no guest either. Returns the guest's name."""
    name = f"process {process.identity.pid}"
    try:
        monitor = await Monitor.connect(monitor_path, name=name, timeout=5)
    except QemuError:
        return name
    try:
        name = shown(str((await monitor.execute("query-name")).get("name") or "")) or name
        say(f"{name}: asking the guest to shut down")
        with monitor.events("SHUTDOWN") as events:
            state = (await monitor.execute("query-status"))["status"]
            if state == "paused":
                await monitor.execute("cont")
            if state in ("running", "paused") and not await _press_until_down(monitor, events, patience):
                say(f"{name}: did not shut down within {patience.grace:g} s, powering it off")
        with contextlib.suppress(QemuError):  # it may be gone before it answers
            await monitor.execute("quit")
            async with asyncio.timeout(5):
                await process.wait()
    except (QemuError, TimeoutError) as error:
        say(f"{name}: {error}; ending its process")
        process.send(signal.SIGTERM)
    finally:
        await monitor.close()
    return name
