"""Beyond what a guest was meant for: memory without the virtio-mem driver, and a maximum that is raised while it runs.

One guest for all of it, whose kernel is kept from its virtio-mem driver and leaves new memory offline.
"""

import json

import pytest

from hotvirt.images.tiny import KERNEL_ARGS

pytestmark = pytest.mark.guest
MIB = 1 << 20
ARGS = f"{KERNEL_ARGS.replace('online_movable', 'offline')} module_blacklist=virtio_mem"


def change(home, **domain):
    patch = {"spec": {"template": {"spec": {"domain": domain}}}}
    home.kubectl("patch", "vm", "old", "--type=merge", "-p", json.dumps(patch))


def memory(home, size):
    home.wait("vmi/old", f"jsonpath={{.status.memory.guestCurrent}}={size}")
    return home.facts("old")["memTotalBytes"]


def slots(home):
    return home.vmi("old")["metadata"]["annotations"]["hotvirt.io/memory-slots"]


def test_dimms_and_headroom(home):
    kernel = {"image": "hotvirt/tiny", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}
    firmware = {"kernelBoot": {"container": kernel, "kernelArgs": ARGS}}
    home.apply_vm("old", memory="256Mi", max_memory="1Gi", max_sockets=2, extra={"domain": {"firmware": firmware}})
    home.wait_agent("old")
    can = "MemoryHotplugAvailable"
    home.wait("vmi/old", f'jsonpath={{.status.conditions[?(@.type=="{can}")].reason}}=DimmsOnly')
    assert home.conditions("vmi/old")[can]["status"] == "True"
    assert "brought online by the agent (policy offline)" in home.conditions("vmi/old")[can]["message"]
    boot = home.facts("old")["memTotalBytes"]

    # Whole blocks, and what is between them.
    change(home, memory={"guest": "512Mi"})
    assert memory(home, "512Mi") == boot + 256 * MIB
    assert slots(home) == "1/16"
    change(home, memory={"guest": "600Mi"})
    assert memory(home, "600Mi") == boot + 344 * MIB
    assert slots(home) == "2/16"

    # Back: one DIMM goes, the balloon holds what is left over of the other; then both are gone.
    change(home, memory={"guest": "320Mi"})
    assert abs(memory(home, "320Mi") - boot - 64 * MIB) <= 4 * MIB
    assert slots(home) == "1/16"
    change(home, memory={"guest": "256Mi"})
    assert memory(home, "256Mi") == boot
    home.wait_until("all slots are free", lambda: slots(home) == "0/16")

    # More than was declared: said with the room that QEMU has, then declared and had, at once.
    assert (
        "raise domain.memory.maxGuest to 1536Mi or more: QEMU has room for up to 4Gi"
        in home.hotvirt("why", "vm/old", "memory=1536Mi", check=False).stdout
    )
    change(home, memory={"guest": "1536Mi", "maxGuest": "2Gi"})
    assert memory(home, "1536Mi") == boot + 1280 * MIB
    change(home, cpu={"sockets": 3, "maxSockets": 3})
    home.wait("vmi/old", "jsonpath={.status.currentCPUTopology.sockets}=3")
    assert home.facts("old")["onlineCPUs"] == 3
    domain = home.vmi("old")["spec"]["domain"]
    assert (domain["memory"]["maxGuest"], domain["cpu"]["maxSockets"]) == ("2Gi", 3)
    assert "RestartRequired" not in home.conditions("vm/old")

    # More than there is room for waits for a restart, and says how much there would be.
    change(home, memory={"maxGuest": "16Gi"}, cpu={"maxSockets": 5})
    home.wait_message("vm/old", "a maximum of 5 sockets is not within QEMU's room, 3 to 4")
    said = home.conditions("vm/old")["RestartRequired"]["message"]
    assert "a maximum of 16Gi is not within QEMU's headroom, up to 4Gi" in said
    change(home, memory={"maxGuest": "2Gi"}, cpu={"maxSockets": 3})
    home.wait_until("it is taken back", lambda: "RestartRequired" not in home.conditions("vm/old"))
