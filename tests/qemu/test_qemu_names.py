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
    addresses = [ports.port(index)["addr"] for index in range(ports.MAX_PORTS)]
    assert len(set(addresses)) == ports.MAX_PORTS
    assert (addresses[0], addresses[9]) == ("0x10.0", "0x11.1")


def _addressed(*addresses: str, kind: str = "q35") -> Machine:
    machine = _machine(len(addresses))
    disks = tuple(replace(d, pci_address=a) for d, a in zip(machine.disks, addresses, strict=True))
    return replace(machine, disks=disks, machine_type=kind)


def test_a_device_is_where_it_wants_to_be_and_others_take_what_is_left() -> None:
    machine = _addressed("", "0000:01:00.0", "", "0000:00:0F.0", "0000:14:00.0")
    assert ports.fault(machine) is None
    assert ports.places(machine) == {
        "disk-d0": {"bus": "rp1"}, "disk-d1": {"bus": "rp0"}, "disk-d2": {"bus": "rp2"},
        "disk-d3": {"bus": "pcie.0", "addr": "0xf"}, "disk-d4": {"bus": "rp19"},
    }  # fmt: skip
    assert ports.root_ports(machine) == 20
    assert list(ports.addresses(machine).values()) == [
        "0000:02:00.0", "0000:01:00.0", "0000:03:00.0", "0000:00:0f.0", "0000:14:00.0",
    ]  # fmt: skip


def test_plain_pci_has_slots_in_place_of_ports() -> None:
    machine = _addressed("", "0000:00:10.0", kind="pc-i440fx-7.2")
    assert ports.places(machine) == {
        "disk-d0": {"bus": "pci.0", "addr": "0x11"}, "disk-d1": {"bus": "pci.0", "addr": "0x10"}
    }  # fmt: skip
    assert list(ports.addresses(machine).values()) == ["0000:00:11.0", "0000:00:10.0"]
    assert ports.root_ports(machine) == 0


def test_addresses_that_there_are_not_are_told() -> None:
    for addresses in (("0000:81:01.0",), ("0001:01:00.0",), ("0000:00:02.0",), ("0000:01:00.1",)):
        assert "which its machine has not: use 0000:01:00.0 to 0000:20:00.0" in str(ports.fault(_addressed(*addresses)))
    assert "want one PCI address" in str(ports.fault(_addressed("0000:01:00.0", "0000:01:00.0")))
    assert "use 0000:00:0e.0 to 0000:00:1f.0" in str(ports.fault(_addressed("0000:01:00.0", kind="pc")))
    assert "more cards, virtio disks and file systems" in str(ports.fault(_addressed(*[""] * 17, kind="pc")))
