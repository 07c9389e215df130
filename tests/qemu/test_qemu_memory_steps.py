"""Which step comes next on the way to a size of memory, and that it never starves the guest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotvirt.qemu.guestagent import MemoryBlock
from hotvirt.qemu.machine import GIB, MIB
from hotvirt.qemu.memory import blocks_suffice, blocks_to_online
from hotvirt.qemu.memorysteps import (
    GRAIN,
    RESERVE,
    STEP_LEAST,
    Balloon,
    Request,
    Stop,
    goes_on,
    is_steep,
    next_step,
    shrinks,
)
from hotvirt.qemu.state import MemoryState, VirtioMem, parse_virtio_mem


def _state(size: int = 0, requested: int | None = None, *, ballooned: int = 0, boot: int = GIB) -> MemoryState:
    device = VirtioMem(
        size=size, requested=size if requested is None else requested, capacity=3 * GIB, step=2 * MIB, address=4 * GIB
    )
    return MemoryState(boot=boot, device=device, ballooned=ballooned)


PLENTY = 100 * GIB


def test_growing_needs_to_know_nothing() -> None:
    assert next_step(_state(), 2 * GIB, available=None) == Request(GIB)
    assert next_step(_state(512 * MIB, GIB), 2 * GIB, available=None) == Request(GIB)
    assert next_step(_state(GIB), 2 * GIB, available=None) == Stop()
    assert not shrinks(_state(), 2 * GIB)


@pytest.mark.parametrize(
    ("available", "step"),
    [
        (None, 3 * GIB), (PLENTY, 3 * GIB), (RESERVE + 64 * MIB, 2 * GIB), (RESERVE, STEP_LEAST), (0, STEP_LEAST),
    ],
)  # fmt: skip
def test_steep_growth_goes_in_steps_that_the_guest_can_describe(available, step) -> None:
    assert is_steep(_state(), 4 * GIB)
    assert not is_steep(_state(GIB), 4 * GIB)
    assert next_step(_state(), 4 * GIB, available=available) == Request(step)


def test_shrinking_goes_to_the_target_when_the_guest_can_spare_it() -> None:
    assert shrinks(_state(2 * GIB), 2 * GIB)
    assert next_step(_state(2 * GIB), 2 * GIB, available=PLENTY) == Request(GIB)


def test_shrinking_leaves_the_guest_a_reserve() -> None:
    step = next_step(_state(2 * GIB), GIB, available=512 * MIB)
    assert step == Request(2 * GIB - 512 * MIB + RESERVE)


def test_a_guest_with_nothing_to_spare_is_left_alone_and_it_is_said() -> None:
    step = next_step(_state(2 * GIB), GIB, available=60 * MIB)
    assert isinstance(step, Stop)
    assert step.reason == "GuestNeedsMemory"
    assert "only 60 MiB available" in step.message


def test_shrinking_blind_is_refused_with_the_mend() -> None:
    step = next_step(_state(2 * GIB), GIB, available=None)
    assert isinstance(step, Stop)
    assert step.reason == "AgentNeeded"
    assert "qemu-guest-agent" in step.message


def test_below_boot_size_the_balloon_takes_over_when_nothing_is_plugged() -> None:
    assert next_step(_state(GIB), 512 * MIB, available=PLENTY) == Request(0)
    assert next_step(_state(0), 512 * MIB, available=PLENTY) == Balloon(512 * MIB)
    assert next_step(_state(0, ballooned=512 * MIB), 512 * MIB, available=PLENTY) == Stop()


def test_the_balloon_is_emptied_before_memory_is_plugged() -> None:
    assert next_step(_state(0, ballooned=512 * MIB), 2 * GIB, available=None) == Balloon(GIB)
    assert next_step(_state(0, ballooned=512 * MIB), 768 * MIB, available=None) == Balloon(768 * MIB)


def test_a_last_odd_piece_that_linux_cannot_hand_out_is_no_failure() -> None:
    odd = GIB + 2 * MIB
    assert next_step(_state(GIB, odd), GIB + odd, available=None) == Stop()


def test_limits_are_said() -> None:
    above = next_step(_state(), 5 * GIB, available=None)
    assert isinstance(above, Stop)
    assert above.message == "5120 MiB is more than the 4096 MiB this guest was started for"
    odd = next_step(_state(), GIB + MIB, available=None)
    assert isinstance(odd, Stop)
    assert odd.reason == "NotAligned"
    fixed = next_step(MemoryState(boot=GIB), 2 * GIB, available=None)
    assert isinstance(fixed, Stop)
    assert fixed.reason == "AboveMaximum"


STEPS = st.integers(0, 3 * 512).map(lambda n: n * 2 * MIB)


@given(STEPS, STEPS, st.integers(0, 512).map(lambda n: n * 2 * MIB), st.integers(0, 2048), st.data())
def test_whatever_happened_before_the_target_is_reached_or_the_guest_keeps_its_reserve(
    size: int, requested: int, ballooned: int, used_mib: int, data: st.DataObject
) -> None:
    target = data.draw(st.integers(128, 2048).map(lambda n: n * 2 * MIB))
    used = used_mib * MIB
    lowest = GIB + size - ballooned
    for _ in range(50):
        state = _state(size, requested, ballooned=ballooned)
        available = max(0, state.current - used)
        step = next_step(state, target, available=available)
        if isinstance(step, Stop):
            break
        if isinstance(step, Request):
            requested = size = step.size
        else:
            ballooned = GIB - step.size
        now = GIB + size - ballooned
        if now < lowest:
            assert now - used >= min(RESERVE, available)
        lowest = now
    assert isinstance(step, Stop)
    if step.reason == "":
        assert abs(state.current - target) < 2 * GRAIN
    else:
        assert step.reason == "GuestNeedsMemory"
        assert available < RESERVE + GRAIN


def test_offline_blocks_of_the_device_are_found() -> None:
    blocks = [MemoryBlock(0, True, False), MemoryBlock(32, True, True), MemoryBlock(33, False, True)]
    assert blocks_to_online(blocks, address=32) == [33]
    assert blocks_to_online([MemoryBlock(3, False, True)], address=32) == []
    block = 128 * MIB
    assert blocks_suffice(blocks, address=4 * GIB, size=block, block_size=block)
    assert not blocks_suffice(blocks, address=4 * GIB, size=block + MIB, block_size=block)


def test_only_our_device_is_read() -> None:
    ours = {"id": "vmem0", "size": 1, "requested-size": 2, "max-size": 3, "block-size": 4, "memaddr": 5, "memdev": "/o"}
    other = {"type": "dimm", "data": {"id": "d0"}}
    found = parse_virtio_mem([other, {"type": "virtio-mem", "data": ours}])
    assert found == VirtioMem(size=1, requested=2, capacity=3, step=4, address=5)
    assert parse_virtio_mem([other]) is None


@pytest.mark.parametrize(
    ("asked", "step", "available", "lets"),
    [
        (Request(0), Request(128 * MIB), RESERVE, True), (Request(0), Request(128 * MIB), RESERVE - 1, False),
        (Request(0), Request(128 * MIB), None, False), (Request(128 * MIB), Request(0), PLENTY, False),
        (Request(0), Request(2 * GIB), PLENTY, False), (None, Request(0), PLENTY, False),
        (Request(0), Stop(), PLENTY, False),
    ],
)  # fmt: skip
def test_a_shrink_goes_on_while_the_guest_has_its_reserve(asked, step, available, lets) -> None:
    assert goes_on(asked, step, _state(GIB), available) is lets
