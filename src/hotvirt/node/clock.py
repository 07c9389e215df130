"""The clock of a guest that went on after it stood still: paused, held for want of room, or kept in a snapshot.

Its clock stood still with it, and nothing in the guest notices. So its agent is told the time. Not where the machine's
own clock, which a guest reads at its boot, tells another time than the host: who gave it an offset or a zone, or has it
follow the guest, wants that (and Windows may have set it to its zone's time, which it goes on from by itself).
"""

import asyncio
import calendar
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from hotvirt.qemu.errors import AgentError, AgentGone, QemuError
from hotvirt.qemu.guestagent import GuestAgent

log = logging.getLogger(__name__)

AGREES = 3.0
"""Seconds that the machine's clock, which tells whole ones, may be off on a busy host."""
TRIES = (0.0, 1.0, 3.0, 10.0, 30.0)
"""Pauses before each: the agent of a guest whose filesystems are frozen, as in a snapshot, refuses for a while."""


class Monitor(Protocol):
    name: str

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any: ...


async def set_right(monitor: Monitor, agent: GuestAgent, *, now: Callable[[], float] = time.time) -> None:
    """Returns when it is done, is not to be done, or cannot be."""
    for pause in TRIES:
        await asyncio.sleep(pause)
        try:
            machine = _seconds(await monitor.execute("qom-get", {"path": "/machine", "property": "rtc-time"}))
            if abs(machine - now()) <= AGREES:
                await agent.set_time(now())
            return
        except AgentGone:
            return
        except (AgentError, QemuError, ValueError) as error:
            said = error
    log.info("the clock of %s may be slow by the time that it stood still: %s", monitor.name, said)


def _seconds(told: dict[str, int]) -> float:
    """QEMU tells C's `struct tm`."""
    fields = ("tm_mday", "tm_hour", "tm_min", "tm_sec")
    return calendar.timegm((told["tm_year"] + 1900, told["tm_mon"] + 1, *(told[each] for each in fields), 0, 0, 0))
