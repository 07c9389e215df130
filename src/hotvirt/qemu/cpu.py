"""vCPUs while the guest runs.

Level-based: read what QEMU has plugged and what the guest has online, take the next step, read again. So it can be
called at any time, also to finish what an earlier call or an earlier home began.

Growing plugs into the next free places and, when the guest leaves a new vCPU offline, has its agent online it.
Shrinking depends on the accelerator. With KVM the guest's agent takes the vCPU offline, which fails where it must stay,
and then the device is unplugged; which of the guest's CPUs is which device, their APIC ids tell. Without an agent the
guest's kernel does both when the device is ejected.
Under TCG QEMU breaks after an unplug (crashes, hung migrations), so there a vCPU is *parked*: the agent takes it
offline in the guest and the device stays; growing again onlines parked ones first. A plug, too, can kill QEMU under
TCG, so it is avoided (`boot_vcpus`), and else `translation` first makes sure of room for it.

One call at a time for a guest.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from hotvirt.qemu import ids, translation
from hotvirt.qemu.errors import AgentError, AgentRefused, HotplugError, QmpError, refused_as
from hotvirt.qemu.guestagent import GuestAgent, Vcpu
from hotvirt.qemu.machine import AcceleratorKind, Topology
from hotvirt.qemu.progress import Progress, Report, pauses
from hotvirt.qemu.qmp import Event, Monitor, Subscription
from hotvirt.qemu.state import VcpuSlot, read_vcpus

Policy = Literal["park", "unplug"]
_FIRST_FIXED = (10, 0, 0)
_EJECT, _IN_PROGRESS = 3, 0x84
"""Words of ACPI's _OST: what was asked of the guest, and that it is at it."""
LETS_GO = 15.0
"""Seconds for a guest's kernel to let go of a vCPU that is offline in it."""


def boot_vcpus(
    topology: Topology, *, accelerator: AcceleratorKind, version: tuple[int, int, int], direct_kernel: bool,
    secure_boot: bool,
) -> int:  # fmt: skip
    """How many vCPUs QEMU starts with; `set_vcpus` parks those beyond `topology.vcpus` once the agent answers.

    Under TCG a directly booted kernel gets all there ever can be, and is told (`maxcpus=`) to leave the rest offline:
    so nothing is ever plugged there, which is where QEMU breaks. A guest that boots from disk cannot be told. It gets
    what it asked for but, before 10.0, never one alone: such a guest spins for seconds after the first plug. With
    secure boot it gets all as well, since a plug is for the firmware's protected part, which emulated never comes back
    from it, and the guest stands still for good.
    """
    if accelerator == "kvm" or topology.max_vcpus == topology.vcpus:
        return topology.vcpus
    if direct_kernel or secure_boot:
        return topology.max_vcpus
    return 2 if topology.vcpus == 1 and version < _FIRST_FIXED else topology.vcpus


def policy(accelerator: AcceleratorKind) -> Policy:
    return "unplug" if accelerator == "kvm" else "park"


class VcpuState(Struct, frozen=True):
    """`guest` is None while no agent answers: then QEMU's account is all there is."""

    slots: tuple[VcpuSlot, ...]
    guest: tuple[Vcpu, ...] | None = None
    apics: Mapping[int, int] = {}
    """Of the guest's online CPUs, by their number in the guest. Empty when it does not say."""

    @property
    def plugged(self) -> int:
        return sum(bool(slot.path) for slot in self.slots)

    @property
    def online(self) -> int | None:
        return None if self.guest is None else sum(vcpu.online for vcpu in self.guest)

    @property
    def current(self) -> int:
        """vCPUs the guest uses, as far as can be known."""
        return self.plugged if self.guest is None else min(self.plugged, self.online or 0)


class Plug(Struct, frozen=True):
    slots: tuple[VcpuSlot, ...]


class SetOnline(Struct, frozen=True):
    ids: tuple[int, ...]
    online: bool


class Unplug(Struct, frozen=True):
    slot: VcpuSlot


class Await(Struct, frozen=True):
    """The guest has not yet noticed what is plugged."""


class Stop(Struct, frozen=True):
    """`reason` "" means that the target is reached."""

    reason: str = ""
    message: str = ""


Step = Plug | SetOnline | Unplug | Await | Stop


def apic_id(slot: VcpuSlot, slots: Sequence[VcpuSlot]) -> int:
    """What the guest knows the vCPU in this place by, as QEMU makes it up (hw/i386/topology.h)."""
    cores, threads = (len(set(numbers)) for numbers in zip(*((s.core, s.thread) for s in slots), strict=True))
    thread_bits, core_bits = (threads - 1).bit_length(), (cores - 1).bit_length()
    return (slot.socket << core_bits | slot.core) << thread_bits | slot.thread


def parse_apics(cpuinfo: str) -> dict[int, int]:
    """Number in the guest -> APIC id, of the CPUs that are online; from /proc/cpuinfo. {} when it has none."""
    pairs = re.findall(
        r"^processor\s*:\s*(\d{1,5})$(?:(?!\n\n).)*?^initial apicid\s*:\s*(\d{1,9})$", cpuinfo, re.MULTILINE | re.DOTALL
    )
    return {int(number): int(apic) for number, apic in pairs}


def next_step(state: VcpuState, target: int, how: Policy) -> Step:
    """What to do now to get to `target` vCPUs. Pure."""
    plugged = [slot for slot in state.slots if slot.path]
    if target > len(state.slots):
        return Stop("AboveMaximum", f"{target} vCPUs are more than the {len(state.slots)} this guest was started for")
    if target < 1:
        return Stop("BelowMinimum", "a guest needs at least one vCPU")
    if len(plugged) < target:
        free = [slot for slot in state.slots if not slot.path]
        return Plug(tuple(free[: target - len(plugged)]))
    if len(plugged) > target and how == "unplug":
        return _next_to_unplug(state, plugged, len(plugged) - target)
    if state.guest is None:
        if len(plugged) == target:
            return Stop()
        return Stop(
            "AgentNeeded",
            "taking vCPUs away needs the guest agent here: install and start qemu-guest-agent in the guest",
        )
    return _next_in_guest(state.guest, target)


def _next_to_unplug(state: VcpuState, plugged: Sequence[VcpuSlot], surplus: int) -> Step:
    """The last plugged go first; the first one never does, as firmware and kernel started on it."""
    if state.guest is None or not state.apics:
        return Unplug(plugged[-1])
    number = {apic: logical for logical, apic in state.apics.items()}
    offline = [slot for slot in plugged[1:] if apic_id(slot, state.slots) not in number]
    if offline:
        return Unplug(offline[-1])
    may = {vcpu.logical_id for vcpu in state.guest if vcpu.can_offline and vcpu.logical_id}
    free = [number[apic_id(slot, state.slots)] for slot in reversed(plugged[1:])]
    wanted = [logical for logical in free if logical in may][:surplus]
    if not wanted:
        return Stop("GuestRefused", f"the guest cannot take more vCPUs offline: {len(plugged)} stay")
    return SetOnline(tuple(sorted(wanted)), online=False)


def _next_in_guest(guest: tuple[Vcpu, ...], target: int) -> Step:
    online = [vcpu.logical_id for vcpu in guest if vcpu.online]
    if len(online) < target:
        offline = [vcpu.logical_id for vcpu in guest if not vcpu.online]
        wanted = offline[: target - len(online)]
        return SetOnline(tuple(wanted), online=True) if wanted else Await()
    if len(online) > target:
        free = [vcpu.logical_id for vcpu in guest if vcpu.online and vcpu.can_offline and vcpu.logical_id]
        wanted = sorted(free)[target - len(online) :]
        if not wanted:
            return Stop("GuestRefused", f"the guest cannot take more vCPUs offline: {len(online)} stay")
        return SetOnline(tuple(wanted), online=False)
    return Stop()


async def read(monitor: Monitor, agent: GuestAgent | None, *, apics: bool = False) -> VcpuState:
    """Both are asked at once."""
    if agent is None:
        return VcpuState(await read_vcpus(monitor))
    slots, guest = await asyncio.gather(read_vcpus(monitor), agent.get_vcpus())
    return VcpuState(slots, tuple(guest), await _read_apics(agent) if apics else {})


async def _read_apics(agent: GuestAgent) -> dict[int, int]:
    try:
        return parse_apics((await agent.file_read("/proc/cpuinfo")).decode("ascii", "replace"))
    except AgentRefused:
        return {}


async def set_vcpus(
    monitor: Monitor,
    agent: GuestAgent | None,
    target: int,
    *,
    how: Policy,
    slots: tuple[VcpuSlot, ...] | None = None,
    timeout: float = 60.0,
    report: Report | None = None,
) -> VcpuState:
    """Bring the guest to `target` vCPUs; returns what it then has. HotplugError when it does not get there, with what
    was reached in its sentence. `agent` None: none is connected. `slots`: as they were just read, to save a look."""
    state: VcpuState | None = None
    known = None if slots is None or agent is None or how == "unplug" else slots
    waits = pauses()
    try:
        async with asyncio.timeout(timeout):
            with monitor.events("ACPI_DEVICE_OST", "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR") as events:
                while True:
                    if known is not None and agent is not None:
                        state = VcpuState(known, tuple(await agent.get_vcpus()))
                    else:
                        state = await read(monitor, agent, apics=how == "unplug")
                    known = None
                    if report:
                        report(Progress(state.current, target, "vCPUs"))
                    step = next_step(state, target, how)
                    if isinstance(step, Stop):
                        if step.reason:
                            raise HotplugError(step.reason, step.message)
                        return state
                    if isinstance(step, SetOnline):
                        known = state.slots if how == "park" else None  # no device comes or goes
                    if isinstance(step, Await):
                        await events.get_within(next(waits))
                    else:
                        await _act(step, monitor, agent, events=events, emulated=how == "park", state=state)
    except TimeoutError as error:
        reached = state.current if state else "an unknown number of"
        raise HotplugError(
            "TimedOut",
            f"the guest has {reached} vCPUs, not {target}, after {timeout:g} s; its kernel may not support it",
        ) from error


async def _act(
    step: Plug | SetOnline | Unplug,
    monitor: Monitor,
    agent: GuestAgent | None,
    *,
    events: Subscription,
    emulated: bool,
    state: VcpuState,
) -> None:
    if isinstance(step, Plug):
        for plugged, slot in enumerate(step.slots, state.plugged):
            if emulated:
                await translation.make_room(monitor, plugged=plugged, max_vcpus=len(state.slots))
            await _plug(monitor, slot, events)
    elif isinstance(step, Unplug):
        await _unplug(monitor, step.slot, events, index=state.slots.index(step.slot))
    else:
        assert agent is not None
        await _set_online(agent, step)


async def _plug(monitor: Monitor, slot: VcpuSlot, events: Subscription) -> None:
    name = ids.cpu_id(slot.socket, slot.core, slot.thread)
    place = {"socket-id": slot.socket, "core-id": slot.core, "thread-id": slot.thread}
    with refused_as("QEMU would not add a vCPU"):
        await monitor.execute("device_add", {"driver": slot.driver, "id": name, **place})
    # The guest's ACPI says when it has taken the vCPU in; a guest without such a driver says nothing, so not for long.
    try:
        async with asyncio.timeout(1.0):
            await events.wait_for(lambda event: event.name == "ACPI_DEVICE_OST" and _ost_device(event) == name)
    except TimeoutError:
        pass


def _ost_device(event: Event) -> str:
    return str(event.data.get("info", {}).get("device", ""))


async def _unplug(monitor: Monitor, slot: VcpuSlot, events: Subscription, *, index: int) -> None:
    """`index`: of its place. A vCPU that was there at the start has no id: of it QEMU tells what the guest's ACPI says,
    by that number, and nothing else."""
    try:
        await monitor.execute("device_del", {"id": slot.path})
    except QmpError as error:
        if "in the process of unplug" not in error.description:
            raise HotplugError("QemuRefused", f"QEMU would not remove a vCPU: {error.description}") from error
    stays = "it stays, and is tried again; the guest's kernel log may say why"
    try:
        async with asyncio.timeout(LETS_GO):
            event = await events.wait_for(lambda event: _went(event, slot, index) is not None)
    except TimeoutError as error:
        raise HotplugError(
            "GuestSilent", f"the guest did not let go of vCPU {_place(slot)} within {LETS_GO:g} s: {stays}"
        ) from error
    if not _went(event, slot, index):
        raise HotplugError("GuestRefused", f"the guest keeps vCPU {_place(slot)} in use: {stays}")


def _went(event: Event, slot: VcpuSlot, index: int) -> bool | None:
    """Whether the guest let go of this vCPU; None for what does not tell."""
    if event.name != "ACPI_DEVICE_OST":
        return event.name == "DEVICE_DELETED" if event.data.get("path") == slot.path else None
    info = event.data.get("info", {})
    if (info.get("source"), info.get("slot-type"), info.get("slot")) != (_EJECT, "CPU", str(index)):
        return None
    return None if info.get("status") == _IN_PROGRESS else info.get("status") == 0


def _place(slot: VcpuSlot) -> str:
    return f"{slot.socket}/{slot.core}/{slot.thread}"


async def _set_online(agent: GuestAgent, step: SetOnline) -> None:
    word = "online" if step.online else "offline"
    try:
        await agent.set_vcpus(dict.fromkeys(step.ids, step.online))
    except AgentError as error:
        raise HotplugError("GuestRefused", f"the guest would not take a vCPU {word}: {error}") from error
