"""Taking vCPUs away with KVM: offline in the guest first, then unplugged. KVM need not be here: the order of steps is
a pure decision, played through with guests of several kinds. On a real QEMU: tests/guest/test_resize_unplug.py."""

import asyncio

import pytest

from hotvirt.qemu.cpu import (
    Await,
    Plug,
    SetOnline,
    Stop,
    Unplug,
    VcpuState,
    apic_id,
    next_step,
    parse_apics,
    set_vcpus,
)
from hotvirt.qemu.errors import AgentRefused, HotplugError
from hotvirt.qemu.guestagent import Vcpu
from hotvirt.qemu.qmp import Event
from hotvirt.qemu.state import VcpuSlot


def slots(sockets: int, cores: int = 1, threads: int = 1, *, plugged: int) -> tuple[VcpuSlot, ...]:
    places = [(s, c, t) for s in range(sockets) for c in range(cores) for t in range(threads)]
    return tuple(
        VcpuSlot(*place, "host-x86_64-cpu", f"/m/cpu{index}" if index < plugged else "")
        for index, place in enumerate(places)
    )


class Guest:
    """What QEMU and a guest make of the steps. `order`: the APIC ids, as the guest numbers its CPUs. `fixed`: numbers
    that stay online. `agent` False: none answers; `says_apics` False: it reads no files."""

    def __init__(self, places, *, order=None, offline=(), fixed=(0,), agent=True, says_apics=True):
        self.places = list(places)
        apics = [apic_id(slot, places) for slot in places if slot.path]
        self.cpus = {number: (apic, number not in offline) for number, apic in enumerate(order or apics)}
        self.fixed, self.agent, self.says_apics = fixed, agent, says_apics

    def state(self) -> VcpuState:
        if not self.agent:
            return VcpuState(tuple(self.places))
        known = tuple(Vcpu(number, online, number not in self.fixed) for number, (_, online) in self.cpus.items())
        apics = {number: apic for number, (apic, online) in self.cpus.items() if online} if self.says_apics else {}
        return VcpuState(tuple(self.places), known, apics)

    def take(self, step) -> str:
        if isinstance(step, SetOnline):
            for number in step.ids:
                self.cpus[number] = (self.cpus[number][0], step.online)
            return f"{'online' if step.online else 'offline'} {','.join(map(str, step.ids))}"
        if isinstance(step, Unplug):
            index = self.places.index(step.slot)
            apic = apic_id(step.slot, self.places)
            self.places[index] = VcpuSlot(step.slot.socket, step.slot.core, step.slot.thread, step.slot.driver)
            self.cpus = {number: cpu for number, cpu in self.cpus.items() if cpu[0] != apic}
            return f"unplug {step.slot.socket}/{step.slot.core}/{step.slot.thread}"
        assert isinstance(step, Plug)
        for slot in step.slots:
            index, apic = self.places.index(slot), apic_id(slot, self.places)
            self.places[index] = VcpuSlot(slot.socket, slot.core, slot.thread, slot.driver, f"/m/cpu{index}")
            free = next(number for number in range(99) if number not in self.cpus)
            self.cpus[free] = (apic, True)
        return f"plug {len(step.slots)}"


def played(guest: Guest, target: int) -> list[str]:
    said = []
    for _ in range(20):
        step = next_step(guest.state(), target, "unplug")
        if isinstance(step, Stop):
            return [*said, step.reason or "done"]
        assert not isinstance(step, Await)
        said.append(guest.take(step))
    raise AssertionError(f"no end: {said}")


FOUR = slots(4, plugged=4)
TWO_BY_TWO = slots(2, 2, plugged=4)


@pytest.mark.parametrize(
    ("guest", "target", "steps"),
    [
        (Guest(FOUR), 2, ["offline 2,3", "unplug 3/0/0", "unplug 2/0/0", "done"]),
        (Guest(FOUR), 4, ["done"]),
        (Guest(TWO_BY_TWO), 2, ["offline 2,3", "unplug 1/1/0", "unplug 1/0/0", "done"]),
        # Numbered in the order of plugging, which need not be that of the places.
        (Guest(FOUR, order=[0, 3, 1, 2]), 2, ["offline 1,3", "unplug 3/0/0", "unplug 2/0/0", "done"]),
        # What is offline already, parked by an earlier home or by a person, goes first.
        (Guest(FOUR, offline=(1,)), 3, ["unplug 1/0/0", "done"]),
        (Guest(FOUR, offline=(1, 3)), 2, ["unplug 3/0/0", "unplug 1/0/0", "done"]),
        # One that must stay online is passed over.
        (Guest(FOUR, fixed=(0, 3)), 3, ["offline 2", "unplug 2/0/0", "done"]),
        (Guest(FOUR, fixed=(0, 1, 2, 3)), 3, ["GuestRefused"]),
        (Guest(FOUR, fixed=(0, 1, 2)), 2, ["offline 3", "unplug 3/0/0", "GuestRefused"]),
        # The guest's kernel does it at the eject, where its agent cannot be asked.
        (Guest(FOUR, agent=False), 2, ["unplug 3/0/0", "unplug 2/0/0", "done"]),
        (Guest(FOUR, says_apics=False), 3, ["unplug 3/0/0", "done"]),
        (Guest(FOUR), 0, ["BelowMinimum"]),
    ],
)
def test_golden_sequences(guest, target, steps):
    assert played(guest, target) == steps


def test_down_and_up_again():
    guest = Guest(slots(4, plugged=2))
    assert played(guest, 1) == ["offline 1", "unplug 1/0/0", "done"]
    assert played(guest, 3) == ["plug 2", "done"]
    assert played(guest, 2) == ["offline 2", "unplug 2/0/0", "done"]
    guest.take(SetOnline((1,), online=False))
    assert played(guest, 2) == ["online 1", "done"]


@pytest.mark.parametrize(
    ("shape", "place", "apic"),
    [((4, 1, 1), (3, 0, 0), 3), ((2, 2, 1), (1, 0, 0), 2), ((2, 3, 1), (1, 2, 0), 6), ((2, 3, 2), (1, 2, 1), 13)],
)
def test_apic_ids_have_room_for_a_power_of_two(shape, place, apic):
    places = slots(*shape, plugged=0)
    slot = next(each for each in places if (each.socket, each.core, each.thread) == place)
    assert apic_id(slot, places) == apic


CPU = "processor\t: {}\nvendor_id\t: GenuineIntel\napicid\t\t: {}\ninitial apicid\t: {}\nfpu\t\t: yes\n\n"


def test_the_guests_list_of_cpus():
    assert parse_apics(CPU.format(0, 0, 0) + CPU.format(2, 5, 4)) == {0: 0, 2: 4}
    assert parse_apics("processor\t: 0\nBogoMIPS\t: 50\n\n" + CPU.format(1, 3, 3)) == {1: 3}
    assert parse_apics("") == parse_apics("processor : x\ninitial apicid : 1") == {}


# With QEMU's and the agent's words


class Events:
    def __init__(self):
        self.told = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    async def wait_for(self, matches):
        while True:
            while self.told:
                if matches(event := self.told.pop(0)):
                    return event
            await asyncio.sleep(1)


class Qemu:
    """Two plugged vCPUs of which the second is ejected, refused, or not let go of."""

    def __init__(self, answer):
        self.answer, self.plugged, self.log, self._events = answer, 2, [], Events()

    def events(self, *_):
        return self._events

    async def execute(self, command, arguments=None):
        if command == "query-hotpluggable-cpus":
            return [
                {"type": "host-x86_64-cpu", "props": {"socket-id": n}}
                | ({"qom-path": path} if n < self.plugged else {})
                for n, path in enumerate(("/machine/unattached/device[0]", "/machine/peripheral/cpu-1-0-0"))
            ]
        self.log.append((command, arguments["id"]))
        path, device = arguments["id"], "cpu-1-0-0"
        info = {"device": device, "source": 3, "slot": "1", "slot-type": "CPU"}
        self._events.told.append(Event("ACPI_DEVICE_OST", {"info": {**info, "status": 0x84}}))
        if self.answer == "goes":
            self.plugged = 1
            self._events.told.append(Event("DEVICE_DELETED", {"device": device, "path": path}))
        elif self.answer == "goes, from the start":
            self.plugged = 1
            self._events.told.append(Event("DEVICE_DELETED", {"path": f"{path}/lapic"}))
            other = {**info, "slot": "0", "status": 1}
            self._events.told += [Event("ACPI_DEVICE_OST", {"info": each}) for each in (other, {**info, "status": 0})]
        elif self.answer == "refuses":
            self._events.told.append(Event("ACPI_DEVICE_OST", {"info": {**info, "status": 1}}))
        return {}


class Agent:
    def __init__(self, qemu):
        self.qemu, self.online = qemu, [True, True]

    async def get_vcpus(self):
        return [Vcpu(n, online, n > 0) for n, online in enumerate(self.online[: self.qemu.plugged])]

    async def set_vcpus(self, wanted):
        self.qemu.log.append(("guest-set-vcpus", wanted))
        for number, online in wanted.items():
            self.online[number] = online
        return len(wanted)

    async def file_read(self, path):
        return "".join(CPU.format(n, n, n) for n, online in enumerate(self.online) if online).encode()


PATH = "/machine/peripheral/cpu-1-0-0"


@pytest.mark.looptime
@pytest.mark.parametrize("answer", ["goes", "goes, from the start"])
async def test_offline_before_unplug(answer):
    qemu = Qemu(answer)
    state = await set_vcpus(qemu, Agent(qemu), 1, how="unplug")  # type: ignore[arg-type]
    assert qemu.log == [("guest-set-vcpus", {1: False}), ("device_del", PATH)]
    assert (state.plugged, state.online) == (1, 1)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        ("refuses", "GuestRefused", "the guest keeps vCPU 1/0/0 in use: it stays, and is tried again"),
        ("nothing", "GuestSilent", "the guest did not let go of vCPU 1/0/0 within 15 s: it stays, and is tried again"),
    ],
)
async def test_what_the_guest_does_not_let_go_of_is_told(answer, reason, says):
    qemu = Qemu(answer)
    agent = Agent(qemu)
    with pytest.raises(HotplugError, match=says) as caught:
        await set_vcpus(qemu, agent, 1, how="unplug")  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert agent.online == [True, False], "offline in the guest all the same"
    qemu.answer = "goes"
    await set_vcpus(qemu, agent, 1, how="unplug")  # type: ignore[arg-type]
    assert qemu.log[-1] == ("device_del", PATH)
    assert qemu.plugged == 1


@pytest.mark.looptime
async def test_an_agent_that_reads_no_files_leaves_it_to_the_kernel():
    qemu = Qemu("goes")
    agent = Agent(qemu)
    agent.file_read = _refused  # type: ignore[method-assign]
    await set_vcpus(qemu, agent, 1, how="unplug")  # type: ignore[arg-type]
    assert qemu.log == [("device_del", PATH)]


async def _refused(path):
    raise AgentRefused("guest-file-open", "GenericError", "disabled")
