"""The command line against golden files, one a kind of machine. HOTVIRT_UPDATE_GOLDEN=1 writes them: read the diff."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from hotvirt.qemu.argv import argv
from hotvirt.qemu.binary import QemuBinary
from hotvirt.qemu.devices import disk_nodes
from hotvirt.qemu.machine import (
    GIB,
    MIB,
    Disk,
    File,
    FileSystem,
    Forward,
    Kernel,
    Layer,
    Machine,
    Nic,
    Smbios,
    Tap,
    Topology,
    Uefi,
    UserNet,
    descriptors,
    fault,
)

GOLDEN = Path(__file__).parent / "golden"
QEMU_7 = QemuBinary("/usr/bin/qemu-system-x86_64", (7, 2, 22))
QEMU_10 = QemuBinary("/usr/bin/qemu-system-x86_64", (10, 0, 2))
UUID = "8b0e8c7a-2b4a-4a55-9d33-0c3c5d3f0001"

PLAIN = Machine(name="plain", uuid=UUID)
TINY = Machine(
    name="default/web",
    uuid=UUID,
    topology=Topology(sockets=1, max_sockets=4),
    boot_memory=GIB,
    max_memory=4 * GIB,
    kernel=Kernel(File(fd=10), File(fd=11), "console=ttyS0 quiet"),
    qmp_fd=12,
    agent_fd=13,
    serial_fd=14,
    nics=(Nic(name="default", mac="02:00:00:00:00:01", backend=UserNet((Forward(2222, 22),), "10.0.2.0/24")),),
    disks=(Disk(name="scratch", layers=(Layer(File(fd=15)),)),),
)
FULL = Machine(
    name="odd, name",
    uuid=UUID,
    accelerator="kvm",
    cpu_model="host",
    cpu_features=("-svm",),
    topology=Topology(sockets=2, cores=2, threads=2, max_sockets=4),
    boot_memory=2 * GIB,
    max_memory=2 * GIB + 100 * MIB,
    shared_memory=True,
    firmware=Uefi(File(path="/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"), File(fd=20), secure_boot=True),
    qmp_fd=12,
    debug_qmp_fd=16,
    agent_fd=13,
    graphics=True,
    start_paused=True,
    ends_on_reboot=True,
    panic_devices=("isa", "pvpanic"),
    smbios=Smbios(manufacturer="Some, One", product="None", oem_strings=("a,b",)),
    nics=(
        Nic(name="red", mac="02:00:00:00:00:01", backend=Tap(30, vhost_fd=31), boot_index=2),
        Nic(name="blue", mac="02:00:00:00:00:02", backend=Tap(32), model="e1000e"),
    ),
    disks=(
        Disk(name="root", layers=(Layer(File(fd=21), "qcow2"), Layer(File(fd=22), "qcow2")), boot_index=1, cache="none",
             native_io=True),
        Disk(name="data", bus="scsi", layers=(Layer(File(fd=23, block_device=True)),), serial='a"b,c', shareable=True),
        Disk(name="lib", bus="scsi", layers=(Layer(File(path="/images/lib.img")),), read_only=True),
        Disk(name="seed", bus="sata", kind="cdrom", layers=(Layer(File(fd=24)),)),
        Disk(name="tray", bus="sata", kind="cdrom"),
        Disk(name="old", bus="sata", layers=(Layer(File(fd=25)),), cache="writethrough", discard=False),
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "machine", "qemu"),
    [
        ("plain", PLAIN, QEMU_7),
        ("tiny-7.2", TINY, QEMU_7),
        ("tiny-10.0", TINY, QEMU_10),
        ("full", FULL, QEMU_7),
    ],
)
def test_golden(name: str, machine: Machine, qemu: QemuBinary) -> None:
    lines = _lines(argv(machine, qemu=qemu))
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("HOTVIRT_UPDATE_GOLDEN"):
        file.write_text(lines)
    assert lines == file.read_text()


@pytest.mark.parametrize(
    ("machine", "cpu"),
    [
        (PLAIN, "max,-monitor"),
        (replace(PLAIN, cpu_features=("+pcid",)), "max,+pcid,-monitor"),
        (replace(PLAIN, cpu_features=("+monitor",)), "max,+monitor"),
        (FULL, "host,-svm"),
    ],
)
def test_an_emulated_cpu_does_not_spin_in_place_of_waiting_unless_asked_to(machine: Machine, cpu: str) -> None:
    command = argv(machine, qemu=QEMU_7)
    assert command[command.index("-cpu") + 1] == cpu


def _lines(command: list[str]) -> str:
    """An option and its value on a line, as a person would write it in a script."""
    text = ""
    for word in command:
        text += (" " if text and not word.startswith("-") else "\n") + word
    return text.strip() + "\n"


def test_a_card_with_several_queues() -> None:
    queues = (Tap(31, vhost_fd=33),)
    machine = replace(PLAIN, nics=(Nic(name="n", mac="02:00:00:00:00:01", backend=Tap(30, 32, others=queues)),))
    command = argv(machine, qemu=QEMU_7)
    netdev = json.loads(command[command.index("-netdev") + 1])
    assert netdev == {
        "id": "net-n", "type": "tap", "fds": "30:31", "vhost": True, "vhostfds": "32:33"
    }  # fmt: skip
    card = next(json.loads(each) for each in command if '"virtio-net-pci"' in each)
    assert (card["mq"], card["vectors"]) == (True, 6)
    assert descriptors(machine) == (30, 31, 32, 33)


def test_descriptors_are_those_of_the_command_line() -> None:
    assert descriptors(TINY) == (10, 11, 12, 13, 14, 15)
    assert descriptors(FULL) == (12, 13, 16, 20, 21, 22, 23, 24, 25, 30, 31, 32)
    assert descriptors(PLAIN) == ()


def test_emulated_guests_start_with_more_vcpus_where_a_plug_would_hurt() -> None:
    def started(machine: Machine, qemu: QemuBinary = QEMU_7) -> tuple[str, str]:
        command = argv(machine, qemu=qemu)
        append = command[command.index("-append") + 1] if machine.kernel else ""
        return command[command.index("-smp") + 1].split(",")[0], append

    assert started(TINY) == started(TINY, QEMU_10) == ("cpus=4", "console=ttyS0 quiet maxcpus=1 no_timer_check")
    assert started(replace(TINY, accelerator="kvm")) == ("cpus=1", "console=ttyS0 quiet")
    assert started(replace(TINY, topology=Topology())) == ("cpus=1", "console=ttyS0 quiet no_timer_check")
    chosen = replace(TINY, kernel=Kernel(File(fd=10), None, "no_timer_check maxcpus=3"))
    assert started(chosen) == ("cpus=4", "no_timer_check maxcpus=3")
    assert started(replace(TINY, kernel=None)) == ("cpus=2", "")
    assert started(replace(TINY, kernel=None), QEMU_10) == ("cpus=1", "")
    secure = replace(TINY, kernel=None, firmware=FULL.firmware)
    assert started(secure) == started(secure, QEMU_10) == ("cpus=4", "")
    assert started(replace(secure, accelerator="kvm")) == ("cpus=1", "")


def test_emulated_vcpus_take_turns_where_the_firmware_has_them_wait_for_each_other() -> None:
    def accelerator(machine: Machine) -> str:
        command = argv(machine, qemu=QEMU_7)
        return command[command.index("-accel") + 1]

    secure = replace(TINY, kernel=None, firmware=FULL.firmware)
    assert accelerator(secure).endswith(",thread=single")
    assert accelerator(replace(secure, accelerator="kvm")) == "kvm"
    for other in (TINY, replace(secure, firmware=replace(secure.firmware, secure_boot=False))):
        assert "thread" not in accelerator(other)


def test_a_qcow2_without_a_backing_image_may_not_name_one_itself() -> None:
    (node,) = disk_nodes(Disk(name="root", layers=(Layer(File(fd=5), "qcow2"),)))
    assert node["backing"] is None


def test_no_text_of_a_person_becomes_an_option() -> None:
    nasty = 'x,if=none,file=/etc/shadow" -monitor stdio'
    disk = Disk(name="d", layers=(Layer(File(path=nasty)),), serial=nasty)
    machine = replace(
        PLAIN, name=nasty, disks=(disk,), smbios=Smbios(serial=nasty), kernel=Kernel(File(fd=9), None, nasty)
    )
    command = argv(machine, qemu=QEMU_7)
    assert [word for word in command if nasty.replace(",", ",,") in word] == [
        f"guest={nasty.replace(',', ',,')},debug-threads=on",
        f"type=1,uuid={UUID},serial={nasty.replace(',', ',,')}",
    ]
    devices = [json.loads(value) for option, value in pairwise(command) if option == "-device"]
    assert [device["serial"] for device in devices if "serial" in device] == [nasty]
    assert command[command.index("-append") + 1] == f"{nasty} no_timer_check"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"topology": Topology(sockets=3, max_sockets=2)}, "max_sockets (2) is below sockets (3)"),
        ({"topology": Topology(cores=0)}, "must each be at least 1"),
        ({"boot_memory": GIB + 1}, "boot_memory must be a multiple of 2 MiB"),
        ({"max_memory": 256 * MIB}, "max_memory (268435456) is below boot_memory"),
        ({"disks": (Disk(name="a"),)}, "disk 'a' has no image"),
        ({"disks": (Disk(name="a", kind="cdrom"),)}, "cannot be on the virtio bus: use sata or scsi"),
        ({"disks": (Disk(name="a/b", kind="cdrom", bus="sata"),)}, "disk name 'a/b'"),
        ({"disks": (Disk(name="a", kind="cdrom", bus="sata"),) * 2}, "two disks are named 'a'"),
        ({"disks": (Disk(name="a", layers=(Layer(File(fd=3)),), native_io=True),)}, "native I/O needs cache none"),
        ({"disks": (Disk(name="a", layers=(Layer(File(fd=3)),), bus="sata", read_only=True),)}, "use virtio or scsi"),
        (
            {"disks": tuple(Disk(name=f"c{i}", kind="cdrom", bus="sata") for i in range(7))},
            "at most 6 disks fit on the sata bus",
        ),
        ({"nics": (Nic(name="", mac="02:00:00:00:00:01", backend=UserNet()),)}, "nic name ''"),
    ],
)
def test_faults_name_the_thing(changes: dict[str, object], sentence: str) -> None:
    machine = replace(PLAIN, **changes)
    assert sentence in (fault(machine) or "")
    with pytest.raises(ValueError):
        argv(machine, qemu=QEMU_7)


def test_a_file_system_is_behind_a_port_and_needs_memory_that_its_server_sees() -> None:
    machine = replace(TINY, file_systems=(FileSystem(tag="conf", fd=20),), shared_memory=True)
    line = argv(machine, qemu=QEMU_7)
    assert "socket,id=fs-conf,fd=20" in line
    device = next(json.loads(part) for part in line if part.startswith('{"driver":"vhost-user-fs-pci"'))
    assert device == {
        "driver": "vhost-user-fs-pci", "id": "fs-conf", "chardev": "fs-conf", "tag": "conf", "bus": "rp2"
    }  # fmt: skip
    assert '"share":true' in next(part for part in line if '"id":"ram0"' in part)
    assert 20 in descriptors(machine)
    for wrong, says in (
        (replace(machine, shared_memory=False), "need shared_memory"),
        (replace(machine, file_systems=(FileSystem(tag="a" * 37, fd=20),)), "longer than 36 characters"),
        (replace(machine, file_systems=(FileSystem(tag="a,b", fd=20),)), "may have only letters"),
    ):
        assert says in (fault(wrong) or "")
