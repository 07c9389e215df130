"""QEMU's identifiers for our names, and back. Pure; the same name always gives the same ids, so that a home that starts
anew recognises the devices of a guest it did not start.
"""

from hashlib import blake2s

DISK_PREFIX = "disk-"
NIC_PREFIX = "nic-"
SCSI_CONTROLLER = "scsi0"
MEMORY_DEVICE = "vmem0"
MEMORY_BACKEND = "vmem0-ram"
DIMM_PREFIX = "dimm"
BALLOON = "balloon0"
AGENT_PORT = "org.qemu.guest_agent.0"

_NODE_LIMIT = 31  # block node names, QEMU block.c


def disk_id(name: str) -> str:
    return DISK_PREFIX + name


def nic_id(name: str) -> str:
    return NIC_PREFIX + name


def file_system_id(tag: str) -> str:
    """Of the device, and of its character device."""
    return "fs-" + tag


def netdev_id(name: str) -> str:
    return "net-" + name


def port_id(index: int) -> str:
    return f"rp{index}"


def port_index(name: str) -> int | None:
    """Which root port a device or bus is, None if it is none."""
    return int(name[2:]) if name.startswith("rp") and name[2:].isdecimal() else None


def cpu_id(socket: int, core: int, thread: int) -> str:
    return f"cpu-{socket}-{core}-{thread}"


def dimm_id(number: int) -> str:
    return f"{DIMM_PREFIX}{number}"


def dimm_backend(dimm: str) -> str:
    return dimm + "-ram"


def node_name(disk: str, layer: int = 0) -> str:
    """The block node of a disk's layer. Kubernetes names reach 63 characters, QEMU's node names end at 31."""
    suffix = f".{layer}" if layer else ""
    plain = DISK_PREFIX + disk + suffix
    if len(plain) <= _NODE_LIMIT - len(".file"):
        return plain
    return f"{DISK_PREFIX}{blake2s(disk.encode(), digest_size=8).hexdigest()}{suffix}"


def file_node_name(disk: str, layer: int = 0) -> str:
    """The node below `node_name`, that reads and writes the file itself."""
    return node_name(disk, layer) + ".file"


def disk_name(device: str) -> str | None:
    """The disk a device id stands for, None if it is no disk."""
    return device.removeprefix(DISK_PREFIX) if device.startswith(DISK_PREFIX) else None


def nic_name(device: str) -> str | None:
    return device.removeprefix(NIC_PREFIX) if device.startswith(NIC_PREFIX) else None
