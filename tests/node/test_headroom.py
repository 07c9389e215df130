"""Room beyond what is declared, so that the declared maximum can be raised while the guest runs."""

import pytest

from hotvirt.node import headroom
from hotvirt.qemu.machine import GIB, Machine, Topology


@pytest.mark.parametrize(("most", "more"), [(0, 0), (2 * GIB, 6 * GIB), (16 * GIB, 48 * GIB), (512 * GIB, 64 * GIB)])
def test_memory(most: int, more: int) -> None:
    assert headroom.memory(most) == more


@pytest.mark.parametrize(
    ("accelerator", "topology", "more"),
    [
        ("kvm", Topology(max_sockets=4), 4),
        ("kvm", Topology(), 1),
        ("kvm", Topology(cores=100, max_sockets=2), 0),
        ("kvm", Topology(cores=10, max_sockets=20), 8),
        ("tcg", Topology(max_sockets=4), 2),
        ("tcg", Topology(max_sockets=4, cores=2), 1),
        ("tcg", Topology(max_sockets=4, cores=4), 0),
        ("tcg", Topology(sockets=2, max_sockets=2), 0),
    ],
)
def test_sockets(accelerator, topology, more) -> None:
    assert headroom.sockets(topology, accelerator) == more


def test_qemu_gets_the_room_and_as_much_for_dimms() -> None:
    machine = Machine(name="a", uuid="b", boot_memory=GIB, max_memory=4 * GIB, headroom=12 * GIB, dimm_slots=16)
    assert machine.growable_memory == machine.dimm_memory == 15 * GIB
    assert Machine(name="a", uuid="b", boot_memory=GIB, headroom=12 * GIB).growable_memory == 0
