"""What the guest itself must have or be: its state, its agent, its kernel.

The kernel's abilities are asked of the guest by the node agent and published as conditions of the instance; their
message is the guest's word, cleaned there.
"""

from typing import Any, Literal

from hotvirt.api import defaults, quantity
from hotvirt.preconditions.changes import Change, CpuChange, MemoryChange, VolumeAdd
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, Status, condition, machine, verdict

Document = dict[str, Any]
MEMORY, CPU, PCI = "MemoryHotplugAvailable", "CPUHotplugAvailable", "PCIHotplugAvailable"
"""Conditions of an instance, ours: whether its guest's kernel can take up what is plugged."""
DIMMS_ONLY = "DimmsOnly"
"""Why a guest can take memory, though not by its virtio-mem device."""


def standing(_: Change, vmi: Document, __: Facts) -> Finding:
    """A guest that stands still takes nothing up; the change waits for it, so it is never in the way."""
    paused = (condition(vmi, "Paused") or {}).get("status") == "True"
    frozen = (vmi.get("status") or {}).get("fsFreezeStatus") == "frozen"
    words = "paused" if paused else "frozen" if frozen else "running"
    mend = f"hotvirt unpause vm/{machine(vmi)}" if paused else "unfreeze its filesystems" if frozen else ""
    return Finding(
        id="guest.running",
        status="pass" if words == "running" else "unknown",
        message=f"the guest is {words}{'' if words == 'running' else ': it takes nothing up until it goes on'}",
        actual=words,
        required="running",
        mend=mend,
    )


def agent(_: Change, vmi: Document, __: Facts) -> Finding:
    """Unknown rather than missing when it does not answer: it may still be starting, and memory comes without it."""
    connected = (condition(vmi, "AgentConnected") or {}).get("status") == "True"
    words = "the guest agent answers" if connected else "the guest agent does not answer (yet): the guest may not act"
    return Finding(
        id="guest.agent",
        status="pass" if connected else "unknown",
        message=words,
        actual="connected" if connected else "not connected",
        required="connected",
        mend="" if connected else "install and start qemu-guest-agent in the guest",
    )


def memory_hotplug(change: MemoryChange, vmi: Document, _: Facts) -> Finding | None:
    """Nothing is plugged into a guest that is to have no more than it booted with."""
    at_boot = ((vmi.get("status") or {}).get("memory") or {}).get("guestAtBoot")
    if at_boot is not None and defaults.whole_blocks(change.guest) <= quantity.parse_bytes(at_boot):
        return None
    return _ability(
        vmi, MEMORY, id_="guest.memory-hotplug", what="memory", required="driver virtio_mem, or ACPI memory hot-plug",
        mend="use a kernel with CONFIG_VIRTIO_MEM (Linux 5.8 or newer) or CONFIG_ACPI_HOTPLUG_MEMORY, or VirtIO "
        "drivers on Windows",
    )  # fmt: skip


def cpu_hotplug(_: CpuChange, vmi: Document, __: Facts) -> Finding:
    return _ability(
        vmi, CPU, id_="guest.cpu-hotplug", what="CPUs", required="CONFIG_HOTPLUG_CPU",
        mend="use a kernel with CONFIG_HOTPLUG_CPU",
    )  # fmt: skip


def pci_hotplug(change: VolumeAdd, vmi: Document, _: Facts) -> Finding | None:
    """Only a disk that is a PCI device of its own needs it; SCSI disks are found by their controller's driver."""
    kind = next((kind for kind in ("disk", "lun", "cdrom") if change.disk.get(kind) is not None), "disk")
    if (change.disk.get(kind) or {}).get("bus") != "virtio":
        return None
    return _ability(
        vmi, PCI, id_="guest.pci-hotplug", what="PCI devices", required="PCI Express or ACPI hot-plug",
        mend="put the disk on bus scsi, or use a kernel with CONFIG_HOTPLUG_PCI_PCIE",
    )  # fmt: skip


def memory_release(change: MemoryChange, vmi: Document, _: Facts) -> Finding | None:
    """Shrinking is a request: what a guest said last time is the best that is known of the next."""
    status = vmi.get("status") or {}
    return _release(change, vmi, "HotMemoryChange", id_="guest.memory-release", has=bool(status.get("memory")))


def cpu_release(change: CpuChange, vmi: Document, _: Facts) -> Finding | None:
    """For fewer CPUs: a program that is pinned to one, or an interrupt that must be there, can hold it."""
    sockets = ((vmi.get("status") or {}).get("currentCPUTopology") or {}).get("sockets")
    if sockets is None or change.sockets >= int(sockets):
        return None
    return _release(change, vmi, "HotVCPUChange", id_="guest.cpu-release", has=True)


def _release(_: Change, vmi: Document, kind: str, *, id_: str, has: bool) -> Finding | None:
    if not has:
        return None
    found = condition(vmi, kind) or {}
    refused = found.get("status") == "False"
    words = str(found.get("message") or found.get("reason") or "it did not follow") if refused else ""
    return Finding(
        id=id_,
        status="unknown" if refused else "pass",
        message=f"the guest did not follow the last change: {words}" if refused else "no change is stuck in the guest",
        actual=str(found.get("reason") or "refused") if refused else "nothing",
        required="no refusal",
        mend="free memory or unpin programs in the guest, or ask for less" if refused else "",
    )


def _ability(vmi: Document, kind: str, *, id_: str, what: str, required: str, mend: str) -> Finding:
    found = condition(vmi, kind) or {}
    can = {"True": True, "False": False}.get(str(found.get("status")))
    said = str(found.get("message") or "")
    words = {
        True: said or f"the guest's kernel can take up {what}",
        False: said or f"the guest's kernel cannot take up {what}",
        None: said or f"whether the guest's kernel can take up {what} is not known",
    }
    actual: dict[bool | None, Literal["there", "missing", "not asked"]] = {
        True: "there", False: "missing", None: "not asked",
    }  # fmt: skip
    status: Status = verdict(can)
    if not found:
        mend = f"ask again in a moment, as the guest is asked once its agent answers; else {mend}"
    return Finding(
        id=id_, status=status, message=words[can], actual=actual[can], required=required, mend="" if can else mend
    )
