"""What a guest's kernel can take up while it runs: memory, CPUs, PCI devices. Asked of the guest, never assumed.

`ask` reads a few small files of the guest through its agent; what they mean is decided by pure functions of their
bytes. The guest is hostile: every file is read to a bound, and of its words only a kernel's release and a policy's name
are passed on, checked. Published as conditions of the instance, ours, which any client can read.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from hotvirt.preconditions.guest import DIMMS_ONLY
from hotvirt.qemu.errors import AgentRefused
from hotvirt.qemu.guestagent import CHUNK, GuestAgent

Status = Literal["True", "False", "Unknown"]
Files = Mapping[str, bytes | None]
"""By path; None for one that is not there."""

RELEASE = "/proc/sys/kernel/osrelease"
DRIVER = "/sys/module/virtio_mem/parameters/unplug_online"
POLICY = "/sys/devices/system/memory/auto_online_blocks"
ACPI_MEMORY = "/sys/firmware/acpi/hotplug/memory/enabled"
CPU_POSSIBLE = "/sys/devices/system/cpu/possible"
CPU_STATES = "/sys/devices/system/cpu/hotplug/states"
CPU_ONLINE = "/sys/devices/system/cpu/cpu1/online"
PCIE = "/sys/module/pciehp/parameters/pciehp_poll_mode"
ACPI_SLOTS = "/sys/module/acpiphp/parameters/disable"
PATHS = (RELEASE, DRIVER, POLICY, ACPI_MEMORY, CPU_POSSIBLE, CPU_STATES, CPU_ONLINE, PCIE, ACPI_SLOTS)
LIMIT = 256
MOST_MODULES = 8 << 20
"""Bytes of a list of modules that are looked through: that of a distribution's kernel has under 1 MiB."""
MODULE = re.compile(rb"virtio[_-]mem\.ko")
POLICIES = ("offline", "online", "online_kernel", "online_movable")
WINDOWS = "mswindows"
VIRTIO_VENDOR, VIRTIO_MEM_DEVICE = 0x1AF4, 0x1058


class Ability(Struct, frozen=True):
    """As a condition says it."""

    status: Status
    reason: str
    message: str


class Kernel(Struct, frozen=True):
    memory: Ability
    cpu: Ability
    pci: Ability

    @property
    def is_settled(self) -> bool:
        """Whether asking again would tell nothing new. A driver that is not loaded yet may still be."""
        return self.memory.reason != "DriverNotLoaded"

    def conditions(self) -> tuple[tuple[str, Ability], ...]:
        return (
            ("MemoryHotplugAvailable", self.memory),
            ("CPUHotplugAvailable", self.cpu),
            ("PCIHotplugAvailable", self.pci),
        )


_BOOTS = Ability("Unknown", "GuestBoots", "the guest was reset, and its agent does not answer yet")
BOOTING = Kernel(_BOOTS, _BOOTS, _BOOTS)
"""Of a guest that was reset: another kernel may come up."""


async def ask(agent: GuestAgent, *, os_id: str, commands: frozenset[str], waited: bool = False) -> Kernel:
    """`waited`: it was asked before, and has had the time to load its drivers. AgentError when the agent does not
    answer."""
    if os_id == WINDOWS:
        devices = await agent.call("guest-get-devices") if "guest-get-devices" in commands else None
        return of_windows(devices)
    answers = await agent.files_read(PATHS, limit=LIMIT)
    files = {
        path: None if isinstance(found, AgentRefused) else found for path, found in zip(PATHS, answers, strict=True)
    }
    release = kernel_release(files)
    on_disk = None
    if release and files[DRIVER] is None:
        on_disk = await _is_listed(agent, f"/lib/modules/{release}/modules.dep")
        on_disk = on_disk or await _is_listed(agent, f"/lib/modules/{release}/modules.builtin")
    return of_linux(files, on_disk=on_disk, waited=waited)


def of_linux(files: Files, *, on_disk: bool | None, waited: bool = False) -> Kernel:
    """`on_disk`: whether the kernel's modules hold the driver, where it is not loaded; None when unknown."""
    if not kernel_release(files):
        said = Ability(
            "Unknown", "AgentRestricted",
            "the guest's agent does not read files; allow guest-file-open, -read and -close in its configuration",
        )  # fmt: skip
        return Kernel(said, said, said)
    return Kernel(memory(files, on_disk=on_disk, waited=waited), cpu(files), pci(files))


def of_windows(devices: Any) -> Kernel:
    """`devices` is what guest-get-devices answered, unchecked."""
    unknown = Ability("Unknown", "Windows", "a Windows guest does not tell; editions differ")
    if not isinstance(devices, list):
        return Kernel(unknown, unknown, unknown)
    ids = [each.get("id") for each in devices[:1024] if isinstance(each, dict) and each.get("driver-name")]
    wanted = (VIRTIO_VENDOR, VIRTIO_MEM_DEVICE)
    has = any(isinstance(each, dict) and (each.get("vendor-id"), each.get("device-id")) == wanted for each in ids)
    found = (
        Ability("True", "DriverLoaded", "the guest has the VirtIO memory driver") if has
        else Ability("False", "DriverMissing", "the guest has no VirtIO memory driver: install virtio-win's viomem")
    )  # fmt: skip
    return Kernel(found, unknown, unknown)


def memory(files: Files, *, on_disk: bool | None, waited: bool = False) -> Ability:
    """A kernel that still may load virtio_mem gets the time to; one that will not takes DIMMs, if it knows them."""
    release, policy = kernel_release(files), online_policy(files)
    after = f"; new blocks are brought online by {'the kernel' if policy not in ('', 'offline') else 'the agent'}"
    if files.get(POLICY) is None:
        return Ability("False", "NoMemoryHotplug", f"kernel {release} was built without CONFIG_MEMORY_HOTPLUG")
    if files.get(DRIVER) is not None:
        return Ability("True", "DriverLoaded", f"kernel {release} has loaded virtio_mem{after} (policy {policy})")
    if files.get(ACPI_MEMORY) is not None and (waited or on_disk is False):
        words = "has not loaded virtio_mem" if on_disk is not False else "has no driver virtio_mem"
        return Ability("True", DIMMS_ONLY, f"kernel {release} {words}: memory comes as DIMMs{after} (policy {policy})")
    if on_disk:
        return Ability(
            "True", "DriverNotLoaded", f"kernel {release} has virtio_mem, not loaded yet: modprobe virtio_mem"
        )
    if on_disk is None:
        return Ability("Unknown", "DriverNotLoaded", f"kernel {release} has not loaded virtio_mem, if it has it")
    return Ability("False", "DriverMissing", f"kernel {release} has no driver virtio_mem: it would not use the memory")


def cpu(files: Files) -> Ability:
    release = kernel_release(files)
    if files.get(CPU_STATES) is not None or files.get(CPU_ONLINE) is not None:
        return Ability("True", "KernelSupports", f"kernel {release} brings CPUs on- and offline")
    if files.get(CPU_POSSIBLE) is None:
        return Ability("Unknown", "NotTold", f"kernel {release} tells nothing of its CPUs")
    return Ability("False", "NoCPUHotplug", f"kernel {release} was built without CONFIG_HOTPLUG_CPU")


def pci(files: Files) -> Ability:
    release = kernel_release(files)
    if files.get(PCIE) is not None:
        return Ability("True", "KernelSupports", f"kernel {release} takes up PCI Express devices")
    slots = files.get(ACPI_SLOTS)
    if slots is not None and not slots.strip().startswith(b"Y"):
        return Ability("True", "KernelSupports", f"kernel {release} takes up PCI devices by ACPI")
    return Ability("False", "NoPCIHotplug", f"kernel {release} takes up no PCI devices while it runs")


def kernel_release(files: Files) -> str:
    """ "" when there is none, or none that could be one."""
    text = (files.get(RELEASE) or b"").strip()
    return text.decode() if re.fullmatch(rb"[0-9A-Za-z][0-9A-Za-z._+~-]{0,63}", text) else ""


def online_policy(files: Files) -> str:
    """What the kernel does with new blocks of memory; "" for a word that it does not have."""
    text = (files.get(POLICY) or b"").strip().decode("ascii", "replace")
    return text if text in POLICIES else ""


async def _is_listed(agent: GuestAgent, path: str) -> bool | None:
    """Whether the driver is in a list of modules; None when the list cannot be read."""
    try:
        handle = await agent.call("guest-file-open", path=path)
    except AgentRefused:
        return None
    try:
        return await _search(agent, handle)
    except AgentRefused:
        return None
    finally:
        await agent.call("guest-file-close", handle=handle)


async def _search(agent: GuestAgent, handle: Any) -> bool:
    tail, seen = b"", 0
    while seen < MOST_MODULES:
        answer = await agent.call("guest-file-read", handle=handle, count=CHUNK)
        said = answer if isinstance(answer, dict) else {}
        part = _decoded(said.get("buf-b64"))
        if not part:
            return False
        if MODULE.search(tail + part):
            return True
        tail, seen = part[-32:], seen + len(part)
        if said.get("eof") is True:
            return False
    return False


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(str(text or ""))
    except ValueError:
        return b""
