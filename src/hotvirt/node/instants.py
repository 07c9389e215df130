"""The instant of a snapshot of a guest that runs: its filesystems held still by its agent, or its memory kept with it.

With memory the guest is stopped, its disks' copies begin, QEMU writes the memory and the devices, and the guest goes
on: for as long as that writing takes it stands still. That it was stopped for this is noted before, so a home that
dies in between leaves a guest that the next one lets go on. Of one guest one task does this at a time.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

from msgspec import structs

from hotvirt.images import disks
from hotvirt.kube.errors import ApiError
from hotvirt.node import freezing
from hotvirt.node import snapshotcopies as copies
from hotvirt.node.guest import Guest
from hotvirt.node.snapshotcopies import Source
from hotvirt.node.snapshotfiles import About, Group
from hotvirt.qemu import backup, memoryfile
from hotvirt.qemu.errors import HotplugError, QemuError
from hotvirt.qemu.state import read_disks

log = logging.getLogger(__name__)


async def cut(
    group: Group, plan: About, guest: Guest, sources: list[Source], *, freeze: float | None, memory: Path | None,
    now: datetime,
) -> tuple[str, ...]:  # fmt: skip
    """Starts the copies; how they were taken, in KubeVirt's words (`status.indications`)."""
    targets: list[backup.Copy] = []
    try:
        for source in sources:
            targets.append(await copies.target(source, group.part))  # noqa: PERF401 - what was opened is to be closed
        await backup.prepare(guest.monitor, group.name, targets)
        if memory is not None:
            await _with_memory(group, plan, guest, targets, memory)
            return ("Memory", "Online")

        async def start() -> None:
            await backup.start(guest.monitor, group.name, targets)

        if not (await guest.monitor.execute("query-status"))["running"]:
            await start()
            return ("Online", "Paused")
        if freeze is None or guest.answering is None:
            await start()
            return ("NoGuestAgent", "Online")
        return (await _held_still(guest, start, seconds=freeze, now=now), "Online")
    finally:
        for each in targets:
            os.close(each.target)


async def _held_still(guest: Guest, start: Callable[[], Awaitable[None]], *, seconds: float, now: datetime) -> str:
    """A guest that does not hold still is copied all the same: one whose agent cannot, or whose filesystem hangs, would
    have no snapshot at all. That it went on is told."""
    try:
        try:
            is_still = await freezing.freeze(guest, seconds=seconds, now=now)
        except ApiError as error:
            log.warning("guest %s is copied as after a power cut: %s", guest.uid, error)
            is_still = False
        has_frozen = guest.view is not None and guest.view.frozen
        await start()
        if is_still and has_frozen:
            is_still = await freezing.is_still(guest)
        return "GuestAgent" if is_still else "QuiesceTimeout"
    finally:
        await asyncio.shield(thaw(guest))


async def _with_memory(
    group: Group, plan: About, guest: Guest, targets: list[backup.Copy], memory: Path
) -> None:  # fmt: skip
    await disks.create(memory, memoryfile.VIRTUAL_SIZE, "qcow2")
    ran = bool((await guest.monitor.execute("query-status"))["running"])
    opened = os.open(memory, os.O_RDWR | os.O_CLOEXEC)
    try:
        with guest.monitor.events("RESUME", "RESET", "SHUTDOWN") as moved:
            if ran:
                group.note(structs.replace(plan, stopped=True))
                await guest.monitor.execute("stop")
            try:
                await backup.start(guest.monitor, group.name, targets)
                await memoryfile.save(guest.monitor, opened)
                if (event := await moved.get_within(0)) is not None:
                    raise HotplugError("Moved", f"the guest went on meanwhile ({event.name.lower()})")
            finally:
                if ran:
                    await asyncio.shield(guest.monitor.execute("cont"))
    finally:
        os.close(opened)


async def left_out(guest: Guest, sources: list[Source]) -> str:
    """Disks that the guest writes to and that are not in the snapshot, in words: they would not be as it left them."""
    kept = {source.node for source in sources}
    found = await read_disks(guest.monitor)
    others = [d.name for d in found if not d.read_only and not d.is_empty and not kept.intersection(d.nodes)]
    if not others:
        return ""
    return f"the guest writes to volume {', '.join(others)}, which the snapshot does not hold: put it on a claim"


async def let_go(guest: Guest, plan: About) -> None:
    """A guest that an earlier home froze or stopped for this, and did not get to let go."""
    if stands(plan):
        now = await guest.monitor.execute("query-status", timeout=memoryfile.PATIENCE)
        if now["status"] == "paused":
            await guest.monitor.execute("cont")
    await thaw(guest)


def stands(plan: About) -> bool:
    """Whether the guest may stand still for this, by what is noted. Pure."""
    return plan.stopped and not plan.created


async def stop_copies(guest: Guest, group: Group, plan: About) -> bool:
    """Whether the guest was let go: else what is noted of it is needed once more."""
    try:
        await let_go(guest, plan)
    except QemuError as error:
        log.warning("guest %s does not go on yet: %s", guest.uid, error)
        return guest.is_gone or not stands(plan)
    try:
        await backup.clear(guest.monitor, group.name)
    except QemuError as error:
        log.debug("the copies of %s: %s", group.name, error)
    return True


async def thaw(guest: Guest) -> None:
    """What it fails at, the guest's own deadline does (`freezing.watch`)."""
    if guest.view is None or not guest.view.frozen:
        return
    try:
        await freezing.thaw(guest)
    except ApiError as error:
        log.warning("guest %s is not thawed yet: %s", guest.uid, error)
