"""Memory while the guest runs: step after step (`memorysteps`), until its own memory management has it.

Level-based, as `cpu`: read, take the next step, read again. Three parties must agree before it is done: QEMU
(`requested`), the guest's driver (`size`), and the guest's memory management (its blocks online): a driver that has
taken everything says nothing of memory that nobody onlined. The last is asked of the guest's agent, which also onlines
such blocks, as *movable*, so that they can be taken back later. What the guest can spare is its agent's word, else its
balloon's statistics.

One call at a time for a guest.
"""

import asyncio
from collections.abc import Iterator, Sequence

from msgspec import structs

from hotvirt.qemu import dimms, facts, ids
from hotvirt.qemu.errors import AgentError, AgentLacks, HotplugError, QmpError, refused_as
from hotvirt.qemu.guestagent import GuestAgent, MemoryBlock
from hotvirt.qemu.machine import MIB
from hotvirt.qemu.memorysteps import (
    DESCRIBES,
    GRAIN,
    VIRTIO_MEM,
    Balloon,
    Means,
    Plug,
    Request,
    Step,
    Stop,
    Unplug,
    goes_on,
    is_steep,
    next_step,
    shrinks,
)
from hotvirt.qemu.progress import Progress, Report, pauses
from hotvirt.qemu.qmp import Monitor
from hotvirt.qemu.state import Dimm, MemoryState, read_memory

STALLED, STALLED_MOST, STALLED_GROWTH = 2.0, 20.0, 1.5
"""Seconds without progress after which the same size is asked for again: the guest's driver waits up to five minutes by
itself before it tries anew. Each time they are more: being asked has the driver begin anew with its block, and a slow
guest with large blocks would never be done with one."""
MOVES = 30.0
"""Seconds that a guest which comes nearer has at least, each time: on a busy machine gigabytes take minutes."""
LOOK = 0.5
"""Seconds between two looks at how far the guest's driver is, while the guest is asked whether it is done."""
GONE = 10.0
"""Seconds that a guest has to be done with what its driver gave back. While Linux takes a block of memory apart it
counts it once more, though the driver has given it back already; what it could use of it is gone then."""
SPARE_HOLDS = 0.5
"""Seconds that the guest's word on what it can spare is good for. A guest that gives memory back answers late."""


def blocks_to_online(blocks: Sequence[MemoryBlock], *, address: int) -> list[int]:
    """Blocks of the device (from `address` on; in units of blocks) that the guest left offline."""
    return [block.index for block in blocks if block.index >= address and not block.online]


def blocks_suffice(blocks: Sequence[MemoryBlock], *, address: int, size: int, block_size: int) -> bool:
    """Whether as many blocks of the device are online as its plugged size needs at least."""
    online = sum(block.online for block in blocks if block.index >= address // block_size)
    return online * block_size >= size


def dimms_suffice(blocks: Sequence[MemoryBlock], state: MemoryState, *, block_size: int) -> bool:
    """Whether every whole block of every DIMM is online."""
    online = {block.index for block in blocks if block.online}
    return all(
        index in online
        for dimm in state.dimms
        for index in range(dimm.address // block_size, (dimm.address + dimm.size) // block_size)
    )


async def read(monitor: Monitor) -> MemoryState:
    return await read_memory(monitor)


async def resize_memory(
    monitor: Monitor,
    agent: GuestAgent | None,
    target: int,
    *,
    means: Means = VIRTIO_MEM,
    state: MemoryState | None = None,
    timeout: float = 120.0,
    report: Report | None = None,
) -> MemoryState:
    """Bring the guest to `target` bytes (boot memory and what is plugged); returns what it then has. HotplugError when
    it does not get there, with what was reached in its sentence: after `timeout` seconds, unless it comes nearer all
    the time. `agent` None: none is connected. `state`: as it was just read, to save a look."""
    resize = _Resize(monitor, agent, target, means, report)
    resize.known = state
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(timeout) as resize.deadline:
            await resize.run()
            if means.dimms:  # of one that went when nobody waited for it any more
                await dimms.sweep(monitor, resize.state)
            if agent is not None:
                await resize.see_it_online(agent)
                await resize.see_it_gone(agent)
            return resize.state
    except TimeoutError as error:
        reason = await resize.settle()
        took = asyncio.get_running_loop().time() - began
        raise HotplugError(reason, resize.sentence(took)) from error


class _Resize:
    def __init__(
        self, monitor: Monitor, agent: GuestAgent | None, target: int, means: Means, report: Report | None
    ) -> None:
        self.monitor, self.agent, self.target, self.means, self.report = monitor, agent, target, means, report
        self.state = MemoryState(boot=0)
        self.known: MemoryState | None = None
        self.deadline: asyncio.Timeout | None = None
        self.spare: tuple[float, int, int] | None = None
        """When the guest was asked what it has available, what it said, and its memory then."""
        self.counted: tuple[int, int] | None = None
        """What the guest itself counted as its memory when it was first asked, and what it had by QEMU then."""
        self.offline: set[int] = set()
        """Blocks of the device that the guest had offline when last asked."""
        self.used = 0
        """Bytes of the device that the guest was seen to use, or said that it cannot tell."""
        self.used_dimms = 0
        """DIMMs that it was seen to use."""

    async def run(self) -> None:
        """Until QEMU and the guest's driver have reached the target."""
        loop = asyncio.get_running_loop()
        asked: Step | None = None
        moved_at, before, waits, patience = loop.time(), -1, _waits(), STALLED
        if self.means.dimms and self.agent is not None:
            self.means = structs.replace(self.means, block=await _block_size(self.agent) or self.means.block)
        with self.monitor.events("MEMORY_DEVICE_SIZE_CHANGE", "BALLOON_CHANGE") as events:
            while True:
                self.state, self.known = self.known or await read_memory(self.monitor), None
                self._tell()
                asks = shrinks(self.state, self.target) or is_steep(self.state, self.target)
                available = await self._available() if asks else None
                step = next_step(self.state, self.target, available=available, means=self.means)
                if goes_on(asked, step, self.state, available):
                    assert asked is not None
                    step = asked
                if isinstance(step, Stop):
                    if step.reason and self.spare is not None and self.spare[2] != self.state.current:
                        self.spare = None  # no change ends by what the guest said a while ago
                        continue
                    if step.reason:
                        raise HotplugError(step.reason, f"{step.message}; {self._now()}")
                    return
                if isinstance(step, Plug | Unplug):
                    await self._change_dimms(step)
                    continue
                if self.state.current != before:
                    if before >= 0 and abs(self.state.current - self.target) < abs(before - self.target):
                        self._has_time()
                    moved_at, before = loop.time(), self.state.current
                stalled = loop.time() - moved_at > patience
                if stalled:  # not less after progress: the next block takes as long
                    patience = min(STALLED_MOST, patience * STALLED_GROWTH)
                if step != asked or stalled:
                    await self._ask(step)
                    asked, moved_at, waits = step, loop.time(), _waits()
                if (
                    self.agent is not None
                    and isinstance(step, Request)
                    and step.size > max(self.state.plugged, self.used)
                ):
                    await self._see_used(self.agent, step.size)
                else:
                    # The event is held back by QEMU to one a second: it only ever shortens the wait.
                    await events.get_within(next(waits))

    def _has_time(self) -> None:
        """The guest came nearer: it is not given up in the middle of that."""
        later = asyncio.get_running_loop().time() + MOVES
        if self.deadline is not None and not self.deadline.expired() and later > (self.deadline.when() or later):
            self.deadline.reschedule(later)

    async def _ask(self, step: Request | Balloon) -> None:
        with refused_as("QEMU would not change memory"):
            if isinstance(step, Balloon):
                await self.monitor.execute("balloon", {"value": step.size})
                return
            path = f"/machine/peripheral/{ids.MEMORY_DEVICE}"
            wish = {"path": path, "property": "requested-size", "value": step.size}
            await self.monitor.execute("qom-set", wish)

    async def _change_dimms(self, step: Plug | Unplug) -> None:
        if isinstance(step, Plug):
            await dimms.plug(self.monitor, self.state, step.size)
            self.state = await read_memory(self.monitor)
            self._tell()
            if self.agent is not None:  # first of all, or the balloon would take of what the guest had before
                await self.see_it_online(self.agent)
        elif not await dimms.unplug(self.monitor, step.dimm):
            # It keeps it, so the balloon takes as much.
            self.means = structs.replace(self.means, kept=self.means.kept | {step.dimm})

    async def _available(self) -> int | None:
        """What the guest was last seen to be able to spare, less what it gave since; asked anew after a while."""
        now = asyncio.get_running_loop().time()
        if self.spare is None or now > self.spare[0] + SPARE_HOLDS:
            found = await self._ask_available()
            self.spare = None if found is None else (now, found, self.state.current)
        return None if self.spare is None else max(0, self.spare[1] - max(0, self.spare[2] - self.state.current))

    async def _ask_available(self) -> int | None:
        if self.agent is not None:
            try:
                total, found = await facts.memory(self.agent)
                if total is not None and self.counted is None:
                    self.counted = total, self.state.current
                if found is not None:
                    return found
            except AgentError:
                pass
        return await available_by_balloon(self.monitor)

    async def _see_used(self, agent: GuestAgent, size: int) -> None:
        """For a while, or until the guest uses `size` bytes of the device. While it takes memory, QEMU answers late
        (its vCPUs hold the lock), and what is awaited is the guest: so the guest is asked."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LOOK
        for pause in _waits():
            await asyncio.sleep(pause)
            if await self._online(agent, size):
                self.used = size
                return
            if loop.time() > until:
                return

    async def see_it_online(self, agent: GuestAgent) -> None:
        """Until the guest's memory management has what its driver took."""
        size = self.state.plugged
        if size > self.used or len(self.state.dimms) > self.used_dimms:
            for pause in pauses():
                if await self._online(agent, size):
                    return
                await asyncio.sleep(pause)

    async def see_it_gone(self, agent: GuestAgent) -> None:
        """Until the guest itself counts as much less as it gave back. QEMU's word counts where it does not say so."""
        if self.counted is None or (less := self.counted[1] - self.state.current) <= GRAIN:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + GONE
        try:
            for pause in _waits():
                total = (await facts.memory(agent))[0]
                if total is None or total <= self.counted[0] - less + GRAIN or loop.time() > until:
                    return
                await asyncio.sleep(pause)
        except AgentError:
            return

    async def _online(self, agent: GuestAgent, size: int) -> bool:
        """Online what the guest left offline; True when it uses `size` bytes of the device, or no more can be known."""
        starts = [dimm.address for dimm in self.state.dimms]
        if (device := self.state.device) is not None:
            starts.append(device.address)
        if not starts:
            return True
        try:
            block_size, blocks = await agent.get_memory()
            offline = set(blocks_to_online(blocks, address=min(starts) // block_size))
            # A guest that does it by itself is a moment behind its driver: leave it that moment.
            if left := offline & self.offline:
                await online_movable(agent, sorted(left))
            self.offline = offline
            if offline:
                return False
            if not dimms_suffice(blocks, self.state, block_size=block_size):
                return False
            self.used_dimms = len(self.state.dimms)
            mine = [block for block in blocks if not _is_in(block.index * block_size, self.state.dimms)]
            return device is None or blocks_suffice(mine, address=device.address, size=size, block_size=block_size)
        except AgentLacks:
            return True
        except AgentError as error:
            raise HotplugError("GuestRefused", f"the guest took the memory, but not into use: {error}") from error

    async def settle(self) -> str:
        """After the deadline: what is true. A guest that was to give memory back is asked for no more than it gave, or
        its driver would go on trying. One that takes none may yet get a driver that does. Returns the reason."""
        self.state = await read_memory(self.monitor)
        if self.state.current <= self.target:
            return "TimedOut"
        device = self.state.device
        if device is not None and device.requested < device.size:
            await self._ask(Request(device.size))
        return "MemoryInUse"

    def _tell(self) -> None:
        if self.report:
            self.report(Progress(self.state.current, self.target, "bytes"))

    def _now(self) -> str:
        return f"it has {self.state.current // MIB} MiB of the {self.target // MIB} MiB asked for"

    def sentence(self, took: float) -> str:
        if self.state.current > self.target:
            return f"after {took:.0f} s {self._now()}: the rest is in use in the guest; free it, or ask for more"
        if self.state.dimms and len(self.state.dimms) > self.used_dimms:
            return (
                f"after {took:.0f} s {self._now()}: the guest did not bring its DIMMs online; look into its kernel log"
            )
        if self.state.plugged and (self.target - self.state.boot) // DESCRIBES > self.state.boot // 4:
            tables = (self.target - self.state.boot) // DESCRIBES // MIB
            return (
                f"after {took:.0f} s {self._now()}: {tables} MiB of its boot memory would describe the rest; start it "
                f"with more"
            )
        return f"after {took:.0f} s {self._now()}: does the guest have the virtio_mem driver?"


def _waits() -> Iterator[float]:
    """Close enough to the end of a change not to add much to it, and seldom enough not to slow the guest."""
    return pauses(longest=0.1, growth=1.2)


def _is_in(address: int, plugged: Sequence[Dimm]) -> bool:
    return any(dimm.address <= address < dimm.address + dimm.size for dimm in plugged)


async def _block_size(agent: GuestAgent) -> int | None:
    """The guest's own: a large guest has larger ones. None when it does not say."""
    try:
        return (await agent.get_memory())[0] or None
    except AgentError:
        return None


async def online_movable(agent: GuestAgent, blocks: Sequence[int]) -> None:
    """`online` alone may put a block where the kernel keeps what it can never move, and it could not be taken back. So
    that is for blocks that are offline still: a refusal mostly says that the guest's own rules were first."""
    failed = set()
    for index in blocks:
        try:
            await agent.file_write(f"/sys/devices/system/memory/memory{index}/state", b"online_movable")
        except AgentError:
            failed.add(index)
    if failed:
        left = [block.index for block in (await agent.get_memory())[1] if block.index in failed and not block.online]
        if left:
            await agent.set_memory_blocks(dict.fromkeys(left, True))


async def available_by_balloon(monitor: Monitor, *, timeout: float = 3.0) -> int | None:
    """What the balloon's driver in the guest says it could spare; None when there is none."""
    path = f"/machine/peripheral/{ids.BALLOON}"
    interval = {"path": path, "property": "guest-stats-polling-interval"}
    try:
        async with asyncio.timeout(timeout):
            await monitor.execute("qom-set", interval | {"value": 1})
            waits = pauses(0.05)
            while True:
                found = await monitor.execute("qom-get", {"path": path, "property": "guest-stats"})
                spare = int(found["stats"].get("stat-available-memory", -1))
                if found["last-update"] and 0 <= spare < 1 << 62:
                    return spare
                await asyncio.sleep(next(waits))
    except (QmpError, TimeoutError):
        return None
    finally:
        if not monitor.closed.done():
            try:
                await monitor.execute("qom-set", interval | {"value": 0})
            except QmpError:
                pass
