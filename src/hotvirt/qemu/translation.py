"""Room in TCG's translation buffer, without which plugging a vCPU kills the guest.

The buffer is cut into regions; every vCPU fills one and takes the next, and when none is left all of it is flushed and
begun anew. A vCPU that is plugged in the very phase in which all regions are taken finds none, and QEMU (7.2 to 10)
aborts. That phase is a matter of percents, and an idle guest may stay in it for hours.

So before a plug the fill level is read, and when no region is sure to be free the guest is made to fill the buffer up:
for some tenths of a second QEMU translates every instruction apart, which takes ten times the space, until the flush
comes. The guest notices nothing but that it is slow meanwhile.
"""

import asyncio
import re

from msgspec import Struct

from hotvirt.qemu.errors import HotplugError
from hotvirt.qemu.machine import MIB, Topology
from hotvirt.qemu.progress import pauses
from hotvirt.qemu.qmp import Monitor

_REGION_MIB = 2
_LEAST_MIB, _MOST_MIB = 32, 128
_REGIONS_PER_VCPU = 8
_SLACK = 128 << 10
"""A region counts as full when the next block of code does not fit."""
_SPARE = 1
"""Regions that the running guest may take between our look and QEMU's."""
_RENAMED = (8, 1, 0)


class Buffer(Struct, frozen=True):
    used: int
    capacity: int
    flushes: int


def buffer_mib(topology: Topology, boot_memory: int) -> int:
    """How large to make it for a guest of so many bytes: left alone, TCG takes up to 1 GiB. Less than 32 MiB slows
    booting, and a whole distribution flushes those forty times over until it is up: 128 MiB save it a fifth of the CPU
    time, and are taken as they are filled. Each vCPU that may ever run needs a region of its own, and some to spare."""
    likely = topology.max_sockets * topology.per_socket
    needed = 16 + 2 * _REGION_MIB * likely + _REGION_MIB * (topology.max_vcpus - likely)
    return max(_LEAST_MIB, min(_MOST_MIB, boot_memory // MIB // 8), needed)


def parse(text: str) -> Buffer | None:
    """From `info jit`."""
    size = re.search(r"gen code size\s+(\d+)/(\d+)", text)
    flushes = re.search(r"TB flush count\s+(\d+)", text)
    return Buffer(int(size[1]), int(size[2]), int(flushes[1])) if size and flushes else None


def regions(capacity: int, max_vcpus: int) -> int:
    """QEMU's own division of the buffer (tcg/region.c)."""
    number = -(-capacity // MIB) // _REGION_MIB
    return max_vcpus if number <= max_vcpus else min(number, _REGIONS_PER_VCPU * max_vcpus)


def has_room(buffer: Buffer, *, plugged: int, max_vcpus: int) -> bool:
    """Whether a free region is certain: even if all that is used fills whole regions, beside one for every vCPU."""
    number = regions(buffer.capacity, max_vcpus)
    full = buffer.used // max(1, buffer.capacity // number - _SLACK)
    return full + plugged + 1 + _SPARE <= number


async def make_room(monitor: Monitor, *, plugged: int, max_vcpus: int, timeout: float = 10.0) -> None:
    """Return when a vCPU may be plugged. HotplugError: the guest is too idle, or paused, for a flush; try again."""
    buffer = await _read(monitor)
    if buffer is None or has_room(buffer, plugged=plugged, max_vcpus=max_vcpus):
        return
    try:
        await _apart(monitor, on=True)
        async with asyncio.timeout(timeout):
            # Looked at closely: all that is translated apart after the flush is waste.
            for pause in pauses(0.005, longest=0.01):
                await asyncio.sleep(pause)
                now = await _read(monitor)
                if now is None or now.flushes != buffer.flushes:
                    break
    except TimeoutError as error:
        raise HotplugError(
            "NotNow",
            "QEMU's emulation has no room for another vCPU just now; it will have when the guest has done some work",
        ) from error
    finally:
        await restore(monitor)


async def restore(monitor: Monitor) -> None:
    """Full speed. Also for whoever adopts a guest: the home before may have ended in the middle of `make_room`."""
    if not monitor.closed.done():
        await _apart(monitor, on=False)


async def _apart(monitor: Monitor, *, on: bool) -> None:
    command = "one-insn-per-tb" if monitor.version >= _RENAMED else "singlestep"
    await monitor.execute("human-monitor-command", {"command-line": f"{command} {'on' if on else 'off'}"})


async def _read(monitor: Monitor) -> Buffer | None:
    return parse(await monitor.execute("human-monitor-command", {"command-line": "info jit"}))
