"""Memory by DIMMs: which step comes next, and what is made of the guest's words. On a real guest:
tests/guest/test_resize_dimms.py."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotvirt.qemu import dimms
from hotvirt.qemu.errors import QmpError
from hotvirt.qemu.guestagent import MemoryBlock
from hotvirt.qemu.machine import GIB, MIB
from hotvirt.qemu.memory import dimms_suffice
from hotvirt.qemu.memorysteps import GRAIN, Balloon, Means, Plug, Request, Stop, Unplug, next_step
from hotvirt.qemu.qmp import Event
from hotvirt.qemu.state import Dimm, MemoryState, VirtioMem, parse_memory

BY_DIMM = Means(dimms=True)
PLENTY = 100 * GIB


def state(*sizes: int, ballooned: int = 0, slots: int = 4, requested: int = 0) -> MemoryState:
    device = VirtioMem(size=0, requested=requested, capacity=3 * GIB, step=2 * MIB, address=32 * GIB)
    at, found = 4 * GIB, []
    for number, size in enumerate(sizes):
        found.append(Dimm(f"dimm{number}", size, at))
        at += size
    return MemoryState(boot=GIB, device=device, dimms=tuple(found), slots=slots, dimm_room=3 * GIB, ballooned=ballooned)


@pytest.mark.parametrize(
    ("now", "target", "step"),
    [
        (state(), GIB, Stop()),
        (state(), 2 * GIB, Plug(GIB)),
        (state(), GIB + 2 * MIB, Plug(128 * MIB)),
        (state(128 * MIB), GIB + 2 * MIB, Balloon(GIB + 2 * MIB)),
        (state(128 * MIB, ballooned=126 * MIB), GIB + 2 * MIB, Stop()),
        (state(128 * MIB, ballooned=126 * MIB), GIB + 64 * MIB, Balloon(GIB + 64 * MIB)),
        (state(128 * MIB, ballooned=64 * MIB), 2 * GIB, Balloon(GIB + 128 * MIB)),
        (state(128 * MIB), 2 * GIB, Plug(896 * MIB)),
        (state(GIB, 256 * MIB), GIB, Unplug("dimm0")),
        (state(GIB, 256 * MIB), 2 * GIB, Unplug("dimm1")),
        (state(GIB, ballooned=GIB - 128 * MIB), GIB, Balloon(2 * GIB)),
        (state(GIB), GIB + 512 * MIB, Balloon(GIB + 512 * MIB)),
        (state(requested=GIB), 2 * GIB, Request(0)),
    ],
)
def test_the_next_step(now, target, step) -> None:
    assert next_step(now, target, available=PLENTY, means=BY_DIMM) == step


def test_a_dimm_that_the_guest_keeps_is_the_balloons() -> None:
    kept = Means(dimms=True, kept=frozenset({"dimm0"}))
    assert next_step(state(GIB, 256 * MIB), GIB, available=PLENTY, means=kept) == Unplug("dimm1")
    assert next_step(state(GIB), GIB, available=PLENTY, means=kept) == Balloon(GIB)


def test_no_dimm_goes_that_the_guest_needs() -> None:
    assert isinstance(next_step(state(GIB), GIB, available=512 * MIB, means=BY_DIMM), Balloon)
    assert next_step(state(GIB), GIB, available=None, means=BY_DIMM).reason == "AgentNeeded"  # type: ignore[union-attr]


def test_a_guest_with_larger_blocks_gets_larger_dimms() -> None:
    step = next_step(state(), GIB + 2 * MIB, available=None, means=Means(dimms=True, block=2 * GIB))
    assert step == Plug(2 * GIB)


@pytest.mark.parametrize(
    ("now", "reason", "words"),
    [
        (state(128 * MIB, 128 * MIB, slots=2), "NoFreeSlot", "all 2 memory slots"),
        (state(slots=0), "NoFreeSlot", "started without memory slots"),
        (state(GIB, GIB), "AboveMaximum", "4096 MiB that DIMMs can make of it"),
    ],
)
def test_why_there_is_no_more(now, reason, words) -> None:
    step = next_step(now, 6 * GIB, available=PLENTY, means=BY_DIMM)
    assert isinstance(step, Stop)
    assert step.reason == reason
    assert words in step.message


SIZE = st.integers(GIB // (2 * MIB), 4 * GIB // (2 * MIB)).map(lambda n: n * 2 * MIB)


@given(st.lists(SIZE, min_size=1, max_size=6), st.sets(st.sampled_from(["dimm0", "dimm1", "dimm2"])))
def test_a_guest_that_does_as_it_is_told_gets_there(targets, kept) -> None:
    """Whatever it keeps, its memory becomes what is asked, or the reason is a full machine."""
    now, means = state(slots=16), Means(dimms=True, kept=frozenset(kept))
    for target in targets:
        for _ in range(20):
            step = next_step(now, target, available=PLENTY, means=means)
            if isinstance(step, Stop):
                break
            now = _after(now, step)
        assert isinstance(step, Stop)
        assert abs(now.current - target) < GRAIN or step.reason == "AboveMaximum"


def _after(now: MemoryState, step: Balloon | Plug | Unplug | Request) -> MemoryState:
    match step:
        case Balloon():
            return _replaced(now, now.dimms, now.fixed - step.size)
        case Plug():
            taken = {dimm.id for dimm in now.dimms}
            new = next(f"dimm{n}" for n in range(16) if f"dimm{n}" not in taken)
            return _replaced(now, (*now.dimms, Dimm(new, step.size, 0)), now.ballooned)
        case Unplug():
            return _replaced(now, tuple(dimm for dimm in now.dimms if dimm.id != step.dimm), now.ballooned)
    raise AssertionError(step)


def _replaced(now: MemoryState, found: tuple[Dimm, ...], ballooned: int) -> MemoryState:
    return MemoryState(
        boot=now.boot, device=now.device, dimms=found, slots=now.slots, dimm_room=now.dimm_room, ballooned=ballooned
    )


def test_all_of_every_dimm_must_be_online() -> None:
    blocks = [MemoryBlock(index, index != 33, True) for index in range(30, 36)]
    assert dimms_suffice(blocks, state(128 * MIB), block_size=128 * MIB)
    assert not dimms_suffice(blocks, state(256 * MIB), block_size=128 * MIB)
    assert not dimms_suffice(blocks, state(GIB), block_size=128 * MIB)


def test_what_qemu_says_of_its_memory() -> None:
    dimm = {"type": "dimm", "data": {"id": "dimm0", "size": GIB, "addr": 4 * GIB, "hotplugged": True, "slot": 0}}
    found = parse_memory({"size": GIB, "max-size": 8 * GIB, "slots": 16}, [dimm], 2 * GIB - 64 * MIB)
    assert found == MemoryState(
        boot=GIB, dimms=(Dimm("dimm0", GIB, 4 * GIB),), slots=16, dimm_room=7 * GIB, ballooned=64 * MIB
    )
    assert (found.current, found.most) == (2 * GIB - 64 * MIB, 8 * GIB)
    assert parse_memory({"size": GIB}, [], None) == MemoryState(boot=GIB)


def ost(status: int, device: str = "dimm0", source: int = 3) -> Event:
    info = {"device": device, "source": source, "status": status, "slot": "0", "slot-type": "DIMM"}
    return Event("ACPI_DEVICE_OST", {"info": info})


class Monitor:
    """A QEMU that answers one `device_del` after the other with these events."""

    name = "web"

    def __init__(self, *told: tuple[Event, ...], before: int | None = None) -> None:
        """`before`: what the guest has answered to an earlier one."""
        self.told, self.done, self.before = list(told), [], before

    async def execute(self, command, arguments=None):
        if command == "query-acpi-ospm-status":
            return [{"device": "dimm0", "slot": "0", "slot-type": "DIMM", "source": 3, "status": self.before}]
        self.done.append((command, arguments["id"]))
        if command == "device_del" and self.before is not None:
            raise QmpError(command, "GenericError", "Device dimm0 is already in the process of unplug")
        return {}

    def events(self, *_names):
        return Events(self.told.pop(0))


class Events:
    def __init__(self, told) -> None:
        self.told = list(told)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    async def wait_for(self, matches):
        while self.told:
            event = self.told.pop(0)
            if isinstance(event, float):
                await asyncio.sleep(event)
            elif matches(event):
                return event
        await asyncio.Event().wait()
        raise AssertionError("nothing more is told")


GONE = Event("DEVICE_DELETED", {"device": "dimm0", "path": "/machine/peripheral/dimm0"})


REFUSED = (ost(0x84), ost(0x82))


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("told", "gone"),
    [
        ([(ost(0x84), GONE)], True),
        ([(ost(0x82, "dimm1"), ost(1, source=0x100), GONE)], True),
        ([REFUSED, (ost(0x84), GONE)], True),
        ([REFUSED, REFUSED], False),
        ([(Event("MEM_UNPLUG_ERROR", {"device": "dimm0", "msg": "busy"}),), REFUSED], False),
        ([()], False),
        ([REFUSED, ()], False),
        ([(ost(0x84), 300.0, GONE)], True),
        ([(300.0, ost(0x84), GONE)], False),
    ],
)
async def test_a_dimm_goes_when_the_guest_lets_go(told, gone) -> None:
    monitor, asked = Monitor(*told), len(told)
    assert await dimms.unplug(monitor, "dimm0") is gone  # type: ignore[arg-type]
    assert monitor.told == []
    assert monitor.done == [*[("device_del", "dimm0")] * asked, *([("object-del", "dimm0-ram")] if gone else [])]


@pytest.mark.looptime
async def test_a_dimm_that_the_guest_is_taking_out_since_an_earlier_wish_is_waited_for() -> None:
    assert await dimms.unplug(Monitor((300.0, GONE), before=0x84), "dimm0")  # type: ignore[arg-type]
    assert not await dimms.unplug(Monitor((300.0, GONE), before=0), "dimm0")  # type: ignore[arg-type]
