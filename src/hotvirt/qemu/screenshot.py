"""A picture of the guest's screen as PNG.

QEMU writes into a file in memory that it is handed; it opens no path of its own, and nothing is left behind. Pictures
may be taken at once and beside a viewer. What the screen shows is the guest's, so its size is bounded here.
"""

import asyncio
import os

from hotvirt.qemu.errors import HotplugError, QmpError
from hotvirt.qemu.qmp import Monitor

LARGEST = 64 << 20
"""Bytes. The display adapter's memory is a quarter of that."""
WAKE = 0.2
"""Seconds that a guest is given to draw after its pointer moved."""


async def png(monitor: Monitor, *, move_cursor: bool = False) -> bytes:
    """HotplugError: there is no display, or nothing to be had of it."""
    if move_cursor:
        await _nudge(monitor)
    memory = os.memfd_create("screen", os.MFD_CLOEXEC)
    try:
        # The descriptor's mode must be the one in which QEMU opens what it writes.
        writable = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            number = await monitor.add_fd(writable, opaque="screenshot")
        finally:
            os.close(writable)
        try:
            await monitor.execute("screendump", {"filename": f"/dev/fdset/{number}", "format": "png"})
        except QmpError as error:
            raise HotplugError("NoPicture", f"QEMU has no picture of the screen: {error.description}") from error
        finally:
            await monitor.execute("remove-fd", {"fdset-id": number})
        size = os.fstat(memory).st_size
        if not 0 < size <= LARGEST:
            raise HotplugError("NoPicture", f"the picture of the screen has {size} bytes, 1 to {LARGEST} are taken")
        return os.pread(memory, size, 0)
    finally:
        os.close(memory)


async def _nudge(monitor: Monitor) -> None:
    """Move the pointer a little, as a person would to wake a screen."""
    for place in (0, 16):
        moves = [{"type": "abs", "data": {"axis": axis, "value": place}} for axis in ("x", "y")]
        await monitor.execute("input-send-event", {"events": moves})
    await asyncio.sleep(WAKE)
