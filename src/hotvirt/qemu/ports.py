"""Where devices sit on a machine's PCI buses. Pure.

q35: only root ports take hotplug (`pcie.0` itself never does), one device a port. So what may be unplugged, disks on
the virtio bus and network cards, sits behind a port from the start, and spare ports wait for what is added later.
i440fx has plain PCI, whose root bus takes hotplug by ACPI: there the same devices have its upper slots. All else has
fixed slots on the root bus: a migration needs the same addresses on both sides.

Firmware numbers buses in the order of their ports, so bus N of the guest is what is behind port N - 1: that is how a
device that wants an address of its own gets it.
"""

import re
from typing import Any

from hotvirt.qemu import ids
from hotvirt.qemu.machine import GIB, Disk, Machine, Nic

Options = dict[str, Any]

VGA, SCSI, SERIAL, RNG, BALLOON, MEMORY, USB, PANIC, SOUND, WATCHDOG, INPUTS, SATA = range(1, 13)
FIRST_PORT_SLOT = 0x10
PORTS_PER_SLOT = 8
MAX_PORTS = PORTS_PER_SLOT * (0x1F - FIRST_PORT_SLOT)
PLAIN_SLOTS = range(FIRST_PORT_SLOT, 0x20)
"""Of i440fx's root bus, for what may come and go."""
_HIGHEST_WANTED = 0x20
_FIRST_WANTED_SLOT = 0xE
_ADDRESS = re.compile(r"0000:([0-9a-f]{2}):([0-9a-f]{2})\.0")


def is_pcie(machine: Machine) -> bool:
    return "q35" in machine.machine_type


def root_bus(machine: Machine) -> str:
    return "pcie.0" if is_pcie(machine) else "pci.0"


def slot(machine: Machine, number: int) -> int:
    """Of one of the fixed devices. i440fx has its own at 1."""
    return number if is_pcie(machine) else number + 1


def port_users(machine: Machine) -> dict[str, str]:
    """Ids of devices that need a port, in order -> the address that each wants ("": any)."""
    disks = (disk for disk in machine.disks if disk.bus == "virtio")
    return (
        {ids.nic_id(nic.name): nic.pci_address for nic in machine.nics}
        | {ids.disk_id(disk.name): disk.pci_address for disk in disks}
        | {ids.file_system_id(each.tag): "" for each in machine.file_systems}
    )


def places(machine: Machine) -> dict[str, Options]:
    """Device id -> its bus, and its address there where that is not left to QEMU. Those that want an address come
    first, the others take the ports that are left."""
    users = port_users(machine)
    found = {device: _wanted(machine, address) for device, address in users.items() if address}
    taken = list(found.values())
    free = (place for place in _any(machine) if place not in taken)
    return {device: found.get(device) or next(free) for device in users}


def _any(machine: Machine) -> list[Options]:
    if is_pcie(machine):
        return [{"bus": ids.port_id(index)} for index in range(MAX_PORTS)]
    return [{"bus": root_bus(machine), "addr": f"{number:#x}"} for number in PLAIN_SLOTS]


def addresses(machine: Machine) -> dict[str, str]:
    """Device id -> the PCI address that the guest finds it at."""
    found = {}
    for device, place in places(machine).items():
        index = ids.port_index(place["bus"])
        found[device] = f"0000:{0 if index is None else index + 1:02x}:{int(place.get('addr', '0'), 16):02x}.0"
    return found


def _wanted(machine: Machine, address: str) -> Options:
    bus, number = _numbers(address)
    if bus == 0:
        return {"bus": root_bus(machine), "addr": f"{number:#x}"}
    return {"bus": ids.port_id(bus - 1)}


def _numbers(address: str) -> tuple[int, int]:
    """Bus and slot."""
    match = _ADDRESS.fullmatch(address.lower())
    assert match is not None, "fault comes first"
    return int(match[1], 16), int(match[2], 16)


def fault(machine: Machine) -> str | None:
    """Of addresses that there are not, or twice, and of more devices than there is room for."""
    taken: dict[str, str] = {}
    devices: list[Nic | Disk] = [*machine.nics, *machine.disks]
    for device in devices:
        if not (address := device.pci_address.lower()):
            continue
        if not _has(machine, address):
            return f"{device.name!r} wants the PCI address {address}, which its machine has not: use {offered(machine)}"
        if address in taken:
            return f"{device.name!r} and {taken[address]!r} want one PCI address, {address}: give each its own"
        taken[address] = device.name
    if len(port_users(machine)) > (MAX_PORTS if is_pcie(machine) else len(PLAIN_SLOTS)):
        return "there are more cards, virtio disks and file systems than the machine has places: put disks on bus scsi"
    return None


def offered(machine: Machine) -> str:
    """Addresses that a device may want."""
    if is_pcie(machine):
        return f"0000:01:00.0 to 0000:{_HIGHEST_WANTED:02x}:00.0, 0000:00:0e.0 and 0000:00:0f.0"
    return "0000:00:0e.0 to 0000:00:1f.0"


def _has(machine: Machine, address: str) -> bool:
    if _ADDRESS.fullmatch(address) is None:
        return False
    bus, number = _numbers(address)
    if bus == 0:
        return _FIRST_WANTED_SLOT <= number < (FIRST_PORT_SLOT if is_pcie(machine) else PLAIN_SLOTS.stop)
    return is_pcie(machine) and bus <= _HIGHEST_WANTED and number == 0


def root_ports(machine: Machine) -> int:
    """How many root ports to have. KubeVirt's rule: small guests 8 with at least 3 free, others 16 with 6 free.

    Emulated guests have 3 free: each port adds some 45 ms to booting them.
    """
    if not is_pcie(machine):
        return 0
    found = [ids.port_index(place["bus"]) for place in places(machine).values()]
    used = [index for index in found if index is not None]
    return min(max(_wished(machine, len(used)), max(used, default=-1) + 1), MAX_PORTS)


def _wished(machine: Machine, used: int) -> int:
    if machine.spare_ports is not None:
        return used + machine.spare_ports
    if machine.accelerator == "tcg":
        return used + 3
    total, spare = (8, 3) if max(machine.boot_memory, machine.max_memory) <= 2 * GIB else (16, 6)
    return max(total, used + spare)


def port(index: int) -> Options:
    """The device that is a root port. Eight share a slot, as pcie.0 has just 32."""
    slot_, function = FIRST_PORT_SLOT + index // PORTS_PER_SLOT, index % PORTS_PER_SLOT
    shared = {"multifunction": True} if function == 0 else {}
    place = {"bus": "pcie.0", "chassis": index + 1, "addr": f"{slot_:#x}.{function}"}
    return {"driver": "pcie-root-port", "id": ids.port_id(index), **place, **shared}
