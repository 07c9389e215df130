"""Where devices sit on q35's PCI Express tree. Pure.

Only root ports take hotplug (`pcie.0` itself never does), one device a port. So what may be unplugged, disks on the
virtio bus and network cards, sits behind a port from the start, and spare ports wait for what is added later. Slots on
pcie.0 are fixed numbers: a migration needs the same addresses on both sides.
"""

from hotvirt.qemu import ids
from hotvirt.qemu.machine import GIB, Machine

VGA, SCSI, SERIAL, RNG, BALLOON, MEMORY, USB, PANIC, SOUND, WATCHDOG, INPUTS = range(1, 12)
FIRST_PORT_SLOT = 0x10
PORTS_PER_SLOT = 8
MAX_PORTS = PORTS_PER_SLOT * (0x1F - FIRST_PORT_SLOT)


def port_users(machine: Machine) -> list[str]:
    """Device ids that need a root port, in port order."""
    return [ids.nic_id(nic.name) for nic in machine.nics] + [
        ids.disk_id(disk.name) for disk in machine.disks if disk.bus == "virtio"
    ]


def root_ports(machine: Machine) -> int:
    """How many root ports to have. KubeVirt's rule: small guests 8 with at least 3 free, others 16 with 6 free.

    Emulated guests have 3 free: each port adds some 45 ms to booting them.
    """
    used = len(port_users(machine))
    if machine.spare_ports is not None:
        return used + machine.spare_ports
    if machine.accelerator == "tcg":
        return used + 3
    total, spare = (8, 3) if max(machine.boot_memory, machine.max_memory) <= 2 * GIB else (16, 6)
    return max(total, used + spare)


def port_address(index: int) -> str:
    """Slot and function of a root port. Eight share a slot, as pcie.0 has just 32."""
    return f"{FIRST_PORT_SLOT + index // PORTS_PER_SLOT:#x}.{index % PORTS_PER_SLOT}"
