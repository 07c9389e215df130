"""What a guest's kernel can take up, of files that the guest wrote: plain ones, missing ones, hostile ones."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.node import changes, guestkernel
from hotvirt.node.guestkernel import (
    ACPI_MEMORY,
    ACPI_SLOTS,
    CPU_ONLINE,
    CPU_POSSIBLE,
    CPU_STATES,
    DRIVER,
    PATHS,
    PCIE,
    POLICY,
    RELEASE,
    of_linux,
    of_windows,
)
from hotvirt.preconditions import limits
from hotvirt.qemu.errors import AgentLacks, AgentRefused

NOTHING = dict.fromkeys(PATHS)
DEBIAN = {
    **NOTHING, RELEASE: b"6.1.0-25-amd64\n", DRIVER: b"Y\n", POLICY: b"online_movable\n", CPU_POSSIBLE: b"0-3\n",
    CPU_STATES: b"  0: offline\n", PCIE: b"N\n",
}  # fmt: skip


def told(files=(), *, on_disk=None, **names):
    kernel = of_linux({**DEBIAN, **dict(files)}, on_disk=on_disk)
    return {kind: (found.status, found.reason) for kind, found in kernel.conditions()}


def test_a_distributions_kernel_takes_up_everything():
    assert told() == {
        "MemoryHotplugAvailable": ("True", "DriverLoaded"),
        "CPUHotplugAvailable": ("True", "KernelSupports"),
        "PCIHotplugAvailable": ("True", "KernelSupports"),
    }


@pytest.mark.parametrize(
    ("files", "on_disk", "kind", "says"),
    [
        ({DRIVER: None}, True, "MemoryHotplugAvailable", ("True", "DriverNotLoaded")),
        ({DRIVER: None}, False, "MemoryHotplugAvailable", ("False", "DriverMissing")),
        ({DRIVER: None}, None, "MemoryHotplugAvailable", ("Unknown", "DriverNotLoaded")),
        ({POLICY: None}, None, "MemoryHotplugAvailable", ("False", "NoMemoryHotplug")),
        ({CPU_STATES: None}, None, "CPUHotplugAvailable", ("False", "NoCPUHotplug")),
        ({CPU_STATES: None, CPU_ONLINE: b"1\n"}, None, "CPUHotplugAvailable", ("True", "KernelSupports")),
        ({CPU_STATES: None, CPU_POSSIBLE: None}, None, "CPUHotplugAvailable", ("Unknown", "NotTold")),
        ({PCIE: None}, None, "PCIHotplugAvailable", ("False", "NoPCIHotplug")),
        ({PCIE: None, ACPI_SLOTS: b"N\n"}, None, "PCIHotplugAvailable", ("True", "KernelSupports")),
        ({PCIE: None, ACPI_SLOTS: b"Y\n"}, None, "PCIHotplugAvailable", ("False", "NoPCIHotplug")),
    ],
)
def test_what_a_kernel_lacks_is_told(files, on_disk, kind, says):
    assert told(files, on_disk=on_disk)[kind] == says


@pytest.mark.parametrize(
    ("acpi", "on_disk", "waited", "says"),
    [
        (b"1\n", False, False, ("True", "DimmsOnly")),
        (b"1\n", True, False, ("True", "DriverNotLoaded")),
        (b"1\n", True, True, ("True", "DimmsOnly")),
        (b"1\n", None, False, ("Unknown", "DriverNotLoaded")),
        (b"1\n", None, True, ("True", "DimmsOnly")),
        (None, None, True, ("Unknown", "DriverNotLoaded")),
        (None, False, True, ("False", "DriverMissing")),
    ],
)
def test_a_kernel_without_the_driver_takes_dimms(acpi, on_disk, waited, says):
    """One that may yet load it gets the time to, and a virtio-mem driver is always preferred."""
    files = {**DEBIAN, DRIVER: None, ACPI_MEMORY: acpi}
    found = of_linux(files, on_disk=on_disk, waited=waited).memory
    assert (found.status, found.reason) == says
    assert of_linux({**files, DRIVER: b"Y\n"}, on_disk=on_disk, waited=waited).memory.reason == "DriverLoaded"


def test_the_means_follow_the_kernel_unless_somebody_knows_better():
    def means(kernel, **annotations):
        return changes.means({"metadata": {"annotations": annotations}}, kernel).dimms

    dimms = of_linux({**DEBIAN, DRIVER: None, ACPI_MEMORY: b"1\n"}, on_disk=False)
    assert [means(None), means(guestkernel.BOOTING), means(of_linux(DEBIAN, on_disk=None)), means(dimms)] == [
        False, False, False, True,
    ]  # fmt: skip
    assert means(None, **{limits.MEMORY_DEVICE: "dimm"})
    assert not means(dimms, **{limits.MEMORY_DEVICE: "virtio-mem"})
    assert means(dimms, **{limits.MEMORY_DEVICE: "other"})


def test_who_brings_new_memory_online_is_told():
    by_kernel, by_agent = (of_linux({**DEBIAN, POLICY: each}, on_disk=None) for each in (b"online", b"offline"))
    assert "brought online by the kernel (policy online)" in by_kernel.memory.message
    assert "brought online by the agent (policy offline)" in by_agent.memory.message


def test_a_driver_that_is_not_loaded_yet_is_asked_for_again():
    assert not of_linux({**DEBIAN, DRIVER: None}, on_disk=True).is_settled
    assert of_linux(DEBIAN, on_disk=None).is_settled


def test_an_agent_that_reads_no_files_leaves_everything_open():
    kernel = of_linux(NOTHING, on_disk=None)
    assert {found.reason for _, found in kernel.conditions()} == {"AgentRestricted"}
    assert "guest-file-open" in kernel.cpu.message


@pytest.mark.parametrize(
    "release", [b"../../etc/passwd", b"6.1\n7", b"6.1\x1b[31m", b"x" * 65, b"", b"\xff\xfe", "6.1é".encode()]
)
def test_a_release_that_is_none_is_not_believed(release):
    assert guestkernel.kernel_release({RELEASE: release}) == ""
    assert told({RELEASE: release})["CPUHotplugAvailable"] == ("Unknown", "AgentRestricted")


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(PATHS), st.one_of(st.none(), st.binary(max_size=300))))
def test_whatever_a_guest_writes_its_words_are_bounded_and_printable(files):
    for _, found in of_linux({**NOTHING, **files}, on_disk=None).conditions():
        assert found.status in ("True", "False", "Unknown")
        assert len(found.message) < 250
        assert found.message.isprintable()


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ([{"driver-name": "VirtIO Viomem", "id": {"type": "pci", "vendor-id": 6900, "device-id": 4184}}], "True"),
        ([{"driver-name": "VirtIO Balloon", "id": {"type": "pci", "vendor-id": 6900, "device-id": 4165}}], "False"),
        ([], "False"),
        (None, "Unknown"),
        ("junk", "Unknown"),
        ([1, None, {"id": 3}, {"driver-name": "x", "id": "y"}], "False"),
    ],
)
def test_windows_lists_its_drivers(devices, says):
    assert of_windows(devices).memory.status == says
    assert of_windows(devices).cpu.status == "Unknown"


class Agent:
    """`lists` are the files that may be opened beside sysfs, in pieces."""

    def __init__(self, files, lists=()):
        self.files, self.lists, self.opened, self.closed = files, dict(lists), [], 0

    async def files_read(self, paths, *, limit):
        assert limit <= 256
        missing = AgentRefused("guest-file-open", "GenericError", "no such file")
        return [missing if self.files.get(path) is None else self.files[path] for path in paths]

    async def call(self, command, **arguments):
        match command:
            case "guest-file-open":
                if arguments["path"] not in self.lists:
                    raise AgentLacks(command, "CommandNotFound", "no")
                self.opened.append(arguments["path"])
                return arguments["path"]
            case "guest-file-read":
                part = next(self.lists[arguments["handle"]], b"")
                return {"buf-b64": base64.b64encode(part).decode(), "eof": False}
            case "guest-file-close":
                self.closed += 1
                return {}


DEP = "/lib/modules/6.1.0-25-amd64/modules.dep"
BUILTIN = "/lib/modules/6.1.0-25-amd64/modules.builtin"


async def test_a_driver_that_is_not_loaded_is_looked_for_across_the_pieces_of_a_list():
    pieces = iter([b"kernel/a.ko:\n" * 9 + b"kernel/drivers/virtio/virtio_", b"mem.ko.xz:\n"])
    agent = Agent({**DEBIAN, DRIVER: None}, {DEP: pieces})
    kernel = await guestkernel.ask(agent, os_id="debian", commands=frozenset())
    assert (kernel.memory.status, kernel.memory.reason) == ("True", "DriverNotLoaded")
    assert (agent.opened, agent.closed) == ([DEP], 1)


async def test_a_driver_in_no_list_is_missing():
    agent = Agent({**DEBIAN, DRIVER: None}, {DEP: iter([b"kernel/a.ko:\n"]), BUILTIN: iter([b"kernel/b.ko\n"])})
    kernel = await guestkernel.ask(agent, os_id="debian", commands=frozenset())
    assert kernel.memory.reason == "DriverMissing"
    assert agent.closed == 2


async def test_lists_that_cannot_be_read_leave_it_open():
    kernel = await guestkernel.ask(Agent({**DEBIAN, DRIVER: None}), os_id="debian", commands=frozenset())
    assert (kernel.memory.status, kernel.memory.reason) == ("Unknown", "DriverNotLoaded")


async def test_a_list_without_end_is_left():
    def endless():
        while True:
            yield b"x" * guestkernel.CHUNK

    agent = Agent({**DEBIAN, DRIVER: None}, {DEP: endless(), BUILTIN: iter(())})
    kernel = await guestkernel.ask(agent, os_id="debian", commands=frozenset())
    assert kernel.memory.reason == "DriverMissing"


async def test_a_loaded_driver_needs_no_list():
    agent = Agent(DEBIAN, {DEP: iter(())})
    await guestkernel.ask(agent, os_id="debian", commands=frozenset())
    assert agent.opened == []
