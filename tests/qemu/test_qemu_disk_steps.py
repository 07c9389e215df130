"""Which step comes next to attach or detach a disk, and reading what QEMU has."""

from hotvirt.qemu import ids
from hotvirt.qemu.disks import AddDevice, CloseImages, DeleteDevice, Done, OpenImages, next_to_attach, next_to_detach
from hotvirt.qemu.machine import Disk, File, Layer
from hotvirt.qemu.state import DiskState, parse_disks, parse_free_ports

DISK = Disk(name="data", bus="scsi", layers=(Layer(File(fd=3), "qcow2"), Layer(File(fd=4))))


def _state(*, device: bool, nodes: int) -> DiskState:
    return DiskState(name="data", device=device, nodes=tuple(ids.node_name("data", i) for i in range(nodes)))


def test_attach_opens_then_adds() -> None:
    assert next_to_attach(DISK, None) == OpenImages((1, 0))
    assert next_to_attach(DISK, _state(device=False, nodes=2)) == AddDevice()
    assert next_to_attach(DISK, _state(device=True, nodes=2)) == Done()


def test_an_attach_that_was_cut_short_starts_over() -> None:
    assert next_to_attach(DISK, _state(device=False, nodes=1)) == CloseImages(("disk-data",))


def test_detach_removes_then_closes() -> None:
    assert next_to_detach(_state(device=True, nodes=2)) == DeleteDevice()
    assert next_to_detach(_state(device=False, nodes=2)) == CloseImages(("disk-data", "disk-data.1"))
    assert next_to_detach(None) == Done()


def _node(name: str, size: int = 0) -> dict[str, object]:
    return {"node-name": name, "image": {"virtual-size": size}, "ro": False, "file": f"/f/{name}"}


def test_devices_and_nodes_are_joined() -> None:
    nodes = [_node("disk-a", 7), _node("disk-a.file"), _node("disk-a.1"), _node("disk-a.1.file"), _node("uefi-vars")]
    (found,) = parse_disks({"disk-a": "scsi-hd", "scsi0": "virtio-scsi-pci", "nic-a": "e1000"}, nodes)
    assert found == DiskState(
        name="a", device=True, driver="scsi-hd", nodes=("disk-a", "disk-a.1"), size=7, filename="/f/disk-a"
    )


def test_what_a_half_done_attach_left_is_seen() -> None:
    (whole,) = parse_disks({}, [_node("disk-a"), _node("disk-a.file")])
    assert (whole.name, whole.device, whole.nodes) == ("a", False, ("disk-a",))
    (base,) = parse_disks({}, [_node("disk-a.1"), _node("disk-a.1.file")])
    assert (base.device, base.nodes) == (False, ("disk-a.1",))


def test_an_empty_drive_is_a_disk() -> None:
    (found,) = parse_disks({"disk-cd": "ide-cd"}, [])
    assert (found.name, found.device, found.nodes) == ("cd", True, ())


def test_free_ports_are_in_order() -> None:
    def port(name: str, behind: list[object] | None) -> dict[str, object]:
        bridge = {"bus": {}} if behind is None else {"bus": {}, "devices": behind}
        return {"qdev_id": name, "pci_bridge": bridge}

    buses = [{"bus": 0, "devices": [port("rp10", None), port("rp2", []), port("rp1", [{}]), {"qdev_id": "scsi0"}]}]
    assert parse_free_ports(buses) == ("rp2", "rp10")
