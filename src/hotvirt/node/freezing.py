"""A guest's filesystems held still for a backup, and let go again in time whatever becomes of the home.

The guest itself says whether it is frozen (`AgentView.frozen`). When it is to be thawed by itself is noted in its pod's
directory before it is frozen: a home that dies in between leaves a note too many, never a frozen guest without one. A
frozen agent answers little, so nothing else is asked or changed of such a guest until it is thawed.
"""

from datetime import datetime, timedelta

from msgspec import structs

from hotvirt.kube.errors import Conflict, InternalError
from hotvirt.kube.times import parse, stamp
from hotvirt.node.guest import Guest
from hotvirt.node.places import PodPlace
from hotvirt.qemu.errors import AgentError, AgentRefused, HotplugError
from hotvirt.qemu.progress import Report

JOB = "thaw"


async def freeze(guest: Guest, *, seconds: float, now: datetime) -> bool:
    """`seconds` 0: until it is thawed. A guest that is frozen stays so, and gets the new time. Whether all that it has
    to hold still stands still: one with none of its filesystems on a disk has nothing to."""
    agent = guest.answering
    if agent is None or guest.view is None:
        raise Conflict("VMI does not have guest agent connected")
    guest.drop(JOB)
    if seconds > 0:
        guest.place.frozen.write_text(stamp(now + timedelta(seconds=seconds)))
    else:
        guest.place.frozen.unlink(missing_ok=True)
    if guest.view.frozen:
        guest.poke()
        return True
    guest.is_freezing = True
    try:
        count = await agent.fsfreeze_freeze()
        frozen = await agent.fsfreeze_status() == "frozen"  # it is not when none of its filesystems is on a disk
    except AgentRefused as error:
        guest.place.frozen.unlink(missing_ok=True)
        raise InternalError(f"the guest did not freeze its filesystems: {error}") from error
    except AgentError as error:
        guest.place.frozen.write_text(stamp(now))  # it may be frozen all the same: it is thawed once it answers
        guest.view = structs.replace(guest.view, frozen=True)  # a note of one that is not frozen would be removed
        guest.greet()
        raise InternalError(f"the guest may not have frozen its filesystems: {error}") from error
    finally:
        guest.is_freezing = False
    if guest.view is not None:
        guest.view = structs.replace(guest.view, frozen=frozen)
    guest.poke()
    return frozen or count == 0


async def is_still(guest: Guest) -> bool:
    """Whether one that was frozen is so yet, as it says itself: Windows lets go after ten seconds, whoever asks."""
    try:
        return guest.answering is not None and await guest.answering.fsfreeze_status() == "frozen"
    except AgentError:
        return False


async def thaw(guest: Guest) -> None:
    """Nothing happens when it is not frozen."""
    agent = guest.answering
    if agent is None:
        raise Conflict("VMI does not have guest agent connected")
    try:
        await agent.fsfreeze_thaw()
    except AgentError as error:
        raise InternalError(f"the guest did not thaw its filesystems: {error}") from error
    thawed(guest)


def thawed(guest: Guest) -> None:
    guest.place.frozen.unlink(missing_ok=True)
    if guest.view is not None:
        guest.view = structs.replace(guest.view, frozen=False)
    guest.greet()  # what it could not be asked meanwhile
    guest.poke()


def thaws_at(place: PodPlace) -> datetime | None:
    """When it is to be thawed by itself; None for never."""
    try:
        return parse(place.frozen.read_text())
    except (FileNotFoundError, ValueError):
        return None


def watch(guest: Guest, now: datetime) -> float | None:
    """Begin to thaw a guest whose time has come. Gives the seconds until then, when it has not."""
    moment = thaws_at(guest.place)
    if moment is None or guest.view is None or guest.is_freezing:
        return None
    if not guest.view.frozen:
        guest.place.frozen.unlink(missing_ok=True)
        return None
    if (left := (moment - now).total_seconds()) > 0:
        return left

    async def run(_: Report) -> None:
        if guest.answering is None:
            return
        try:
            await guest.answering.fsfreeze_thaw()
        except AgentError as error:
            raise HotplugError("NotThawed", f"the guest did not thaw its filesystems: {error}") from error
        thawed(guest)

    guest.want(JOB, "thawed", run)
    return None
