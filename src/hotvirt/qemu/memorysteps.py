"""What QEMU is asked next on the way from the memory that a guest has to what it is to have. Pure.

By the virtio-mem device that is there from the start, below boot size by the balloon. A guest whose kernel has no
driver for that device grows by DIMMs instead (`Means`). They come in whole blocks of the guest's memory, and go whole;
what such steps leave over, and what the guest keeps of it, is the balloon's.

Shrinking takes whatever the guest can give, up to driving it into its OOM killer. So no more is asked back at a time
than it has available, less a reserve.
"""

from msgspec import Struct

from hotvirt.qemu.machine import GIB, MEMORY_BLOCK, MIB
from hotvirt.qemu.state import Dimm, MemoryState

RESERVE = 64 * MIB
GRAIN = 4 * MIB
"""Linux hands out memory in pieces of this size, so up to that much of an odd request stays undone."""
STEEP = 2 * GIB
"""Growth beyond this goes in steps: the guest describes each page that is plugged in memory that it has already."""
DESCRIBES = 64
"""Bytes of plugged memory that one byte of the guest's page tables describes."""
STEP_LEAST = 128 * MIB


class Request(Struct, frozen=True):
    """Ask the virtio-mem device for this much."""

    size: int


class Balloon(Struct, frozen=True):
    """Leave the guest this much of its boot memory."""

    size: int


class Plug(Struct, frozen=True):
    """One more DIMM of this size."""

    size: int


class Unplug(Struct, frozen=True):
    """Take this DIMM away."""

    dimm: str


class Stop(Struct, frozen=True):
    """`reason` "" means that QEMU and the guest's driver have reached the target."""

    reason: str = ""
    message: str = ""


Step = Request | Balloon | Plug | Unplug | Stop


class Means(Struct, frozen=True, kw_only=True):
    """How the guest can be given more. `dimms`: by DIMMs, since its kernel does not drive virtio-mem."""

    dimms: bool = False
    block: int = MEMORY_BLOCK
    """The guest's own: a DIMM's end that does not fill one stays unused."""
    kept: frozenset[str] = frozenset()
    """DIMMs that the guest would not let go of."""


VIRTIO_MEM = Means()


def shrinks(state: MemoryState, target: int) -> bool:
    """Whether the next step may take memory from the guest, and so needs to know what it can spare."""
    return max(0, target - state.fixed) < state.plugged or target < state.fixed - state.ballooned


def is_steep(state: MemoryState, target: int) -> bool:
    """Whether the guest may not be able to describe so much more at once."""
    return target - state.fixed - state.plugged > STEEP


def next_step(state: MemoryState, target: int, *, available: int | None, means: Means = VIRTIO_MEM) -> Step:
    """What QEMU should be asked now to get to `target` bytes (again, if it was asked already). Pure.

    `available`: what the guest could do without, None when unknown; used to shrink, and to grow steeply.
    """
    size, capacity = state.plugged, state.device.capacity if state.device else 0
    if means.dimms and state.device and state.device.requested > size:
        return Request(size)  # what no driver answered: the driver that may yet come is not to find it
    if means.dimms and target > state.fixed + size:
        return _grow_by_dimm(state, target, means)
    if target > state.fixed + capacity:
        most = (state.fixed + capacity) // MIB
        return Stop("AboveMaximum", f"{target // MIB} MiB is more than the {most} MiB this guest was started for")
    plugged, ballooned = max(0, target - state.fixed), max(0, state.fixed - target)
    if not size and (dimm := _dispensable(state, ballooned, available, means.kept)):
        # What the balloon holds may be in that DIMM, and the guest would look for another place for it.
        rest = ballooned - dimm.size
        return Balloon(state.fixed - rest) if state.ballooned - rest >= GRAIN else Unplug(dimm.id)
    if state.device and plugged % state.device.step:
        return Stop("NotAligned", f"memory changes in steps of {state.device.step // MIB} MiB")
    # Give before taking: a balloon left full would take from the guest what is being plugged.
    if state.ballooned - ballooned >= GRAIN or (state.ballooned and not ballooned):
        return Balloon(state.fixed - ballooned)
    if plugged > size and not (state.device and state.device.requested == plugged and plugged - size < GRAIN):
        return Request(_ceiling(size, plugged, available) if is_steep(state, target) else plugged)
    if plugged < size:
        floor = _floor(size, plugged, available)
        return Request(floor) if floor < size else _needs_memory(available)
    if state.device and state.device.requested != plugged:
        return Request(plugged)
    if ballooned - state.ballooned >= GRAIN:
        floor = _floor(state.current, target, available)
        return Balloon(floor) if floor < state.current else _needs_memory(available)
    return Stop()


def _grow_by_dimm(state: MemoryState, target: int, means: Means) -> Step:
    """The balloon gives first what it holds, and takes back in the end what a whole number of blocks is too much."""
    if state.ballooned:
        return Balloon(state.fixed)
    size = -(-(target - state.fixed - state.plugged) // means.block) * means.block
    if len(state.dimms) >= state.slots:
        taken = f"all {state.slots} memory slots of this guest are taken"
        none = "this guest was started without memory slots, and its kernel has no virtio_mem driver"
        return Stop("NoFreeSlot", f"{taken if state.slots else none}: a restart gives it the memory from the start")
    left = state.dimm_room - sum(dimm.size for dimm in state.dimms)
    if size > left:
        most = (state.fixed + state.plugged + left // means.block * means.block) // MIB
        return Stop("AboveMaximum", f"{target // MIB} MiB is more than the {most} MiB that DIMMs can make of it")
    return Plug(size)


def _dispensable(state: MemoryState, surplus: int, available: int | None, kept: frozenset[str]) -> Dimm | None:
    """The largest DIMM that can go whole. What the balloon holds already is the guest's no more."""
    spare = 0 if available is None else max(0, available - RESERVE) + state.ballooned
    whole = [dimm for dimm in state.dimms if dimm.size <= min(surplus, spare) and dimm.id not in kept]
    return max(whole, key=lambda dimm: (dimm.size, dimm.address), default=None)


def _ceiling(size: int, wanted: int, available: int | None) -> int:
    """How far up to ask now, so that what the guest has free describes it."""
    if available is None:
        return wanted
    spare = max(0, available - RESERVE) // 2 * DESCRIBES
    return min(wanted, size + max(STEP_LEAST, spare // STEP_LEAST * STEP_LEAST))


def goes_on(asked: Step | None, step: Step, state: MemoryState, available: int | None) -> bool:
    """Whether to let the guest go on with a shrink it was asked for, although `step` would now ask for less of it. A
    block that is on its way out is no longer available and not yet given back, and each new wish has the guest's driver
    start over, which made shrinking three times slower. Not when the guest runs short. Pure."""
    return (
        isinstance(asked, Request)
        and isinstance(step, Request)
        and asked.size < step.size < state.plugged
        and available is not None
        and available >= RESERVE
    )


def _floor(current: int, wanted: int, available: int | None) -> int:
    """How far down to ask now, so that the guest keeps its reserve."""
    spare = 0 if available is None else max(0, available - RESERVE)
    lowest = -(-(current - spare) // GRAIN) * GRAIN
    return max(wanted, lowest)


def _needs_memory(available: int | None) -> Stop:
    if available is None:
        return Stop(
            "AgentNeeded",
            "taking memory away needs to know what the guest can spare: start qemu-guest-agent in the guest",
        )
    return Stop("GuestNeedsMemory", f"the guest has only {available // MIB} MiB available: free memory in it first")
