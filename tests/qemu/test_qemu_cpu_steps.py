"""Which step comes next on the way to a number of vCPUs."""

from hypothesis import given
from hypothesis import strategies as st

from hotvirt.qemu.cpu import Await, Plug, Policy, SetOnline, Stop, Unplug, VcpuState, boot_vcpus, next_step, policy
from hotvirt.qemu.guestagent import Vcpu
from hotvirt.qemu.machine import AcceleratorKind, Topology
from hotvirt.qemu.state import VcpuSlot, parse_vcpus


def _state(plugged: int, online: str | None, *, places: int = 4) -> VcpuState:
    """`online` such as "110": one character for each vCPU the guest knows."""
    slots = tuple(VcpuSlot(i, 0, 0, "max-x86_64-cpu", f"/cpu{i}" if i < plugged else "") for i in range(places))
    guest = None if online is None else tuple(Vcpu(i, c == "1", i > 0) for i, c in enumerate(online))
    return VcpuState(slots, guest)


def test_growing_plugs_then_onlines() -> None:
    assert next_step(_state(1, "1"), 3, "park") == Plug(_state(1, "1").slots[1:3])
    assert next_step(_state(3, "1"), 3, "park") == Await()
    assert next_step(_state(3, "100"), 3, "park") == SetOnline((1, 2), online=True)
    assert next_step(_state(3, "111"), 3, "park") == Stop()


def test_growing_takes_parked_ones_first() -> None:
    assert next_step(_state(3, "100"), 2, "park") == SetOnline((1,), online=True)


def test_parking_keeps_the_device() -> None:
    assert next_step(_state(3, "111"), 1, "park") == SetOnline((1, 2), online=False)
    assert next_step(_state(3, "100"), 1, "park") == Stop()


def test_parking_needs_the_agent() -> None:
    step = next_step(_state(2, None), 1, "park")
    assert isinstance(step, Stop)
    assert step.reason == "AgentNeeded"
    assert "qemu-guest-agent" in step.message


def test_unplugging_takes_the_last_plugged() -> None:
    assert next_step(_state(3, None), 1, "unplug") == Unplug(_state(3, None).slots[2])
    assert next_step(_state(3, "111"), 2, "unplug") == Unplug(_state(3, None).slots[2])


def test_without_an_agent_qemu_is_believed() -> None:
    assert next_step(_state(2, None), 2, "park") == Stop()


def test_limits_are_said() -> None:
    above = next_step(_state(1, "1"), 5, "park")
    assert isinstance(above, Stop)
    assert above.message == "5 vCPUs are more than the 4 this guest was started for"
    assert isinstance(next_step(_state(1, "1"), 0, "park"), Stop)


def test_a_guest_that_can_take_none_offline_says_so() -> None:
    guest = tuple(Vcpu(i, online=True, can_offline=False) for i in range(2))
    step = next_step(VcpuState(_state(2, "11").slots, guest), 1, "park")
    assert isinstance(step, Stop)
    assert step.reason == "GuestRefused"


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8), st.sampled_from(["park", "unplug"]), st.booleans())
def test_every_start_leads_to_the_target(
    plugged: int, offline: int, target: int, how: Policy, guest_onlines_itself: bool
) -> None:
    online = ["1"] * plugged
    for index in range(1, min(offline, plugged)):
        online[index] = "0"
    for _ in range(20):
        state = _state(plugged, "".join(online), places=8)
        step = next_step(state, target, how)
        if isinstance(step, Stop):
            break
        if isinstance(step, Plug):
            plugged += len(step.slots)
            online += ["1" if guest_onlines_itself else "0"] * len(step.slots)
        elif isinstance(step, Unplug):
            plugged -= 1
            online.pop()
        elif isinstance(step, SetOnline):
            for index in step.ids:
                online[index] = "1" if step.online else "0"
    assert step == Stop()
    assert online.count("1") == target
    assert plugged == target if how == "unplug" else plugged >= target


def test_policy_and_boot_count() -> None:
    assert policy("kvm") == "unplug"
    assert policy("tcg") == "park"
    one = Topology(max_sockets=4)
    three, fixed = Topology(sockets=3, max_sockets=4), Topology()

    def boot(
        topology: Topology, version: tuple[int, int, int], *, kernel: bool = False, kvm: bool = False,
        secure: bool = False,
    ) -> int:  # fmt: skip
        accelerator: AcceleratorKind = "kvm" if kvm else "tcg"
        return boot_vcpus(
            topology, accelerator=accelerator, version=version, direct_kernel=kernel, secure_boot=secure
        )  # fmt: skip

    assert boot(one, (8, 2, 2)) == 2
    assert boot(one, (10, 0, 0)) == 1
    assert boot(three, (7, 2, 0)) == 3
    assert boot(one, (7, 2, 0), kernel=True) == boot(three, (10, 0, 0), kernel=True) == 4
    assert boot(fixed, (7, 2, 0)) == boot(fixed, (7, 2, 0), kernel=True) == 1
    assert boot(one, (7, 2, 0), kernel=True, kvm=True) == boot(one, (7, 2, 0), secure=True, kvm=True) == 1
    assert boot(one, (7, 2, 0), secure=True) == boot(three, (10, 0, 0), secure=True) == 4
    assert boot(fixed, (7, 2, 0), secure=True) == 1


def test_slots_are_read_in_plugging_order() -> None:
    entries = [
        {"type": "t", "props": {"socket-id": 1, "core-id": 0, "thread-id": 0}, "vcpus-count": 1},
        {"type": "t", "props": {"socket-id": 0, "core-id": 0, "thread-id": 0}, "vcpus-count": 1, "qom-path": "/m/d[0]"},
    ]
    assert parse_vcpus(entries) == (VcpuSlot(0, 0, 0, "t", "/m/d[0]"), VcpuSlot(1, 0, 0, "t"))
