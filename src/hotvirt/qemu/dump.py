"""The guest's memory as a file: QEMU writes an ELF core into a descriptor that it is handed.

The guest stands still meanwhile, and QEMU lets it go on by itself, also when the home that asked is gone. QEMU cannot
be told to stop a dump, and makes one at a time. So each step asks what QEMU is doing first: a new home that finds a
dump on its way waits for that one.
"""

from typing import Literal

from msgspec import Struct

from hotvirt.qemu.errors import HotplugError, QmpError
from hotvirt.qemu.qmp import Monitor

NAME = "memory-dump"
LOOK_AGAIN = 5.0


class DumpState(Struct, frozen=True, kw_only=True):
    """Of the last dump of this QEMU, whoever asked for it. `done` and `total` are bytes."""

    status: Literal["none", "active", "completed", "failed"]
    done: int = 0
    total: int = 0


async def state(monitor: Monitor) -> DumpState:
    found = await monitor.execute("query-dump")
    return DumpState(status=found["status"], done=int(found["completed"]), total=int(found["total"]))


async def begin(monitor: Monitor, descriptor: int) -> None:
    """Returns when QEMU has begun. HotplugError when it would not."""
    await monitor.get_fd(descriptor, name=NAME)
    try:
        arguments = {"paging": False, "protocol": f"fd:{NAME}", "detach": True, "format": "elf"}
        await monitor.execute("dump-guest-memory", arguments)
    except QmpError as error:
        raise HotplugError("DumpFailed", f"QEMU does not dump the memory: {error.description}") from error


async def wait(monitor: Monitor) -> DumpState:
    """Until no dump is on its way; the outcome of the last. HotplugError with QEMU's reason when that failed now."""
    reason = ""
    with monitor.events("DUMP_COMPLETED") as events:
        while (now := await state(monitor)).status == "active":
            event = await events.get_within(LOOK_AGAIN)
            reason = str((event.data if event else {}).get("error") or "")
    if now.status == "failed":
        raise HotplugError("DumpFailed", f"QEMU could not write the memory: {reason or 'see the log of its pod'}")
    return now
