"""Disks come and go in few exchanges: what is sent to QEMU and asked of the guest, and that it comes right all the same
where the guest names its disks another way."""

import asyncio

import pytest

from hotvirt.qemu import disks, diskviews
from hotvirt.qemu.errors import AgentLacks, AgentRefused, HotplugError, NotThere, QmpError
from hotvirt.qemu.machine import Disk, File, Layer
from hotvirt.qemu.qmp import Event
from hotvirt.qemu.state import DiskState, MemoryState, Observed

pytestmark = pytest.mark.looptime


class Agent:
    """A guest with disks by name and serial. `lacks`: its administrator blocks the file commands."""

    def __init__(self, *, lacks=False, mounts="", **serials):
        self.serials, self.lacks, self.mounts, self.exchanges = serials, lacks, mounts, []

    async def files_read(self, paths, *, limit=0):
        self.exchanges.append(list(paths))
        return [self._read(path) for path in paths]

    def _read(self, path):
        if self.lacks:
            return AgentLacks("guest-file-open", "CommandNotFound", "disabled")
        if path == "/proc/partitions":
            return "".join(f" 8 0 1024 {name}\n" for name in self.serials).encode()
        if path in ("/proc/mounts", "/proc/swaps"):
            return self.mounts.encode() if path == "/proc/mounts" else b""
        name = path.split("/")[3]
        if name not in self.serials:
            return AgentRefused("guest-file-open", "GenericError", "no such file")
        return (b"\0\x80\0\x04" if name.startswith("s") else b"") + self.serials[name].encode()


def shown(name, driver="scsi-hd"):
    return DiskState(name=name, device=True, driver=driver, nodes=(f"disk-{name}",))


NEW = Disk(name="new", bus="scsi", serial="new", layers=(Layer(File(fd=0)),))


async def test_the_new_disk_is_looked_for_by_its_likely_name():
    agent = Agent(sda="new", vda="root")
    await diskviews.visible(agent, NEW, [shown("root", "virtio-blk-pci")])
    assert agent.exchanges == [["/sys/block/sda/device/vpd_pg80"]]


async def test_names_of_other_disks_are_asked_for_once():
    agent = Agent(sda="one", sdb="two")
    looking = asyncio.create_task(diskviews.visible(agent, NEW, [shown("one"), shown("two")]))
    await asyncio.sleep(0.02)
    agent.serials["sdc"] = "new"
    await looking
    assert [len(paths) for paths in agent.exchanges][:2] == [3, 1]
    assert agent.exchanges[-1] == ["/sys/block/sdc/device/vpd_pg80"]


@pytest.mark.parametrize("present", [[], [shown(f"d{n}") for n in range(20)]], ids=["another name", "many disks"])
async def test_else_the_guests_list_is_asked_for(present):
    agent = Agent(sdz="new")
    await diskviews.visible(agent, NEW, present)
    assert ["/proc/partitions"] in agent.exchanges


async def test_a_guest_that_does_not_say_is_believed():
    agent = Agent(lacks=True)
    await diskviews.visible(agent, NEW, [])
    assert len(agent.exchanges) == 1


@pytest.mark.parametrize("name", ["sda", "sdq"])
async def test_uses_are_found_whatever_its_name(name):
    agent = Agent(mounts=f"/dev/{name}1 /data ext4\n", **{name: "new"})
    assert await diskviews.uses(agent, serial(), shown("new"), [shown("new")]) == ("/data",)
    assert (len(agent.exchanges) == 1) is (name == "sda")


async def serial():
    return "new"


class Monitor:
    """A QEMU that takes commands in the order in which they come."""

    def __init__(self, *, refuses=""):
        self.sent, self.refuses, self.nodes, self.devices, self.fdsets = [], refuses, [], {}, {}

    async def add_fd(self, descriptor, *, opaque):
        self.fdsets[len(self.fdsets)] = opaque
        return len(self.fdsets) - 1

    async def execute(self, command, arguments=None):
        self.sent.append(command)
        if command == self.refuses:
            raise QmpError(command, "GenericError", "no")
        match command:
            case "blockdev-add":
                self.nodes += [arguments["node-name"], arguments["file"]["node-name"]]
            case "blockdev-del":
                if arguments["node-name"] not in self.nodes:
                    raise NotThere(command, "GenericError", "Failed to find node")
                self.nodes = [node for node in self.nodes if not node.startswith(arguments["node-name"])]
            case "device_add":
                if arguments["drive"] not in self.nodes:
                    raise QmpError(command, "GenericError", "no such node")
                self.devices[arguments["id"]] = arguments["driver"]
            case "device_del":
                del self.devices[arguments["id"]]
            case "remove-fd":
                del self.fdsets[arguments["fdset-id"]]
            case "query-fdsets":
                return [{"fdset-id": n, "fds": [{"opaque": name}]} for n, name in self.fdsets.items()]
            case "qom-list":
                return [{"name": name, "type": f"child<{driver}>"} for name, driver in self.devices.items()]
            case "query-named-block-nodes":
                return [{"node-name": node, "file": node} for node in self.nodes]
            case "qom-get":
                return "new"
        return {}

    def events(self, *_):
        return Deleted()

    def observed(self):
        found = tuple(DiskState(name=d.removeprefix("disk-"), device=True, driver=x, nodes=(d,))
                      for d, x in self.devices.items())  # fmt: skip
        return Observed(status="running", running=True, version=(7, 2, 0), memory=MemoryState(boot=1), disks=found,
                        fdsets=dict(self.fdsets))  # fmt: skip


class Deleted:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    async def wait_for(self, matches):
        return Event("DEVICE_DELETED", {"device": "disk-new"})


async def test_attach_and_detach_ask_no_more_than_they_must():
    monitor, agent = Monitor(), Agent(sda="new")
    found = await disks.attach_disk(monitor, NEW, agent=agent, observed=monitor.observed())
    assert (found.name, found.driver) == ("new", "scsi-hd")
    assert monitor.sent == ["blockdev-add", "device_add", "qom-list", "query-named-block-nodes"]
    monitor.sent.clear()
    await disks.detach_disk(monitor, "new", agent=agent, observed=monitor.observed())
    assert monitor.sent == [
        "qom-get", "device_del", "blockdev-del", "remove-fd", "qom-list", "query-named-block-nodes",
    ]  # fmt: skip
    assert (monitor.nodes, monitor.fdsets) == ([], {})


@pytest.mark.parametrize("refused", ["blockdev-add", "device_add"])
async def test_nothing_stays_open_of_an_attach_that_qemu_refuses(refused):
    monitor = Monitor(refuses=refused)
    with pytest.raises(HotplugError, match="disk 'new'") as caught:
        await disks.attach_disk(monitor, NEW)
    assert caught.value.reason == "QemuRefused"
    assert ("open" in str(caught.value)) is (refused == "blockdev-add")
    assert (monitor.nodes, monitor.devices, monitor.fdsets) == ([], {}, {})


async def test_detaching_what_is_not_there_lets_go_of_what_it_left():
    monitor = Monitor()
    monitor.fdsets = {3: "new", 4: "other"}
    await disks.detach_disk(monitor, "new")
    assert monitor.fdsets == {4: "other"}
    monitor.sent.clear()
    await disks.detach_disk(monitor, "new", observed=monitor.observed())
    assert monitor.sent == []
