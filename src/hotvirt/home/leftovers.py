"""Guests that run although no home does: found by what their pod directories hold, and shut down as a home would.

Used after the home has stopped, so nobody else talks to these guests. One task per guest; all shut down at once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from hotvirt.node import keptmemory, stopping
from hotvirt.node.guest import Guest
from hotvirt.node.keptmemory import Started
from hotvirt.node.places import PodPlace
from hotvirt.node.podprocess import end_holders, read_identity
from hotvirt.qemu.errors import QemuError
from hotvirt.qemu.process import Identity, Process

Say = Callable[[str], None]
Waits = Callable[[Mapping[str, float]], None]
"""Told again and again who is waited for, and until when at most (`time.monotonic()`, as the event loop's)."""

LEAST = 60.0
"""Seconds that a guest has even if its VM gives it fewer: all go down at once here, and each is slower for that."""
TELL_EVERY = 1.0


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


def seconds(grace: float | None, then: Started | None) -> float:
    """How long a guest may take: what was asked for, else what its VM gives it. Pure."""
    if grace is not None:
        return grace
    return max(LEAST, stopping.grace(then.spec) if then is not None else 0.0)


async def shut_down(found: list[Leftover], *, grace: float | None, say: Say, waits: Waits) -> bool:
    """Ends every guest and removes its directory. False when one would not end. `grace`: for all of them; None for
    each one's own."""
    if not found:
        return True
    until: dict[str, float] = {}
    telling = asyncio.create_task(_tell(until, waits))
    try:
        outcomes = await asyncio.gather(*(_end(each, grace, until, say) for each in found), return_exceptions=True)
    finally:
        telling.cancel()
    for each, outcome in zip(found, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            say(f"pod {each.place.directory.name}: {outcome}")
    return all(outcome is True for outcome in outcomes)


async def _tell(until: Mapping[str, float], waits: Waits) -> NoReturn:
    while True:
        await asyncio.sleep(TELL_EVERY)
        if until:
            waits(dict(until))


async def _end(leftover: Leftover, grace: float | None, until: dict[str, float], say: Say) -> bool:
    process = Process.open(leftover.identity) if leftover.identity else None
    if process is not None:
        with process:
            name = await _bring_down(leftover.place, process, grace, until, say)
            await process.stop(grace=5)
            say(f"{name} is down")
    # What was started but not noted, as the home died in between.
    end_holders(leftover.place)
    leftover.place.remove()
    return True


async def _bring_down(place: PodPlace, process: Process, grace: float | None, until: dict[str, float], say: Say) -> str:
    """The guest's end, and QEMU's if it takes that. What has no monitor (yet) has no guest either. Returns its name."""
    name = f"process {process.identity.pid}"
    try:
        # Its accelerator matters to changes alone.
        guest = await Guest.connect(
            place, name=name, uid=place.directory.name, accelerator="tcg", poke=lambda: None, timeout=5
        )
    except QemuError:
        return name
    allowed = seconds(grace, keptmemory.started(place))
    try:
        name = guest.monitor.name = shown(str((await guest.monitor.execute("query-name")).get("name") or "")) or name
        say(f"{name}: " + (f"asking the guest to shut down, within {allowed:g} s" if allowed else "powering it off"))
        loop = asyncio.get_running_loop()
        deadline = until[name] = loop.time() + allowed
        if not await stopping.bring_down(guest, allowed) and allowed and loop.time() >= deadline:
            say(f"{name}: did not shut down within {allowed:g} s, so its power was cut")
        await stopping.dismiss(guest, "Succeeded")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.ended()
    except QemuError as error:
        say(f"{name}: {error}; ending its process")
    finally:
        until.pop(name, None)
        await guest.close()
    return name


def shown(guest: str) -> str:
    """A QEMU's name, NAMESPACE_NAME, as a person names the machine."""
    namespace, _, name = guest.partition("_")
    if not name:
        return guest
    return f"vm/{name}" if namespace == "default" else f"vm/{name}/{namespace}"
