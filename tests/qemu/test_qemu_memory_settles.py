"""A shrink that a guest does not finish: it is tried until the deadline, and then only what is true is asked for."""

import asyncio
from contextlib import contextmanager

import pytest

from hotvirt.qemu import ids
from hotvirt.qemu.errors import HotplugError, QmpError
from hotvirt.qemu.machine import GIB, MIB
from hotvirt.qemu.memory import GONE, resize_memory

pytestmark = pytest.mark.looptime


class Events:
    async def get_within(self, seconds):
        await asyncio.sleep(seconds)


class Monitor:
    """QEMU with a guest that gives back memory down to `least`, a block each `pause` seconds if it has one and begins
    anew with the block when it is asked, and takes none when it has `no_driver`."""

    def __init__(self, *, size=0, least=0, no_driver=False, pause=0):
        self.size, self.least, self.no_driver, self.pause = size, least, no_driver, pause
        self.gave_at = 0.0
        self.requested, self.asked = size, []
        self.known = {"memory": {"size": GIB}}

    async def execute(self, command, arguments=None):
        if command == "query-balloon":
            raise QmpError(command, "GenericError", "no balloon")
        if command == "query-memory-devices":
            now = asyncio.get_running_loop().time()
            if self.pause and self.size > max(self.requested, self.least) and now > self.gave_at + self.pause:
                self.size, self.gave_at = self.size - 128 * MIB, now
            data = {
                "id": ids.MEMORY_DEVICE, "size": self.size, "requested-size": self.requested, "max-size": 3 * GIB,
                "block-size": 2 * MIB, "memaddr": 4 * GIB,
            }  # fmt: skip
            return [{"type": "virtio-mem", "data": data}]
        assert (command, arguments["property"]) == ("qom-set", "requested-size")
        self.asked.append(arguments["value"])
        self.requested, self.gave_at = arguments["value"], asyncio.get_running_loop().time()
        if not self.no_driver and not self.pause:
            self.size = max(self.requested, self.least) if self.requested < self.size else self.requested
        return {}

    @contextmanager
    def events(self, *_):
        yield Events()


class Agent:
    """Of a guest that has plenty to spare, and whose memory is all online."""

    async def files_read(self, paths):
        return [b"MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\n"]

    async def get_memory(self):
        return 128 * MIB, []


async def test_a_stuck_shrink_settles_on_what_the_guest_kept():
    monitor = Monitor(size=2 * GIB, least=GIB + 512 * MIB)
    with pytest.raises(HotplugError) as caught:
        await resize_memory(monitor, Agent(), GIB, timeout=30)
    assert caught.value.reason == "MemoryInUse"
    assert str(caught.value) == (
        "after 30 s it has 2560 MiB of the 1024 MiB asked for: "
        "the rest is in use in the guest; free it, or ask for more"
    )
    assert monitor.asked[0] == 0
    assert len(monitor.asked) > 5, "it was tried again and again"
    assert monitor.asked[-1] == monitor.size == monitor.requested, "the guest's driver has nothing left to try"


async def test_a_shrink_that_goes_on_is_not_given_up():
    monitor = Monitor(size=2 * GIB, pause=10)
    reached = await resize_memory(monitor, Agent(), GIB, timeout=30)
    assert reached.current == GIB
    assert asyncio.get_running_loop().time() > 120
    monitor = Monitor(size=2 * GIB, least=GIB, pause=10)
    with pytest.raises(HotplugError, match="it has 2048 MiB of the 1024 MiB asked for"):
        await resize_memory(monitor, Agent(), GIB, timeout=30)


@pytest.mark.parametrize(("counts", "least", "most"), [(1, 0.01, 0.5), (None, GONE, GONE + 0.2)])
async def test_a_shrink_ends_when_the_guest_counts_less_too(counts, least, most):
    """Its last block is counted `counts` times more after QEMU has it; None: for good, and QEMU's word is taken."""

    class Slow(Agent):
        asked = 0

        async def files_read(self, paths):
            total = 3 * GIB if monitor.size else GIB
            if not monitor.size:
                self.asked += 1
                total += 128 * MIB if counts is None or self.asked <= counts else 0
            return [f"MemTotal: {total >> 10} kB\nMemAvailable: 3000000 kB\n".encode()]

    monitor, agent = Monitor(size=2 * GIB), Slow()
    began = asyncio.get_running_loop().time()
    reached = await resize_memory(monitor, agent, GIB, timeout=30)
    assert reached.current == GIB
    assert agent.asked > 1
    assert least <= asyncio.get_running_loop().time() - began <= most


async def test_growth_that_waits_for_a_driver_stays_asked_for():
    monitor = Monitor(no_driver=True)
    with pytest.raises(HotplugError, match="does the guest have the virtio_mem driver") as caught:
        await resize_memory(monitor, None, 2 * GIB, timeout=30)
    assert caught.value.reason == "TimedOut"
    assert monitor.requested == GIB, "a driver that comes later finds it"
