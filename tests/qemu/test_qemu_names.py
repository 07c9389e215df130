"""Ids and places: pure names."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hotvirt.qemu import ids, ports
from hotvirt.qemu.machine import GIB, Disk, File, Layer, Machine

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(NAMES, st.integers(0, 30))
def test_node_names_fit_and_differ(name: str, layer: int) -> None:
    node, file = ids.node_name(name, layer), ids.file_node_name(name, layer)
    assert len(file) <= 31
    assert node[0].isalpha()
    assert ids.node_name(name + "x", layer) != node
    assert ids.node_name(name, layer + 1) != node


@given(NAMES)
def test_device_ids_read_back(name: str) -> None:
    assert ids.disk_name(ids.disk_id(name)) == name
    assert ids.nic_name(ids.nic_id(name)) == name
    assert ids.disk_name(ids.nic_id(name)) is None


def _machine(disks: int, memory: int = GIB) -> Machine:
    layers = (Layer(File(fd=9)),)
    return Machine(
        name="m",
        uuid="u",
        accelerator="kvm",
        boot_memory=memory,
        disks=tuple(Disk(name=f"d{i}", layers=layers) for i in range(disks)),
    )


def test_some_root_ports_always_stay_free() -> None:
    assert ports.root_ports(_machine(0)) == 8
    assert ports.root_ports(_machine(5)) == 8
    assert ports.root_ports(_machine(7)) == 10
    assert ports.root_ports(_machine(7, 4 * GIB)) == 16
    assert ports.root_ports(_machine(12, 4 * GIB)) == 18
    assert ports.root_ports(replace(_machine(12, 4 * GIB), accelerator="tcg")) == 15


def test_port_addresses_are_all_different() -> None:
    addresses = {ports.port_address(index) for index in range(ports.MAX_PORTS)}
    assert len(addresses) == ports.MAX_PORTS
    assert ports.port_address(0) == "0x10.0"
    assert ports.port_address(9) == "0x11.1"
