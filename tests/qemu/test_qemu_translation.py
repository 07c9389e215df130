"""Is there a free region in TCG's buffer for another vCPU?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotvirt.qemu.machine import MIB, Topology
from hotvirt.qemu.translation import Buffer, buffer_mib, has_room, parse, regions

TEXT = """Translation buffer state:
gen code size       12166707/33472512
TB count            21635

Statistics:
TB flush count      2
TB invalidate count 6599
"""


def test_what_qemu_says() -> None:
    assert parse(TEXT) == Buffer(12166707, 33472512, 2)
    assert parse("unknown command: 'info jit'") is None


@pytest.mark.parametrize(
    ("mib", "vcpus", "number"), [(32, 4, 16), (32, 2, 16), (32, 16, 16), (80, 16, 40), (64, 2, 16), (32, 32, 32)]
)
def test_regions_as_qemu_cuts_them(mib: int, vcpus: int, number: int) -> None:
    assert regions(mib * MIB - 80_000, vcpus) == number


def test_room_is_certain_or_not() -> None:
    def room(used_mib: float, plugged: int = 2) -> bool:
        return has_room(Buffer(int(used_mib * MIB), 33472512, 1), plugged=plugged, max_vcpus=4)

    assert room(0)
    assert room(12)
    assert not room(26)
    assert not room(31.9)
    assert room(18, plugged=2)
    assert not room(24, plugged=3)


@given(st.integers(1, 64), st.integers(1, 8192), st.data())
def test_a_flushed_buffer_always_has_room_for_every_vcpu(vcpus: int, memory: int, data: st.DataObject) -> None:
    capacity = buffer_mib(Topology(max_sockets=vcpus), memory * MIB) * MIB - 80_000
    plugged = data.draw(st.integers(1, max(1, vcpus - 1)))
    assert has_room(Buffer(0, capacity, 1), plugged=plugged, max_vcpus=vcpus) or vcpus == 1
    number, size = regions(capacity, vcpus), capacity // regions(capacity, vcpus)
    # All regions taken, some of them just begun: never taken for room.
    begun = data.draw(st.integers(0, plugged))
    assert not has_room(Buffer((number - begun) * (size - 64 * 1024), capacity, 1), plugged=plugged, max_vcpus=vcpus)
