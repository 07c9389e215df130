"""vCPUs while the guest runs.

Level-based: read what QEMU has plugged and what the guest has online, take the next step, read again. So it can be
called at any time, also to finish what an earlier call or an earlier home began.

Growing plugs into the next free places and, when the guest leaves a new vCPU offline, has its agent online it.
Shrinking depends on the accelerator. With KVM the vCPU is unplugged (the guest offlines it itself when it is ejected).
Under TCG QEMU breaks after an unplug (crashes, hung migrations), so there a vCPU is *parked*: the agent takes it
offline in the guest and the device stays; growing again onlines parked ones first. A plug, too, can kill QEMU under
TCG, so it is avoided (`boot_vcpus`), and else `translation` first makes sure of room for it.

One call at a time for a guest.
"""

import asyncio
from typing import Literal

from msgspec import Struct

from hotvirt.qemu import ids, translation
from hotvirt.qemu.errors import AgentError, HotplugError, QmpError
from hotvirt.qemu.guestagent import GuestAgent, Vcpu
from hotvirt.qemu.machine import AcceleratorKind, Topology
from hotvirt.qemu.progress import Progress, Report, pauses
from hotvirt.qemu.qmp import Event, Monitor, Subscription
from hotvirt.qemu.state import VcpuSlot, read_vcpus

Policy = Literal["park", "unplug"]
_FIRST_FIXED = (10, 0, 0)


def boot_vcpus(
    topology: Topology, *, accelerator: AcceleratorKind, version: tuple[int, int, int], direct_kernel: bool
) -> int:
    """How many vCPUs QEMU starts with; `set_vcpus` parks those beyond `topology.vcpus` once the agent answers.

    Under TCG a directly booted kernel gets all there ever can be, and is told (`maxcpus=`) to leave the rest offline:
    so nothing is ever plugged there, which is where QEMU breaks. A guest that boots from disk cannot be told. It gets
    what it asked for but, before 10.0, never one alone: such a guest spins for seconds after the first plug.
    """
    if accelerator == "kvm" or topology.max_vcpus == topology.vcpus:
        return topology.vcpus
    if direct_kernel:
        return topology.max_vcpus
    return 2 if topology.vcpus == 1 and version < _FIRST_FIXED else topology.vcpus


def policy(accelerator: AcceleratorKind) -> Policy:
    return "unplug" if accelerator == "kvm" else "park"


class VcpuState(Struct, frozen=True):
    """`guest` is None while no agent answers: then QEMU's account is all there is."""

    slots: tuple[VcpuSlot, ...]
    guest: tuple[Vcpu, ...] | None = None

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
        return Unplug(plugged[-1])
    if state.guest is None:
        if len(plugged) == target:
            return Stop()
        return Stop(
            "AgentNeeded",
            "taking vCPUs away needs the guest agent here: install and start qemu-guest-agent in the guest",
        )
    return _next_in_guest(state.guest, target)


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


async def read(monitor: Monitor, agent: GuestAgent | None) -> VcpuState:
    slots = await read_vcpus(monitor)
    return VcpuState(slots, tuple(await agent.get_vcpus()) if agent else None)


async def set_vcpus(
    monitor: Monitor,
    agent: GuestAgent | None,
    target: int,
    *,
    how: Policy,
    timeout: float = 60.0,
    report: Report | None = None,
) -> VcpuState:
    """Bring the guest to `target` vCPUs; returns what it then has. HotplugError when it does not get there, with what
    was reached in its sentence. `agent` None: none is connected."""
    state: VcpuState | None = None
    waits = pauses()
    try:
        async with asyncio.timeout(timeout):
            with monitor.events("ACPI_DEVICE_OST", "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR") as events:
                while True:
                    state = await read(monitor, agent)
                    if report:
                        report(Progress(state.current, target, "vCPUs"))
                    step = next_step(state, target, how)
                    if isinstance(step, Stop):
                        if step.reason:
                            raise HotplugError(step.reason, step.message)
                        return state
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
        await _unplug(monitor, step.slot, events)
    else:
        assert agent is not None
        await _set_online(agent, step)


async def _plug(monitor: Monitor, slot: VcpuSlot, events: Subscription) -> None:
    name = ids.cpu_id(slot.socket, slot.core, slot.thread)
    place = {"socket-id": slot.socket, "core-id": slot.core, "thread-id": slot.thread}
    try:
        await monitor.execute("device_add", {"driver": slot.driver, "id": name, **place})
    except QmpError as error:
        raise HotplugError("QemuRefused", f"QEMU would not add a vCPU: {error.description}") from error
    # The guest's ACPI says when it has taken the vCPU in; a guest without such a driver says nothing, so not for long.
    try:
        async with asyncio.timeout(1.0):
            await events.wait_for(lambda event: event.name == "ACPI_DEVICE_OST" and _ost_device(event) == name)
    except TimeoutError:
        pass


def _ost_device(event: Event) -> str:
    return str(event.data.get("info", {}).get("device", ""))


async def _unplug(monitor: Monitor, slot: VcpuSlot, events: Subscription) -> None:
    try:
        await monitor.execute("device_del", {"id": slot.path})
    except QmpError as error:
        if "in the process of unplug" not in error.description:
            raise HotplugError("QemuRefused", f"QEMU would not remove a vCPU: {error.description}") from error
    name = slot.path.rpartition("/")[2]
    async for event in events:
        if event.name == "DEVICE_DELETED" and event.data.get("path") == slot.path:
            return
        refused = event.name == "DEVICE_UNPLUG_GUEST_ERROR" and event.data.get("path") == slot.path
        # _OST for an eject request (3): 0x84 is "in progress", other odd numbers are failures.
        info = event.data.get("info", {})
        refused = refused or (_ost_device(event) == name and info.get("source") == 3 and info.get("status") in (1, 130))
        if refused:
            raise HotplugError("GuestRefused", "the guest keeps its vCPU in use: look into its kernel log for why")


async def _set_online(agent: GuestAgent, step: SetOnline) -> None:
    word = "online" if step.online else "offline"
    try:
        await agent.set_vcpus(dict.fromkeys(step.ids, step.online))
    except AgentError as error:
        raise HotplugError("GuestRefused", f"the guest would not take a vCPU {word}: {error}") from error
