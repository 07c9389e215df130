"""How far beyond the declared maximum QEMU is started, so that the maximum can be raised while the guest runs. Pure.

What QEMU was started with is asked of it later (`MemoryState.most`, the places for vCPUs), and published as annotations
of the instance, so another version's guests are judged by what they have.

Measured on an emulated guest of 256 MiB, resident memory of QEMU: with room for 2 GiB more 287 MiB, 16 GiB 287, 64 GiB
296, 256 GiB 314; page tables 0.8 to 0.9 MiB each time; the guest has the same MemTotal. Slots for DIMMs cost nothing.
"""

from hotvirt.qemu.machine import GIB, AcceleratorKind, Topology

MOST_MEMORY = 64 * GIB
"""Costs up to 6 MiB."""
MOST_VCPUS = 288
"""What a q35 machine holds."""
EMULATED_VCPUS = 2
"""An emulated guest gets all its vCPUs at its start, each a thread with a part of the translation buffer."""
DIMM_SLOTS = 16


def memory(most: int) -> int:
    """Bytes beyond the declared maximum: three times as much, within reason."""
    return min(3 * most, MOST_MEMORY)


def sockets(topology: Topology, accelerator: AcceleratorKind) -> int:
    """Sockets beyond the declared maximum: as many again. Under emulation few, and none for who is not to grow."""
    most, each = topology.max_sockets, topology.per_socket
    if accelerator == "kvm":
        return max(0, min(most, MOST_VCPUS // each - most))
    return 0 if most == topology.sockets else min(most, EMULATED_VCPUS // each)
