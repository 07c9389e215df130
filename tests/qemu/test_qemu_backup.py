"""How copies of a guest's disks stand, of what QEMU tells; and files that nobody writes to meanwhile."""

import fcntl
import os
import struct

import pytest

from hotvirt.qemu import backup, locks
from hotvirt.qemu.backup import Progress, mark, progress
from hotvirt.qemu.errors import HotplugError, NotThere, QmpError


def job(name, number, status, done=0, error=""):
    found = {"id": f"{mark(name)}{number}", "status": status, "current-progress": done, "total-progress": 10}
    return {**found, "error": error} if error else found


def test_progress():
    other = job("other", 0, "running")
    assert progress([other], "set", count=1) == Progress(found=False)
    jobs = [other, job("set", 0, "concluded", 10), job("set", 1, "running", 5)]
    assert progress(jobs, "set", count=2) == Progress(found=True, done=15, total=20)
    jobs[2] = job("set", 1, "concluded", 10)
    assert progress(jobs, "set", count=2) == Progress(found=True, ended=True, done=20, total=20)
    assert progress(jobs, "set", count=3).error == "lost", "one was dismissed: it may not have been whole"
    jobs[1] = job("set", 0, "concluded", error="no room")
    assert progress(jobs, "set", count=2).error == "no room"


class Monitor:
    """Of a QEMU that has the nodes of two copies: `refusals` are its answers to closing them."""

    def __init__(self, **refusals):
        self.refusals, self.commands = refusals, []

    async def execute(self, command, arguments=None):
        self.commands.append((command, *(arguments or {}).values()))
        match command:
            case "query-named-block-nodes":
                return [{"node-name": name} for name in ("disk-root", f"{mark('set')}0", f"{mark('set')}1")]
            case "query-fdsets":
                return [{"fdset-id": 7, "fds": [{"fd": 40, "opaque": mark("set")}]}]
            case "blockdev-del" if error := self.refusals.get(f"n{arguments['node-name'][-1]}"):
                raise error


async def test_closing_copies_lets_go_of_their_files():
    monitor = Monitor(n0=NotThere("blockdev-del", "GenericError", "Failed to find node"))
    await backup.close(monitor, "set")
    assert monitor.commands[1:] == [
        ("blockdev-del", f"{mark('set')}0"),
        ("blockdev-del", f"{mark('set')}1"),
        ("query-fdsets",),
        ("remove-fd", 7),
    ]


async def test_a_copy_that_stays_open_keeps_its_file():
    monitor = Monitor(n1=QmpError("blockdev-del", "GenericError", "Node is in use"))
    with pytest.raises(HotplugError, match=r"would not close .*1: Node is in use"):
        await backup.close(monitor, "set")
    assert "remove-fd" not in [command for command, *_ in monitor.commands]


def test_a_file_that_is_copied_is_not_written_by_a_qemu(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"x")
    with locks.unwritten(path):
        assert locks.taken(path, read_only=False, shareable=False)
        assert not locks.taken(path, read_only=True, shareable=False)
    assert not locks.taken(path, read_only=False, shareable=False)
    writer = os.open(path, os.O_RDWR)
    fcntl.fcntl(writer, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0))  # as one that has it open
    with pytest.raises(BlockingIOError), locks.unwritten(path):
        pass
    os.close(writer)
